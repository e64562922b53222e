"""POST of one upload as a form or as JSON, and PUT of its bytes. The same for one chunk of a file."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from uponce.app.ports import HEADER_BYTES
from uponce.app.services import Services
from uponce.app.uploading.chunks import upload_chunk
from uponce.app.uploading.intake import Event, UploadRequest
from uponce.app.uploading.pipeline import Arrival, Pipeline, Uploaded, upload
from uponce.core.errors import BadCredentials, InvalidParameter, MalformedRequest, StaleRequest
from uponce.core.policy import Limits
from uponce.core.values import ResourceType
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.calls import missing
from uponce.web.chunks import read_chunk
from uponce.web.dialect import Bases, chunk_answer, upload_answer
from uponce.web.forms import multipart_events, parse_query, raw_events, read_whole_form
from uponce.web.idempotency import read_idempotency_key
from uponce.web.request import Head, base_url, read_head
from uponce.web.request_log import note_fields, note_outcome, noting
from uponce.web.respond import Answer, Header, answer_json
from uponce.web.small import basic_credentials, media_type_of
from uponce.web.text_bodies import json_events, urlencoded_events

METHODS = ("POST", "PUT")
_REPLAYED: Header = (b"idempotent-replayed", b"true")


class UploadEndpoint:
    """`/v1_1/<cloud>/[<image|video|raw|auto>/]upload`, and `…/upload_chunked`, which some clients use for chunks."""

    def __init__(self, services: Services, public_url: str | None) -> None:
        self._services = services
        self._public_url = public_url
        store = services.group_store
        self._pipeline = None if store is None else Pipeline(services, store)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = partial(self._upload, scope)
        await answer_json(scope, receive, send, self._services.limits.idle_seconds, work)

    async def _upload(self, scope: Scope, body: Body) -> Answer:
        head = read_head(scope)
        part = read_chunk(head)
        if head.get("content-encoding") not in ("", "identity"):
            raise MalformedRequest(
                "A body with Content-Encoding is not accepted. Send the bytes without that encoding."
            )
        bases = Bases.of(base_url(scope, head, self._public_url), scope["scheme"])
        fields = parse_query(scope["query_string"], self._services.limits)
        if any(name == "file" for name, _ in fields):
            raise InvalidParameter("Parameter file must be in the body, not in the query.")
        request = UploadRequest(
            cloud=scope["path_params"]["cloud"],
            requested=_requested(scope),
            fields=fields,
            origin=head.origin,
            caller=head.caller,
            idempotency_key=read_idempotency_key(head.headers.get("idempotency-key")),
            credentials=_credentials(head),
            scripted=_is_scripted(head),
        )
        note_fields(scope, fields)
        arrival = await self._arrival(scope, head, body, request) if part is None else None
        uploaded = None if arrival is None else await self._upload_arrival(arrival)
        if uploaded is not None:
            return _answer(scope, uploaded, bases)
        async with aclosing(noting(scope, _events(scope["method"], head, body, self._services.limits))) as events:
            if part is not None:
                outcome = await upload_chunk(self._services, request, part, events)
                note_outcome(scope, outcome)
                return Answer(chunk_answer(outcome, bases))
            uploaded = await upload(self._services, request, events)
        return _answer(scope, uploaded, bases)

    async def _upload_arrival(self, arrival: Arrival) -> Uploaded | None:
        """None when the streaming way has to look: a stale signature may have a stored answer for a repeat."""
        assert self._pipeline is not None
        try:
            return await self._pipeline.upload(arrival)
        except StaleRequest:
            if arrival.request.idempotency_key is None:
                raise
            return None

    async def _arrival(self, scope: Scope, head: Head, body: Body, request: UploadRequest) -> Arrival | None:
        """An ordinary small upload that has arrived whole. None for any other, which the streaming way takes."""
        if self._pipeline is None or scope["method"] != "POST" or request.credentials is not None:
            return None
        limits, first = self._services.limits, await body.first()
        if not body.complete or len(first) > limits.small_body_bytes:
            return None
        form = read_whole_form(first, head.get("content-type"), limits)
        if form is None or any(name == "callback" for name, _ in form.fields):
            return None
        facts = self._services.inspector.read_header(bytes(form.file[:HEADER_BYTES]), request.requested)
        if facts is None:
            return None
        note_fields(scope, form.fields)
        return Arrival(request, request.fields + form.fields, form.filename, form.file, facts)


def _answer(scope: Scope, uploaded: Uploaded, bases: Bases) -> Answer:
    note_outcome(scope, uploaded)
    return Answer(upload_answer(uploaded, bases), (_REPLAYED,) if uploaded.committed.replayed else ())


def _events(method: str, head: Head, body: Body, limits: Limits) -> AsyncGenerator[Event, None]:
    if method == "PUT":
        return raw_events(body, None)
    content_type = head.get("content-type")
    match media_type_of(content_type):
        case "application/x-www-form-urlencoded":
            return urlencoded_events(body, limits)
        case "application/json":
            return json_events(body, limits)
    return multipart_events(body, content_type, limits)


def _credentials(head: Head) -> tuple[str, str] | None:
    """Return HTTP Basic credentials, which count where the fields have no signature.

    Not those of a web page: a browser adds credentials that it remembers to the forms of any site.
    """
    authorization = head.get("authorization")
    if not authorization or head.origin is not None:
        return None
    try:
        return basic_credentials(authorization)
    except BadCredentials:
        return "", ""  # wrong for every key, so the refusal names HTTP Basic


def _is_scripted(head: Head) -> bool:
    """jQuery sets the first header, and browsers the second one for fetch and XMLHttpRequest."""
    return head.get("x-requested-with") == "XMLHttpRequest" or head.get("sec-fetch-mode") in ("cors", "same-origin")


def _requested(scope: Scope) -> ResourceType | None:
    resource_type = scope["path_params"].get("resource_type", "auto")
    if resource_type == "auto":
        return None
    try:
        return ResourceType(resource_type)
    except ValueError:
        raise missing(scope["method"], scope["path"]) from None
