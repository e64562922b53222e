"""A response as endpoints return it: sent once, whole, in blocks, or before the rest of an unread body."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from uponce.app.unbroken import unbroken
from uponce.web.discarding import DISCARD
from uponce.web.request import Header, Receive, Request, Send

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

LINGER_SECONDS = 30.0
LINGER_IDLE_SECONDS = 5.0

NO_STORE: Header = (b"cache-control", b"no-store")
NO_SNIFF: Header = (b"x-content-type-options", b"nosniff")
ANY_ORIGIN: Header = (b"access-control-allow-origin", b"*")
VARY: Header = (b"vary", b"Origin")
PLAIN_TEXT: Header = (b"content-type", b"text/plain; charset=utf-8")
REPLAYED: Header = (b"idempotent-replayed", b"true")
_CLOSE: Header = (b"connection", b"close")
_JSON: Header = (b"content-type", b"application/json; charset=utf-8")


@dataclass(frozen=True, slots=True)
class Response:
    """Status, headers and a body: bytes, or blocks of bytes that are read as fast as the client takes them.

    HEAD gets the headers without the body. `close` is called when the response is over, however it ends. A response
    that `lingers` is complete on the wire before the rest of the request's body is read and dropped. Otherwise a client
    that is still sending would get a reset connection instead of the answer (nginx's lingering close).
    """

    status: int
    headers: tuple[Header, ...] = ()
    body: bytes | AsyncIterator[bytes | bytearray] = b""
    lingers: bool = False
    close: Callable[[], None] | None = None


Endpoint = Callable[[Request], Awaitable[Response]]


def json_response(body: Any, *, status: int = 200, headers: Iterable[Header] = (), lingers: bool = False) -> Response:
    """Return the body as JSON, which no cache keeps."""
    data = msgspec.json.encode(body)
    return Response(status, (_JSON, length_header(len(data)), NO_STORE, NO_SNIFF, *headers), data, lingers)


def forwarded_response(
    status: int, body: str, headers: Iterable[tuple[str, str]], *, replayed: bool = False, lingers: bool = False
) -> Response:
    """Return the answer of an upstream unchanged, with those of its headers that clients may see."""
    data = body.encode()
    passed = [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace")) for name, value in headers
    ]
    more = [REPLAYED] if replayed else []
    return Response(status, (_JSON, length_header(len(data)), NO_STORE, NO_SNIFF, *passed, *more), data, lingers)


def is_known(etag: str, header: str) -> bool:
    """Return whether If-None-Match has this tag, weak or strong (RFC 9110 §13.1.2)."""
    tags = {tag.strip().removeprefix("W/") for tag in header.split(",")}
    return "*" in tags or etag.removeprefix("W/") in tags


def length_header(size: int) -> Header:
    return (b"content-length", str(size).encode())


async def send_response(request: Request, response: Response, send: Send, more: Iterable[Header] = ()) -> None:
    """Send the response, with `more` headers and the id of the request."""
    closing = [_CLOSE] if response.lingers else []
    headers = [*response.headers, *more, *closing, (b"x-request-id", request.id.encode())]
    request.status = response.status
    try:
        if _is_written(request, response, headers):
            return
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        await _send_body(request, response, send)
    finally:
        if response.close is not None:
            response.close()


def _is_written(request: Request, response: Response, headers: Sequence[Header]) -> bool:
    """Write a whole response with one system call. Return False if this cannot be done, and nothing was written.

    uvicorn writes the head and the body apart, and searches each header for what it must not contain. Whatever is not
    ordinary is left to uvicorn.
    """
    cycle, body = request.cycle, b"" if request.method == "HEAD" else response.body
    if cycle is None or response.lingers or not isinstance(body, bytes):
        return False
    if cycle.flow.write_paused or cycle.disconnected or cycle.response_started:
        return False
    lines = [*cycle.default_headers, *headers] if cycle.keep_alive else [*cycle.default_headers, *headers, _CLOSE]
    head = b"".join([b"%b: %b\r\n" % line for line in lines])
    is_plain = head.count(b"\n") == head.count(b"\r") == len(lines) and b"\0" not in head
    if not is_plain or (length_header(len(body)) not in headers and request.method != "HEAD"):
        return False
    from uvicorn.protocols.http.httptools_impl import STATUS_LINE  # commands, which need no server, make answers too

    cycle.transport.write(b"%b%b\r\n%b" % (STATUS_LINE[response.status], head, body))
    complete(cycle)
    return True


def complete(cycle: "RequestResponseCycle") -> None:
    """End the cycle, as the cycle itself does after the last byte."""
    cycle.response_started = cycle.response_complete = True
    cycle.waiting_for_100_continue = False
    cycle.message_event.set()
    if not cycle.keep_alive:
        cycle.transport.close()
    cycle.on_response()


async def _send_body(request: Request, response: Response, send: Send) -> None:
    body = b"" if request.method == "HEAD" else response.body
    if not isinstance(body, bytes):
        async for block in body:
            await send({"type": "http.response.body", "body": block, "more_body": True})
            # Returns when the client has taken most of the block. Only then the next block is read into memory.
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            if request.is_gone:  # `send` then returns at once, so the loop would read the whole file in one turn
                return
        body = b""
    elif response.lingers:
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await unbroken(_linger(request))  # a stop waits for it
        body = b""
    await send({"type": "http.response.body", "body": body})


async def _linger(request: Request) -> None:
    discard, length = request.scope.get("extensions", {}).get(DISCARD), request.raw_header(b"content-length")
    idle = LINGER_IDLE_SECONDS
    try:
        async with asyncio.timeout(LINGER_SECONDS):
            if discard is None or length is None or not await discard(int(length), idle, request.dropped):
                await _receive_rest(request.receive)
    except TimeoutError:
        return


async def _receive_rest(receive: Receive) -> None:
    """Read to the end: if the server cannot discard the body, or if its length is unknown."""
    more = True
    while more:
        async with asyncio.timeout(LINGER_IDLE_SECONDS):
            message = await receive()
        more = message["type"] == "http.request" and message.get("more_body", False)
