"""What any Database must do (app/ports/), run on every back end: a grant works once, or is revoked."""

import asyncio
import multiprocessing
import re
import threading
from collections.abc import Awaitable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import Any, cast

import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    START,
    Backend,
    T,
    attempt,
    draft,
    grant,
    publish,
    race_in_process,
    run,
    unlimited,
)
from tests.contract.guarantees import (
    check_one_winner,
)
from uponce.app.ports import Database
from uponce.core.errors import (
    SignatureRevoked,
    SignatureUsed,
    UnknownApiKey,
    UponceError,
)
from uponce.core.lineage import follows
from uponce.core.values import (
    AuditEvent,
    GrantStatus,
)

SECONDS = 60  # longer than a machine stalls


def test_a_commit_spends_the_grant_and_publishes_the_asset(database: Database) -> None:
    committed = run(publish(database, "a"))
    assert not committed.existing
    assert not committed.overwritten
    assert committed.unneeded_blob is None
    assert (committed.asset.version, committed.asset.created_at) == (START, START)
    assert run(database.find_asset(committed.asset.name)) == committed.asset
    assert run(database.find_commit("blob-a")) == committed.asset
    record = run(database.find_grant(grant("a").key))
    assert record is not None
    assert (record.grant, record.uses, record.spent_at, record.revoked_at) == (grant("a"), 1, START, None)
    assert record.status is GrantStatus.USED


def test_a_second_use_is_told_when_the_first_one_completed(database: Database) -> None:
    run(publish(database, "a"))
    with pytest.raises(SignatureUsed, match=r"already used by an upload that completed at 2026-01-01 00:00:00 \+0000"):
        run(database.commit(grant("a"), draft("dog", blob="other"), CALLER))


@pytest.mark.parametrize("max_uses", [1, 3])
def test_of_many_racers_in_one_process_exactly_max_uses_win(database: Database, max_uses: int) -> None:
    run(check_one_winner([database], max_uses=max_uses, racers=64))


def test_of_racers_on_two_servers_exactly_one_wins(backend: Backend, database: Database) -> None:
    run(check_one_winner([database, backend.server()]))


def test_of_racers_in_four_processes_exactly_max_uses_win(backend: Backend, database: Database) -> None:
    """Eight racers a grant, two in each process; some grants are good for three uses."""
    contested = [grant(f"contested-{number}", max_uses=3 if number % 4 == 0 else 1) for number in range(40)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(race_in_process, backend.recipe, contested, label) for label in "abcd"]
        answers = [future.result(timeout=240) for future in runs]
    for number, subject in enumerate(contested):
        told = [code for process in answers for code in process[number]]
        assert sorted(told) == ["ok"] * subject.max_uses + ["signature_used"] * (8 - subject.max_uses)
        record = run(database.find_grant(subject.key))
        assert record is not None
        assert record.uses == subject.max_uses
        spent = [line for line in run(database.history(subject.key, 100)) if line.event is AuditEvent.SPENT]
        assert len(spent) == subject.max_uses


def test_an_unlimited_grant_counts_its_uses(database: Database) -> None:
    many = unlimited(grant("many"))
    for number in range(5):
        assert run(attempt(database, many, draft(f"p{number}", blob=f"b{number}"))) == "ok"
    record = run(database.find_grant(many.key))
    assert record is not None
    assert (record.uses, record.status) == (5, GrantStatus.UNUSED)


def test_loosening_a_policy_does_not_revive_what_was_used_up(database: Database) -> None:
    run(publish(database, "a"))
    assert run(attempt(database, unlimited(grant("a")), draft(blob="late"))) == "signature_used"


def test_tightening_a_policy_ends_what_was_used_often(database: Database) -> None:
    assert run(attempt(database, unlimited(grant("a")), draft(blob="one"))) == "ok"
    assert run(attempt(database, grant("a"), draft(blob="two"))) == "signature_used"


def test_the_strictest_policy_that_a_grant_was_used_under_stays(database: Database) -> None:
    """Loosening it later gives none of the uses back."""
    told = [
        run(attempt(database, used, draft(blob=f"b{number}")))
        for number, used in enumerate([unlimited(grant("a")), grant("a", max_uses=2), unlimited(grant("a"))])
    ]
    assert told == ["ok", "ok", "signature_used"]


