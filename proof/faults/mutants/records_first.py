"""A launcher of `uponce` that records a part of an upload, and writes its bytes a moment later."""

import asyncio

from uponce.app.uploading.series import Append
from uponce.cli import main
from uponce.core.series import Series
from uponce.core.spans import Span

_WINDOW_SECONDS = 0.1


async def record_then_write(self: Append) -> Series:
    start = self._chunk.span.start
    span = Span(start, start + self.size)
    self.series = await self._services.database.record_span(self.series.id, span, self._chunk.total)
    await asyncio.sleep(_WINDOW_SECONDS)
    await self._part.sync()
    self._part.keep()
    return self.series


# At import, not under the guard: worker processes import this file and never run it.
Append.keep = record_then_write  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
