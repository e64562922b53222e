"""The one table from errors to HTTP statuses, the exceptions for tus, and the answer for the client.

SDKs read the bodies of 200, 400, 401, 404, 420 and 500 only: npm's uploader hides all others, and treats 429 as rate
limiting. So every refusal that a person must read is 400, 401 or 404, except those that only tus clients receive.
"""

import re
from collections.abc import Iterable
from dataclasses import replace

from uponce.core import errors
from uponce.core.errors import BadCredentials, DatabaseUnavailable, SettingRefused, UponceError, UpstreamRefused
from uponce.web.html import refusal_page, wants_page
from uponce.web.request import Header, Request
from uponce.web.response import Response, forwarded_response, json_response

INTERNAL_ERROR = "internal_error"

_MAX_ERROR_HEADER = 500
_SET_UP_SECONDS = 60

TUS_ONLY: dict[type[UponceError], int] = {
    errors.OffsetConflict: 409,
    errors.ChecksumMismatch: 460,
    errors.SeriesComplete: 409,
    errors.SeriesExpired: 410,
    errors.UnsupportedVersion: 412,
    errors.UnsupportedContentType: 415,
}

_ROWS: dict[type[UponceError], int] = {
    errors.GrantRefused: 400,
    errors.AuthRefused: 401,
    errors.OriginMismatch: 400,
    errors.TooManyFailures: 429,
    errors.ParameterRefused: 400,
    errors.FileRefused: 400,
    errors.SeriesRefused: 400,
    errors.SeriesGone: 404,
    errors.UpstreamRefused: 400,
    errors.RequestRefused: 400,
    errors.NotFound: 404,
    errors.RangeNotSatisfiable: 416,
    errors.PreconditionFailed: 412,
    errors.Unavailable: 503,
    errors.StorageFull: 507,
    errors.SettingRefused: 500,
    **TUS_ONLY,
}

# Each error has its own row, or the row of its branch.
STATUS: dict[type[UponceError], int] = {
    error: next(_ROWS[kind] for kind in error.__mro__ if kind in _ROWS)
    for error in vars(errors).values()
    if isinstance(error, type) and hasattr(error, "code")
}

# After 423 and 5xx, all tus clients ask for the offset and continue. Java's stops after any other 4xx, also after 409.
TUS_STATUS: dict[type[UponceError], int] = {
    errors.ChunkInProgress: 423,
    errors.FileTooLarge: 413,
    errors.RequestTooSlow: 423,
    errors.TooManySeries: 429,
}


def status_of(error: UponceError) -> int:
    return STATUS[type(error)]


def tus_status_of(error: UponceError) -> int:
    return TUS_STATUS.get(type(error), status_of(error))


def refusal(
    request: Request, error: UponceError, *, status: int | None = None, headers: Iterable[Header] = ()
) -> Response:
    """Return the error as `{"error": {"message", "code"}}` and headers, in the form that unmodified SDKs show.

    A browser that opens an address gets a page with the same status and the same headers. `status` replaces the status
    of the table. Clients that failed with too many credentials get TooManyFailures.
    """
    judged = request.common.failures.judge(request.address, _public(error))
    if judged is not error:
        error, status = judged, None
    request.note_error(error)
    request.refused = error.outcome
    lingers = request.has_unread_body()
    # The code also as a header: an answer to HEAD has no body, and that of an upstream no code.
    more = [*headers, (b"x-cld-error", _header_text(error.message)), (b"x-cld-error-code", error.code.encode())]
    if isinstance(error, UpstreamRefused) and error.body:
        answer = forwarded_response(status or error.status, error.body, error.headers, lingers=lingers)
        passed_on = dict(answer.headers)
        return replace(answer, headers=(*answer.headers, *(each for each in more if each[0] not in passed_on)))
    if error.retry_after is not None:
        more.append((b"retry-after", str(error.retry_after).encode()))
    if isinstance(error, BadCredentials):
        more.append((b"www-authenticate", b'Basic realm="uponce"'))
    status = status or status_of(error)
    if wants_page(request):
        return refusal_page(error, status, more, lingers=lingers)
    body = {"error": {"message": error.message, "code": error.code}}
    return json_response(body, status=status, headers=more, lingers=lingers)


def internal_error(request: Request) -> Response:
    """Return 500 with the id under which the log has the failure."""
    message = f"Internal error, request {request.id}"
    body = {"error": {"message": message, "code": INTERNAL_ERROR}}
    headers = ((b"x-cld-error", message.encode()), (b"x-cld-error-code", INTERNAL_ERROR.encode()))
    return json_response(body, status=500, headers=headers, lingers=request.has_unread_body())


def raw_refusal(status: str, message: str, code: str = "malformed_request") -> bytes:
    """Return a whole HTTP answer for a connection on which no request can get it. It says that the connection ends."""
    body = f'{{"error":{{"message":"{message}","code":"{code}"}}}}'.encode()
    head = f"HTTP/1.1 {status}\r\nconnection: close\r\naccess-control-allow-origin: *\r\n"
    head += "access-control-expose-headers: X-Cld-Error, X-Cld-Error-Code, Retry-After\r\n"
    head += f"x-cld-error: {message}\r\nx-cld-error-code: {code}\r\n"
    return f"{head}content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _public(error: UponceError) -> UponceError:
    """Return the error for the client. A wrong setting loses its details, which are for the operator."""
    if not isinstance(error, SettingRefused):
        return error
    return DatabaseUnavailable(
        "The server is not set up correctly. Nothing was stored. Report this to its operator.",
        detail=error.message,
        retry_after=_SET_UP_SECONDS,
    )


def _header_text(message: str) -> bytes:
    """Return one line of printable ASCII, with a question mark for any other character."""
    return re.sub(r"[^\x20-\x7e]", "?", message[:_MAX_ERROR_HEADER]).encode()
