"""A launcher of `uponce` that forgets grants when their time is over, but not that it forgot."""

import sqlite3

from uponce.adapters.database.sqlite import ledger
from uponce.cli import main


def forget(connection: sqlite3.Connection, now: float, rows: int) -> int:
    return connection.execute("DELETE FROM grants WHERE keep_until < :now", {"now": now}).rowcount


ledger.purge = forget

if __name__ == "__main__":
    main()
