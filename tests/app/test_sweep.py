"""The sweeper deletes what belongs to nothing, and never what a commit has named or could still name."""

import asyncio
from dataclasses import replace

import pytest

from tests.app.failing import Failing, Held
from tests.app.uploads import attempt, form, outcome
from tests.world import PNG, World
from uponce.app.sweep import Swept, sweep, sweep_blobs
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, SettingRefused, StorageFull, StorageUnavailable


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
    assert (left.exists(), len(world.traces().blobs)) == (False, 1)


def test_a_full_disk_of_another_database_loses_no_spooled_file(world: World) -> None:
    left = world.media / "spool" / ("a" * 32)
    left.write_bytes(b"arriving")
    asyncio.run(world.blobs.set_owner("f" * 32, replace=True))
    world.swap(database=Failing(world.database, before={"purge": StorageFull("Send it again later.")}))
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(run(world))
    assert left.exists()
