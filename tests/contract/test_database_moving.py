"""What any Database must do, run on every back end: it moves into any other one, row by row as it stands."""

from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.contract.databases import (
    BACKENDS,
    CALLER,
    KEY,
    OTHER,
    SKEW,
    START,
    Backend,
    attempt,
    draft,
    grant,
    relay,
    run,
)
from tests.contract.test_database_relays import ANSWER
from uponce.app.migrate_store import Moved, Store, migrate_store
from uponce.app.ports import Committed, Database, MovedRow, StoredBlob, Table
from uponce.core.errors import DatabaseUnavailable, SettingRefused, StaleRequest
from uponce.core.values import Upstream

LIMIT = 3


@pytest.fixture
def others(tmp_path: Path) -> Iterator[list[Backend]]:
    """One empty data set on each engine."""
    made = [make(tmp_path / "other") for _, make in sorted(BACKENDS.items())]
    yield made
    for each in made:
        each.stop()


def fill(database: Database) -> None:
    """Some rows of every table, with what texts can hold, and API keys that are not sorted."""
    fences: MovedRow = {"one": 1, "moment": START - 900, "mark": START - 600}
    run(database.add_rows(Table.FENCES, [fences]))
    run(database.add_key(replace(OTHER, created_at=START)))
    run(database.add_key(replace(KEY, api_key="000", allow_v1=True, created_at=START)))
    run(database.rotate_key("000", "another secret", 60))
    for number in range(7):
        public_id, tags = f"a\0 \ufdd0 \U0001f408 {number}", ("\0", "ü")
        named = draft(public_id, blob=f"{number:032x}", tags=tags, original_filename="\0.jpg")
        keyed = replace(named, idempotency_key=f"key {number}")
        run(database.commit(grant(f"spent {number}"), keyed, CALLER))
        run(database.record_refusal(grant(f"spent {number}"), "signature_used", CALLER))
    run(database.revoke_grant(grant("revoked"), CALLER))
    for number in range(4):
        run(database.begin_relay(relay(grant(f"pending {number}"), key_hash=b"k" * 32), 60))
        run(database.set_upstream(f"cloud {number}", Upstream("acme", str(number), "secret \0")))
    run(database.condemn([f"{number:032x}" for number in range(100, 105)]))


def everything(database: Database) -> dict[Table, list[MovedRow]]:
    """Read a few rows at a time."""

    async def read(table: Table) -> list[MovedRow]:
        found: list[MovedRow] = []
        while batch := await database.rows(table, found[-1] if found else None, LIMIT):
            found += batch
        assert len(found) == await database.count_rows(table)
        assert await database.last_row(table) == (found[-1] if found else None)
        return found

    return {table: run(read(table)) for table in Table}


class Storage:
    """Without files, it only knows whose it is."""

    def __init__(self, name: str | None) -> None:
        self.name = name

    async def owner(self) -> str | None:
        return self.name

    async def set_owner(self, owner: str, *, replace: bool = False) -> None:
        self.name = owner if replace or self.name is None else self.name

    async def published(self) -> AsyncIterator[StoredBlob]:
        no_blobs: tuple[StoredBlob, ...] = ()
        for blob in no_blobs:
            yield blob


def move(source: Database, target: Database) -> Moved:
    stays: Any = Storage(run(source.owner()))
    return run(migrate_store(Store(source, stays), Store(target, stays), media=False))


def test_every_row_arrives_on_every_engine(database: Database, others: list[Backend]) -> None:
    fill(database)
    before = everything(database)
    assert all(before.values())
    for other in others:
        target = other.server()
        moved = move(database, target)
        assert (moved.complete, moved.rows) == (True, {table: len(rows) for table, rows in before.items()})
        assert everything(target) == everything(database) == before
        assert run(target.list_keys()) == run(database.list_keys())


def test_what_was_spent_stays_spent_and_what_comes_next_has_room(database: Database, others: list[Backend]) -> None:
    fill(database)
    for other in others:
        target = other.server()
        move(database, target)
        assert run(attempt(target, grant("spent 1"), draft(blob="b1"))) == "signature_used"
        assert run(attempt(target, grant("revoked"), draft(blob="b2"))) == "signature_revoked"
        assert run(attempt(target, grant("new"), draft("new", blob="b3"))) == "ok"
        reply = run(target.find_reply(grant("spent 2").key, "key 2"))
        assert reply is not None and isinstance(reply.answer, Committed)
        assert reply.answer.asset.name.public_id.endswith("2")
        assert run(attempt(target, grant("pending 1"), draft(blob="b4"))) == "outcome_unknown"
        pending = run(target.find_relay(relay(grant("pending 1")).id))
        assert pending is not None
        assert run(target.end_relay(pending, ANSWER))
        assert run(attempt(target, grant("pending 1"), draft(blob="b4"))) == "signature_used"
        assert len(run(target.list_effects(99))) == 3
        run(target.begin_relay(relay(grant("passed on")), 60))
        run(target.add_key(replace(KEY, api_key="999", created_at=START)))
        assert [key.api_key for key in run(target.list_keys())] == ["111", "222", "000", "999"]


