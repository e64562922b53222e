"""`one_part` that records a part's bytes before they are written: the order that loses what it has promised."""

import sys

from proof.faults import one_part
from uponce.app.uploading.series import Append
from uponce.core.series import Series
from uponce.core.spans import Span


async def record_then_write(self: Append) -> Series:
    start = self._chunk.span.start
    span = Span(start, start + self.size)
    self.series = await self._services.database.record_span(self.series.id, span, self._chunk.total)
    await self._part.sync()
    self._part.keep()
    return self.series


Append.keep = record_then_write  # type: ignore[method-assign]

if __name__ == "__main__":
    one_part.main(*sys.argv[1:])
