"""Answers: JSON bodies, and errors in the shape that unmodified SDKs surface."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from uponce.core.errors import BadCredentials, DatabaseUnavailable, SettingRefused, UponceError
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.discarding import DISCARD
from uponce.web.errors import status_of
from uponce.web.failures import limited
from uponce.web.request_log import note_error

Header = tuple[bytes, bytes]

_JSON: Header = (b"content-type", b"application/json; charset=utf-8")
_PRIVATE: tuple[Header, ...] = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_MAX_ERROR_HEADER = 500
_SET_UP_SECONDS = 60
REFUSED = "refused"  # in the request's state: the code that it was refused with

LINGER_SECONDS = 30.0
LINGER_IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Answer:
    """A JSON body with headers of its own."""

    body: Any
    headers: tuple[Header, ...] = ()


async def answer_json(
    scope: Scope, receive: Receive, send: Send, idle_seconds: float, work: Callable[[Body], Awaitable[Answer]]
) -> None:
    """Run `work` on the request's body; send what it returns, or the error it raises."""
    body = Body(receive, idle_seconds)
    try:
        answer = await work(body)
    except UponceError as error:
        await send_error(scope, receive, send, error, body_complete=body.complete)
        return
    await send_json(scope, send, 200, answer.body, answer.headers)


async def send_json(scope: Scope, send: Send, status: int, body: Any, headers: Iterable[Header] = ()) -> None:
    """A whole answer at once. HEAD gets the same headers without the body."""
    data = msgspec.json.encode(body)
    await _start(send, status, data, headers)
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else data})


async def send_error(
    scope: Scope,
    receive: Receive,
    send: Send,
    error: UponceError,
    *,
    body_complete: bool,
    status: int | None = None,
    headers: Iterable[Header] = (),
) -> None:
    """The error as `{"error": {"message", "code"}}` and X-Cld-Error.

    When the request's body has not been read to its end, the answer is complete on the wire first, and then the
    rest of the body is read and dropped for a while: a client that is still writing would otherwise meet a reset
    connection and never see why (nginx's lingering close).
    """
    judged = limited(scope, _public(error))
    if judged is not error:
        error, status = judged, None
    note_error(scope, error)
    scope.setdefault("state", {})[REFUSED] = error.code
    unread = not body_complete and _may_have_body(scope)
    body = msgspec.json.encode({"error": {"message": error.message, "code": error.code}})
    extra = [*headers, (b"x-cld-error", _header_text(error.message))]
    if error.retry_after is not None:
        extra.append((b"retry-after", str(error.retry_after).encode()))
    if isinstance(error, BadCredentials):
        extra.append((b"www-authenticate", b'Basic realm="uponce"'))
    if unread:
        extra.append((b"connection", b"close"))
    await _start(send, status or status_of(error), body, extra)
    shown = b"" if scope["method"] == "HEAD" else body
    if not unread:
        await send({"type": "http.response.body", "body": shown})
        return
    await send({"type": "http.response.body", "body": shown, "more_body": True})
    await _linger(scope, receive)
    await send({"type": "http.response.body", "body": b""})


def _public(error: UponceError) -> UponceError:
    """Keep the operator's words from clients: a wrong setting that only a request reveals."""
    if not isinstance(error, SettingRefused):
        return error
    return DatabaseUnavailable(
        "The server is not set up correctly. Nothing was stored. Report this to its operator.",
        detail=error.message,
        retry_after=_SET_UP_SECONDS,
    )


async def _start(send: Send, status: int, data: bytes, headers: Iterable[Header]) -> None:
    all_headers = [_JSON, (b"content-length", str(len(data)).encode()), *_PRIVATE, *headers]
    await send({"type": "http.response.start", "status": status, "headers": all_headers})


async def _linger(scope: Scope, receive: Receive) -> None:
    discard = scope.get("extensions", {}).get(DISCARD)
    length = next((value for name, value in scope.get("headers", ()) if name == b"content-length"), None)
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            if discard is not None and length is not None:
                await discard(int(length), LINGER_IDLE_SECONDS)
            else:
                await _receive_rest(receive)
    except TimeoutError:
        return


async def _receive_rest(receive: Receive) -> None:
    """Of servers that cannot discard, and of bodies whose length is not told."""
    more = True
    while more:
        async with asyncio.timeout(LINGER_IDLE_SECONDS):
            message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)


def _may_have_body(scope: Scope) -> bool:
    """GET and HEAD without framing headers have none (RFC 9112 §6); HTTP/2 bodies need no such header."""
    framed = any(name in (b"content-length", b"transfer-encoding") for name, _ in scope.get("headers", ()))
    return framed or scope["method"] not in ("GET", "HEAD")


def _header_text(message: str) -> bytes:
    """One line of printable ASCII; anything else becomes a question mark."""
    return re.sub(r"[^\x20-\x7e]", "?", message)[:_MAX_ERROR_HEADER].encode()
