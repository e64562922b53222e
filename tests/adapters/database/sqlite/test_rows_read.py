"""A page of the list reads about as many rows as it shows, and a purge as many as it drops, however many there are."""

import sqlite3
from base64 import urlsafe_b64encode as b64encode
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.database.pages import FIRST, KINDS, MANY, joining, waiting
from tests.contract.databases import CALLER, KEY, OTHER, START, claim, grant, open_sqlite, run
from tests.contract.test_database_series import begin, series
from uponce.adapters.database import catalog, commits, ledger, outbox, upkeep
from uponce.adapters.database import series as operations
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite.connection import Connection
from uponce.adapters.database.statements import load
from uponce.adapters.database.steps import Operation
from uponce.adapters.database.steps import run as run_operation
from uponce.app.ports import CONTEXT_WINDOW
from uponce.core.signature import dated
from uponce.core.spans import Span
from uponce.core.values import GrantStatus, ResourceType

ROWS = 20_000
RARE = 4000
FEW = 20
PAGE = 5
STEPS = 60  # of SQLite's machine for a row that is found and shown, its entries in all indexes dropped
FILL = (
    f"""
WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {ROWS})
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at, revoked_at)
SELECT key_of({START} + i, i), 'demo', CASE i % {RARE} WHEN 1 THEN '222' ELSE '111' END, {START} + i,
  CASE i % {RARE} WHEN 2 THEN 2 ELSE 1 END, 1, {START} + 7500 + i, {START}, CASE i % {RARE} WHEN 3 THEN {START} END
FROM numbers
""",
    f"""
WITH RECURSIVE numbers(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM numbers WHERE i < {ROWS})
INSERT INTO assets (cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, blob_key, bytes,
  md5, sha256, facts, tags, context)
SELECT CASE i % 3 WHEN 0 THEN 'other' ELSE 'demo' END, 'image', 'upload', i, i, 1, i, {START}, i, 1, '', '',
  '{{"kind":"image"}}', '[]', CASE WHEN i <= {FEW} OR i % 3 = 0 THEN '[["k","1"]]' ELSE '[]' END FROM numbers
""",
    """
INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id)
SELECT timestamp, grant_key, cloud, api_key, 'spent', '', '', '', '', '' FROM grants
""",
    f"""
INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id)
SELECT {START} + {ROWS}, key_of({START}, 0), 'demo', '111', 'spent', '', '', '', '', '' FROM grants
""",
)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Connection]:
    """Many used grants, with a handful of another key, of unused and of revoked ones; the audit."""
    path = tmp_path_factory.mktemp("filled") / "uponce.db"
    database = open_sqlite(path)
    for key in (KEY, OTHER):
        run(database.add_key(key))
    database.close()
    with closing(sqlite3.connect(path, isolation_level=None, factory=Connection)) as connection:
        connection.row_factory = sqlite3.Row
        connection.create_function("key_of", 2, lambda at, i: dated(at, sha256(str(i).encode()).digest()))
        for statement in FILL:
            connection.execute(statement)
        yield connection


def steps(connection: Connection, work: Callable[[], object]) -> int:
    """Of SQLite's machine; each row that is looked at costs some."""
    count = 0

    def step() -> None:
        nonlocal count
        count += 1

    connection.set_progress_handler(step, 1)
    connection.execute("BEGIN")
    try:
        work()
    finally:
        connection.execute("ROLLBACK")
        connection.set_progress_handler(None, 0)
    return count


def ask(connection: Connection, operation: Operation[Any], now: float = START) -> Any:
    return run_operation(connection, operation.begin(now))


