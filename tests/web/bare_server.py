"""uvicorn with HardenedProtocol and a tiny application, in a process of its own, so that its memory can be watched.

python -m tests.web.bare_server HEAD_SECONDS
"""

import asyncio
import socket
import sys

import uvicorn

from uponce.core.errors import SignatureUsed
from uponce.core.policy import Limits
from uponce.web import respond
from uponce.web.body import Message, Receive, Scope, Send
from uponce.web.protocol import HardenedProtocol
from uponce.web.respond import send_error

LARGE, BLOCK = 64 * 1024 * 1024, 256 * 1024

seen: list[str] = []


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """`/download` is LARGE zeros, `/refuse` refuses unread, `/late` after a while,
    `/reset` does so without lingering, `/slow` takes 2 seconds, `/seen` lists what came.
    `/headers` answers with the names of the request's headers, as they are after its body.

    The rest answers with its method, its path and the size of the body.
    """
    path = scope["path"]
    if path == "/download":
        await _download(send)
        return
    if path in ("/refuse", "/reset", "/late"):
        respond.LINGER_SECONDS = 0 if path == "/reset" else 30
        await asyncio.sleep(0.3 if path == "/late" else 0)

        async def counted() -> Message:
            seen.append(f"received for {path}")
            return await receive()

        await send_error(scope, counted, send, SignatureUsed("Already used."), body_complete=False)
        seen.append(f"refused {path}")
        return
    size = await _size(receive)
    if size is None:
        return
    if path == "/slow":
        await asyncio.sleep(2)
    seen.append(f"{scope['method']} {path} {size}")
    body = "\n".join(seen if path == "/seen" else seen[-1:]).encode()
    if path == "/headers":
        body = b" ".join(name for name, _ in scope["headers"])
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def _download(send: Send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % LARGE)]})
    for _ in range(LARGE // BLOCK):
        await send({"type": "http.response.body", "body": bytes(BLOCK), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _size(receive: Receive) -> int | None:
    """None when the client is gone."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        size, more = size + len(message["body"]), message["more_body"]
    return size


def main(head_seconds: str) -> None:
    HardenedProtocol.limits = Limits(head_seconds=int(head_seconds), write_seconds=int(head_seconds))
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(listener.getsockname()[1], flush=True)
    config = uvicorn.Config(
        app,
        http="uponce.web.protocol:HardenedProtocol",
        ws="none",
        loop="uvloop",
        lifespan="off",
        log_level="error",
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
