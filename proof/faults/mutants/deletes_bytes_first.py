"""A launcher of `uponce` whose deletions let the bytes go first, and a moment later the row."""

import asyncio
from typing import Any

from proof.faults.bytes_first import bytes_first
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.app import signed_calls
from uponce.cli import main

_SECONDS = 0.1

_delete = PostgresDatabase.delete


async def delete_late(self: PostgresDatabase, *arguments: Any) -> Any:
    await asyncio.sleep(_SECONDS)
    return await _delete(self, *arguments)


PostgresDatabase.delete = delete_late  # type: ignore[assignment]
signed_calls._delete = bytes_first

if __name__ == "__main__":
    main()
