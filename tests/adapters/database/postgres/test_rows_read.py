"""A page of the list reads about as many rows as it shows, and a purge as many as it drops, however many there are."""

from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext
from typing import Any

import psycopg
import pytest
from psycopg.sql import Literal

from tests.adapters.database.pages import KINDS
from tests.contract.databases import KEY, OTHER, START, PlainBox, SteppedClock, run
from tests.postgres import shared
from uponce.adapters.database.postgres import PostgresDatabase, audit, ledger, partitions
from uponce.adapters.database.postgres.partitions import SPAN
from uponce.core.signature import dated
from uponce.core.values import GrantStatus

ROWS = 20_000
FEW = 20
PAGE = 5
FILL = (
    f"""
CREATE FUNCTION key_of(i int) RETURNS bytea LANGUAGE sql AS $$
  SELECT decode(lpad(to_hex({START} + i % {2 * SPAN}), 10, '0'), 'hex') || substring(sha256(i::text::bytea) FOR 27)
$$
""",
    f"""
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at)
SELECT key_of(i), 'demo', CASE i % 4000 WHEN 1 THEN '222' ELSE '111' END, {START} + i % {2 * SPAN},
  CASE i % 4000 WHEN 2 THEN 2 ELSE 1 END, 1, {START} + 7500 + i, {START}, CASE i % 4000 WHEN 3 THEN {START} END
FROM generate_series(1, {ROWS}) AS i
""",
    f"""
INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id)
SELECT {START} + i, key_of(i), 'demo', '111', 'spent', '', i, i, '', ''
FROM generate_series(1, {ROWS}) AS i
""",
    "ANALYZE grants",
    "ANALYZE audit",
)


class Asked(Exception):
    """Instead of an answer."""


class Ear:
    """A connection that only tells what it was asked, and with which settings."""

    def __init__(self) -> None:
        self._settings: list[str] = []

    def pipeline(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def execute(self, statement: str, values: object = None) -> None:
        if values is not None:
            raise Asked(statement, values, [*self._settings])
        if statement.startswith("SET"):
            self._settings.append(statement)


@pytest.fixture(scope="module")
def filled() -> Iterator[psycopg.Connection]:
    """Two half-hours of many used grants, with a handful of another key, of unused and of revoked ones; the audit."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=SteppedClock())
    database.open()
    for key in (KEY, OTHER):
        run(database.add_key(key))
    run(database.purge(10**6))
    with psycopg.connect(database._address.url, autocommit=True) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
        yield connection
    database.close()


def rows_read(connection: psycopg.Connection, question: Any) -> float:
    """By the statement that the question is asked with."""
    statement, values, settings = _asked(question)
    with connection.transaction(force_rollback=True):
        for setting in settings:
            connection.execute(setting.encode())
        return _explained(connection, statement, values)


@contextmanager
def one_plan(connection: psycopg.Connection, question: Any) -> Iterator[Callable[[], float]]:
    """The same, planned for whatever values may come, as the server does with what it is asked often."""
    statement, values, settings = _asked(question)
    used = {name: value for name, value in values.items() if f"%({name})s" in statement}
    for number, name in enumerate(used, start=1):
        statement = statement.replace(f"%({name})s", f"${number}")
    literals = ", ".join(Literal(value).as_string(connection) for value in used.values())
    with connection.transaction(force_rollback=True):
        for setting in (*settings, "SET LOCAL plan_cache_mode = force_generic_plan"):
            connection.execute(setting.encode())
        connection.execute(f"PREPARE question AS {statement}".encode())
        yield lambda: _explained(connection, f"EXECUTE question ({literals})")
        connection.execute(b"DEALLOCATE question")


def rows_read_by_one_plan(connection: psycopg.Connection, question: Any) -> float:
    with one_plan(connection, question) as ask:
        return ask()


def _asked(question: Any) -> tuple[str, Any, list[str]]:
    with pytest.raises(Asked) as asked:
        run(question)
    statement, values, settings = asked.value.args
    return statement, values, settings


def _explained(connection: psycopg.Connection, statement: str, values: Any = None) -> float:
    row = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values).fetchone()
    assert row is not None
    return _read(row[0][0]["Plan"])


def _read(node: dict[str, Any]) -> float:
    """By the scans at the ends of a plan."""
    children = node.get("Plans", [])
    if children:
        return sum(_read(child) for child in children)
    return float((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])


def ear() -> Any:
    return Ear()


def page(api_key: str | None, status: GrantStatus | None) -> Any:
    """In the middle of the list."""
    after = dated(START + SPAN + SPAN // 2, bytes(32))
    return ledger.page(ear(), "demo", api_key=api_key, status=status, limit=PAGE, after=after)


@pytest.mark.parametrize(("api_key", "status"), KINDS)
def test_a_page_reads_what_it_shows(
    filled: psycopg.Connection, api_key: str | None, status: GrantStatus | None
) -> None:
    assert rows_read(filled, page(api_key, status)) <= 4 * PAGE
    assert rows_read_by_one_plan(filled, page(api_key, status)) <= 4 * PAGE


def test_the_check_goes_red_without_the_index(filled: psycopg.Connection) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute("DROP INDEX grants_revoked")
        assert rows_read(filled, page(None, GrantStatus.REVOKED)) > ROWS / 4


def test_the_check_goes_red_when_one_plan_hangs_on_how_many_rows_an_owner_has(
    filled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an order that the primary key gives too, a plan for most values reads all rows for who has few."""
    monkeypatch.setattr(ledger, "_PAGE", ledger._PAGE.replace("timestamp DESC, ", ""))
    assert rows_read_by_one_plan(filled, page("222", None)) > ROWS / 4


def rows_read_by_an_old_plan(filled: psycopg.Connection) -> float:
    """A page of a ledger that had a few rows when it was planned."""
    with one_plan(filled, page(None, None)) as ask:
        for statement in (
            "CREATE TEMP TABLE kept AS TABLE grants",
            "TRUNCATE grants",
            f"INSERT INTO grants SELECT * FROM kept LIMIT {FEW}",
            "ANALYZE grants",
        ):
            filled.execute(statement.encode())
        assert ask() <= FEW
        filled.execute("INSERT INTO grants TABLE kept ON CONFLICT DO NOTHING")
        return ask()


def test_a_plan_of_few_rows_stays_good(filled: psycopg.Connection) -> None:
    assert rows_read_by_an_old_plan(filled) <= 4 * PAGE


def test_the_check_goes_red_when_sorting_looks_cheap(
    filled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "_UNSORTED", "SET LOCAL enable_sort = on")
    assert rows_read_by_an_old_plan(filled) > ROWS / 4


def test_a_purge_reads_what_it_drops(filled: psycopg.Connection) -> None:
    """Moments come with fractions of seconds from the database's clock; an index of whole ones must do."""
    assert rows_read(filled, audit.purge(ear(), START + FEW + 0.5, ROWS)) <= 3 * FEW
    assert rows_read(filled, ledger.purge(ear(), START + 7500 + FEW + 0.5, ROWS)) <= 3 * FEW
    assert rows_read(filled, partitions._is_over(ear(), START, START + 7500 + ROWS + 0.5)) <= 1


def test_the_check_goes_red_with_fractions(filled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "int", float, raising=False)

    assert rows_read(filled, audit.purge(ear(), START + FEW + 0.5, ROWS)) > ROWS / 2
