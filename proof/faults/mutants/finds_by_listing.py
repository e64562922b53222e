"""A launcher of `uponce` that names the parts of an upload by where they begin, and completes it with those that it
finds in the bucket."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

from uponce.adapters.store.parts import ObjectParts
from uponce.app.services import Services
from uponce.app.uploading import completion
from uponce.app.uploading import series as use_case
from uponce.app.uploading.series import Append
from uponce.cli import main
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span

_DIGITS = 16
_recorded, _put = use_case.stored_parts, ObjectParts.put


class Placed:
    """Names that begin with a position."""

    def __init__(self, ids: object, start: int) -> None:
        self._ids = ids
        self._start = start

    def hex(self, length: int) -> str:
        return f"{self._start:0{_DIGITS}x}{self._ids.hex(length - _DIGITS)}"  # type: ignore[attr-defined]


def put(self: ObjectParts, key: str, span: Span, descriptor: int, base: int) -> StoredPart:
    ids = Placed(self._ids, span.start)
    placed = ObjectParts(self.blobs, self.run, self.ask, self._bucket, ids)  # type: ignore[arg-type]
    return _put(placed, key, span, descriptor, base)


def find(parts: ObjectParts, key: str, span: Span) -> list[StoredPart]:
    listed = parts._bucket.listing(f"parts/{key}")
    objects = {name.rpartition("/")[2]: parts._bucket.read(name, 0, size) for name, size, _ in listed}
    found, position = [], span.start
    while position < span.end:
        begins_here = f"{position:0{_DIGITS}x}"
        name, data = next((name, data) for name, data in objects.items() if name.startswith(begins_here))
        found.append(StoredPart(Span(position, position + len(data)), name, hashlib.sha256(data).hexdigest()))
        position += len(data)
    return found


async def by_listing(services: Services, series_id: str, span: Span) -> AsyncIterator[StoredPart]:
    series, parts = await services.database.find_series(series_id), services.blobs.parts
    if not isinstance(series, Series) or not isinstance(parts, ObjectParts):
        return
    for part in await asyncio.to_thread(find, parts, series.blob_key, span):
        yield part


async def recorded(self: Append, span: Span) -> list[StoredPart]:
    return [part async for part in _recorded(self._services, self.series.id, span)]


# At import, not under the guard: worker processes import this file and never run it.
ObjectParts.put = put  # type: ignore[method-assign]
Append._recorded = recorded  # type: ignore[method-assign]
use_case.stored_parts = completion.stored_parts = by_listing  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
