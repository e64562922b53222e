"""A launcher of `uponce` with the commit that everybody writes first: look, then insert. For the race to find out."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from uponce.adapters.database import ledger
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.app.ports import Candidate, Committed, Draft, Refusal
from uponce.app.uploading.pipeline import Pipeline
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


def look_then_insert_all(self: Any, arrivals: Sequence[Any], records: Any) -> Sequence[Any]:
    """Do the same in the steps of a group, which come before its transaction."""
    looked = [_looked(each, records) for each in steps(self, arrivals, records)]
    time.sleep(_WINDOW_SECONDS)
    return looked


def _looked(made: Any, records: Any) -> Any:
    if not isinstance(made, Candidate):
        return made
    record = records._run(ledger.find(made.grant.key))
    refusal = record and refusal_of(record, 1)
    if refusal:
        return Refusal(made.grant, made.caller, refusal)
    return replace(made, grant=replace(made.grant, max_uses=UNLIMITED_USES))


# At import, not under the guard: worker processes import this file and never run it.
steps, Pipeline.steps = Pipeline.steps, look_then_insert_all  # type: ignore[method-assign]
SqliteDatabase.commit = looking_first(SqliteDatabase.commit)  # type: ignore[assignment]
PostgresDatabase.commit = looking_first(PostgresDatabase.commit)  # type: ignore[assignment]

if __name__ == "__main__":
    main()
