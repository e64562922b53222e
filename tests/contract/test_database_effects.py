"""What any Database must do, run on every back end: the commit that stores an asset leaves the effects of its draft."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    START,
    Backend,
    Opened,
    PlainBox,
    SteppedClock,
    attempt,
    claim,
    draft,
    grant,
    relay,
    run,
)
from tests.contract.grouped import Grouped
from tests.contract.test_database_relays import begun
from tests.contract.test_database_series import complete
from uponce.adapters.database import outbox, upkeep
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.steps import Operation, Steps, operation
from uponce.app.ports import AfterCommit, Committed, Database, Draft, NewEffect
from uponce.core.errors import BlobCondemned
from uponce.core.values import Caller, Grant

NOTIFY, RECEIVER, URL = "notify", "app.example", "https://app.example/uploaded"
A, B = grant("a"), grant("b")


def noticed(blob: str, public_id: str = "cat", *, overwrite: bool = True, receiver: str = RECEIVER) -> Draft:
    return replace(draft(public_id, blob=blob, overwrite=overwrite), effects=(NewEffect(NOTIFY, receiver, URL),))


def leave(database: Database, *receivers: str) -> None:
    """Leave one notification for each, of another asset each."""
    for number, receiver in enumerate(receivers, len(run(database.list_effects(1000)))):
        run(database.commit(grant(f"n{number}"), noticed(f"n{number}", f"cat{number}", receiver=receiver), CALLER))


def left(database: Database) -> list[AfterCommit]:
    """The notices in the outbox, oldest first."""
    effects = sorted(run(database.list_effects(1000)), key=lambda effect: effect.id)
    assert all(effect.name == NOTIFY for effect in effects)
    return [msgspec.json.decode(effect.details, type=AfterCommit) for effect in effects]


def test_a_commit_leaves_the_notification_of_what_it_stored(backend: Backend, database: Database) -> None:
    committed = run(database.commit(A, noticed("blob-a"), CALLER))
    assert left(database) == left(backend.server()) == [AfterCommit(URL, KEY.api_key, CALLER.request_id, committed)]
    (effect,) = run(database.list_effects(10))
    assert (effect.receiver, effect.subject, effect.due_at, effect.tries) == (
        RECEIVER,
        committed.asset.asset_id,
        START,
        0,
    )


def test_the_notification_of_an_overwrite_names_no_blob_that_is_deleted(database: Database) -> None:
    run(database.commit(A, draft(blob="blob-a"), CALLER))
    overwritten = run(database.commit(B, noticed("blob-b"), CALLER))
    assert overwritten.unneeded_blob == "blob-a"
    assert [after.committed for after in left(database)] == [replace(overwritten, unneeded_blob=None)]


def test_each_kind_of_effect_is_claimed_apart(database: Database) -> None:
    run(database.commit(A, noticed("blob-a"), CALLER))
    run(begun(database, relay(B), seconds=0))
    assert [effect.name for effect in run(claim(database, "relay", 10, 60))] == ["relay"]
    assert [effect.name for effect in run(claim(database, NOTIFY, 10, 60))] == [NOTIFY]


def test_a_commit_without_a_url_leaves_none(database: Database) -> None:
    run(database.commit(A, draft(blob="blob-a"), CALLER))
    assert left(database) == []


def test_what_is_refused_leaves_none(database: Database) -> None:
    run(database.commit(A, noticed("blob-a"), CALLER))
    assert run(attempt(database, A, noticed("blob-b"))) == "signature_used"
    run(database.condemn(["blob-c"]))
    with pytest.raises(BlobCondemned):
        run(database.commit(B, noticed("blob-c"), CALLER))
    assert len(left(database)) == 1


def test_a_repeat_leaves_no_second_one(database: Database) -> None:
    repeated = replace(noticed("blob-a"), idempotency_key="once")
    run(database.commit(A, repeated, CALLER))
    assert run(database.commit(A, replace(noticed("blob-b"), idempotency_key="once"), CALLER)).replayed
    assert len(left(database)) == 1


def test_of_a_group_each_upload_leaves_its_own(database: Database) -> None:
    async def arrive() -> None:
        grouped = Grouped(database)
        sent = [grouped.commit(grant(f"g{n}"), noticed(f"blob-{n}", f"cat-{n % 3}"), CALLER) for n in range(12)]
        await asyncio.gather(*sent)

    run(arrive())
    assert {notice.committed.asset.blob_key for notice in left(database)} == {f"blob-{n}" for n in range(12)}
    assert len(left(database)) == 12


def test_a_series_leaves_one_for_all_its_signatures(database: Database) -> None:
    series = run(complete(database, A, B))
    committed = run(database.commit_series(series.id, noticed(series.blob_key), CALLER))
    assert [notice.committed for notice in left(database)] == [committed]


def test_notifications_of_one_asset_come_in_the_order_of_its_commits(database: Database) -> None:
    for name in "abc":
        run(database.commit(grant(name), noticed(f"blob-{name}"), CALLER))
    run(database.commit(grant("d"), noticed("blob-d", "another"), CALLER))
    seen: list[str] = []
    while effects := run(claim(database, NOTIFY)):
        blobs = [msgspec.json.decode(effect.details, type=AfterCommit).committed.asset.blob_key for effect in effects]
        assert len(blobs) == (1 if seen else 2)  # of each asset its first only
        seen += blobs
        for effect in effects:
            run(database.finish_effect(effect.id))
    assert [blob for blob in seen if blob != "blob-d"] == ["blob-a", "blob-b", "blob-c"]


def waiting(database: Database, names: str = "abc", public_id: str = "cat") -> list[int]:
    """The numbers of effects of one asset, in order."""
    for name in names:
        run(database.commit(grant(f"{public_id}-{name}"), noticed(f"{public_id}-{name}", public_id), CALLER))
    return sorted(effect.id for effect in run(database.list_effects(100)))[-len(names) :]


def claimed(database: Database) -> list[int]:
    return [effect.id for effect in run(claim(database, NOTIFY, 10, 60))]


def due(database: Database, now: float = START) -> list[int]:
    """The effects that a look has to read."""
    return sorted(effect.id for effect in run(database.list_effects(100)) if effect.due_at <= now and not effect.dead)


def postpone(database: Database, number: int, error: str, *, dead: bool = False) -> None:
    effect = run(database.find_effect(number))
    assert effect is not None
    run(database.postpone_effect(effect, 0, error, dead=dead))


@pytest.mark.parametrize("dies", [False, True])
def test_an_effect_that_was_made_due_during_its_run_stays_due(backend: Backend, database: Database, dies: bool) -> None:
    """By a notification, by a new URL of the account, or by an operator. The next run may be postponed."""
    run(begun(database, relay(B), seconds=0))
    (first,) = run(claim(database, "relay", 10, 60))
    run(database.hasten_relays("demo", ["cat"], 5))
    run(database.postpone_effect(first, 360, "found nothing", dead=dies))
    backend.clock.time += 5
    (second,) = run(claim(database, "relay", 10, 60))
    run(database.postpone_effect(first, 0, "claimed again by now", dead=dies))
    assert run(claim(database, "relay", 10, 60)) == []
    run(database.postpone_effect(second, 360, "found nothing", dead=dies))
    (listed,) = run(database.list_effects(10))
    assert (listed.due_at, listed.error, listed.dead) == (START + 365, "found nothing", dies)


@pytest.mark.parametrize("dies", [False, True])
def test_an_effect_is_due_when_the_one_before_it_has_ended(database: Database, dies: bool) -> None:
    """Until then no look reads it, however many wait."""
    for number in waiting(database):
        assert claimed(database) == [number]
        assert claimed(database) == due(database) == []
        postpone(database, number, "not yet")
        assert claimed(database) == [number]
        if dies:
            postpone(database, number, "gone", dead=True)
        else:
            run(database.finish_effect(number))


def test_the_first_effect_of_each_asset_is_found_behind_any_number_that_wait(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "BATCH", 2)
    first, *_ = waiting(database, "abcdefg")
    (other,) = waiting(database, "a", "dog")
    leave(database, "another.example")
    assert claimed(database)[1:] == [first, other]
    assert due(database) == []


def test_a_dead_effect_that_is_retried_runs_before_later_ones(database: Database) -> None:
    first, second, third = waiting(database)
    assert claimed(database) == [first]
    postpone(database, first, "gone", dead=True)
    assert run(database.retry_effects()) == 1
    for number in (first, second, third):
        assert claimed(database) == [number]
        run(database.finish_effect(number))


def test_an_effect_that_waits_may_be_retried_and_waits_on(database: Database) -> None:
    first, second, _ = waiting(database)
    assert claimed(database) == [first]
    assert run(database.retry_effects(second)) == 1
    assert due(database) == [second]
    assert claimed(database) == due(database) == []


def test_an_effect_that_no_server_made_due_waits_for_hours_only(backend: Backend, database: Opened) -> None:
    @operation(writes=True)
    def finish_only(_: float) -> Steps[None]:
        yield [("finish_effect", {"id": first})]

    first, second, _ = waiting(database)
    assert claimed(database) == [first]
    run(database.write(finish_only()))
    assert claimed(database) == []
    backend.clock.time += 6 * 3600
    assert claimed(database) == [second]


def dead_notifications(database: Database, count: int) -> list[int]:
    """The numbers of effects that no server tries any more, in order."""
    for number in range(count):
        run(database.commit(grant(f"d{number}"), noticed(f"blob-d{number}", f"dead-{number}"), CALLER))
    effects = run(claim(database, NOTIFY, count, 60))
    for effect in effects:
        run(database.postpone_effect(effect, 0, "gone", dead=True))
    return sorted(effect.id for effect in effects)


def test_dead_notifications_can_be_dropped(database: Database) -> None:
    first, second, third = dead_notifications(database, 3)
    run(database.commit(A, noticed("blob-a"), CALLER))
    (alive,) = (effect.id for effect in run(database.list_effects(10)) if not effect.dead)
    assert run(database.drop_dead_effects(NOTIFY, second)) == 1
    assert [run(database.drop_dead_effects(NOTIFY, number)) for number in (second, alive, alive + 1)] == [0, 0, 0]
    assert {effect.id for effect in run(database.list_effects(10))} == {first, third, alive}
    assert run(database.drop_dead_effects(NOTIFY)) == 2
    assert [effect.id for effect in run(database.list_effects(10))] == [alive]
    assert run(database.count_waiting()).dead == 0


def test_dead_notifications_end_after_their_time(
    backend: Backend, database: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted from their death. A notification that is posted again has more time."""
    monkeypatch.setattr(upkeep, "BATCH", 1)
    dead = set(dead_notifications(database, 3))
    run(database.commit(A, noticed("blob-a"), CALLER))

    def kept(dead_seconds: int | None) -> int:
        run(database.purge(None, dead_seconds))
        return len(dead & {effect.id for effect in run(database.list_effects(10))})

    backend.clock.time += 100
    assert (kept(None), kept(100)) == (3, 3)
    backend.clock.time += 1
    run(database.retry_effects(min(dead)))
    assert (kept(None), kept(100)) == (3, 1)
    assert len(run(database.list_effects(10))) == 2


