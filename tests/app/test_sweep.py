"""The sweeper deletes what belongs to nothing, and never what a commit has named or could still name."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from tests.app.failing import Failing, Held
from tests.app.planted import keys, put_blobs
from tests.app.uploads import attempt, form, outcome
from tests.world import PNG, World
from uponce.app.ports import PLACES, StoredBlob
from uponce.app.sweep import Swept, purge, sweep, sweep_blobs
from uponce.core.errors import (
    DatabaseUnavailable,
    OutcomeUnknown,
    SettingRefused,
    StorageFull,
    StorageUnavailable,
    UponceError,
)

WORLD = World


async def run(world: World, grace: float = 0) -> Swept:
    return await sweep(world.services, grace_seconds=grace, audit_seconds=10**9)


def orphan(world: World) -> dict[str, str]:
    """An upload that died between making its bytes durable and committing; the fields it had."""
    fields, healthy = world.sign(), world.services
    world.swap(database=Failing(world.database, before={"commit": OutcomeUnknown("lost")}))
    assert attempt(world, fields) == "outcome_unknown"
    world.use(healthy)
    return fields


def test_an_orphan_goes_after_its_grace_time_and_its_signature_still_works(world: World) -> None:
    fields = orphan(world)
    assert asyncio.run(run(world, grace=3600)) == Swept(0, 0, 0, 0)
    assert asyncio.run(run(world)) == Swept(0, 1, len(PNG), 0)
    assert world.traces().blobs == frozenset()
    assert attempt(world, fields) == "ok"


def test_after_a_fence_orphans_have_their_grace_time_once_more(world: World) -> None:
    """However old they are: after a restore these are the uploads that the copy does not know."""
    lost = put_blobs(world, keys("lost", 3))
    asyncio.run(world.database.fence(300))
    world.clock.time += 3599
    assert asyncio.run(run(world, grace=3600)).blobs == 0
    assert world.traces().blobs == lost
    world.clock.time += 1
    assert asyncio.run(run(world, grace=3600)).blobs == 3


@pytest.mark.parametrize("name", ["unnamed", "condemn"])
def test_a_fence_that_comes_during_a_sweep_spares_what_it_has_listed(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As when a PostgreSQL takes over that lacks the last uploads."""
    lost, real = put_blobs(world, keys("lost", 3)), getattr(world.database, name)

    async def fenced(*args: Any, **named: Any) -> Any:
        await world.database.fence(300)
        return await real(*args, **named)

    monkeypatch.setattr(world.database, name, fenced)
    assert asyncio.run(run(world, grace=3600)).blobs == 0
    assert world.traces().blobs == lost


@pytest.mark.parametrize("is_down", [True, False])
def test_the_ledger_is_purged_while_the_storage_is_down_or_not_its_own(world: World, is_down: bool) -> None:
    fields = orphan(world)
    assert attempt(world, fields) == "ok"
    world.clock.time += 10**7
    if is_down:
        world.swap(blobs=Failing(world.blobs, before={"owner": StorageUnavailable("down")}))
    else:
        asyncio.run(world.blobs.set_owner("f" * 32, replace=True))
    before = world.traces()
    with pytest.raises(StorageUnavailable if is_down else SettingRefused):
        asyncio.run(run(world))
    assert (before.grants, world.traces()) == (1, replace(before, grants=0))


def test_what_an_asset_names_stays_however_old(world: World) -> None:
    for _ in range(3):
        assert attempt(world, world.sign()) == "ok"
    with world.untouched():
        assert asyncio.run(run(world)) == Swept(0, 0, 0, 0)


def test_only_for_what_nothing_names_everybody_has_to_wait(world: World) -> None:
    assert attempt(world, world.sign()) == "ok"
    world.swap(database=Failing(world.database, before={"condemn": DatabaseUnavailable("asked for nothing")}))
    assert asyncio.run(run(world)) == Swept(0, 0, 0, 0)


def test_a_sweep_beside_uploads_rests_after_each_batch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    rests: list[float] = []

    async def sleep(seconds: float) -> None:
        rests.append(seconds)

    monkeypatch.setattr("uponce.app.sweep._BATCH", 1)
    for _ in range(3):
        assert attempt(world, world.sign()) == "ok"
    monkeypatch.setattr("uponce.app.sweep.asyncio.sleep", sleep)
    asyncio.run(sweep_blobs(world.services, grace_seconds=0, rest=1000))
    assert len(rests) == 3
    assert all(seconds > 0 for seconds in rests)


class Chance:
    """Gives places for sweeps to begin at, one after the other."""

    def __init__(self, *places: str) -> None:
        self._numbers = [PLACES.index(place) for place in places]

    def hex(self, _: int) -> str:
        return f"{self._numbers.pop(0):x}"


