"""uvicorn with HardenedProtocol and a tiny application, in a separate process, so that a test can watch its memory.

python -m tests.web.bare_server HEAD_SECONDS [MAX_HEAD_BYTES]
"""

import asyncio
import errno
import hashlib
import os
import socket
import sys
from collections.abc import AsyncIterator

import uvicorn

from tests.web.bare import request, send_error
from uponce.core.errors import SignatureUsed, UponceError, UpstreamRefused
from uponce.core.policy import Limits
from uponce.web import lingering, protocol, response
from uponce.web.protocol import HardenedProtocol
from uponce.web.request import Message, Receive, Scope, Send
from uponce.web.response import Response, length_header, send_response

MEBIBYTE = 1024 * 1024
LARGE, BLOCK = 64 * MEBIBYTE, MEBIBYTE // 4
LINGER_SECONDS = 120  # a client may stall

_dup = os.dup

seen: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/download` is LARGE zeros, whose blocks `/seen` counts, `/refuse` refuses unread, `/late` after a while,
    `/account` does so with an upstream's answer, `/reset` without lingering, `/crowded` without a free descriptor,
    `/slow` takes 2 seconds, `/soon` 0.3, `/seen` lists what came.
    `/messages` answers with the number of messages that its body came in, `/unread` before its body has come, `/first`
    after its first message.
    `/headers` answers with the names of the request's headers, as they are after its body, `/value` with X-Value in
    brackets.

    `/sum` answers with the SHA-256 of the body, `/pauses` too, but waits after each message, `/half` before it has all
    of it. `/stall` takes two messages of it and waits 2 seconds, `/drop` refuses after two.

    The rest answers with its method, its path and the size of the body.
    """
    path = scope["path"]
    if path in ("/sum", "/pauses", "/half", "/stall", "/drop"):
        await _large(scope, receive, send)
        return
    if path == "/download":
        await _download(scope, receive, send)
        return
    if path in ("/refuse", "/account", "/reset", "/late", "/crowded"):
        response.LINGER_SECONDS = 0 if path == "/reset" else LINGER_SECONDS
        os.dup = _no_descriptor if path == "/crowded" else _dup
        await asyncio.sleep(0.3 if path == "/late" else 0)

        async def counted() -> Message:
            seen.append(f"received for {path}")
            return await receive()

        error: UponceError = SignatureUsed("Already used.")
        if path == "/account":
            error = UpstreamRefused("Too large.")
            error.body = '{"error":{"message":"Too large."}}'
        await send_error(scope, counted, send, error, body_complete=False)
        seen.append(f"refused {path}")
        return
    sizes = [] if path == "/unread" else await _sizes(receive, most=1 if path == "/first" else None)
    if sizes is None:
        return
    size = sum(sizes)
    await asyncio.sleep({"/slow": 2, "/soon": 0.3}.get(path, 0))
    seen.append(f"{scope['method']} {path} {len(sizes) if path == '/messages' else size}")
    body = "\n".join(seen if path == "/seen" else seen[-1:]).encode()
    if path == "/headers":
        body = b" ".join(name for name, _ in scope["headers"])
    if path == "/value":
        body = b"[%b]" % dict(scope["headers"])[b"x-value"]
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


def _no_descriptor(_: int) -> int:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


async def _large(scope: Scope, receive: Receive, send: Send) -> None:
    path, hash_, number, more = scope["path"], hashlib.sha256(), 0, True
    while more and not (path not in ("/sum", "/pauses") and number == 2):
        message = await receive()
        if message["type"] == "http.disconnect":
            seen.append(f"disconnected from {path}")
            return
        hash_.update(message["body"])
        number, more = number + 1, message["more_body"]
        await asyncio.sleep(0.01 if path == "/pauses" else 0)
    await asyncio.sleep(2 if path == "/stall" else 0)
    if path == "/drop":
        await send_error(scope, receive, send, SignatureUsed("Already used."), body_complete=False)
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"64")]})
    await send({"type": "http.response.body", "body": hash_.hexdigest().encode()})


async def _download(scope: Scope, receive: Receive, send: Send) -> None:
    number = 0

    async def blocks() -> AsyncIterator[bytes]:
        nonlocal number
        for _ in range(LARGE // BLOCK):
            number += 1
            yield bytes(BLOCK)

    zeros = Response(200, (length_header(LARGE),), blocks(), close=lambda: seen.append(f"downloaded {number}"))
    await send_response(request(scope, receive), zeros, send)


async def _sizes(receive: Receive, most: int | None) -> list[int] | None:
    """Of each message of the body, or of so many. None when the client is gone."""
    sizes, more = list[int](), True
    while more and len(sizes) != most:
        message = await receive()
        if message["type"] == "http.disconnect":
            seen.append("gone")
            return None
        sizes.append(len(message["body"]))
        more = message["more_body"]
    return sizes


def main(head_seconds: str, max_head_bytes: str = "65536") -> None:
    HardenedProtocol.limits = Limits(
        head_seconds=int(head_seconds), write_seconds=int(head_seconds), max_head_bytes=int(max_head_bytes)
    )
    protocol._GATHER_SECONDS = float(head_seconds)
    response.LINGER_IDLE_SECONDS = lingering._SECONDS = LINGER_SECONDS
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    # Its connections inherit this. The kernel would take up to tcp_rmem, here 32 MiB, that the server never reads.
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, MEBIBYTE)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app,
        http="uponce.web.protocol:HardenedProtocol",
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_level="error",
        access_log=False,
        timeout_keep_alive=60,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