def test_effects_of_a_clock_that_was_far_ahead_are_due_after_a_purge(
    backend: Backend, database: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A new one, and one that was claimed. An effect that waits stays as it is."""
    monkeypatch.setattr(upkeep, "BATCH", 1)
    backend.clock.time = START + 10**8
    run(database.commit(B, noticed("blob-b", "dog"), CALLER))
    run(begun(database, relay(grant("c")), seconds=0))
    run(claim(database, "relay", 10, 60))
    backend.clock.time = START
    assert run(claim(database, NOTIFY, 10, 60)) == run(claim(database, "relay", 10, 60)) == []
    run(database.commit(A, noticed("blob-a"), CALLER))
    (waits,) = run(claim(database, NOTIFY, 10, 6 * 3600))
    run(database.purge(None, 100))
    (late,), (look_up,) = run(claim(database, NOTIFY, 10, 60)), run(claim(database, "relay", 10, 60))
    assert (late.tries, look_up.tries) == (1, 2)
    found = {effect.id: effect.due_at for effect in run(database.list_effects(10))}
    assert found[waits.id] == START + 6 * 3600


def test_a_clock_far_behind_changes_no_age_of_an_effect_and_drops_no_dead_one(
    backend: Backend, database: Opened
) -> None:
    """As on a machine that starts in 1970. Else the effects would be too old when the clock is right again."""
    (dead,) = dead_notifications(database, 1)
    run(database.commit(B, noticed("blob-b", "dog"), CALLER))
    before = {effect.id: effect for effect in run(database.list_effects(10))}
    backend.clock.time = START - 10**8
    run(database.purge(None, 100))
    backend.clock.time = START + 1
    run(database.purge(None, 100))
    after = {effect.id: effect for effect in run(database.list_effects(10))}
    assert after[dead] == before[dead]
    assert {found.created_at for found in after.values()} == {START}


def test_a_clock_far_ahead_drops_six_hours_of_dead_notifications(backend: Backend, database: Opened) -> None:
    """A dead look-up of a relay stays whatever its age, and keeps no notification."""
    run(begun(database, relay(B), seconds=0))
    (look_up,) = run(claim(database, "relay", 10, 60))
    run(database.postpone_effect(look_up, 0, "given up", dead=True))
    died = []
    for hours in (24, 29, 74):
        backend.clock.time = START + hours * 3600
        run(database.commit(grant(f"d{hours}", at=START + hours * 3600), noticed(f"blob-{hours}", f"n{hours}"), CALLER))
        (effect,) = run(claim(database, NOTIFY, 1, 60))
        run(database.postpone_effect(effect, 0, "gone", dead=True))
        died.append(effect.id)
    backend.clock.time = START + 10**8
    run(database.purge(None, 100))
    assert {effect.id for effect in run(database.list_effects(10))} == {look_up.id, died[-1]}


def test_a_dead_look_up_of_a_relay_is_never_dropped(database: Database) -> None:
    """What became of the upload would stay unknown, and its signature pending."""
    run(begun(database, relay(B), seconds=0))
    (effect,) = run(claim(database, "relay", 10, 60))
    run(database.postpone_effect(effect, 0, "given up", dead=True))
    assert (run(database.drop_dead_effects(NOTIFY)), run(database.drop_dead_effects(NOTIFY, effect.id))) == (0, 0)
    run(database.purge(None, dead_seconds=-1))
    assert [each.id for each in run(database.list_effects(10))] == [effect.id]


@pytest.mark.parametrize("work", ["retry", "drop"])
def test_many_dead_effects_are_handled_in_batches(database: Opened, monkeypatch: pytest.MonkeyPatch, work: str) -> None:
    """Uploads go on between two batches. An effect that is dead again at once is not tried twice."""
    dead = dead_notifications(database, 5)
    monkeypatch.setattr(upkeep, "BATCH", 2)
    real: Any = type(database).write
    batches = list[list[int]]()

    async def write(self: Opened, operation: Operation[Any]) -> Any:
        done = await real(self, operation)
        batches.append(done)
        for number in dead if work == "retry" else ():
            effect = await self.find_effect(number)
            assert effect is not None
            await real(self, outbox.postpone(effect, 0, "gone", dead=True))
        return done

    monkeypatch.setattr(type(database), "write", write)
    assert run(database.retry_effects() if work == "retry" else database.drop_dead_effects(NOTIFY)) == 5
    assert batches == [dead[:2], dead[2:4], dead[4:]]


async def check_a_commit_is_never_without_its_notification(database: Database) -> None:
    """Also when its request ends while the commit is under way."""
    committing = asyncio.ensure_future(database.commit(A, noticed("blob-a"), CALLER))
    await asyncio.sleep(0)
    committing.cancel()
    while await database.find_commit("blob-a") is None:
        await asyncio.sleep(0.01)
    assert len(await database.list_effects(10)) == 1


def test_a_commit_is_never_without_its_notification(database: Database) -> None:
    run(check_a_commit_is_never_without_its_notification(database))


@operation()
def notify(now: float, committed: Committed) -> Steps[None]:
    yield [outbox.adding(NewEffect(NOTIFY, RECEIVER), committed.asset.asset_id, now)]


class NotifyAfter(SqliteDatabase):
    """Writes the notification in a separate transaction."""

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        committed = await super().commit(grant, replace(draft, effects=()), caller)
        await self.write(notify(committed))
        return committed


def test_the_check_goes_red_when_the_notification_is_written_after_the_commit(tmp_path: Path) -> None:
    broken = NotifyAfter(tmp_path / "uponce.db", clock=SteppedClock(), secrets=PlainBox())
    broken.open()
    try:
        run(broken.add_key(KEY))
        with pytest.raises(AssertionError, match=r"^assert 0 == 1"):
            run(check_a_commit_is_never_without_its_notification(broken))
    finally:
        broken.close()
