"""A launcher of `uponce` that answers its callers and commits a moment later."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from uponce.adapters.database.postgres import commits
from uponce.adapters.database.sqlite.writer import Waiting, Writer, _attempt
from uponce.cli import main

_WINDOW_SECONDS = 0.1


def answer_then_commit(self: Writer, batch: list[Waiting]) -> None:
    self._prepare(batch)
    connection = self._begin()
    self._answer(batch, [_attempt(connection, waiting.job) for waiting in batch])
    time.sleep(_WINDOW_SECONDS)
    connection.execute("COMMIT")


_decide = commits._decide


async def decide_then_answer(connection: Any, batch: Sequence[commits.Waiting], moment: Any) -> Any:
    outcomes = await _decide(connection, batch, moment)
    for waiting, outcome in zip(batch, outcomes, strict=True):
        commits._answer(waiting, outcome)
    await asyncio.sleep(_WINDOW_SECONDS)
    return outcomes


# At import, not under the guard: worker processes import this file and never run it.
Writer._transact = answer_then_commit  # type: ignore[method-assign]
commits._decide = decide_then_answer

if __name__ == "__main__":
    main()
