"""Requests of tus: one use case each, and the answers that tus clients expect."""

from dataclasses import dataclass

from uponce.app.services import Services
from uponce.app.uploading.intake import UploadRequest
from uponce.app.uploading.pipeline import Uploaded
from uponce.app.uploading.resumable import Address, address_of, begin, begin_with, give_up, look, resume, tell
from uponce.core.errors import InvalidParameter, MalformedRequest, SeriesGone, Unavailable, UponceError
from uponce.core.readers import shown
from uponce.core.series import Series
from uponce.core.values import ResourceType
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.dialect import Bases, Json, chunk_answer
from uponce.web.errors import tus_status_of
from uponce.web.forms import parse_query
from uponce.web.request import Head, base_url, read_head
from uponce.web.request_log import note_fields, note_outcome
from uponce.web.respond import Header, send_error, send_json
from uponce.web.tus import headers

METHODS = ("POST", "OPTIONS")
UPLOAD_METHODS = ("HEAD", "GET", "PATCH", "DELETE", "OPTIONS", "POST")
EXPOSED = (
    "Location Tus-Resumable Tus-Version Tus-Extension Tus-Max-Size Tus-Checksum-Algorithm Upload-Offset Upload-Length "
    "Upload-Defer-Length Upload-Metadata Upload-Expires Upload-Asset"
).split()
_KEY_DIGITS = 64


@dataclass(frozen=True, slots=True)
class Reply:
    """Status, headers, and an optional JSON body."""

    status: int
    headers: tuple[Header, ...] = ()
    body: Json | None = None


class TusEndpoint:
    """`/tus/<cloud>` begins an upload, and `/tus/<cloud>/<signature>/<upload>` is that upload."""

    def __init__(self, services: Services, public_url: str | None) -> None:
        self._services = services
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(receive, self._services.limits.idle_seconds)
        method = scope["method"]
        try:
            head = read_head(scope)
            if method == "POST":  # for clients in a network that blocks PATCH
                method = head.get("x-http-method-override") or method
            reply = await self._answer(method, scope, head, body)
        except UponceError as error:
            await self._refuse(scope, receive, send, error, body, method)
            return
        await _send(scope, send, reply)

    async def _answer(self, method: str, scope: Scope, head: Head, body: Body) -> Reply:
        if method == "OPTIONS":
            return Reply(204, headers.abilities(self._services.limits))
        if method != "GET":  # GET is an addition to tus, for browsers and curl
            headers.check_version(head)
        bases = Bases.of(base_url(scope, head, self._public_url), scope["scheme"])
        path = scope["path_params"]
        if "upload" not in path:
            return await self._create(scope, head, body, bases)
        address = _address(**path)
        match method:
            case "HEAD":
                return self._state(await tell(self._services, address, head.caller), bases)
            case "GET":
                return self._state(await look(self._services, address), bases)
            case "PATCH":
                headers.check_content_type(head)
                part = headers.read_part(head, headers.read_offset(head))
                outcome = await resume(self._services, address, part, body.chunks(), head.caller)
                note_outcome(scope, outcome)
                return self._progress(outcome, bases, head)
            case "DELETE":
                await give_up(self._services, address)
                return Reply(204)
        raise MalformedRequest(f"Method {shown(method)} is not allowed for an upload. Use {', '.join(UPLOAD_METHODS)}.")

    async def _create(self, scope: Scope, head: Head, body: Body, bases: Bases) -> Reply:
        headers.check_concat(head)
        fields, filename = headers.read_metadata(head)
        fields = parse_query(scope["query_string"], self._services.limits) + fields
        note_fields(scope, fields)
        request = UploadRequest(
            cloud=scope["path_params"]["cloud"],
            requested=_requested(fields),
            fields=fields,
            origin=head.origin,
            caller=head.caller,
        )
        total = headers.read_total(head)
        if not headers.has_body(head):
            series = await begin(self._services, request, filename, total)
            note_outcome(scope, series)
            return self._created(address_of(series), series, bases)
        headers.check_content_type(head)
        part = headers.read_part(head, 0)
        address, outcome = await begin_with(self._services, request, filename, total, part, body.chunks())
        note_outcome(scope, outcome)
        return self._created(address, outcome, bases)

    def _created(self, address: Address, outcome: Uploaded | Series, bases: Bases) -> Reply:
        state, location = self._state(outcome, bases), f"{bases.secure}/tus/{_path(address)}"
        body = state.body if isinstance(outcome, Uploaded) else None
        return Reply(201, ((b"location", location.encode()), *state.headers), body)

    def _state(self, outcome: Uploaded | Series, bases: Bases) -> Reply:
        answer = chunk_answer(outcome, bases)
        if isinstance(outcome, Series):
            sent = (*headers.progress(outcome, self._services.limits), *headers.description(outcome))
            return Reply(200, sent, answer)
        return Reply(200, headers.finished(answer["bytes"], answer["secure_url"]), answer)

    def _progress(self, outcome: Uploaded | Series, bases: Bases, head: Head) -> Reply:
        """The protocol says 204. A client that prefers the asset as JSON gets it (RFC 7240)."""
        state = self._state(outcome, bases)
        if isinstance(outcome, Uploaded) and "return=representation" in head.get("prefer").replace(" ", ""):
            return Reply(200, (*state.headers, (b"preference-applied", b"return=representation")), state.body)
        return Reply(204, state.headers)

    async def _refuse(
        self, scope: Scope, receive: Receive, send: Send, error: UponceError, body: Body, method: str
    ) -> None:
        status = tus_status_of(error)
        if method == "HEAD" and isinstance(error, Unavailable):
            # After any other failure of a HEAD, tus-js-client begins a new upload with the signature of this one.
            status = 423
        sent = (headers.RESUMABLE, *((b"tus-version", headers.VERSION.encode()) for _ in range(status == 412)))
        await send_error(scope, receive, send, error, body_complete=body.complete, status=status, headers=sent)


async def _send(scope: Scope, send: Send, reply: Reply) -> None:
    sent = (headers.RESUMABLE, *reply.headers)
    if reply.body is not None:
        await send_json(scope, send, reply.status, reply.body, sent)
        return
    if reply.status != 204:
        sent = (*sent, (b"content-length", b"0"))
    start = [*sent, (b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]
    await send({"type": "http.response.start", "status": reply.status, "headers": start})
    await send({"type": "http.response.body", "body": b""})


def _path(address: Address) -> str:
    return f"{address.cloud}/{address.grant_key.hex()}/{address.series_id}"


def _address(cloud: str, signature: str, upload: str) -> Address:
    try:
        key = bytes.fromhex(signature)
    except ValueError:
        key = b""
    address = Address(cloud, key, upload)
    if len(signature) != _KEY_DIGITS or _path(address) != f"{cloud}/{signature}/{upload}":
        raise SeriesGone("There is no upload at this address. POST to /tus/<cloud>/ to begin a new upload.")
    return address


def _requested(fields: tuple[tuple[str, str], ...]) -> ResourceType | None:
    kind = dict(fields).get("resource_type", "auto")
    if kind == "auto":
        return None
    try:
        return ResourceType(kind)
    except ValueError:
        raise InvalidParameter(
            f"Parameter resource_type must be image, video, raw or auto, not '{shown(kind)}'."
        ) from None
