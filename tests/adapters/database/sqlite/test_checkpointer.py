"""What moves committed pages to the database file beside the commits, and what becomes of its failures."""

import shutil
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.contract.databases import KEY, PlainBox, SteppedClock, attempt, draft, grant, open_sqlite, run
from uponce.adapters.database.sqlite import SqliteDatabase, connection
from uponce.adapters.database.sqlite.connection import COMMITS_PER_CHECKPOINT, Checkpointer, Connection, Held, connect

WAIT_SECONDS = 60


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "uponce.db"
    path.touch()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (x)")
    return path


class Told(Connection):
    """Tells when a checkpoint is over; the first `failures` of them fail."""

    over = threading.Semaphore(0)
    failures = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if "wal_checkpoint" not in sql:
            return super().execute(sql, parameters)
        try:
            if Told.failures:
                Told.failures -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, parameters)
        finally:
            Told.over.release()


@pytest.fixture
def checkpointer(path: Path) -> Checkpointer:
    Told.over, Told.failures = threading.Semaphore(0), 0
    return Checkpointer(Held(path, lambda: connect(path, factory=Told)))


def committed(path: Path, checkpointer: Checkpointer, count: int) -> Connection:
    """A connection that has committed so often, and noted it."""
    connection = connect(path)
    for number in range(count):
        connection.execute("INSERT INTO t VALUES (?)", (number,))
        checkpointer.note_commit()
    return connection


def pages_left(path: Path) -> int:
    """Pages of the log that are not in the database file, by the index of the log (walformat.html, 2.1 and 2.2)."""
    header = (path.parent / f"{path.name}-shm").read_bytes()[:136]
    in_log, moved = int.from_bytes(header[16:20], "little"), int.from_bytes(header[96:100], "little")
    return in_log - moved


def wait_until(holds: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT_SECONDS
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def end_when_moved(path: Path, checkpointer: Checkpointer, writer: Connection) -> None:
    assert wait_until(lambda: pages_left(path) == 0)
    checkpointer.close()
    writer.close()


def test_pages_are_moved_after_so_many_commits(path: Path, checkpointer: Checkpointer) -> None:
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT - 1)
    before = pages_left(path)
    assert before >= COMMITS_PER_CHECKPOINT - 1  # nothing was due yet, and no commit moved them itself
    writer.execute("INSERT INTO t VALUES (0)")
    checkpointer.note_commit()
    end_when_moved(path, checkpointer, writer)


def test_it_goes_on_after_a_failure_and_reports_it_once(
    path: Path, checkpointer: Checkpointer, caplog: pytest.LogCaptureFixture
) -> None:
    """No commit fails meanwhile, and the log grows."""
    Told.failures = 2
    writer = committed(path, checkpointer, 0)
    for _ in range(3):
        writer.execute("INSERT INTO t VALUES (0)")
        for _ in range(COMMITS_PER_CHECKPOINT):
            checkpointer.note_commit()
        assert Told.over.acquire(timeout=WAIT_SECONDS)
    end_when_moved(path, checkpointer, writer)
    (line,) = caplog.messages
    assert "uponce.db-wal" in line and "disk I/O error" in line


def test_it_begins_later_where_no_thread_could_start(
    path: Path, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commit is done, so its caller must not learn of a failure."""

    def no_thread() -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(checkpointer._thread, "start", no_thread)
        committed(path, checkpointer, COMMITS_PER_CHECKPOINT).close()
    end_when_moved(path, checkpointer, committed(path, checkpointer, COMMITS_PER_CHECKPOINT))


def test_the_log_of_another_file_is_not_moved_into_the_old_one(path: Path, checkpointer: Checkpointer) -> None:
    """An operator put a copy in the place of the file, and left the log where it is."""
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
    assert Told.over.acquire(timeout=WAIT_SECONDS)
    writer.close()
    old = path.with_name("old.db")
    shutil.copy(path, path.with_name("copy.db"))
    path.rename(old)
    path.with_name("copy.db").rename(path)
    before = old.read_bytes()
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
    assert Told.over.acquire(timeout=WAIT_SECONDS)
    end_when_moved(path, checkpointer, writer)
    assert old.read_bytes() == before
    with closing(sqlite3.connect(path)) as reader:
        assert reader.execute("SELECT count(*) FROM t").fetchone()[0] == 2 * COMMITS_PER_CHECKPOINT


def test_nothing_is_moved_while_no_file_has_the_name(path: Path, checkpointer: Checkpointer) -> None:
    writer = committed(path, checkpointer, 1)
    path.rename(path.with_name("old.db"))
    for _ in range(COMMITS_PER_CHECKPOINT - 1):
        checkpointer.note_commit()
    path.with_name("old.db").rename(path)
    for _ in range(COMMITS_PER_CHECKPOINT):
        checkpointer.note_commit()
    assert Told.over.acquire(timeout=WAIT_SECONDS)
    end_when_moved(path, checkpointer, writer)


def test_each_commit_of_the_database_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[None] = []
    monkeypatch.setattr(Checkpointer, "note_commit", lambda _: noted.append(None))
    database = open_sqlite(path.with_name("other.db"))
    run(database.add_key(KEY))
    assert len(noted) == 1
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"
    assert len(noted) == 2
    database.close()


class Durable(Told):
    """Tells its synchronous level when it is closed."""

    levels: ClassVar[list[int]] = []

    def close(self) -> None:
        Durable.levels += self.execute("PRAGMA synchronous").fetchone()
        super().close()


def test_every_connection_of_a_database_is_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that commits, one that moves pages, and those that read: SQLite moves pages with the last one it closes."""
    monkeypatch.setattr(connection, "COMMITS_PER_CHECKPOINT", 1)
    monkeypatch.setattr(Durable, "levels", [])
    monkeypatch.setattr(Told, "over", threading.Semaphore(0))
    made: list[Connection] = []

    def connected(path: Path) -> Connection:
        made.append(connect(path, factory=Durable))
        return made[-1]

    database = SqliteDatabase(path.with_name("other.db"), clock=SteppedClock(), secrets=PlainBox(), connect=connected)
    database.open()
    run(database.add_key(KEY))
    assert len(run(database.list_keys())) == 1
    assert Told.over.acquire(timeout=WAIT_SECONDS)
    database.close()
    assert len(made) >= 4
    full = 2
    assert Durable.levels == [full] * len(made)


class Slow(threading.Event):
    """Its `clear` waits until the checkpointer is closed."""

    def __init__(self, checkpointer: Checkpointer) -> None:
        super().__init__()
        self._checkpointer = checkpointer

    def clear(self) -> None:
        wait_until(lambda: self._checkpointer._closed)
        time.sleep(0.2)  # `close` also sets it
        super().clear()


def test_it_ends_if_it_is_closed_just_as_a_checkpoint_is_due(path: Path, checkpointer: Checkpointer) -> None:
    checkpointer._due = Slow(checkpointer)
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
    closing = threading.Thread(target=checkpointer.close, daemon=True)
    closing.start()
    closing.join(WAIT_SECONDS)
    assert not closing.is_alive()
    writer.close()


def test_it_ends_when_told_also_if_nothing_was_due(path: Path, checkpointer: Checkpointer) -> None:
    Checkpointer(Held(path, lambda: connect(path))).close()
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
    assert checkpointer._thread.is_alive()
    checkpointer.close()
    assert not checkpointer._thread.is_alive()
    writer.close()