def page_steps(filled: Connection, api_key: str | None, status: GrantStatus | None) -> int:
    """In the middle of the list."""
    after = b64encode(dated(START + ROWS // 2, bytes(32))).decode()

    def look() -> None:
        ask(filled, ledger.page("demo", api_key=api_key, status=status, limit=PAGE, cursor=after))

    return steps(filled, look)


@pytest.mark.parametrize(("api_key", "status"), KINDS)
def test_a_page_reads_what_it_shows(filled: Connection, api_key: str | None, status: GrantStatus | None) -> None:
    assert page_steps(filled, api_key, status) <= 4 * PAGE * STEPS


def test_the_check_goes_red_with_the_index_of_all(filled: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = load("sqlite")
    slow = statements["grants_revoked_of_cloud"]
    slow = replace(slow, text=slow.text.replace("grants_revoked", "grants_page"))
    monkeypatch.setitem(statements, "grants_revoked_of_cloud", slow)
    assert page_steps(filled, None, GrantStatus.REVOKED) > ROWS / 4


def test_a_page_by_context_reads_assets_of_its_cloud_that_have_a_context(filled: Connection) -> None:
    pages = (
        catalog.of_context("demo", ResourceType.IMAGE, key, None, limit=PAGE, cursor=None)
        for key in ("k", "no such key")
    )
    assert max(steps(filled, partial(ask, filled, page)) for page in pages) <= 2 * FEW * STEPS


def test_a_page_by_context_reads_one_window(filled: Connection) -> None:
    page = catalog.of_context("other", ResourceType.IMAGE, "no such key", None, limit=PAGE, cursor=None)
    assert steps(filled, partial(ask, filled, page)) <= 2 * CONTEXT_WINDOW * 15


def test_the_check_goes_red_with_the_order_of_all_assets(filled: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = load("sqlite")
    slow = statements["assets_of_context"]
    monkeypatch.setitem(
        statements, slow.name, replace(slow, text=slow.text.replace("INDEXED BY assets_context", "NOT INDEXED"))
    )
    page = catalog.of_context("demo", ResourceType.IMAGE, "no such key", None, limit=PAGE, cursor=None)
    assert steps(filled, partial(ask, filled, page)) > ROWS


def test_a_purge_reads_what_it_drops(filled: Connection) -> None:
    dropped = steps(filled, lambda: ask(filled, upkeep.purge_grants(0, ROWS), START + 7500 + FEW + 0.5))
    records = steps(filled, lambda: ask(filled, upkeep.purge_audit(0, START + ROWS, ROWS), START + FEW + 0.5))
    assert dropped <= FEW * 2 * STEPS
    assert records <= FEW * STEPS


def test_a_purge_looks_each_row_up_among_the_grants_of_unfinished_uploads(filled: Connection) -> None:
    question = f"EXPLAIN QUERY PLAN {load('sqlite')['past_grants'].text}"
    plan = [row["detail"] for row in filled.execute(question, {"before": START, "most": FEW})]
    assert "SEARCH series_grants USING COVERING INDEX series_grants_key (grant_key=?)" in plan


def test_the_check_goes_red_without_the_index(filled: Connection) -> None:
    def look() -> None:
        filled.execute("DROP INDEX audit_age")
        ask(filled, upkeep.purge_audit(0, START + ROWS, ROWS), START + FEW + 0.5)

    assert steps(filled, look) > ROWS


def refusal_steps(filled: Connection, work: Callable[[], object] = lambda: None) -> int:
    """Of the refusal of a signature that was used ROWS times, after the given work."""
    often = replace(grant(), key=dated(START, sha256(b"0").digest()))

    def refuse() -> None:
        work()
        ask(filled, commits.refuse(often, "signature_used", CALLER))

    return steps(filled, refuse)


def test_a_refusal_reads_as_much_however_often_the_signature_was_used(filled: Connection) -> None:
    """The thread that commits for all writes it."""
    assert refusal_steps(filled) <= FEW * STEPS


def test_a_use_is_in_no_index_of_refusals(filled: Connection) -> None:
    entries = "SELECT count(*) FROM audit INDEXED BY audit_refusals WHERE event = 'refused'"
    assert filled.execute(entries).fetchone()[0] == 0
    assert steps(filled, lambda: filled.execute(entries).fetchall()) <= STEPS


def test_the_check_goes_red_without_the_index_of_refusals(filled: Connection) -> None:
    assert refusal_steps(filled, lambda: filled.execute("DROP INDEX audit_refusals")) > ROWS


@pytest.fixture
def crowded(tmp_path: Path) -> Iterator[tuple[SqliteDatabase, Connection]]:
    """A server whose outbox is full, and a connection to its file."""
    database = open_sqlite(tmp_path / "uponce.db")
    with closing(sqlite3.connect(tmp_path / "uponce.db", isolation_level=None, factory=Connection)) as connection:
        connection.row_factory = sqlite3.Row
        numbers = f"SELECT 1 AS i UNION ALL SELECT i + 1 FROM numbers WHERE i < {2 * MANY + 2}"
        connection.execute(f"WITH RECURSIVE numbers(i) AS ({numbers}) {waiting('numbers')}")
        yield database, connection
    database.close()


def look_steps(connection: Connection) -> int:
    """Of a look into the outbox: what it delays, and what it claims."""

    def look() -> None:
        ask(connection, outbox.list_receivers("notify", "", 16))
        ask(connection, outbox.delay_waiting("notify", {"-": 16}, upkeep.BATCH))
        ask(connection, outbox.claim("notify", {"-": 16}, 120))

    return steps(connection, look)


def end_steps(connection: Connection) -> int:
    """Of the end of the effect that the others wait for: it dies, or it is done."""
    first = ask(connection, outbox.find(FIRST))
    died = steps(connection, lambda: ask(connection, outbox.postpone(first, 0, "gone", dead=True)))
    return max(died, steps(connection, lambda: ask(connection, outbox.finish(FIRST))))


def test_a_look_reads_each_effect_behind_another_one_once(crowded: tuple[SqliteDatabase, Connection]) -> None:
    database, connection = crowded
    assert [effect.subject for effect in run(claim(database, "notify", 16, 120))] == ["another"]
    assert look_steps(connection) <= FEW * STEPS
    assert end_steps(connection) <= FEW * STEPS
    run(database.finish_effect(FIRST))
    assert [effect.id for effect in run(claim(database, "notify", 16, 120))] == [FIRST + 1]
    assert look_steps(connection) <= FEW * STEPS


def test_the_check_goes_red_if_waiting_effects_stay_due(
    crowded: tuple[SqliteDatabase, Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    statements = load("sqlite")
    blind = statements["find_first_effects"]
    monkeypatch.setitem(statements, blind.name, replace(blind, text=blind.text.replace(":most", "0 * :most")))
    database, connection = crowded
    assert len(run(claim(database, "notify", 16, 120))) == 1
    assert look_steps(connection) > MANY


def test_the_check_goes_red_without_the_index_of_receivers(crowded: tuple[SqliteDatabase, Connection]) -> None:
    _, connection = crowded

    def look() -> None:
        assert ask(connection, outbox.list_receivers("notify", "", 16)) == ["-"]

    assert steps(connection, look) <= FEW * STEPS
    connection.execute("DROP INDEX outbox_receivers")
    assert steps(connection, look) > MANY


def test_the_check_goes_red_without_the_order_of_a_subject(crowded: tuple[SqliteDatabase, Connection]) -> None:
    database, connection = crowded
    run(claim(database, "notify", 16, 120))
    run(database.finish_effect(FIRST))
    connection.execute("DROP INDEX outbox_order")
    assert look_steps(connection) > MANY


def series_steps(folder: Path, many: int) -> int:
    """Of what the requests of a series do before its end, if the series has many grants besides its first."""
    path = folder / f"{many}.db"
    database = open_sqlite(path)
    run(database.add_key(KEY))
    run(begin(database, series()))
    database.close()
    work: list[Operation[Any]] = [
        operations.find("one"),
        operations.find_named("demo", KEY.api_key, "id"),
        operations.has_joined("one", grant("b").key),
        operations.join("one", grant("b"), most=10 * MANY),
        operations.record("one", Span(0, 10), 10),
    ]
    with closing(sqlite3.connect(path, isolation_level=None, factory=Connection)) as connection:
        connection.row_factory = sqlite3.Row
        numbers = f"SELECT 1 AS i UNION ALL SELECT i + 1 FROM numbers WHERE i < {many}"
        connection.execute(f"WITH RECURSIVE numbers(i) AS ({numbers}) {joining('numbers', 'randomblob(32)')}")
        return sum(steps(connection, partial(ask, connection, each)) for each in work)


def test_a_request_of_a_series_reads_as_much_however_many_grants_the_series_has(tmp_path: Path) -> None:
    assert series_steps(tmp_path, MANY) <= 1.1 * series_steps(tmp_path, FEW)


def test_the_check_goes_red_if_a_join_counts_grants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    statements = load("sqlite")
    slow = statements["find_series_grant"]
    monkeypatch.setitem(
        statements, slow.name, replace(slow, text=slow.text.replace("AND grant_key =", "AND +grant_key ="))
    )
    assert series_steps(tmp_path, MANY) > MANY
