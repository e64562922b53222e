"""Several processes write to one file, and each waits for the transaction of another."""

import sqlite3
from contextlib import nullcontext
from pathlib import Path

import pytest

from tests.contract.databases import PlainBox, SteppedClock
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite import connection as opened
from uponce.adapters.database.sqlite.connection import begin, connect


@pytest.mark.parametrize("ends_after", [0.001, 0.3, 60])
def test_a_writer_asks_again_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ends_after: float) -> None:
    """Also after the other process had the lock for long, and for five seconds at most."""
    database = SqliteDatabase(tmp_path / "u.db", clock=SteppedClock(), secrets=PlainBox())
    database.open()
    database.close()
    other, writer = connect(tmp_path / "u.db"), connect(tmp_path / "u.db")
    now = 0.0

    def sleep(seconds: float) -> None:
        nonlocal now
        assert writer.execute("PRAGMA busy_timeout").fetchone()[0] == 0  # SQLite would sleep for longer
        now += seconds
        if now >= ends_after:
            other.rollback()

    monkeypatch.setattr(opened, "monotonic", lambda: now)
    monkeypatch.setattr(opened, "sleep", sleep)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked") if ends_after > 5 else nullcontext():
        begin(writer)
    late = now - min(ends_after, 5)
    assert 0 <= late <= 0.0002 + min(ends_after, 1) / 50
    assert writer.in_transaction is (ends_after < 5)
    assert writer.execute("PRAGMA busy_timeout").fetchone()[0] == 5000
    other.close()
    writer.close()
