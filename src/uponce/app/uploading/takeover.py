"""Let a newer request take over bytes from an older one: the older connection may be dead without a sign of it.

The newer request asks for the bytes that the older one holds, and waits. The older request checks from time to time
whether another one asks, and releases the bytes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from uponce.core.errors import ChunkSuperseded, Unavailable

_LOOK_SECONDS = 0.25


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
