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
from uponce.adapters.database.sqlite import SqliteDatabase, connection, file
from uponce.adapters.database.sqlite.connection import COMMITS_PER_CHECKPOINT, Connection, HeldConnection, connect
from uponce.adapters.database.sqlite.file import Checkpointer

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
    """Signals when a checkpoint is over; the first `failures` of them fail.

    `left` has the pages that were not moved when each of them began.
    """

    over = threading.Semaphore(0)
    failures = 0
    path = Path()
    left: ClassVar[list[int]] = []

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if "wal_checkpoint" not in sql:
            return super().execute(sql, parameters)
        Told.left.append(pages_left(Told.path))
        try:
            if Told.failures:
                Told.failures -= 1
                raise sqlite3.OperationalError("disk I/O error")
            return super().execute(sql, parameters)
        finally:
            Told.over.release()


@pytest.fixture
def checkpointer(path: Path) -> Checkpointer:
    Told.over, Told.failures, Told.path, Told.left = threading.Semaphore(0), 0, path, []
    return Checkpointer(HeldConnection(path, lambda: connect(path, factory=Told)), path.parent)


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


def a_round_ends(checkpointer: Checkpointer) -> bool:
    """Until then, another commit makes nothing due."""
    return Told.over.acquire(timeout=WAIT_SECONDS) and wait_until(lambda: not checkpointer._due.is_set())


def move_all(path: Path) -> None:
    """As the thread of another process does."""
    with closing(connect(path)) as other:
        other.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
    assert pages_left(path) == 0


def test_no_checkpoint_begins_while_every_page_is_moved(path: Path, checkpointer: Checkpointer) -> None:
    """Or SQLite up to 3.51.2 could lose the commit that begins the log again at this moment."""
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT - 1)
    for _ in range(3):
        move_all(path)
        checkpointer.commits = 0
        for _ in range(COMMITS_PER_CHECKPOINT + 2):
            checkpointer.note_commit()  # of transactions without a change: they leave no page
        assert a_round_ends(checkpointer)
    end_when_moved(path, checkpointer, writer)
    assert len(Told.left) >= 3 and 0 not in Told.left


def test_no_checkpoint_begins_beside_that_of_another_process(path: Path, checkpointer: Checkpointer) -> None:
    """It has the lock of the folder, from before the commit that leaves a page until its checkpoint ends."""
    with file.locked(path.parent):
        writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
        assert wait_until(lambda: not checkpointer._due.is_set())
        checkpointer.is_long = True
        checkpointer.finish(writer)
        assert checkpointer.is_long
        assert Told.left == []
    for _ in range(COMMITS_PER_CHECKPOINT):
        checkpointer.note_commit()
    end_when_moved(path, checkpointer, writer)


def pages_in(path: Path) -> int:
    """Pages of the log, also those that were moved."""
    return int.from_bytes((path.parent / f"{path.name}-shm").read_bytes()[16:20], "little")


