"""The rest of a body that nobody will look at: taken from the socket without parsing it, or even copying it."""

import asyncio
import os
import socket

# An ASGI extension of our protocol: an asynchronous function of the body's length and of idle seconds.
DISCARD = "uponce.discard"

# With MSG_TRUNC the kernel drops the bytes of a TCP stream (tcp(7)): nothing is ever written here.
_NOWHERE = bytearray(1 << 20)


async def discard(descriptor: int, size: int, idle_seconds: float) -> None:
    """Return when so many bytes are gone, or no more will come; TimeoutError when none does for `idle_seconds`.

    Nobody else may be reading from the descriptor.
    """
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    with socket.socket(fileno=os.dup(descriptor)) as source:
        source.setblocking(False)
        loop.add_reader(source, readable.set)
        try:
            while size > 0:
                async with asyncio.timeout(idle_seconds):
                    await readable.wait()
                readable.clear()
                taken = _take(source, size)
                if taken is None:
                    return
                size -= taken
        finally:
            loop.remove_reader(source)


def _take(source: socket.socket, size: int) -> int | None:
    """How many bytes of at most `size` were dropped; None when no more will come."""
    try:
        return source.recv_into(_NOWHERE, min(size, len(_NOWHERE)), socket.MSG_TRUNC) or None
    except BlockingIOError:
        return 0
    except OSError:
        return None
