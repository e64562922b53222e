"""A launcher of `uponce` that forgets a grant one window after it was used, whatever its timestamp says."""

import sqlite3

from uponce.adapters.database.sqlite import ledger
from uponce.cli import main

_WINDOW_SECONDS = 3600


def forget(connection: sqlite3.Connection, now: float, rows: int) -> int:
    return connection.execute(
        "DELETE FROM grants WHERE spent_at + :window < :now", {"now": now, "window": _WINDOW_SECONDS}
    ).rowcount


ledger.purge = forget

if __name__ == "__main__":
    main()