def leave(world: World, place: str) -> Path:
    """An orphan in this place; its file."""
    path = world.media / "blobs" / place / place.ljust(32, "0")
    path.write_bytes(b"left behind")
    return path


def test_sweeps_that_never_reach_their_end_still_delete_each_orphan_in_its_turn(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server may start more often than a sweep of its store takes."""

    async def stop(_: float) -> None:
        raise asyncio.CancelledError

    orphans = [leave(world, place) for place in ("00", "7a", "ff", "p03")]
    world.swap(ids=Chance("7a", "p00", "80", "00"))
    monkeypatch.setattr("uponce.app.sweep.asyncio.sleep", stop)
    for number in (1, 3, 2, 0):
        assert orphans[number].exists()
        with pytest.raises(asyncio.CancelledError):
            asyncio.run(sweep_blobs(world.services, grace_seconds=0))
        assert not orphans[number].exists()
    assert world.traces().blobs == frozenset()


@pytest.mark.parametrize("first", ["00", "20"])
def test_a_folder_that_cannot_be_read_keeps_no_orphan_of_another_one(world: World, first: str) -> None:
    orphans = [leave(world, place) for place in ("10", "30", "p00")]
    broken = world.media / "blobs" / "20"
    broken.rmdir()
    broken.write_bytes(b"no folder")
    world.swap(ids=Chance(first))
    with pytest.raises(StorageUnavailable) as failure:
        asyncio.run(sweep_blobs(world.services, grace_seconds=0))
    assert str(broken) in failure.value.detail
    assert [path.exists() for path in orphans] == [False] * 3


@pytest.mark.parametrize("failure", [StorageUnavailable("immutable"), StorageFull("a hole needs space")])
def test_an_orphan_that_cannot_be_deleted_keeps_no_other_orphan(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: UponceError
) -> None:
    """Neither in its own folder, where it may be the first or the last, nor in another one."""
    orphans = [leave(world, "10"), leave(world, "30")]
    orphans += [orphans[0].with_name("10".ljust(32, digit)) for digit in "123456789"]
    for path in orphans:
        path.write_bytes(b"left behind")
    deleted, real = set(), world.blobs.delete

    async def delete(key: str) -> None:
        deleted.add(key)
        if len(deleted) == 1:
            raise failure
        await real(key)

    monkeypatch.setattr(world.blobs, "delete", delete)
    world.swap(ids=Chance("00"))
    with pytest.raises(type(failure)):
        asyncio.run(sweep_blobs(world.services, grace_seconds=0))
    assert len(world.traces().blobs) == 1
    assert deleted == {path.name for path in orphans}


@dataclass
class StuckParts:
    """Parts of series that have ended. The first `stuck` ones to be deleted cannot be deleted."""

    left: set[str]
    stuck: int
    tried: int = 0

    async def listed(self) -> AsyncIterator[StoredBlob]:
        for key in sorted(self.left):
            yield StoredBlob(key, 1, 10**6)

    async def drop(self, key: str) -> None:
        self.tried += 1
        if self.tried <= self.stuck:
            raise StorageUnavailable("The bucket keeps it.")
        self.left.remove(key)


def test_a_part_that_cannot_be_deleted_keeps_no_other_part(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that hangs ends the purge after some of them: the ledger waits for the next purge."""
    for stuck, tried, left in ((1, 30, 1), (30, 20, 30)):
        parts = StuckParts(set(keys("part", 30)), stuck)
        monkeypatch.setattr(world.blobs, "parts", parts)
        with pytest.raises(StorageUnavailable, match="keeps it"):
            asyncio.run(purge(world.services, grace_seconds=0, audit_seconds=None))
        assert (parts.tried, len(parts.left)) == (tried, left)


def test_bytes_of_an_old_series_that_cannot_be_deleted_keep_no_other_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All old series end. The purge deletes no parts of a bucket that hangs: a later purge finds them by their age."""
    for stuck, tried, left in ((1, 30, 1), (40, 20, 30)):
        old = keys("old", 30)
        batches, parts = [old[:10], old[10:20], old[20:]], StuckParts(set(old), stuck)

        async def end_some(*_: object, batches: list[Sequence[str]] = batches) -> Sequence[str]:
            return batches.pop() if batches else ()

        monkeypatch.setattr(world.blobs, "parts", parts)
        monkeypatch.setattr(world.database, "end_old_series", end_some)
        with pytest.raises(StorageUnavailable, match="keeps it"):
            asyncio.run(purge(world.services, grace_seconds=10**7, audit_seconds=None))
        assert (parts.tried, len(parts.left), batches) == (tried, left, [])


@pytest.mark.parametrize("step", ["purge", "end_old_series"])
def test_a_step_of_a_purge_that_fails_keeps_no_other_step_from_running(world: World, step: str) -> None:
    spent = world.sign()
    assert attempt(world, spent) == "ok"
    left = world.media / "spool" / ("a" * 32)
    left.write_bytes(b"left behind")
    world.clock.time += 10**7
    # The database raises the failure of one step of its purge after the others.
    when = "after" if step == "purge" else "before"
    world.swap(database=Failing(world.database, **{when: {step: DatabaseUnavailable("took too long")}}))
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(purge(world.services, grace_seconds=0, audit_seconds=None))
    assert (left.exists(), world.traces().grants) == (False, 0)


def test_a_purge_that_fails_keeps_no_orphan(world: World) -> None:
    orphan(world)
    assert world.traces().blobs
    world.clock.time += 10**7
    world.swap(database=Failing(world.database, before={"purge": DatabaseUnavailable("took too long")}))
    with pytest.raises(DatabaseUnavailable, match="took too long"):
        asyncio.run(run(world))
    assert not world.traces().blobs


def test_a_commit_that_comes_after_the_sweep_fails_and_spends_nothing(world: World) -> None:
    """A server that slept between publish and commit can never make a row without bytes."""
    fields, healthy = world.sign(), world.services

    async def play() -> tuple[str, Swept]:
        held = Held(world.database, "commit")
        world.swap(database=held)
        sleeper = asyncio.create_task(outcome(world, form(fields)))
        await held.reached.wait()
        swept = await run(world)
        held.release.set()
        return await sleeper, swept

    answer, swept = asyncio.run(play())
    assert (answer, swept.blobs) == ("attempt_expired", 1)
    traces = world.traces()
    assert (traces.assets, traces.grants, traces.blobs) == (0, 0, frozenset())
    world.use(healthy)
    assert attempt(world, fields) == "ok"


def test_a_stage_swept_under_a_sleeping_upload_fails_it_and_spends_nothing(world: World) -> None:
    fields, healthy = world.sign(), world.services

    async def play() -> tuple[str, Swept]:
        held = Held(world.services.inspector, "inspect")
        world.swap(inspector=held)
        sleeper = asyncio.create_task(outcome(world, form(fields)))
        await held.reached.wait()
        swept = await run(world)
        held.release.set()
        return await sleeper, swept

    answer, swept = asyncio.run(play())
    assert (answer, swept.unfinished) == ("storage_unavailable", 1)
    assert world.traces().grants == 0
    world.use(healthy)
    assert attempt(world, fields) == "ok"


def test_a_sweep_that_dies_between_condemning_and_deleting_is_finished_by_the_next(world: World) -> None:
    fields, healthy = orphan(world), world.services
    world.swap(blobs=Failing(world.blobs, before={"delete": StorageUnavailable("gone")}))
    try:
        asyncio.run(run(world))
    except StorageUnavailable:
        world.use(healthy)
    assert len(world.traces().blobs) == 1
    assert asyncio.run(run(world)).blobs == 1
    assert attempt(world, fields) == "ok"


def test_the_ledger_is_purged_with_the_window_and_what_was_spent_stays_refused(world: World) -> None:
    fields = world.sign()
    assert attempt(world, fields) == "ok"
    world.clock.time += 3600 + 300 + 3600
    assert asyncio.run(run(world)).grants == 0
    world.clock.time += 1
    assert asyncio.run(run(world)).grants == 1
    assert world.traces().grants == 0
    world.clock.time -= 3600 + 300 + 3600  # even with the clock set back
    assert attempt(world, fields) == "stale_request"
    assert world.traces().assets == 1


@pytest.mark.parametrize("step", ["purge", "end_old_series"])
def test_a_full_disk_gets_room_by_the_spooled_files_that_are_left(world: World, step: str) -> None:
    """The purge needs room for its log, and deleting files needs none."""
    orphan(world)
    left = world.media / "spool" / ("a" * 32)
    left.write_bytes(b"left behind")
    world.swap(database=Failing(world.database, before={step: StorageFull("Send it again later.")}))
    with pytest.raises(StorageFull):
        asyncio.run(run(world))
    assert (left.exists(), len(world.traces().blobs)) == (False, 0)


def test_a_full_disk_of_another_database_loses_no_spooled_file(world: World) -> None:
    left = world.media / "spool" / ("a" * 32)
    left.write_bytes(b"arriving")
    asyncio.run(world.blobs.set_owner("f" * 32, replace=True))
    world.swap(database=Failing(world.database, before={"purge": StorageFull("Send it again later.")}))
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(run(world))
    assert left.exists()
