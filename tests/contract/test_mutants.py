"""Each guarantee broken on purpose: the check that proves it must go red, or it proves nothing."""

import asyncio
import sqlite3
import threading
from collections.abc import Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import postgres
from tests.contract.databases import KEY, WINDOW, PlainBox, SteppedClock, grant
from tests.contract.guarantees import (
    answers_of,
    check_answers_are_true,
    check_one_deletion_or_upload,
    check_one_is_passed_on,
    check_one_winner,
    check_only_the_owner_ends_a_relay,
    check_purge_forgets_nothing_usable,
    check_repeats_agree,
    check_wider_window_revives_nothing,
)
from uponce.adapters.database import commits, relays, sqlite
from uponce.adapters.database.commits import reply_params
from uponce.adapters.database.committer import More
from uponce.adapters.database.postgres import PostgresDatabase
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite.connection import Connection, Engine, connect
from uponce.adapters.database.steps import Operation, Steps, operation
from uponce.app.ports import Committed, Draft
from uponce.core.errors import UponceError
from uponce.core.refusals import refusal_of
from uponce.core.relaying import Forwarded, Relay, repeat_hash
from uponce.core.values import UNLIMITED_USES, Asset, AssetName, Caller, Grant


class LookFirst:
    """Looks first, then writes without a condition: right for one at a time, wrong for two.

    Nothing is written as long as a look is under way, so the order in which threads wake up does not matter.
    """

    looking = 0

    async def commit(self: Any, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        self.looking += 1
        record = await self.find_grant(grant.key)
        self.looking -= 1
        while self.looking:
            await asyncio.sleep(0)
        refusal = record and refusal_of(record, 1)
        if refusal:
            raise refusal
        return await super().commit(replace(grant, max_uses=UNLIMITED_USES), draft, caller)  # type: ignore[misc, no-any-return]


class LookThenPassOn(SqliteDatabase):
    """As LookFirst, for an upload that is passed on."""

    looking = 0

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        self.looking += 1
        record = await self.find_grant(relay.grants[0].key)
        self.looking -= 1
        while self.looking:
            await asyncio.sleep(0)
        refusal = record and refusal_of(record, 1)
        if refusal:
            raise refusal
        unlimited = tuple(replace(each, max_uses=UNLIMITED_USES) for each in relay.grants)
        return await super().begin_relay(replace(relay, grants=unlimited), seconds)


@operation()
def end(now: float, relay: Relay, answer: Forwarded | None, code: str) -> Steps[bool]:
    yield [("end_relay", {"relay_id": relay.id}), *relays.ending(now, relay, answer, code)]
    return True


class EndWithoutOwning(SqliteDatabase):
    """Writes the outcome of a relay whose row may be gone."""

    async def end_relay(self, relay: Relay, answer: Forwarded | None, code: str = "") -> bool:
        return await self.write(end(relay, answer, code))


class SelectThenInsert(LookFirst, SqliteDatabase):
    pass


class SelectThenInsertOnPostgres(LookFirst, PostgresDatabase):
    pass


@operation()
def drop(_: float, asset: Asset) -> Steps[None]:
    yield [("drop_asset", {"asset_id": asset.asset_id})]


@operation()
def spend(now: float, grant: Grant) -> Steps[None]:
    yield from commits._spend(grant, now, "a call")


@operation()
def keep_reply(_: float, grant: Grant, draft: Draft, committed: Committed) -> Steps[None]:
    assert draft.idempotency_key is not None
    key_hash = repeat_hash(draft.idempotency_key)
    yield [("keep_reply", reply_params(grant, key_hash, draft.asset.digest, committed))]


class DropThenSpend(SqliteDatabase):
    """Drops the row, and spends in a separate transaction."""

    async def delete(self, grant: Grant, name: AssetName, caller: Caller) -> Asset | None:
        asset = await self.find_asset(name)
        if asset is not None:
            await self.write(drop(asset))
            await self.write(spend(grant))
        return asset


class ReplyAfterCommit(SqliteDatabase):
    """Stores the answer once it is known, in a separate transaction, after all looks that have begun."""

    looking = 0

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        self.looking += 1
        reply = draft.idempotency_key and await self.find_reply(grant.key, draft.idempotency_key)
        self.looking -= 1
        if reply:
            repeated = reply.repeat(draft.asset.digest.sha256)
            assert isinstance(repeated, Committed)
            return repeated
        committed = await super().commit(grant, replace(draft, idempotency_key=None), caller)
        while self.looking:
            await asyncio.sleep(0)
        if draft.idempotency_key:
            await self.write(keep_reply(grant, draft, committed))
        return committed


class PurgeByTimeOfUse(SqliteDatabase):
    """Forgets a grant one window after it was used, and keeps no watermark."""

    async def purge(self, audit_seconds: int | None, dead_seconds: int | None = None) -> int:
        return _delete(self, "spent_at + ? < ?", WINDOW)


class PurgeWithoutWatermark(SqliteDatabase):
    """Forgets at the right time, but not that it forgot."""

    async def purge(self, audit_seconds: int | None, dead_seconds: int | None = None) -> int:
        return _delete(self, "keep_until + ? < ?", 0)


def _delete(database: SqliteDatabase, where: str, seconds: int) -> int:
    with closing(sqlite3.connect(database._path, isolation_level=None)) as connection:
        return connection.execute(f"DELETE FROM grants WHERE {where}", (seconds, database._clock.now())).rowcount


class Hasty(Engine):
    """Does not tell whether COMMIT failed for those that the kind of their outcome says nothing can happen to."""

    hasty: tuple[type, ...] = ()

    def transact(self, operations: Sequence[Operation[Any]], more: More) -> Sequence[Any]:
        outcomes: list[Any] = []
        run_all = self._run_all

        def remembered(connection: Connection, all_: Sequence[Operation[Any]]) -> Sequence[Any]:
            outcomes.extend(run_all(connection, all_))
            return outcomes

        self._run_all = remembered  # type: ignore[assignment, method-assign]
        try:
            return super().transact(operations, more)
        except UponceError as failed:
            return [each if isinstance(each, self.hasty) else failed for each in outcomes]
        finally:
            self._run_all = run_all  # type: ignore[method-assign]


class AnswerBeforeCommit(Hasty):
    """Answers each caller with what its operation came to, whatever COMMIT answers."""

    hasty = (object,)


class RefuseBeforeCommit(Hasty):
    """Keeps successes back until they are durable, but not refusals: they change nothing, do they?"""

    hasty = (UponceError,)


class FailingCommit(Connection):
    """COMMIT of an armed connection fails and does nothing; `hold` keeps BEGIN back until it is set."""

    armed = False
    hold = threading.Event()

    def execute(self, sql: str, parameters: object = (), /) -> sqlite3.Cursor:
        if sql == "BEGIN IMMEDIATE":
            type(self).hold.wait(60)
        if sql == "COMMIT" and type(self).armed:
            raise sqlite3.OperationalError("disk I/O error")
        return super().execute(sql, parameters)  # type: ignore[arg-type]


def _servers(path: Path, clock: SteppedClock, database: type[SqliteDatabase], count: int = 1) -> list[SqliteDatabase]:
    servers = [database(path, clock=clock, secrets=PlainBox()) for _ in range(count)]
    for server in servers:
        server.open()
    asyncio.run(servers[0].add_key(KEY))
    return servers


def _close(servers: Sequence[SqliteDatabase]) -> None:
    for server in servers:
        server.close()


# The others got the right refusal, if there were any.
SEVERAL_WON = r"^([2-9]|\d\d) won, and the others got \[('signature_used'|'OutcomeUnknown')?\]$"


@pytest.mark.parametrize("count", [1, 2])
def test_select_then_insert_spends_twice(tmp_path: Path, count: int) -> None:
    """In one server already, where each caller waits for its look; the real one passes on the same path."""
    servers = _servers(tmp_path / "mutant.db", SteppedClock(), SelectThenInsert, count)
    with pytest.raises(AssertionError, match=SEVERAL_WON):
        asyncio.run(check_one_winner(servers))
    _close(servers)
    servers = _servers(tmp_path / "real.db", SteppedClock(), SqliteDatabase, count)
    asyncio.run(check_one_winner(servers))
    _close(servers)


def test_a_deletion_that_spends_after_it_deletes_more_than_one(tmp_path: Path) -> None:
    servers = _servers(tmp_path / "mutant.db", SteppedClock(), DropThenSpend)
    with pytest.raises(AssertionError, match=r"^([2-9]|\d\d) assets are gone$"):
        asyncio.run(check_one_deletion_or_upload(servers))
    _close(servers)
    servers = _servers(tmp_path / "real.db", SteppedClock(), SqliteDatabase)
    asyncio.run(check_one_deletion_or_upload(servers))
    _close(servers)


@pytest.mark.parametrize("count", [1, 2])
def test_select_then_insert_passes_on_twice(tmp_path: Path, count: int) -> None:
    servers = _servers(tmp_path / "mutant.db", SteppedClock(), LookThenPassOn, count)
    with pytest.raises(AssertionError, match=SEVERAL_WON):
        asyncio.run(check_one_is_passed_on(servers))
    _close(servers)
    servers = _servers(tmp_path / "real.db", SteppedClock(), SqliteDatabase, count)
    asyncio.run(check_one_is_passed_on(servers))
    _close(servers)


def test_an_outcome_written_without_owning_the_row_frees_the_use_of_another_attempt(tmp_path: Path) -> None:
    servers = _servers(tmp_path / "mutant.db", SteppedClock(), EndWithoutOwning)
    with pytest.raises(AssertionError, match="without a row wrote its outcome"):
        asyncio.run(check_only_the_owner_ends_a_relay(servers[0]))
    _close(servers)
    servers = _servers(tmp_path / "real.db", SteppedClock(), SqliteDatabase)
    asyncio.run(check_only_the_owner_ends_a_relay(servers[0]))
    _close(servers)


@pytest.mark.parametrize(
    ("max_uses", "seen"),
    [(1, "SignatureUsed"), (UNLIMITED_USES, r"^([2-9]|\d\d) were stored$")],
    ids=["once", "unlimited"],
)
def test_a_reply_stored_outside_of_the_transaction_is_not_there_for_all_repeats(
    tmp_path: Path, max_uses: int, seen: str
) -> None:
    """One that comes in between is refused, or uploads a second time."""
    servers = _servers(tmp_path / "mutant.db", SteppedClock(), ReplyAfterCommit)
    with pytest.raises(AssertionError, match=seen):
        asyncio.run(check_repeats_agree(servers, max_uses=max_uses))
    _close(servers)
    servers = _servers(tmp_path / "real.db", SteppedClock(), SqliteDatabase)
    asyncio.run(check_repeats_agree(servers, max_uses=max_uses))
    _close(servers)


@pytest.mark.parametrize("count", [1, 2])
def test_select_then_insert_spends_twice_on_postgres(count: int) -> None:
    red = pytest.raises(AssertionError, match=SEVERAL_WON)
    for kind, told in ((SelectThenInsertOnPostgres, red), (PostgresDatabase, nullcontext())):
        url = postgres.shared().fresh_schema()
        servers = [kind(url, clock=SteppedClock(), secrets=PlainBox(), seconds=60) for _ in range(count)]
        for server in servers:
            server.open()
        asyncio.run(servers[0].add_key(KEY))
        with told:
            asyncio.run(check_one_winner(servers))
        for server in servers:
            server.close()


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (PurgeByTimeOfUse, check_purge_forgets_nothing_usable),
        (PurgeByTimeOfUse, check_wider_window_revives_nothing),
        (PurgeWithoutWatermark, check_wider_window_revives_nothing),
    ],
)
def test_a_careless_purge_lets_a_spent_signature_in_again(
    tmp_path: Path, mutant: type[SqliteDatabase], check: object
) -> None:
    assert callable(check)
    clock = SteppedClock()
    servers = _servers(tmp_path / "mutant.db", clock, mutant)
    with pytest.raises(AssertionError, match="a spent signature was accepted again"):
        asyncio.run(check(servers[0], clock))
    _close(servers)
    clock = SteppedClock()
    servers = _servers(tmp_path / "real.db", clock, SqliteDatabase)
    asyncio.run(check(servers[0], clock))
    _close(servers)


