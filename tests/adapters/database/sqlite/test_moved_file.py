"""The file is moved, deleted or replaced under an open database: no answer shows a commit that no start will find."""

import asyncio
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.databases import CALLER, KEY, PlainBox, SteppedClock, attempt, draft, grant, run
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite.connection import Connection, connect
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown


def nothing() -> None:
    return


class AfterCommit:
    """What happens as soon as COMMIT has."""

    def __init__(self) -> None:
        self.act: Callable[[], None] = nothing

    def connect(self, path: Path) -> Connection:
        watch = self

        class Watched(Connection):
            def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
                cursor = super().execute(sql, parameters)  # type: ignore[arg-type]
                if sql == "COMMIT":
                    watch.act()
                return cursor

        return connect(path, factory=Watched)


@pytest.fixture
def after_commit() -> AfterCommit:
    return AfterCommit()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "u.db"


@pytest.fixture
def database(path: Path, after_commit: AfterCommit) -> Iterator[SqliteDatabase]:
    database = SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox(), connect=after_commit.connect)
    database.open()
    run(database.add_key(KEY))
    yield database
    database.close()


def move_away(path: Path) -> None:
    path.rename(path.with_suffix(".away"))


def move_back(path: Path) -> None:
    path.with_suffix(".away").rename(path)


def test_without_its_file_nothing_is_written_or_read(database: SqliteDatabase, path: Path) -> None:
    assert asyncio.run(database.find_key(KEY.api_key)) == KEY
    move_away(path)
    for work in (database.commit(grant("a"), draft(blob="a"), CALLER), database.find_key(KEY.api_key), database.ping()):
        with pytest.raises(DatabaseUnavailable):
            asyncio.run(work)
    move_back(path)
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"


def test_a_file_that_goes_during_the_commit_leaves_the_outcome_unknown(
    database: SqliteDatabase, path: Path, after_commit: AfterCommit
) -> None:
    after_commit.act = lambda: move_away(path)
    with pytest.raises(OutcomeUnknown):
        asyncio.run(database.commit(grant("a"), draft(blob="a"), CALLER))
    after_commit.act = nothing
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(database.find_commit("a"))
    move_back(path)
    assert run(database.find_commit("a")) is not None
    assert run(attempt(database, grant("a"), draft(blob="b"))) == "signature_used"


def test_another_file_in_its_place_is_opened(database: SqliteDatabase, path: Path) -> None:
    """As a restored backup: what is read and written is that, not the one that was there before."""
    backup = path.with_suffix(".backup")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(backup)) as target:
        source.backup(target)
    assert run(attempt(database, grant("later"), draft("later", blob="l"))) == "ok"
    for name in (path, Path(f"{path}-wal"), Path(f"{path}-shm")):
        move_away(name)
    shutil.move(backup, path)
    assert run(database.find_commit("l")) is None
    with pytest.raises(DatabaseUnavailable):
        run(database.ping())
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"
    assert run(database.find_commit("a")) is not None
