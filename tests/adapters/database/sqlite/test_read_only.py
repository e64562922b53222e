"""A file that cannot be written, and a connection that cannot write: of that time, of a reader, or without space."""

import asyncio
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.contract.databases import PlainBox, SteppedClock, open_sqlite, run
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite.connection import Connection, connect, unavailable
from uponce.core.errors import DatabaseUnavailable, SettingRefused, StorageFull


def deny_writing(action: int, name: str | None, value: str | None, *_: str | None) -> int:
    """Of all that a ping does, the write."""
    writes = action == sqlite3.SQLITE_PRAGMA and name == "user_version" and value is not None
    return sqlite3.SQLITE_DENY if writes else sqlite3.SQLITE_OK


def opener(frozen: list[bool]) -> Callable[[Path], Connection]:
    """Connections that can begin but never write when they were made while `frozen` says so, as SQLite's are."""

    def open_one(path: Path) -> Connection:
        connection = connect(path)
        if frozen[0]:
            connection.set_authorizer(deny_writing)
        return connection

    return open_one


@pytest.mark.parametrize("names", [["uponce.db"], ["uponce.db-wal", "uponce.db-shm"]])
def test_files_that_cannot_be_written_are_named_before_one_is_opened(
    tmp_path: Path, names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite would open them, and leave logs that cannot be written after the cure either."""
    open_sqlite(tmp_path / "uponce.db").close()
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).chmod(0o400)
    monkeypatch.setattr(os, "access", lambda file, _: bool(file.stat().st_mode & 0o200))  # as if this were not root
    named = " and ".join(str(tmp_path / name) for name in names)
    with pytest.raises(
        SettingRefused, match=rf"cannot write {re.escape(named)}\. Let the user of the server write these"
    ):
        open_sqlite(tmp_path / "uponce.db")
    assert {path.name for path in tmp_path.iterdir()} == {"uponce.db", "uponce.reserve", *names}


def test_a_log_that_another_process_deletes_at_that_moment_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sqlite(tmp_path / "uponce.db").close()
    (tmp_path / "uponce.db-wal").touch()

    def access(file: Path, _: int) -> bool:
        if file.name.endswith("-wal"):
            file.unlink()
        return file.exists()

    monkeypatch.setattr(os, "access", access)
    open_sqlite(tmp_path / "uponce.db").close()


def test_writing_works_again_once_the_file_can_be_written(tmp_path: Path) -> None:
    frozen = [False]
    database = SqliteDatabase(tmp_path / "uponce.db", clock=SteppedClock(), secrets=PlainBox(), connect=opener(frozen))
    database.open()
    frozen[0] = True

    async def live() -> None:
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        frozen[0] = False
        await database.ping()

    try:
        asyncio.run(live())
    finally:
        database.close()


def test_readers_cannot_write(tmp_path: Path) -> None:
    database = open_sqlite(tmp_path / "u.db")
    with pytest.raises(DatabaseUnavailable) as caught:
        run(database._readers.run(lambda connection: connection.execute("DELETE FROM grants")))
    assert "SQLITE_READONLY" in caught.value.detail
    database.close()


def test_sqlites_full_code_is_storage_full() -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert isinstance(unavailable(caught.value), StorageFull)
