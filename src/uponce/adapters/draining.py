"""SIGTERM tells first that this process is about to go, and ends it later: a load balancer needs time to see it."""

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def draining(seconds: float) -> Iterator[Callable[[], bool]]:
    """Whether SIGTERM has come; whoever handled it before does so `seconds` later. A second one is not delayed."""
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

    if not callable(end):  # nobody ends this process in an orderly way, so there is nothing to delay
        yield lambda: False
        return
    signal.signal(signal.SIGTERM, announce)
    try:
        yield lambda: ending
    finally:
        signal.signal(signal.SIGTERM, end)
