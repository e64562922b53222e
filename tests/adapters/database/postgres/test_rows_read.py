"""A page of the list reads about as many rows as it shows, and a purge as many as it drops, however many there are."""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from hashlib import sha256
from typing import Any

import psycopg
import pytest
from psycopg.sql import Literal

from tests.adapters.database.pages import KINDS, MANY, joining
from tests.contract.databases import CALLER, KEY, OTHER, START, PlainBox, SteppedClock, grant, run
from tests.contract.test_database_series import begin, series
from tests.postgres import shared
from uponce.adapters.database import commits, ledger, upkeep
from uponce.adapters.database import series as operations
from uponce.adapters.database.postgres import PostgresDatabase, schema
from uponce.adapters.database.postgres.connection import adapt
from uponce.adapters.database.postgres.schema import SPAN
from uponce.adapters.database.statements import load, merged, positional
from uponce.adapters.database.steps import Operation, Steps, operation
from uponce.app.ports import CONTEXT_WINDOW
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
    f"""
INSERT INTO assets (cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, blob_key, bytes,
  md5, sha256, facts, tags, context)
SELECT CASE i % 3 WHEN 0 THEN 'other' ELSE 'demo' END, 'image', 'upload', i, i, 1, i, {START}, i, 1, '', '', '{{}}',
  '[]', CASE WHEN i <= {FEW} OR i % 3 = 0 THEN '[["k","1"]]' ELSE '[]' END FROM generate_series(1, {ROWS}) AS i
""",
    f"""
INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id)
SELECT {START} + {ROWS}, key_of(0), 'demo', '111', 'spent', '', '', '', '', '' FROM generate_series(1, {ROWS})
""",
    "ANALYZE grants",
    "ANALYZE assets",
    "ANALYZE audit",
)


