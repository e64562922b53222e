"""A launcher of `uponce` with the commit that everybody writes first: look, then insert. For the race to find out."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.app.ports import Candidate, Committed, Draft, Records, Steps
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


@cache  # the uploads of a group take the same steps
def without_limit(steps: Steps[Any]) -> Steps[Any]:
    """The steps look, as they do anyway, and the commit inserts whatever became of the row meanwhile."""

    def steps_without_limit(arrivals: Sequence[Any], records: Records) -> Sequence[Any]:
        made = steps(arrivals, records)
        time.sleep(_WINDOW_SECONDS)
        return [_unlimited(each) if isinstance(each, Candidate) else each for each in made]

    return steps_without_limit


def _unlimited(candidate: Candidate) -> Candidate:
    return replace(candidate, grant=replace(candidate.grant, max_uses=UNLIMITED_USES))


def looking_in_steps(insert: Any) -> Any:
    async def look_then_insert(self: Any, arrival: Any, steps: Steps[Any], most_refusals: int) -> Committed:
        committed: Committed = await insert(self, arrival, without_limit(steps), most_refusals)
        return committed

    return look_then_insert


# At import, not under the guard: worker processes import this file and never run it.
SqliteDatabase.commit = looking_first(SqliteDatabase.commit)  # type: ignore[method-assign, assignment]
SqliteDatabase.commit_arrival = looking_in_steps(SqliteDatabase.commit_arrival)  # type: ignore[method-assign]
PostgresDatabase.commit_arrival = looking_in_steps(PostgresDatabase.commit_arrival)  # type: ignore[method-assign]
PostgresDatabase.commit = looking_first(PostgresDatabase.commit)  # type: ignore[method-assign, assignment]

if __name__ == "__main__":
    main()
