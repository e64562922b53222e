"""Let a newer request take over bytes from an older one: the older connection may be dead without a sign of it.

The newer request asks for the bytes that the older one holds, and waits. The older request checks from time to time
whether another one asks, and releases the bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeVar

from uponce.core.errors import ChunkInProgress, ChunkSuperseded, Unavailable

T = TypeVar("T")

_POLL_SECONDS = 0.05
_LOOK_SECONDS = 0.25


async def take_over(
    hold: Callable[[], Awaitable[T]],
    asking: AbstractAsyncContextManager[None],
    still: Callable[[], Awaitable[object]],
    seconds: float,
) -> T:
    """Return what `hold` returns as soon as the bytes are free. Raise ChunkInProgress after `seconds`.

    `still` raises if there is no reason to wait any more.
    """
    with suppress(ChunkInProgress):
        return await hold()
    loop = asyncio.get_running_loop()
    until = loop.time() + seconds
    async with asking:
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            try:
                return await hold()
            except ChunkInProgress:
                await still()
                if loop.time() > until:
                    raise


@asynccontextmanager
async def giving_way(is_wanted: Callable[[], Awaitable[bool]]) -> AsyncIterator[None]:
    """Raise ChunkSuperseded inside, where a body is awaited, as soon as a newer request asks for the same bytes."""
    try:
        async with asyncio.timeout(None) as scope:
            looking = asyncio.create_task(_look(is_wanted, scope))
            try:
                yield
            finally:
                looking.cancel()
    except TimeoutError:
        if not scope.expired():
            raise
        raise ChunkSuperseded(
            "A newer request for the same part of this upload replaced this request. "
            "Wait for the answer to the newer request."
        ) from None


async def _look(is_wanted: Callable[[], Awaitable[bool]], scope: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(_LOOK_SECONDS)
        with suppress(Unavailable):
            if await is_wanted():
                scope.reschedule(0)
                return
