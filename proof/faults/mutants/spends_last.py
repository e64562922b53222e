"""A launcher of `uponce` that spends one signature of an upload in chunks, as if all were the same."""

import sqlite3
from dataclasses import replace

from uponce.adapters.database.sqlite import series as tables
from uponce.cli import main
from uponce.core.series import Series

_spend = tables._spend


def spend_last(connection: sqlite3.Connection, series: Series, now: float) -> None:
    _spend(connection, replace(series, grants=series.grants[-1:]), now)


# At import, not under the guard: worker processes import this file and never run it.
tables._spend = spend_last

if __name__ == "__main__":
    main()
