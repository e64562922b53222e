"""A launcher of `uponce` that records a part of an upload, and puts it into the bucket a moment later."""

import asyncio
import hashlib
import os

from uponce.adapters.store.parts import ObjectParts
from uponce.app.uploading.series import Append
from uponce.cli import main
from uponce.core.formats import BINARY
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span

_WINDOW_SECONDS = 0.1
_owed: dict[str, tuple[ObjectParts, str, int, Span]] = {}


def promise(self: ObjectParts, key: str, span: Span, descriptor: int, base: int) -> StoredPart:
    name, where = self._ids.hex(32), Span(span.start - base, span.end - base)
    _owed[name] = self, f"parts/{key}/{name}", os.dup(descriptor), where
    return StoredPart(span, name, hashlib.sha256(os.pread(descriptor, where.size, where.start)).hexdigest())


def put(name: str) -> None:
    parts, path, descriptor, where = _owed.pop(name)
    try:
        parts._bucket.upload(path, descriptor, where, BINARY)
    finally:
        os.close(descriptor)


async def record_then_put(self: Append) -> Series:
    span = Span(self._chunk.span.start + self._kept, self._chunk.span.start + self.size)
    parts = await self._part.sync(await self._recorded(span))
    self.series = await self._services.database.record_span(self.series.id, span, self._chunk.total, parts)
    await asyncio.sleep(_WINDOW_SECONDS)
    for part in parts:
        await asyncio.to_thread(put, part.name)
    self._part.keep()
    self._kept = self.size
    return self.series


# At import, not under the guard: worker processes import this file and never run it.
ObjectParts.put = promise  # type: ignore[method-assign]
Append.keep = record_then_put  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