def test_a_use_is_told_with_the_time_of_the_last_one(backend: Backend, database: Database) -> None:
    twice = grant("twice", max_uses=2)
    for number in range(2):
        run(database.commit(twice, draft(blob=f"b{number}"), CALLER))
        backend.clock.time += 60
    with pytest.raises(SignatureUsed, match=r"completed at 2026-01-01 00:01:00 \+0000"):
        run(database.commit(twice, draft(blob="late"), CALLER))


def test_a_refused_commit_leaves_no_trace(database: Database) -> None:
    run(publish(database, "a"))
    before = run(database.find_asset(draft(blob="x").asset.name))
    with pytest.raises(SignatureUsed):
        run(database.commit(grant("a"), draft(blob="late"), CALLER))
    with pytest.raises(SignatureUsed):
        run(database.commit(grant("a"), draft("new-name", blob="later"), CALLER))
    assert run(database.find_commit("late")) is None
    assert run(database.find_asset(draft("new-name", blob="x").asset.name)) is None
    assert run(database.find_asset(draft(blob="x").asset.name)) == before
    assert [line.event for line in run(database.history(grant("a").key, 10))] == [AuditEvent.SPENT]


def test_the_key_is_asked_again_at_the_commit(database: Database) -> None:
    """A key that is revoked while an upload runs stops it."""
    run(database.revoke_key(KEY.api_key))
    with pytest.raises(UnknownApiKey, match=r"^Unknown API key 111\. It was revoked during the request\.$"):
        run(publish(database, "a"))
    assert run(database.find_grant(grant("a").key)) is None


def test_a_key_is_of_one_cloud(database: Database) -> None:
    with pytest.raises(UnknownApiKey):
        run(database.commit(replace(grant("a"), cloud="elsewhere"), draft(blob="a"), CALLER))
    assert run(database.find_grant(grant("a").key)) is None


def test_what_was_committed_survives_a_restart(backend: Backend, database: Database) -> None:
    committed = run(publish(database, "a"))
    run(database.revoke_grant(grant("b"), CALLER))
    backend.stop()
    reopened = backend.server()
    assert run(reopened.find_asset(committed.asset.name)) == committed.asset
    assert run(attempt(reopened, grant("a"), draft(blob="late"))) == "signature_used"
    assert run(attempt(reopened, grant("b"), draft(blob="late"))) == "signature_revoked"
    assert run(reopened.list_keys()) == [KEY]


def test_a_grant_revoked_before_its_first_use_is_refused(backend: Backend, database: Database) -> None:
    backend.clock.time = START + 60
    record = run(database.revoke_grant(grant("a"), CALLER))
    assert (record.status, record.uses, record.revoked_at) == (GrantStatus.REVOKED, 0, START + 60)
    with pytest.raises(SignatureRevoked, match=r"revoked at 2026-01-01 00:01:00 \+0000"):
        run(publish(database, "a"))
    assert run(database.find_commit("blob-a")) is None
    assert run(database.find_grant(grant("a").key)) == record


def test_a_grant_that_is_used_up_stays_used(database: Database) -> None:
    run(publish(database, "a"))
    record = run(database.revoke_grant(grant("a"), CALLER))
    assert (record.status, record.revoked_at) == (GrantStatus.USED, None)
    assert [line.event for line in run(database.history(grant("a").key, 10))] == [AuditEvent.SPENT]


def test_a_partly_used_grant_can_be_revoked(database: Database) -> None:
    twice = grant("twice", max_uses=2)
    assert run(attempt(database, twice, draft(blob="one"))) == "ok"
    assert run(database.revoke_grant(twice, CALLER)).status is GrantStatus.REVOKED
    assert run(attempt(database, twice, draft(blob="two"))) == "signature_revoked"
    history = run(database.history(twice.key, 10))
    assert [line.event for line in history] == [AuditEvent.SPENT, AuditEvent.REVOKED]


def test_what_a_stricter_policy_refuses_can_be_revoked_before_the_policy_is_loosened(database: Database) -> None:
    """The row has uses left, and would be good for them again."""
    assert run(attempt(database, unlimited(grant("a")), draft(blob="one"))) == "ok"
    assert run(database.revoke_grant(grant("a"), CALLER)).status is GrantStatus.REVOKED
    assert run(attempt(database, unlimited(grant("a")), draft(blob="two"))) == "signature_revoked"
    events = [line.event for line in run(database.history(grant("a").key, 10))]
    assert events == [AuditEvent.SPENT, AuditEvent.REVOKED]