@pytest.fixture(scope="module")
def filled() -> Iterator[psycopg.Connection]:
    """Two half-hours of many used grants, with a handful of another key, of unused and of revoked ones; the audit."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    for key in (KEY, OTHER):
        run(database.add_key(key))
    run(database.purge(10**6))
    with psycopg.connect(database._address.url, autocommit=True) as connection:
        adapt(connection)
        for statement in FILL:
            connection.execute(statement.encode())
        yield connection
    database.close()


def change(monkeypatch: pytest.MonkeyPatch, name: str, text: str, other: str) -> None:
    """Make a statement another one."""
    statement = load("postgres")[name]
    assert text in statement.text
    monkeypatch.setitem(load("postgres"), name, replace(statement, text=statement.text.replace(text, other)))


def rows_read(connection: psycopg.Connection, operation: Operation[Any], now: float = START) -> float:
    """By the first statement of the operation."""
    statement, values, settings = _asked(operation, now)
    with connection.transaction(force_rollback=True):
        for setting in settings:
            connection.execute(setting.encode())
        return _explained(connection, statement, values)


@contextmanager
def one_plan(connection: psycopg.Connection, operation: Operation[Any]) -> Iterator[Callable[[], float]]:
    """The same, planned for whatever values may come, as the server does with what it is asked often."""
    statement, values, settings = _asked(operation, START)
    literals = ", ".join(Literal(value).as_string(connection) for value in values)
    with connection.transaction(force_rollback=True):
        for setting in (*settings, "SET LOCAL plan_cache_mode = force_generic_plan"):
            connection.execute(setting.encode())
        connection.execute(f"PREPARE question AS {statement}".encode())
        yield lambda: _explained(connection, f"EXECUTE question ({literals})", [])
        connection.execute(b"DEALLOCATE question")


def rows_read_by_one_plan(connection: psycopg.Connection, operation: Operation[Any]) -> float:
    with one_plan(connection, operation) as ask:
        return ask()


def _asked(operation: Operation[Any], now: float) -> tuple[str, list[Any], list[str]]:
    """What the server is asked first, with which values, and with which settings."""
    statements = load("postgres")
    ((name, params),) = next(operation.begin(now))
    statement = statements[name]
    text = positional(statement, statement.filled(params))
    settings = [statements[operation.first].text] if operation.first else []
    return text, [params[each] for each in statement.names], settings


def _explained(connection: psycopg.Connection, statement: str, values: list[Any]) -> float:
    return _read(_plan(connection, statement, values))


def _plan(connection: psycopg.Connection, statement: str, values: list[Any]) -> dict[str, Any]:
    cursor = psycopg.RawCursor(connection)
    row = cursor.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values).fetchone()
    assert row is not None
    plan: dict[str, Any] = row[0][0]["Plan"]
    return plan


def _read(node: dict[str, Any]) -> float:
    """By the scans at the ends of a plan."""
    children = node.get("Plans", [])
    if children:
        return sum(_read(child) for child in children)
    return float((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])


def page(api_key: str | None, status: GrantStatus | None) -> Operation[Any]:
    """In the middle of the list."""
    after = urlsafe_b64encode(dated(START + SPAN + SPAN // 2, bytes(32))).decode()
    return ledger.page("demo", api_key=api_key, status=status, limit=PAGE, cursor=after)


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
    """In an order that the primary key gives too, a generic plan reads thousands of rows for an owner with few."""
    change(monkeypatch, "grants_of_key", "timestamp DESC, ", "")
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
    change(monkeypatch, "unsorted", "off", "on")
    assert rows_read_by_an_old_plan(filled) > ROWS / 4


def of_context(cloud: str, statement: str) -> Operation[Any]:
    """One of the two statements of a page by context."""

    @operation(first="unsorted")
    def look(_: float) -> Steps[None]:
        window = {"cloud": cloud, "resource_type": "image", "newest": 2**63 - 1, "window": CONTEXT_WINDOW}
        yield [(statement, window | {"behind": 0, "part": "no such key", "most": PAGE})]

    return look()


@pytest.mark.parametrize("statement", ["find_end_of_window", "assets_of_context"])
def test_a_page_by_context_reads_assets_of_its_cloud_that_have_a_context(
    filled: psycopg.Connection, statement: str
) -> None:
    assert rows_read(filled, of_context("demo", statement)) <= FEW
    assert rows_read_by_one_plan(filled, of_context("demo", statement)) <= FEW


def test_a_page_by_context_finds_the_end_of_its_window_in_one_window(filled: psycopg.Connection) -> None:
    for read in (rows_read, rows_read_by_one_plan):
        assert read(filled, of_context("other", "find_end_of_window")) <= CONTEXT_WINDOW + 1


def test_the_check_goes_red_without_the_index_of_contexts(filled: psycopg.Connection) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute("DROP INDEX assets_context")
        assert rows_read(filled, of_context("demo", "assets_of_context")) > ROWS / 4


def test_a_purge_reads_what_it_drops(filled: psycopg.Connection) -> None:
    """Moments come with fractions of seconds from the database's clock; an index of whole ones must do."""
    assert rows_read(filled, upkeep.purge_audit(0, START + ROWS, ROWS), START + FEW + 0.5) <= 3 * FEW
    assert rows_read(filled, upkeep.purge_grants(0, ROWS), START + 7500 + FEW + 0.5) <= 3 * FEW
    assert rows_read(filled, is_over(), START + 7500 + ROWS + 0.5) <= 1


@operation()
def is_over(now: float) -> Steps[bool]:
    return (yield from schema._is_over(START, now))


def test_the_check_goes_red_with_fractions(filled: psycopg.Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "int", float, raising=False)

    assert rows_read(filled, upkeep.purge_audit(0, START + ROWS, ROWS), START + FEW + 0.5) > ROWS / 2


OFTEN = replace(grant(), key=dated(START, sha256(b"0").digest()))
REFUSAL = commits.refuse(OFTEN, "signature_used", CALLER)


def test_a_refusal_reads_as_much_however_often_the_signature_was_used(filled: psycopg.Connection) -> None:
    """The thread that commits for all writes it, with the refusals of others."""
    given = f'[{{"n": 0, "grant_key": "{OFTEN.key.hex()}"}}]'
    assert max(rows_read(filled, REFUSAL), rows_read_by_one_plan(filled, REFUSAL)) <= 1
    assert _explained(filled, merged(load("postgres")["count_refusals"]), [given]) <= 2


