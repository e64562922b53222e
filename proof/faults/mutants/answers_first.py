"""A launcher of `uponce` that answers its callers and commits a moment later."""

import time
from collections.abc import Sequence
from typing import Any

from uponce.adapters.database.committer import Committer, Waiting, _operation
from uponce.adapters.database.steps import Rules
from uponce.cli import main

_WINDOW_SECONDS = 0.1


def answer_then_commit(self: Committer, group: list[Waiting]) -> None:
    self._fill(group)
    self._take_steps(group)
    self._put_back(group)
    if not group:
        return
    engine: Any = self._engine
    run_all = engine._run_all
    # A start claims the storage, and reads back what it wrote: without these answers no server would start.
    is_true = any(_operation(each).rules is Rules.OWN for each in group)

    def answered(session: Any, operations: Sequence[Any]) -> Any:
        outcomes = run_all(session, operations)
        if not is_true:
            self._answer(group, outcomes)
            time.sleep(_WINDOW_SECONDS)
        return outcomes

    engine._run_all = answered
    try:
        outcomes = engine.transact([_operation(each) for each in group], lambda: ())
    finally:
        engine._run_all = run_all
    if is_true:
        self._answer(group, outcomes)


# At import, not under the guard: worker processes import this file and never run it.
Committer._transact = answer_then_commit  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