def test_revoking_again_changes_nothing(backend: Backend, database: Database) -> None:
    first = run(database.revoke_grant(grant("a"), CALLER))
    backend.clock.time += 100
    assert run(database.revoke_grant(grant("a"), CALLER)) == first
    assert len(run(database.history(grant("a").key, 10))) == 1


OF_THE_FIRST = {"commit": ("ok", GrantStatus.USED), "revocation": ("signature_revoked", GrantStatus.REVOKED)}


@pytest.mark.parametrize("first", OF_THE_FIRST)
def test_of_a_revocation_and_a_commit_in_one_group_the_first_wins(database: Database, first: str) -> None:
    async def both(number: int) -> None:
        contested = grant(f"contested-{number}")
        commit = attempt(database, contested, draft(blob=f"b{number}"))
        revocation = database.revoke_grant(contested, CALLER)
        if first == "commit":
            told, record = await asyncio.gather(commit, revocation)
        else:
            record, told = await asyncio.gather(revocation, commit)
        assert (told, record.status) == OF_THE_FIRST[first]

    async def many() -> None:
        await asyncio.gather(*(both(number) for number in range(50)))

    run(many())


@pytest.mark.parametrize("first", OF_THE_FIRST)
def test_a_revocation_and_a_commit_never_both_win(
    backend: Backend, database: Database, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """On two servers. The second one begins while the transaction of the first one is open."""
    other, contested = backend.server(), grant("contested")
    servers = (database, other) if first == "commit" else (other, database)
    is_open = hold_until_begun(*servers, monkeypatch)

    async def second(act: Awaitable[T]) -> T:
        assert await asyncio.to_thread(is_open.wait, SECONDS)
        return await act

    async def both() -> None:
        commit, revocation = attempt(database, contested, draft(blob="b")), other.revoke_grant(contested, CALLER)
        if first == "commit":
            told, record = await asyncio.gather(commit, second(revocation))
        else:
            told, record = await asyncio.gather(second(commit), revocation)
        assert (told, record.status) == OF_THE_FIRST[first]

    run(both())


def hold_until_begun(first: Database, second: Database, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the next transaction of the first server write, and stay open until the second server begins one.

    Return the event that it is open.
    """
    is_open, begun = threading.Event(), threading.Event()
    ahead, behind = (cast(Any, server)._committer._engine for server in (first, second))
    run_all, transact = ahead._run_all, behind.transact

    def stay(*arguments: Any) -> Any:
        outcomes = run_all(*arguments)
        is_open.set()
        assert begun.wait(SECONDS), "the second server began no transaction"
        return outcomes

    def begin(*arguments: Any) -> Any:
        begun.set()
        return transact(*arguments)

    monkeypatch.setattr(ahead, "_run_all", stay)
    monkeypatch.setattr(behind, "transact", begin)
    return is_open


def test_ping_returns(database: Database) -> None:
    run(database.ping())


def test_a_closed_database_says_that_it_is_unavailable(backend: Backend, database: Database) -> None:
    backend.stop()
    for call in (database.ping(), database.find_key("111"), database.revoke_key("111"), publish(database, "a")):
        with pytest.raises(UponceError) as caught:
            run(call)
        assert caught.value.code == "database_unavailable"
        assert caught.value.retry_after


def test_all_servers_of_a_database_have_one_owner(backend: Backend, database: Database) -> None:
    """Also if two start for the first time at once, and if the database is frozen."""
    servers = [database, backend.server()]

    async def make() -> list[str]:
        return await asyncio.gather(*(server.make_owner() for server in servers * 4))

    assert run(database.owner()) is None
    run(database.freeze())
    (owner,) = set(run(make()))
    assert [run(server.owner()) for server in servers] == [owner, owner]


def test_of_two_owners_that_follow_one_at_once_the_first_counts(backend: Backend, database: Database) -> None:
    servers = [database, backend.server()]

    async def follow() -> list[str]:
        return await asyncio.gather(*(server.follow_owner("lost") for server in servers * 4))

    run(database.make_owner())
    (owner,) = set(run(follow()))
    assert run(database.owner()) == owner
    assert follows(owner, "lost")
    assert re.fullmatch(r"[0-9a-f]{32}\.lost", owner)
    assert run(database.follow_owner(owner)) != owner


def test_a_database_without_an_owner_follows_one_that_was_lost(database: Database) -> None:
    assert follows(run(database.follow_owner("lost")), "lost")