@pytest.mark.parametrize(
    ("engine", "seen"),
    [
        (AnswerBeforeCommit, "^answered as stored, and found as None$"),
        (RefuseBeforeCommit, "^refused as used, and no row says so$"),
        (Engine, ""),
    ],
)
def test_answers_given_before_the_commit_turn_out_untrue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: type[Engine], seen: str
) -> None:
    """Two racers share a batch whose COMMIT fails; the refused one saw a spend that never was."""

    class Armed(FailingCommit):
        hold = threading.Event()

    def connect_failing(path: Path) -> Connection:
        return connect(path, factory=Armed)

    monkeypatch.setattr(sqlite, "Engine", engine)
    Armed.hold.set()
    database = SqliteDatabase(tmp_path / "uponce.db", clock=SteppedClock(), secrets=PlainBox(), connect=connect_failing)
    database.open()

    async def story() -> None:
        await database.add_key(KEY)
        Armed.hold.clear()
        Armed.armed = True
        racers = asyncio.ensure_future(answers_of(database, grant("contested"), 2))
        await asyncio.sleep(0)  # both are submitted before the batch begins
        await asyncio.sleep(0)
        Armed.hold.set()
        await check_answers_are_true(database, await racers)

    if engine is Engine:
        asyncio.run(story())
    else:
        with pytest.raises(AssertionError, match=seen):
            asyncio.run(story())
    database.close()