def test_the_one_that_was_left_takes_nothing_more(database: Database, others: list[Backend]) -> None:
    """Or each of the two would accept what the other has spent."""
    fill(database)
    target = others[0].server()
    move(database, target)
    with pytest.raises(DatabaseUnavailable):
        run(database.commit(grant("new"), draft("new", blob="b"), CALLER))
    assert run(attempt(target, grant("new"), draft("new", blob="b"))) == "ok"
    run(database.thaw(SKEW))
    with pytest.raises(StaleRequest):
        run(database.commit(grant("new"), draft("new", blob="b"), CALLER))


class BreaksOff:
    """A target that fails after so many batches of rows."""

    def __init__(self, real: Database, batches: int) -> None:
        self._real = real
        self._left = batches

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def add_rows(self, table: Table, rows: list[MovedRow], *, opens: bool = False) -> None:
        self._left -= 1
        if self._left < 0:
            raise DatabaseUnavailable("gone")
        await self._real.add_rows(table, rows, opens=opens)


def test_it_goes_on_wherever_it_broke_off(
    database: Database, others: list[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is there by then, no server starts on it, and no key can be added."""
    monkeypatch.setattr("uponce.app.migrate_store._BATCH", LIMIT)
    fill(database)
    for other in others:
        target = other.server()
        broken = 0
        while True:
            try:
                moved = move(database, BreaksOff(target, 1))  # type: ignore[arg-type]
            except DatabaseUnavailable:
                broken += 1
                assert run(target.list_keys()) == []
                assert run(target.frozen())
                with pytest.raises(DatabaseUnavailable):
                    run(target.add_key(replace(KEY, created_at=START + 60)))
                continue
            break
        assert moved.complete and broken >= 10
        assert everything(target) == everything(database)
        again = move(database, target)
        assert (again.complete, again.rows, run(target.frozen())) == (True, {}, False)


def test_it_goes_on_between_two_batches_of_keys(
    database: Database, others: list[Backend], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("uponce.app.migrate_store._BATCH", 1)
    fill(database)
    stays: Any = Storage(run(database.owner()))
    for other in others:
        target = other.server()

        def stop(what: str, done: int, _: int) -> None:
            if what == Table.KEYS and done == 1:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            run(migrate_store(Store(database, stays), Store(target, stays), media=False, progress=stop))
        assert (len(run(target.list_keys())), run(target.frozen())) == (1, True)
        assert move(database, target).complete
        assert everything(target) == everything(database)


def test_a_part_of_a_store_whose_keys_a_server_has_imported_is_not_called_moved(
    database: Database, others: list[Backend]
) -> None:
    """Of a signature that was spent before, nothing may be there: it would work once more."""
    fill(database)
    run(database.freeze())
    for other in others:
        target = other.server()
        for key in run(database.list_keys()):
            run(target.add_key(replace(key, secrets=key.secrets[:1], created_at=START + 60)))
        with pytest.raises(SettingRefused, match="has other API keys already"):
            move(database, target)


def test_a_store_without_keys_is_open_in_the_end(others: list[Backend]) -> None:
    source, target = (other.server() for other in others)
    assert move(source, target).complete
    assert (run(source.frozen()), run(target.frozen())) == (True, False)


def test_into_an_older_backup_no_rows_are_added(database: Database, others: list[Backend]) -> None:
    """It is frozen like a target that an interrupted run has left, and has fewer keys."""
    fill(database)
    run(database.freeze())
    for other in others:
        backup = other.server()
        run(backup.add_rows(Table.KEYS, run(database.rows(Table.KEYS, None, 1))))
        run(backup.freeze())
        with pytest.raises(SettingRefused, match="The target's assets differ from those of the source"):
            move(database, backup)
        assert (run(backup.frozen()), run(backup.count_rows(Table.ASSETS))) == (True, 0)


def test_into_a_database_of_somebody_else_it_does_not_move(database: Database, others: list[Backend]) -> None:
    """And the source takes writes as before."""
    fill(database)
    for other in others:
        target = other.server()
        run(target.add_key(replace(KEY, api_key="777")))
        with pytest.raises(SettingRefused, match="has other API keys already"):
            move(database, target)
    assert not run(database.frozen())


def test_rows_that_differ_are_found_before_the_keys_move(database: Database, others: list[Backend]) -> None:
    fill(database)
    for other in others:
        target = other.server()
        run(target.condemn([f"{number:032x}" for number in range(100, 106)]))
        with pytest.raises(SettingRefused, match="The target's condemned differ from those of the source"):
            move(database, target)
        assert run(target.list_keys()) == []
