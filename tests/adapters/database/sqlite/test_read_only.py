"""A file that cannot be written, and a connection that cannot write: of that time, of a reader, or without space."""

import asyncio
import errno
import os
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import PlainBox, SteppedClock, open_sqlite, run
from uponce.adapters.database.sqlite import SqliteDatabase, connection
from uponce.adapters.database.sqlite.connection import Connection, connect, unavailable
from uponce.adapters.files import has_no_room
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, SettingRefused, StorageFull, UponceError


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


class Quota(Connection):
    """It commits nothing, as on a file system whose quota is used up."""

    code = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql == "COMMIT" and Quota.code:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = Quota.code
            raise error
        return super().execute(sql, parameters)


@pytest.mark.parametrize(
    ("code", "is_used_up", "expected"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, True, StorageFull),
        (sqlite3.SQLITE_IOERR_WRITE, False, OutcomeUnknown),
        (sqlite3.SQLITE_IOERR_FSYNC, True, OutcomeUnknown),
        (sqlite3.SQLITE_IOERR_SHMSIZE, True, OutcomeUnknown),  # after the log was synced: recovery finds the commit
    ],
)
def test_a_quota_that_is_used_up_is_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, is_used_up: bool, expected: type[UponceError]
) -> None:
    """SQLite says so of ENOSPC only. A failed sync says nothing about the commit, on a full disk either."""
    database = SqliteDatabase(
        tmp_path / "uponce.db",
        clock=SteppedClock(),
        secrets=PlainBox(),
        connect=lambda path: connect(path, factory=Quota),
    )
    monkeypatch.setattr(Quota, "code", 0)
    database.open()
    monkeypatch.setattr(Quota, "code", code)
    monkeypatch.setattr(connection, "has_no_room", lambda folder: is_used_up and folder == tmp_path)
    with pytest.raises(expected):
        run(database.ping())
    monkeypatch.setattr(Quota, "code", 0)
    run(database.ping())
    database.close()


def test_a_disk_with_room_is_not_full(tmp_path: Path) -> None:
    assert not has_no_room(tmp_path)
    assert not has_no_room(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("uponce.adapters.files.write_all", refuse)
    assert has_no_room(tmp_path)


def test_sqlites_full_code_is_storage_full() -> None:
    memory = sqlite3.connect(":memory:")
    memory.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        memory.execute("CREATE TABLE t (x)")
    memory.close()
    assert isinstance(unavailable(caught.value), StorageFull)
