"""Copies of a database, as `uponce backup` makes them: what is refused is closed at once, what hangs is ended."""

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest

from tests.adapters.descriptors import links
from tests.contract.databases import KEY, attempt, draft, grant, open_sqlite, run
from uponce.adapters.database.sqlite import snapshot
from uponce.adapters.database.sqlite.snapshot import Snapshot
from uponce.core.errors import SettingRefused


@pytest.mark.parametrize("what", ["no database", "a database that takes writes"])
def test_a_file_that_is_no_copy_is_closed_at_once(tmp_path: Path, what: str) -> None:
    """Not when the garbage collector comes to it: since Python 3.13 that is a warning."""
    path = tmp_path / "uponce.db"
    if what == "no database":
        path.write_bytes(b"no database" * 1000)
    else:
        open_sqlite(path).close()
    with pytest.raises(SettingRefused) as refusal:  # which keeps the frames, and so all that they have
        Snapshot(path)
    assert links(path) == [], refusal


HANGING_COPY = """
import sys, threading
from pathlib import Path
from uponce.adapters.database.sqlite import snapshot
snapshot._SILENT_SECONDS = 1
snapshot.take(Path(sys.argv[1]), Path(sys.argv[2]), lambda *_: threading.Event().wait())
"""


CHECKPOINT = """
import sqlite3, sys
server = sqlite3.connect(sys.argv[1], isolation_level=None)
server.execute("INSERT INTO noted_settings VALUES ('name', 'value')")
print(server.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone())
"""


def test_a_copy_whose_target_hangs_ends_its_process_and_lets_the_live_log_shrink(tmp_path: Path) -> None:
    """A network share may hang for days. While the copy reads, no checkpoint can empty the log of the live database."""
    live, target = tmp_path / "uponce.db", tmp_path / "backup" / "uponce.db"
    open_sqlite(live).close()
    with closing(sqlite3.connect(live, isolation_level=None)) as server:
        server.execute("INSERT INTO noted_settings VALUES ('name', 'value')")
        command = [sys.executable, "-c", HANGING_COPY, str(live), str(target)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 1
        assert f"The copy of the database to {target} has not moved for 1 seconds" in done.stderr
        assert server.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone() == (0, 0, 0)


def test_a_process_that_its_disk_does_not_let_go_keeps_no_lock_on_the_live_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of a process waits for each thread, and a thread in a write for the disk."""
    live, ended, answers = tmp_path / "uponce.db", threading.Event(), threading.Event()
    open_sqlite(live).close()
    monkeypatch.setattr(snapshot, "_SILENT_SECONDS", 1)
    monkeypatch.setattr(os, "_exit", lambda _: ended.set())
    copy = threading.Thread(target=snapshot.take, args=(live, tmp_path / "copy.db", lambda *_: answers.wait()))
    command = [sys.executable, "-c", CHECKPOINT, str(live)]  # in the same process SQLite knows of the reader
    copy.start()
    try:
        assert ended.wait(60)
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "(0, 0, 0)\n"
    finally:
        answers.set()
        copy.join()


def test_a_restore_from_a_share_that_hangs_asks_it_for_nothing_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its source is the backup, which no server uses. To open a file there would hang too."""
    copy, ended, answers = tmp_path / "copy.db", threading.Event(), threading.Event()
    asked: list[str] = []
    open_sqlite(tmp_path / "uponce.db").close()
    snapshot.take(tmp_path / "uponce.db", copy, lambda *_: None)
    monkeypatch.setattr(snapshot, "_SILENT_SECONDS", 1)
    monkeypatch.setattr(os, "_exit", lambda _: ended.set())
    opened = os.open

    def noted(path: str | Path, *rest: int) -> int:
        asked.append(str(path))
        return opened(path, *rest)

    monkeypatch.setattr(os, "open", noted)
    restore = threading.Thread(target=snapshot._copy, args=(copy, tmp_path / "draft.db", lambda *_: answers.wait()))
    restore.start()
    try:
        assert ended.wait(60)
    finally:
        answers.set()
        restore.join()
    assert str(tmp_path / "draft.db") in asked
    assert [path for path in asked if path.endswith("-shm")] == []


def test_each_step_of_a_copy_puts_its_end_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of terabytes may take a day."""
    noted: list[bool] = []

    class Noting(SimpleQueue[bool]):
        def put(self, item: bool, block: bool = True, timeout: float | None = None) -> None:
            noted.append(item)
            super().put(item)

    monkeypatch.setattr(snapshot, "SimpleQueue", Noting)
    monkeypatch.setattr(snapshot, "_PAGES", 5)
    open_sqlite(tmp_path / "uponce.db").close()
    steps: list[int] = []
    snapshot.take(tmp_path / "uponce.db", tmp_path / "copy.db", lambda pages, _: steps.append(pages))
    assert len(steps) > 3
    assert noted == [True] * len(steps) + [False]


def spoil_index(path: Path, index: str, old: bytes, new: bytes) -> None:
    """Change the one entry, as a disk does it. Each page keeps its structure, and the table is whole."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        ((page,),) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (index,))
        ((size,),) = connection.execute("PRAGMA page_size")
    data = path.read_bytes()
    entries = data[(page - 1) * size : page * size]
    assert entries.count(old) == 1
    path.write_bytes(data.replace(entries, entries.replace(old, new)))


BLOB_KEYS = "sqlite_autoindex_assets_2"  # the index by which a sweep finds what no asset names


def test_an_index_that_lies_is_refused_with_its_cure(tmp_path: Path) -> None:
    """Else each nightly copy gets it, until a restore refuses them all."""
    live, copy, next_copy = (tmp_path / name for name in ("uponce.db", "copy.db", "next.db"))
    database = open_sqlite(live)
    run(database.add_key(KEY))
    assert run(attempt(database, grant("a"), draft(blob="blob-cat"))) == "ok"
    database.close()

    def take(path: Path) -> None:
        snapshot.take(live, path, lambda *_: None)

    def check(path: Path) -> None:
        with closing(Snapshot(path)) as taken:
            taken.check()

    take(copy)
    for spoilt, reads in ((live, partial(take, next_copy)), (copy, partial(check, copy))):
        spoil_index(spoilt, BLOB_KEYS, b"blob-cat", b"blob-rat")
        with pytest.raises(
            SettingRefused, match=rf'is damaged: .* missing from index .*Run: sqlite3 "{spoilt}" "REINDEX assets"'
        ):
            reads()
        with closing(sqlite3.connect(spoilt)) as connection:
            connection.execute("REINDEX assets")
        reads()


def test_no_index_of_the_ledger_is_made_anew(tmp_path: Path) -> None:
    """The index may be right and the row wrong. Made of the row, it would let a spent signature in."""
    path = tmp_path / "uponce.db"
    database = open_sqlite(path)
    run(database.add_key(KEY))
    assert run(attempt(database, grant("a"), draft(blob="blob-cat"))) == "ok"
    database.close()
    spoil_index(path, "grants_page", b"demo", b"demi")
    with pytest.raises(SettingRefused, match=r"is damaged: .* index grants_page.* [Rr]estore ") as refused:
        snapshot.take(path, tmp_path / "copy.db", lambda *_: None)
    assert "REINDEX" not in str(refused.value)
