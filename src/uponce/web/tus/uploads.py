"""Uploads by tus 1.0: begin one, send more of it, look at it, end it."""

from collections.abc import Awaitable, Callable

from uponce.app.authorise import UploadRequest
from uponce.app.services import Services
from uponce.app.uploading.resumable import (
    Progress,
    SeriesAddress,
    address_of,
    begin,
    begin_with,
    conclude,
    end,
    resume,
    sent_bytes,
    status,
)
from uponce.core.errors import MalformedRequest, SeriesGone, Unavailable, UponceError, UpstreamRefused, shown
from uponce.core.parameters import narrowed
from uponce.core.series import Series
from uponce.web.cloudinary.answers import Bases, Json, bases_of, chunk_answer, note_outcome
from uponce.web.errors import refusal, tus_status_of
from uponce.web.request import Header, Request
from uponce.web.response import NO_SNIFF, NO_STORE, Response, json_response, length_header
from uponce.web.tus import headers

METHODS = ("POST", "OPTIONS")
UPLOAD_METHODS = ("HEAD", "GET", "PATCH", "DELETE", "OPTIONS", "POST")
EXPOSED = tuple(
    "Location Tus-Resumable Tus-Version Tus-Extension Tus-Max-Size Tus-Checksum-Algorithm Upload-Offset Upload-Length "
    "Upload-Defer-Length Upload-Metadata Upload-Expires Upload-Asset".split()
)
_KEY_DIGITS = 64
_RETRY_AFTER: Header = (b"retry-after", b"60")  # if an account refuses its credentials or is at its limit


async def serve(services: Services, request: Request) -> Response:
    """Serve `/tus/<cloud>`, where uploads begin."""
    head = request.head
    if _method(request) == "OPTIONS":
        return _abilities(services)
    headers.check_version(head)
    return await _create(services, request, bases_of(request))


async def serve_upload(services: Services, request: Request) -> Response:
    """Serve `/tus/<cloud>/<signature>/<upload>`, which is one upload."""
    head, method = request.head, _method(request)
    if method == "OPTIONS":
        return _abilities(services)
    if method != "GET":  # GET is an addition to tus, for browsers and curl
        headers.check_version(head)
    bases, address = bases_of(request), _address(**request.params)
    if method not in _ACTIONS:
        raise MalformedRequest(f"Method {shown(method)} is not allowed for an upload. Use {', '.join(UPLOAD_METHODS)}.")
    return await _ACTIONS[method](services, request, address, bases)


def refuse(request: Request, error: UponceError) -> Response:
    """Return the refusal with the status that tus clients expect. They try again after 503."""
    status, more = tus_status_of(error), [headers.RESUMABLE]
    is_for_later = isinstance(error, Unavailable)
    if isinstance(error, UpstreamRefused) and error.may_pass_later:
        status, is_for_later = 503, True
        if not any(name.lower() == "retry-after" for name, _ in error.headers):
            more.append(_RETRY_AFTER)
    if _method(request) == "HEAD" and is_for_later:
        # After any other failure of a HEAD, tus-js-client begins a new upload with the signature of this one.
        status = 423
    if status == 412:
        more.append(headers.VERSIONS)
    return refusal(request, error, status=status, headers=more)


def _method(request: Request) -> str:
    """Return the method. In a network that blocks PATCH, a client names the method in a header of its POST."""
    if request.method != "POST":
        return request.method
    override = request.raw_header(b"x-http-method-override") or b""
    return override.decode("latin-1") or request.method


def _abilities(services: Services) -> Response:
    return _response(204, headers.abilities(services.limits))


