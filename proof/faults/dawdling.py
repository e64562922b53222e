"""A launcher of `uponce` that takes its time between the bytes and the commit on PostgreSQL, for faults to strike."""

import asyncio
from typing import Any

from uponce.adapters.database.postgres import PostgresDatabase
from uponce.cli import main

_SECONDS = 0.1

_commit = PostgresDatabase.commit


async def commit_late(self: PostgresDatabase, *arguments: Any) -> Any:
    await asyncio.sleep(_SECONDS)
    return await _commit(self, *arguments)


PostgresDatabase.commit = commit_late  # type: ignore[assignment]

if __name__ == "__main__":
    main()
