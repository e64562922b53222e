"""Places for deliveries: how many do one kind of work at a time, and how long the others wait."""

import asyncio

from uponce.core.errors import MalformedRequest, ServerBusy
from uponce.web.request import Request

PLACES = 16
WAIT_SECONDS = 10.0


class Places:
    """At most `PLACES` deliveries `work` at a time. The next upload waits for these, not for thousands."""

    def __init__(self, work: str) -> None:
        self.free = asyncio.Semaphore(PLACES)
        self._work = work

    def of(self, request: Request) -> "Place":
        return Place(self, request)

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


class Place:
    """A place of one request, while the context is open."""

    def __init__(self, places: Places, request: Request) -> None:
        self._places = places
        self._request = request

    async def __aenter__(self) -> None:
        if self._places.free.locked():
            await self._places.wait(self._request)
        else:
            await self._places.free.acquire()

    async def __aexit__(self, *_: object) -> None:
        self._places.free.release()
