"""A launcher of `uponce` with the commit that everybody writes first: look, then insert. For the race to find out."""

import asyncio
from dataclasses import replace

from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.app.ports import Committed, Draft
from uponce.cli import main
from uponce.core.refusals import refusal_of
from uponce.core.values import UNLIMITED_USES, Caller, Grant

_WINDOW_SECONDS = 0.01

_insert = SqliteDatabase.commit


async def look_then_insert(self: SqliteDatabase, grant: Grant, draft: Draft, caller: Caller) -> Committed:
    record = await self.find_grant(grant.key)
    refusal = record and refusal_of(record, 1)
    if refusal:
        raise refusal
    await asyncio.sleep(_WINDOW_SECONDS)
    return await _insert(self, replace(grant, max_uses=UNLIMITED_USES), draft, caller)


# At import, not under the guard: worker processes import this file and never run it.
SqliteDatabase.commit = look_then_insert  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
