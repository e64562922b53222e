"""What SQLite's failures mean: for a caller, and for the room on a disk."""

import errno
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import open_sqlite
from uponce.adapters.database.sqlite import connection
from uponce.adapters.database.sqlite.connection import (
    Engine,
    code_of,
    lacks_room,
    outcome_unknown,
    seen_full,
)
from uponce.core.errors import OutcomeUnknown, StorageFull


def failure(name: str, text: str = "disk I/O error") -> sqlite3.OperationalError:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = getattr(sqlite3, name)
    error.sqlite_errorname = name
    return error


@pytest.mark.parametrize(
    ("error", "without_room", "is_full"),
    [
        (failure("SQLITE_IOERR_WRITE"), True, True),
        (failure("SQLITE_IOERR_WRITE"), False, False),
        (failure("SQLITE_IOERR_FSYNC"), True, False),
        (OSError("gone"), True, False),
    ],
    ids=str,
)
def test_a_write_that_failed_is_a_full_disk_only_in_a_folder_without_room(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, error: Exception, without_room: bool, is_full: bool
) -> None:
    """A quota that is used up shows as such a write."""
    monkeypatch.setattr(connection, "has_no_room", {tmp_path: without_room}.__getitem__)
    seen = seen_full(error, tmp_path)
    assert (seen is error) is not is_full
    if is_full:
        assert code_of(seen) == sqlite3.SQLITE_FULL
        assert str(seen) == f"disk I/O error, and the quota of {tmp_path} is used up"


def test_a_full_disk_is_certain_and_any_other_failed_commit_is_not() -> None:
    full = outcome_unknown(failure("SQLITE_FULL", "database or disk is full"))
    assert isinstance(full, StorageFull)
    assert "database or disk is full (SQLITE_FULL)" in full.for_operator
    other = outcome_unknown(failure("SQLITE_IOERR_FSYNC"))
    assert isinstance(other, OutcomeUnknown)
    assert "disk I/O error (SQLITE_IOERR_FSYNC)" in other.for_operator


@pytest.mark.parametrize(
    ("error", "lacks"),
    [
        (OSError(errno.ENOSPC, "full"), True),
        (OSError(errno.EDQUOT, "quota"), True),
        (OSError(errno.EIO, "broken"), False),
        (failure("SQLITE_FULL"), True),
        (failure("SQLITE_IOERR_SHMSIZE"), True),
        (failure("SQLITE_IOERR_WRITE"), False),
        (ValueError("no code"), False),
    ],
    ids=str,
)
def test_a_disk_lacks_room_for_the_file_or_for_its_locks(error: Exception, lacks: bool) -> None:
    assert lacks_room(error) is lacks


def test_no_operation_of_sqlite_is_waited_for_without_its_transaction() -> None:
    """One lock is for all, so nothing is TAKEN; should it be, its transaction takes nothing along."""
    nothing: Any = None
    engine, asked = Engine(nothing, nothing, nothing, nothing), list[Any]()

    def transact(operations: Any, more: Any) -> Any:
        asked.append((operations, more()))
        return ["done"]

    engine.transact = transact  # type: ignore[method-assign]
    operations: Any = ["an operation"]
    assert engine.wait(operations, lambda: True) == ["done"]
    assert asked == [(operations, ())]


def test_another_connection_has_another_version_of_the_database(tmp_path: Path) -> None:
    """Its own commits do not change its number, so both connections may have the same one."""
    with closing(open_sqlite(tmp_path / "u.db")) as database:
        engine = database._engine
        first, _, version = engine.look()
        assert engine.look()[2] == version
        engine.disconnect()
        second, _, other = engine.look()
        assert first is not second  # both are alive, so no address is used twice
        assert other != version
