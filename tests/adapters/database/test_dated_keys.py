"""What was keyed by a bare hash gets a key that begins with its time, when a database comes from an older release."""

import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.contract.databases import CALLER, KEY, START, Opened, attempt, draft, grant, open_postgres, open_sqlite, run
from tests.contract.test_database_series import series
from tests.postgres import shared
from uponce.adapters.database.decisions import publication
from uponce.adapters.database.postgres import schema as postgres_schema
from uponce.adapters.database.rows import reply_row
from uponce.adapters.database.sqlite import schema as sqlite_schema
from uponce.app.ports import Rule
from uponce.core.errors import SignatureUsed
from uponce.core.values import Grant

SPENT, HELD, FORGOTTEN = grant("spent"), grant("held", at=START + 7), grant("forgotten", at=START - 10**6)
REPEATED = replace(draft(blob="spent"), idempotency_key="again")
_GRANT = """
INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at)
VALUES (%s, %s, %s, %s, 1, 1, %s, %s)
"""
_AUDIT = """
INSERT INTO audit (at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id)
VALUES (%s, %s, 'demo', '111', 'spent', '', '', '', '', '')
"""


@dataclass
class Store:
    """A database, and the number of the migration that is tested here."""

    schema: Any
    step: int
    open: Callable[[], Opened]
    execute: Callable[[str, Sequence[object]], None]
    reply: str

    def opened_before(self) -> Opened:
        """With the schema of the release before."""
        with pytest.MonkeyPatch.context() as patch:
            steps = self.schema.migrations()[: self.step - 1]
            patch.setattr(self.schema, "migrations", lambda: steps)
            return self.open()


def sqlite_store(folder: Path) -> Store:
    path = folder / "uponce.db"

    def execute(statement: str, values: Sequence[object]) -> None:
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(statement.replace("%s", "?"), values)

    return Store(sqlite_schema, 6, partial(open_sqlite, path), execute, "INSERT INTO replies VALUES (%s, %s, %s, %s)")


def postgres_store(_: Path) -> Store:
    url = shared().fresh_schema()

    def execute(statement: str, values: Sequence[object]) -> None:
        with psycopg.connect(url) as connection:
            connection.execute(statement.encode(), values)

    reply = f"INSERT INTO replies VALUES (%s, %s, %s, %s, {SPENT.keep_until})"
    return Store(postgres_schema, 7, partial(open_postgres, url), execute, reply)


STORES = {"sqlite": sqlite_store, "postgres": postgres_store}


def bare(subject: Grant, name: str) -> Grant:
    """With K as the releases before computed it."""
    return replace(subject, key=sha256(f"{name}/{subject.timestamp}".encode()).digest())


def spend_by_sql(store: Store, subject: Grant) -> None:
    at = subject.timestamp
    store.execute(_GRANT, (subject.key, subject.cloud, subject.api_key, at, subject.keep_until, at))


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Of the release before, with a grant that was spent, one that a series holds, and the audit of a forgotten one."""
    store = STORES[request.param](tmp_path)
    database = store.opened_before()
    run(database.add_key(KEY))
    run(database.create_series(series(), bare(HELD, "held"), per_key=9, in_all=9))
    spent = bare(SPENT, "spent")
    spend_by_sql(store, spent)
    for each in (spent, bare(FORGOTTEN, "forgotten")):
        store.execute(_AUDIT, (each.timestamp, each.key))
    store.execute(store.reply, reply_row(spent, REPEATED, "again", publication(REPEATED, None, START)))
    database.close()
    return store


def test_what_was_spent_stays_spent(store: Store) -> None:
    database = store.open()
    record = run(database.find_grant(SPENT.key))
    assert record is not None
    assert (record.grant, record.uses, record.spent_at) == (SPENT, 1, START)
    assert run(attempt(database, SPENT, draft(blob="other"))) == "signature_used"
    assert run(attempt(database, grant("new"), draft(blob="new"))) == "ok"
    database.close()


def test_the_check_goes_red_when_keys_stay_as_they_are(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [step for step in store.schema.migrations() if "dated" not in step]
    monkeypatch.setattr(store.schema, "migrations", lambda: steps)
    database = store.open()
    assert run(database.find_grant(SPENT.key)) is None
    database.close()


def test_its_history_and_its_reply_are_found(store: Store) -> None:
    database = store.open()
    assert [line.event for line in run(database.history(SPENT.key, 9))] == ["spent"]
    reply = run(database.find_reply(SPENT.key, "again"))
    assert reply is not None
    assert reply.committed == publication(REPEATED, None, START)
    assert run(database.history(FORGOTTEN.key, 9)) == []  # nobody knows its time any more
    assert len(run(database.history(bare(FORGOTTEN, "forgotten").key, 9))) == 1
    database.close()


def test_a_series_goes_on_and_spends(store: Store) -> None:
    database = store.open()
    (known,) = run(database.find_series_of(HELD.key))
    assert [each.key for each in known.grants] == [HELD.key]
    run(database.commit_series(known.id, draft("dog", blob=known.blob_key), CALLER))
    with pytest.raises(SignatureUsed):
        run(database.commit(HELD, draft(blob="other"), CALLER))
    database.close()


def test_nothing_is_wrong_with_it(store: Store) -> None:
    database = store.open()
    assert run(database.integrity(deep=True)) == []
    assert [rule for rule in Rule if run(database.violations(rule, 10**6))] == []
    database.close()


def test_a_server_of_the_release_before_can_spend_no_more(store: Store) -> None:
    """It runs on for a while beside the new one, and would not find what that one has spent."""
    store.open().close()
    with pytest.raises((sqlite3.IntegrityError, psycopg.errors.CheckViolation), match=r"(?i)check"):
        spend_by_sql(store, bare(grant("new"), "new"))


def test_what_is_spent_while_the_conversion_begins_is_not_forgotten() -> None:
    """By a server of the release before, whose commit is under way."""
    store = postgres_store(Path())
    database = store.opened_before()
    run(database.add_key(KEY))
    late = bare(SPENT, "spent")
    with ThreadPoolExecutor(1) as pool, psycopg.connect(database._address.url) as other:  # type: ignore[union-attr]
        values = (late.key, late.cloud, late.api_key, START, late.keep_until, START)
        other.execute(_GRANT.encode(), values)
        opening = pool.submit(store.open)
        with pytest.raises(TimeoutError):
            opening.result(timeout=1)
        other.commit()
        newer = opening.result(timeout=30)
    assert run(newer.find_grant(SPENT.key)) is not None
    for each in (database, newer):
        each.close()


def test_a_frozen_file_stays_frozen(tmp_path: Path) -> None:
    """As backups are."""
    store = sqlite_store(tmp_path)
    database = store.opened_before()
    spend_by_sql(store, bare(SPENT, "spent"))
    run(database.freeze())
    database.close()
    database = store.open()
    assert run(database.frozen())
    assert run(database.find_grant(SPENT.key)) is not None
    with pytest.raises(sqlite3.IntegrityError, match="frozen"):
        spend_by_sql(store, grant("new"))
    database.close()
