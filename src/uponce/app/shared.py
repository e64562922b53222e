"""Work for many callers at once: it runs once, and all of them share its result."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uponce.app.unbroken import begin

T = TypeVar("T")


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
