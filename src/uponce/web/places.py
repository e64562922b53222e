"""Places for deliveries: how many do one kind of work at a time, and how long the others wait."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from uponce.core.errors import MalformedRequest, ServerBusy
from uponce.web.request import Request

PLACES = 16
WAIT_SECONDS = 10.0


class Places:
    """At most `PLACES` deliveries `work` at a time. The next upload waits for these, not for thousands."""

    def __init__(self, work: str) -> None:
        self.free = asyncio.Semaphore(PLACES)
        self._work = work

    @asynccontextmanager
    async def of(self, request: Request) -> AsyncIterator[None]:
        """Hold a place while the context is open. Raise as `wait` does."""
        if self.free.locked():
            await self.wait(request)
        else:
            await self.free.acquire()
        try:
            yield
        finally:
            self.free.release()

    async def wait(self, request: Request) -> None:
        """Take a place. Raise ServerBusy if none becomes free in time, MalformedRequest if the client has left."""
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self.free.acquire()
        except TimeoutError:
            raise ServerBusy(
                f"{PLACES} deliveries {self._work} now, the most at a time, and none of these ended within "
                f"{WAIT_SECONDS:.0f} seconds. Send the request again later."
            ) from None
        if request.is_gone:
            self.free.release()
            raise MalformedRequest("The connection ended while the request waited.")
