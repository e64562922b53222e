"""After SIGTERM, announce the end of this process before it ends: a load balancer needs time to see that."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def draining(seconds: float) -> Iterator[Callable[[], bool]]:
    """Yield a test whether SIGTERM came. Its old handler runs `seconds` later; a second SIGTERM is not delayed."""
    loop, ending = asyncio.get_running_loop(), False
    end = signal.getsignal(signal.SIGTERM)

    def announce(number: int, frame: FrameType | None) -> None:
        nonlocal ending
        assert callable(end)
        if ending or seconds <= 0:
            end(number, frame)
        else:
            ending = True
            loop.call_soon_threadsafe(loop.call_later, seconds, end, number, None)

    if not callable(end):  # without a handler, the process does not shut down in order, so there is nothing to delay
        yield lambda: False
        return
    signal.signal(signal.SIGTERM, announce)
    try:
        yield lambda: ending
    finally:
        signal.signal(signal.SIGTERM, end)
