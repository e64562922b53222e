"""Drop the rest of a body that no code will read, straight from the socket, without parsing or copying the bytes."""

import asyncio
import os
import socket
from collections.abc import Callable

# ASGI extensions of our protocol. CYCLE is uvicorn's object for a request and its answer. DISCARD is an asynchronous
# function of the body's length, of idle seconds, and of a `Dropped`. It returns False, and drops nothing, if the
# process has no descriptor left.
CYCLE = "uponce.cycle"
DISCARD = "uponce.discard"

Dropped = Callable[[int], None]  # takes with each drop the number of its bytes

# With MSG_TRUNC the kernel drops the bytes of a TCP stream (tcp(7)): the kernel never writes here.
_NOWHERE = bytearray(1 << 20)


def duplicate(descriptor: int) -> socket.socket | None:
    """Return the socket under another descriptor, for `discard`. Return None if the process has no descriptor left."""
    try:
        return socket.socket(fileno=os.dup(descriptor))
    except OSError:
        return None


async def discard(source: socket.socket, size: int, idle_seconds: float, dropped: Dropped) -> None:
    """Drop `size` bytes, or fewer if the connection ends. Raise TimeoutError if no byte arrives for `idle_seconds`.

    No other code may read from the socket at the same time.
    """
    if size <= 0:
        return
    loop, left = asyncio.get_running_loop(), size
    ended = loop.create_future()

    def take() -> None:
        nonlocal left
        if ended.done():
            return
        taken = _take(source, left)
        if taken:
            left -= taken
            dropped(taken)
        if taken is None or left == 0:
            ended.set_result(None)

    source.setblocking(False)
    loop.add_reader(source, take)
    try:
        while not ended.done():
            before = left
            await asyncio.wait((ended,), timeout=idle_seconds)
            if left == before and not ended.done():
                raise TimeoutError
    finally:
        loop.remove_reader(source)


def _take(source: socket.socket, size: int) -> int | None:
    """Drop at most `size` bytes and return their number. Return None if no more bytes will arrive."""
    try:
        return source.recv_into(_NOWHERE, min(size, len(_NOWHERE)), socket.MSG_TRUNC) or None
    except BlockingIOError:
        return 0
    except OSError:
        return None
