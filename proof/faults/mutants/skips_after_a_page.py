"""`uponce` that leaves out the first item of each page but the first one: of assets, and of the parts of an upload."""

from collections.abc import AsyncIterator

from uponce.adapters.database import catalog
from uponce.app.services import Services
from uponce.app.uploading import completion
from uponce.app.uploading import series as use_case
from uponce.cli import main
from uponce.core.series import StoredPart
from uponce.core.spans import Span

id_of, stored_parts = catalog._id_of, use_case.stored_parts


def _id_behind(cursor: str | None) -> int:
    return id_of(cursor) - (cursor is not None)


async def _without_some(services: Services, series_id: str, span: Span) -> AsyncIterator[StoredPart]:
    number = 0
    async for part in stored_parts(services, series_id, span):
        number += 1
        if number == 1 or number % use_case._PARTS != 1:
            yield part


catalog._id_of = _id_behind
use_case.stored_parts = completion.stored_parts = _without_some  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
