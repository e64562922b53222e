"""POST (multipart) and PUT (raw body) of one upload, or of one chunk of it."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from uponce.app.intake import Event, UploadRequest
from uponce.app.services import Services
from uponce.app.upload import upload
from uponce.app.upload_chunk import upload_chunk
from uponce.core.errors import InvalidParameter, MalformedRequest, NotFound
from uponce.core.values import ResourceType
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.chunks import read_chunk
from uponce.web.dialect import chunk_answer, upload_answer
from uponce.web.forms import multipart_events, parse_query, raw_events
from uponce.web.idempotency import read_idempotency_key
from uponce.web.request import Head, base_url, read_head
from uponce.web.respond import Answer, Header, answer_json

METHODS = ("POST", "PUT")
_REPLAYED: Header = (b"idempotent-replayed", b"true")


class UploadEndpoint:
    """`/v1_1/<cloud>/<image|video|raw|auto>/upload`"""

    def __init__(self, services: Services, public_url: str | None) -> None:
        self._services = services
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = partial(self._upload, scope)
        await answer_json(scope, receive, send, self._services.limits.idle_seconds, work)

    async def _upload(self, scope: Scope, body: Body) -> Answer:
        head = read_head(scope)
        part = read_chunk(head)
        if head.get("content-encoding") not in ("", "identity"):
            raise MalformedRequest("Encoded bodies are not accepted. Send the bytes as they are.")
        url = base_url(scope, head, self._public_url)
        fields = parse_query(scope["query_string"])
        if any(name == "file" for name, _ in fields):
            raise InvalidParameter("Parameter file must be in the body.")
        request = UploadRequest(
            cloud=scope["path_params"]["cloud"],
            requested=_requested(scope["path_params"]["resource_type"]),
            fields=fields,
            origin=head.origin,
            caller=head.caller,
            idempotency_key=read_idempotency_key(head.headers.get("idempotency-key")),
        )
        async with aclosing(_events(scope["method"], head, body)) as events:
            if part is not None:
                return Answer(chunk_answer(await upload_chunk(self._services, request, part, events), url))
            uploaded = await upload(self._services, request, events)
        return Answer(upload_answer(uploaded, url), (_REPLAYED,) if uploaded.committed.replayed else ())


def _events(method: str, head: Head, body: Body) -> AsyncGenerator[Event, None]:
    if method == "PUT":
        return raw_events(body, None)
    return multipart_events(body, head.get("content-type"))


def _requested(resource_type: str) -> ResourceType | None:
    if resource_type == "auto":
        return None
    try:
        return ResourceType(resource_type)
    except ValueError:
        raise NotFound(f"There is no resource type {resource_type[:40]}. Use image, video, raw or auto.") from None
