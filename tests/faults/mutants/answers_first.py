"""A launcher of `uponce` whose writer answers its callers and commits a moment later."""

import time

from uponce.adapters.database.sqlite.writer import Waiting, Writer, _attempt
from uponce.cli import main

_WINDOW_SECONDS = 0.1


def answer_then_commit(self: Writer, batch: list[Waiting]) -> None:
    connection = self._begin()
    self._fill(batch)
    self._answer(batch, [_attempt(connection, waiting.job) for waiting in batch])
    time.sleep(_WINDOW_SECONDS)
    connection.execute("COMMIT")


# At import, not under the guard: worker processes import this file and never run it.
Writer._transact = answer_then_commit  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
