"""Work that goes on when its request is cancelled or answered, and whose failure is still logged."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Generic, TypeVar

from uponce.core.errors import UponceError

T = TypeVar("T")

log = logging.getLogger("uponce")

# Few: in a bucket each may take one of the 32 threads that also deliver.
_MOST_LATER = 16

_running = set[asyncio.Future[Any]]()
_later = set[asyncio.Future[Any]]()


def begin(work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
    """Return the work, which now runs. The server's stop waits for its end."""
    running = asyncio.ensure_future(work)
    _running.add(running)
    running.add_done_callback(_running.discard)
    return running


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Return what the work returns. If the caller is cancelled, the work still runs to its end.

    `asyncio.shield` alone would forget the work then, and asyncio would log each of its refusals as a failure of the
    program.
    """
    running = begin(work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        running.add_done_callback(_note)
        raise
    finally:
        del running  # the traceback of its error would keep it, and all that the work held


@contextmanager
def awaited_by_the_stop() -> Iterator[None]:
    """Let the server's stop wait for the end of this block, also if it cancels the request."""
    block = asyncio.get_running_loop().create_future()
    _running.add(block)
    try:
        yield
    finally:
        _running.discard(block)
        block.set_result(None)


async def later(work: Coroutine[Any, Any, object]) -> None:
    """Start work that no client waits for. Log a defect in it. Wait for the work if too many such works run."""
    running = begin(work)
    running.add_done_callback(_note)
    running.add_done_callback(_later.discard)
    _later.add(running)
    if len(_later) > _MOST_LATER:
        await asyncio.wait([running])


async def finish_unbroken(seconds: float) -> None:
    """Return when no such work runs in this process any more, or after so many seconds."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while _running:
                await asyncio.wait(_running)


def _note(running: "asyncio.Future[Any]") -> None:
    error = None if running.cancelled() else running.exception()
    if error is not None and not isinstance(error, UponceError):
        log.error("work that no request waits for failed", exc_info=error)


class Shared(Generic[T]):
    """Work that runs once at a time. A caller that comes while it runs waits for its result, or gets its error.

    The work goes on if a caller is cancelled, since others may wait for it. A caller that comes later begins it again.
    """

    def __init__(self) -> None:
        self._work: asyncio.Future[T] | None = None

    async def get(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the result of the work that runs, or of new `work`."""
        if self._work is None or self._work.done():
            self._work = begin(work())
        return await asyncio.shield(self._work)
