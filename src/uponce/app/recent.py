"""Work for many callers at once: it runs once, and all of them share its result."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from uponce.app.unbroken import begin

T = TypeVar("T")


class Recent(Generic[T]):
    """The result of the last work. Callers share the result until `seconds` after the work began.

    No second work begins while one runs: a caller that comes then waits for its result. The work goes on if a caller is
    cancelled, since others may wait for it. Callers that wait also share its error. The next caller begins again.
    """

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._begun = 0.0
        self._work: asyncio.Future[T] | None = None

    async def get(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the recent result, or that of the work that runs, or that of new `work`."""
        if self._work is None or self._is_over(self._work):
            self._begun = self._now()
            self._work = begin(work())
        return await asyncio.shield(self._work)

    def _is_over(self, work: "asyncio.Future[T]") -> bool:
        if not work.done():
            return False
        return work.cancelled() or work.exception() is not None or self._now() - self._begun >= self._seconds
