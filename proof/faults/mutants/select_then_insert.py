"""A launcher of `uponce` with the commit that everybody writes first: look, then insert. For the race to find out."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.app.ports import Committed, Draft
from uponce.cli import main
from uponce.core.refusals import refusal_of
from uponce.core.values import UNLIMITED_USES, Caller, Grant

_WINDOW_SECONDS = 0.01

Commit = Callable[[Any, Grant, Draft, Caller], Awaitable[Committed]]


def looking_first(insert: Commit) -> Commit:
    async def look_then_insert(self: Any, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        record = await self.find_grant(grant.key)
        refusal = record and refusal_of(record, 1)
        if refusal:
            raise refusal
        await asyncio.sleep(_WINDOW_SECONDS)
        return await insert(self, replace(grant, max_uses=UNLIMITED_USES), draft, caller)

    return look_then_insert


# At import, not under the guard: worker processes import this file and never run it.
# In a group one thread looks and commits, so all are streamed. tests/contract has the same mistake in groups.
os.environ["UPONCE_SMALL_BODY_BYTES"] = "0"
SqliteDatabase.commit = looking_first(SqliteDatabase.commit)  # type: ignore[assignment]
PostgresDatabase.commit = looking_first(PostgresDatabase.commit)  # type: ignore[assignment]

if __name__ == "__main__":
    main()
