"""A launcher of `uponce` that answers its callers and commits a moment later."""

import time
from collections.abc import Sequence
from typing import Any

from uponce.adapters.database.committer import Committer, Queued
from uponce.adapters.database.steps import Rules
from uponce.cli import main

_WINDOW_SECONDS = 0.1

_transact = Committer._transact


def answer_then_commit(self: Committer, group: list[Queued]) -> None:
    engine: Any = self._engine
    run_all = engine._run_all

    def answered(session: Any, operations: Sequence[Any], *limits: Any) -> Any:
        outcomes = run_all(session, operations, *limits)
        # A start claims the storage, and reads back what it wrote: without these answers no server would start.
        if not any(each.rules is Rules.OWN for each in operations):
            callers = {id(each.operation): each for each in group}
            self._answer([callers[id(each)] for each in operations], outcomes)
            time.sleep(_WINDOW_SECONDS)
        return outcomes

    engine._run_all = answered
    try:
        _transact(self, group)
    finally:
        engine._run_all = run_all


# At import, not under the guard: worker processes import this file and never run it.
Committer._transact = answer_then_commit  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