def test_a_use_is_in_no_index_of_refusals(filled: psycopg.Connection) -> None:
    empty = (8192,)  # a page
    assert filled.execute("SELECT pg_relation_size('audit_refusals')").fetchone() == empty


def test_the_check_goes_red_without_the_index_of_refusals(filled: psycopg.Connection) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute("DROP INDEX audit_refusals")
        assert rows_read(filled, REFUSAL) >= ROWS


@pytest.fixture
def joined() -> Iterator[psycopg.Connection]:
    """A database with a series of many grants."""
    database = PostgresDatabase(shared().fresh_schema(), secrets=PlainBox(), clock=SteppedClock(), seconds=60)
    database.open()
    run(database.add_key(KEY))
    run(begin(database, series()))
    with psycopg.connect(database._address.url, autocommit=True) as connection:
        adapt(connection)
        connection.execute(joining(f"generate_series(1, {MANY}) AS i", "sha256(i::text::bytea)").encode())
        connection.execute("ANALYZE series_grants")
        yield connection
    database.close()


def rows_touched(node: dict[str, Any]) -> float:
    """By all nodes of a plan: one that keeps its rows gives them again and again."""
    return float(node["Actual Rows"] * node["Actual Loops"]) + sum(map(rows_touched, node.get("Plans", [])))


@pytest.fixture
def held(joined: psycopg.Connection) -> psycopg.Connection:
    """The same with a ledger of many used grants. The series has none of them."""
    for statement in (*FILL[:2], "ANALYZE grants", "SET work_mem = '64kB'"):
        joined.execute(statement.encode())
    return joined


def test_a_purge_reads_what_it_drops_however_many_grants_unfinished_uploads_have(held: psycopg.Connection) -> None:
    """No upload commits while it reads."""
    for now in (START + 7500 + FEW + 0.5, START + 7500 + ROWS):
        assert rows_read(held, upkeep.purge_grants(0, FEW), now) <= 3 * FEW
    assert rows_read_by_one_plan(held, upkeep.purge_grants(0, FEW)) <= 3 * FEW


def test_a_look_at_a_partition_reads_no_row_of_it_for_a_grant_without_a_row(held: psycopg.Connection) -> None:
    """No upload commits during the second look, before the partition goes."""
    key = f"decode(lpad(to_hex({START}), 10, '0'), 'hex') || substring(sha256((-i)::text::bytea) FOR 27)"
    held.execute(joining(f"generate_series(1, {FEW}) AS i", key).encode())
    held.execute(b"ANALYZE series_grants")
    now = START + 7500 + ROWS + 0.5
    for read in (partial(rows_read, now=now), rows_read_by_one_plan):
        assert read(held, is_over()) <= FEW
    with held.transaction(force_rollback=True):
        held.execute(b"UPDATE grants SET keep_until = 0")
        assert rows_read(held, is_over(), now) == 0


@pytest.mark.parametrize("look", ["broken_purged", "count_broken_purged", "broken_after_watermark"])
def test_a_check_reads_the_grants_of_unfinished_uploads_once(held: psycopg.Connection, look: str) -> None:
    held.execute(f"UPDATE api_keys SET watermark = {START + FEW}".encode())
    statement = load("postgres")[look]
    values = {"now": START + 7500 + 3600 + MANY // 10, "most": MANY}
    plan = _plan(held, positional(statement, statement.text), [values[name] for name in statement.names])
    assert rows_touched(plan) <= 4 * (ROWS + MANY)


SERIES: list[Operation[Any]] = [
    operations.find("one"),
    operations.find_named("demo", KEY.api_key, "id"),
    operations.has_joined("one", grant("b").key),
]


def test_a_look_at_a_series_reads_few_of_its_grants(joined: psycopg.Connection) -> None:
    """`join` and `record` have no other statement that reads them."""
    for read in (rows_read, rows_read_by_one_plan):
        assert [read(joined, each) <= FEW for each in SERIES] == [True] * 3


def test_the_check_goes_red_if_a_look_reads_all_grants(
    joined: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(monkeypatch, "find_series", "ORDER BY grant_key LIMIT 1", "ORDER BY timestamp, grant_key LIMIT 1")
    assert rows_read(joined, SERIES[0]) > MANY / 4
