"""The mutants of SQL that are made by hand are valid on SQLite. Any test of its statement kills an invalid one."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from proof.mutation.by_hand import BY_HAND, SQLITE, HandMade
from tests.adapters.database.mutated import changed
from tests.contract.databases import open_sqlite

OF_SQL = [mutant for mutant in BY_HAND if mutant.suite == SQLITE and mutant.file.endswith(".sql")]


@pytest.fixture(scope="module")
def connection(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    path = tmp_path_factory.mktemp("mutants") / "uponce.db"
    open_sqlite(path).close()
    with closing(sqlite3.connect(path)) as connection:
        yield connection


@pytest.mark.parametrize("mutant", OF_SQL, ids=lambda mutant: mutant.name)
def test_a_mutant_is_valid(
    connection: sqlite3.Connection, mutant: HandMade, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for each in changed("sqlite", mutant, monkeypatch, tmp_path).values():
        text = re.sub(r"\{\w+\}", "1", each.text)
        connection.execute(f"EXPLAIN {text}", dict.fromkeys(each.names))
