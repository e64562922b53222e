"""`dawdling` that commits what a sweep has condemned meanwhile: a row whose bytes are gone."""

from collections.abc import Collection
from typing import Any

import proof.faults.dawdling  # noqa: F401
from uponce.adapters.database.postgres import catalog
from uponce.cli import main


async def none_of(asked: Any) -> Collection[str]:
    await asked.fetchall()
    return ()


catalog.condemned_among = none_of

if __name__ == "__main__":
    main()
