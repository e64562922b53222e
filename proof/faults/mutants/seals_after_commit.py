"""A launcher of `uponce` that commits a group first, and only then makes its bytes durable, before it answers."""

from collections.abc import Sequence
from typing import Any

from uponce.adapters.database.sqlite.connection import Engine
from uponce.adapters.store import packs
from uponce.cli import main

_transact = Engine.transact


def commit_then_seal(self: Engine, *group: Any) -> Sequence[Any]:
    late, self.late = self.late, None
    try:
        outcomes = _transact(self, *group)
    finally:
        self.late = late
    if late is not None:
        late.seal()
    return outcomes


# At import, not under the guard: worker processes import this file and never run it.
Engine.transact = commit_then_seal  # type: ignore[method-assign, assignment]
# On an idle disk a write that has only been started is over before the power is cut.
packs.start_writeback = lambda *_: None  # type: ignore[attr-defined]

if __name__ == "__main__":
    main()