def test_the_log_begins_again_though_commits_never_pause(
    path: Path, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread alone always leaves the pages of the last commits."""
    monkeypatch.setattr(file, "LONG_LOG_PAGES", 2 * COMMITS_PER_CHECKPOINT)
    writer, most, begun_again, before = connect(path), 0, 0, 0
    end = time.monotonic() + WAIT_SECONDS
    while begun_again < 3 and time.monotonic() < end:
        if is_long := checkpointer.is_long:
            checkpointer.finish(writer)
        writer.execute("INSERT INTO t VALUES (1)")
        checkpointer.note_commit()
        now = pages_in(path)
        # A writer that the machine holds up is a pause: the thread moves all pages, and a short log begins again.
        most, begun_again, before = max(most, now), begun_again + (is_long and now < before), now
    checkpointer.close()
    writer.close()
    assert begun_again == 3
    assert most > 2 * COMMITS_PER_CHECKPOINT


def test_a_reader_that_needs_the_log_keeps_no_commit_waiting(
    path: Path, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When it ends, the thread moves what it needed, beside the commits."""
    monkeypatch.setattr(file, "LONG_LOG_PAGES", COMMITS_PER_CHECKPOINT // 2)
    writer = committed(path, checkpointer, 1)
    with closing(connect(path)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM t").fetchall()
        committed(path, checkpointer, COMMITS_PER_CHECKPOINT).close()
        assert Told.over.acquire(timeout=WAIT_SECONDS)
        assert wait_until(lambda: not checkpointer._due.is_set())
        assert not checkpointer.is_long
        reader.execute("COMMIT")
    for _ in range(COMMITS_PER_CHECKPOINT):
        checkpointer.note_commit()
    end_when_moved(path, checkpointer, writer)


def test_commits_move_the_log_where_no_thread_can_start(
    path: Path, checkpointer: Checkpointer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_thread() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(checkpointer._thread, "start", no_thread)
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
    assert checkpointer.is_long
    checkpointer.finish(writer)
    end_when_moved(path, checkpointer, writer)


def test_it_goes_on_after_a_failure_and_reports_it_once(
    path: Path, checkpointer: Checkpointer, caplog: pytest.LogCaptureFixture
) -> None:
    """No commit fails while checkpoints fail, and the log grows."""
    Told.failures = 2
    writer = committed(path, checkpointer, 0)
    for _ in range(3):
        writer.execute("INSERT INTO t VALUES (0)")
        for _ in range(COMMITS_PER_CHECKPOINT):
            checkpointer.note_commit()
        assert a_round_ends(checkpointer)
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
    assert a_round_ends(checkpointer)
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
    assert wait_until(lambda: not checkpointer._due.is_set())  # or what follows makes nothing due
    path.with_name("old.db").rename(path)
    for _ in range(COMMITS_PER_CHECKPOINT):
        checkpointer.note_commit()
    assert Told.over.acquire(timeout=WAIT_SECONDS)
    end_when_moved(path, checkpointer, writer)


def test_a_large_group_counts_as_many_commits(path: Path, checkpointer: Checkpointer) -> None:
    writer = committed(path, checkpointer, 0)
    for _ in range(8):
        assert pages_left(path) == 0
        writer.execute("INSERT INTO t VALUES (0)")
        checkpointer.note_commit(connection.OPERATIONS_PER_CHECKPOINT)
        assert a_round_ends(checkpointer)
        assert pages_left(path) == 0
    checkpointer.close()
    writer.close()


def test_each_commit_of_the_database_is_noted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[int] = []
    monkeypatch.setattr(Checkpointer, "note_commit", lambda _, operations: noted.append(operations))
    database = open_sqlite(path.with_name("other.db"))
    run(database.add_key(KEY))
    assert len(noted) == 1
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"
    assert len(noted) == 2
    database.close()


class Durable(Told):
    """Records its synchronous level when it is closed, and after how many pages its commits move pages."""

    levels: ClassVar[list[int]] = []
    moves: ClassVar[set[int]] = set()

    def close(self) -> None:
        Durable.levels += self.execute("PRAGMA synchronous").fetchone()
        Durable.moves |= set(self.execute("PRAGMA wal_autocheckpoint").fetchone())
        super().close()


def test_every_connection_of_a_database_is_durable(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that commits, one that moves pages, and those that read: SQLite moves pages with the last one it closes."""
    monkeypatch.setattr(connection, "COMMITS_PER_CHECKPOINT", 1)
    monkeypatch.setattr(Durable, "levels", [])
    monkeypatch.setattr(Durable, "moves", set())
    monkeypatch.setattr(Told, "over", threading.Semaphore(0))
    monkeypatch.setattr(Told, "path", path.with_name("other.db"))
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
    assert Durable.moves == {0}


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
    Checkpointer(HeldConnection(path, lambda: connect(path)), path.parent).close()
    writer = committed(path, checkpointer, COMMITS_PER_CHECKPOINT)
    assert checkpointer._thread.is_alive()
    checkpointer.close()
    assert not checkpointer._thread.is_alive()
    writer.close()
