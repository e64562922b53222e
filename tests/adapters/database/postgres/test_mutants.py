"""The mutants of SQL that are made by hand are valid on PostgreSQL. Any test of its statement kills an invalid one."""

import re
from pathlib import Path

import psycopg
import pytest
from psycopg.pq import ExecStatus

from proof.mutation.by_hand import BY_HAND, POSTGRES, HandMade
from tests.adapters.database.mutated import changed
from tests.contract.databases import open_postgres
from tests.postgres import shared
from uponce.adapters.database.statements import Statement, load, positional

OF_SQL = [mutant for mutant in BY_HAND if mutant.suite == POSTGRES and mutant.file.endswith(".sql")]


@pytest.fixture(scope="module")
def url() -> str:
    url = shared().fresh_schema()
    open_postgres(url).close()
    return url


@pytest.mark.parametrize("mutant", OF_SQL, ids=lambda mutant: mutant.name)
def test_a_mutant_is_valid_where_the_original_is(
    url: str, mutant: HandMade, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """PostgreSQL does not know the types of some originals without the values of their parameters."""
    originals = load("postgres")
    with psycopg.connect(url) as connection:
        for name, each in changed("postgres", mutant, monkeypatch, tmp_path).items():
            assert is_valid(connection, each) or not is_valid(connection, originals[name]), each.text


def is_valid(connection: psycopg.Connection, statement: Statement) -> bool:
    text = positional(statement, re.sub(r"\{\w+\}", "1", statement.text))
    return connection.pgconn.prepare(b"", text.encode()).status == ExecStatus.COMMAND_OK