async def _create(services: Services, request: Request, bases: Bases) -> Response:
    head = request.head
    headers.check_concat(head)
    fields, filename = headers.read_metadata(head, services.limits)
    fields = request.query(services.limits) + fields
    request.note_fields(fields)
    frame = UploadRequest(
        cloud=request.params["cloud"],
        requested=narrowed(None, dict(fields)),
        fields=fields,
        origin=head.origin,
        caller=request.caller,
    )
    total = headers.read_total(head)
    if not headers.has_body(head):
        series = await begin(services, frame, filename, total)
        note_outcome(request, series)
        return _created(services, address_of(series), series, bases)
    headers.check_content_type(head)
    part = headers.read_part(head, 0)
    address, outcome = await begin_with(services, frame, filename, total, part, request.body.chunks())
    note_outcome(request, outcome)
    return _created(services, address, outcome, bases)


async def _conclude(services: Services, request: Request, address: SeriesAddress, bases: Bases) -> Response:
    outcome = await conclude(services, address, request.caller)
    if not isinstance(outcome, Series) and not outcome.replayed:
        note_outcome(request, outcome)  # this request has completed the upload
    return _state(services, outcome, bases)


async def _status(services: Services, _: Request, address: SeriesAddress, bases: Bases) -> Response:
    return _state(services, await status(services, address), bases)


async def _resume(services: Services, request: Request, address: SeriesAddress, bases: Bases) -> Response:
    """Take more bytes. Return 204, or the asset as JSON for a client that prefers JSON (RFC 7240)."""
    head = request.head
    headers.check_content_type(head)
    part = headers.read_part(head, headers.read_offset(head))
    outcome = await resume(services, address, part, request.body.chunks(), request.caller)
    note_outcome(request, outcome)
    answer, sent = _described(services, outcome, bases)
    if not isinstance(outcome, Series) and "return=representation" in head.get("prefer").replace(" ", ""):
        return _response(200, (*sent, (b"preference-applied", b"return=representation")), answer)
    return _response(204, sent)


async def _end(services: Services, _: Request, address: SeriesAddress, bases: Bases) -> Response:
    await end(services, address)
    return _response(204)


_Action = Callable[[Services, Request, SeriesAddress, Bases], Awaitable[Response]]
_ACTIONS: dict[str, _Action] = {"HEAD": _conclude, "GET": _status, "PATCH": _resume, "DELETE": _end}


def _created(services: Services, address: SeriesAddress, outcome: Progress, bases: Bases) -> Response:
    answer, sent = _described(services, outcome, bases)
    location = f"{bases.secure}/tus/{_path(address)}"
    body = None if isinstance(outcome, Series) else answer
    return _response(201, ((b"location", location.encode()), *sent), body)


def _state(services: Services, outcome: Progress, bases: Bases) -> Response:
    answer, sent = _described(services, outcome, bases)
    return _response(200, sent, answer)


def _described(services: Services, outcome: Progress, bases: Bases) -> tuple[Json, tuple[Header, ...]]:
    """Return the state of an upload as JSON and as headers."""
    answer = chunk_answer(outcome, bases)
    if isinstance(outcome, Series):
        return answer, (*headers.progress(outcome, services.limits), *headers.description(outcome))
    url = answer.get("secure_url")
    url = url if isinstance(url, str) and url.isprintable() else ""  # an account may send anything
    return answer, headers.finished(sent_bytes(outcome), url)


def _response(status: int, sent: tuple[Header, ...] = (), body: Json | None = None) -> Response:
    sent = (headers.RESUMABLE, *sent)
    if body is not None:
        return json_response(body, status=status, headers=sent)
    empty = () if status == 204 else (length_header(0),)
    return Response(status, (*sent, *empty, NO_STORE, NO_SNIFF))


def _path(address: SeriesAddress) -> str:
    return f"{address.cloud}/{address.grant_key.hex()}/{address.series_id}"


def _address(cloud: str, signature: str, upload: str) -> SeriesAddress:
    try:
        key = bytes.fromhex(signature)
    except ValueError:
        key = b""
    address = SeriesAddress(cloud, key, upload)
    if len(signature) != _KEY_DIGITS or _path(address) != f"{cloud}/{signature}/{upload}":
        raise SeriesGone("There is no upload at this address. POST to /tus/<cloud>/ to begin a new upload.")
    return address
