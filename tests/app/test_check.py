"""What a start-up and `uponce doctor` say of a storage that fails: in the operator's words, with the cure."""

import asyncio
import gc
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.app.failing import Failing, FailingSpool, Held
from tests.app.planted import key, put_assets, put_blobs
from tests.app.test_sweep import orphan
from tests.world import World, assert_accepted
from uponce.adapters.files import shard_of
from uponce.adapters.spool.uploads import SpooledUpload
from uponce.app.backup import fence
from uponce.app.check import check_parts, check_ready, check_storage
from uponce.app.diagnose import State, of_fence
from uponce.app.migrate_store import undo_move
from uponce.app.owner import claim_storage
from uponce.core.errors import DatabaseUnavailable, SettingRefused, StorageFull, StorageUnavailable
from uponce.core.signature import utc


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    yield world
    world.close()


def test_a_storage_that_cannot_be_written_is_refused_with_the_cure(world: World) -> None:
    failure = StorageUnavailable("Send it again.", detail="[Errno 30] Read-only file system: 'x'")
    world.swap(blobs=FailingSpool(world.blobs, before={"write": failure}))
    with pytest.raises(
        SettingRefused, match=r"Read-only file system: 'x'\. Let the server write it.*read-write.*ReadWritePaths="
    ) as told:
        asyncio.run(check_storage(world.services, on_disk=True))
    assert "Send it again" not in str(told.value)


@pytest.mark.parametrize("said", ["No credentials were found: set them in the environment.", "Generic S3 error"])
def test_a_bucket_that_cannot_be_used_gets_no_cure_for_a_disk(world: World, said: str) -> None:
    world.swap(blobs=FailingSpool(world.blobs, before={"write": StorageUnavailable("Send it again.", detail=said)}))
    with pytest.raises(SettingRefused) as told:
        asyncio.run(check_storage(world.services, on_disk=False))
    assert str(told.value) == f"UPONCE_STORAGE cannot be used: {said.removesuffix('.')}."


def test_a_full_storage_is_a_warning_with_the_cure(world: World) -> None:
    """The server still delivers; until there is room, it refuses uploads."""
    full = StorageFull("Send it again later.", detail="[Errno 28] No space left on device")
    world.swap(blobs=FailingSpool(world.blobs, before={"write": full}))
    assert asyncio.run(check_storage(world.services, on_disk=True)) == (
        "UPONCE_STORAGE is full: [Errno 28] No space left on device. Free space. Until then, uponce refuses every "
        "upload."
    )
    world.swap(blobs=world.blobs)
    assert asyncio.run(check_storage(world.services, on_disk=True)) is None


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(b"0" * 32), lambda path: path.unlink()])
def test_a_storage_that_returns_other_bytes_or_none_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]
) -> None:
    publish = SpooledUpload.publish

    async def lose(spooled: SpooledUpload) -> None:
        await publish(spooled)
        change(world.media / "blobs" / shard_of(spooled.key) / spooled.key)

    monkeypatch.setattr(SpooledUpload, "publish", lose)
    with pytest.raises(SettingRefused, match="UPONCE_STORAGE cannot be used: it returns other bytes"):
        asyncio.run(check_storage(world.services, on_disk=True))


def test_two_servers_may_start_at_once_on_a_new_storage(world: World) -> None:
    """One finds the file by which the other checks the storage."""
    (world.media / "owner").unlink()

    async def play() -> None:
        held: Any = Held(world.blobs, "delete")
        one = asyncio.create_task(check_storage(replace(world.services, blobs=held), claim_storage))
        await held.reached.wait()
        await check_storage(world.services, claim_storage)
        held.release.set()
        assert await one is None

    asyncio.run(play())


def test_a_server_may_start_while_doctor_checks_a_new_storage(world: World) -> None:
    """Doctor takes no storage, and the server finds the file by which doctor checks it."""
    (world.media / "owner").unlink()

    async def play() -> None:
        held: Any = Held(world.blobs, "delete")
        doctor = asyncio.create_task(check_storage(replace(world.services, blobs=held)))
        await held.reached.wait()
        assert len(world.traces().blobs) == 1
        await check_storage(world.services, claim_storage)
        held.release.set()
        assert await doctor is None

    asyncio.run(play())
    assert not world.traces().blobs


def test_a_server_that_finds_unknown_files_looks_again_whose_the_storage_is(world: World) -> None:
    """Between its looks another server of its database has taken the storage, and has begun to store."""
    (world.media / "owner").unlink()
    orphan(world)

    async def play() -> None:
        held: Any = Held(world.database, "unnamed")
        late = asyncio.create_task(claim_storage(held, world.blobs))
        await held.reached.wait()
        await world.blobs.set_owner(await world.database.make_owner())
        held.release.set()
        await late

    asyncio.run(play())


def test_a_server_that_finds_no_files_looks_again_whose_the_storage_is(world: World) -> None:
    """Between its looks another server of its database has taken the storage, and has stored a first file."""
    (world.media / "owner").unlink()

    async def play() -> None:
        held: Any = Held(world.database, "digests")
        late = asyncio.create_task(claim_storage(held, world.blobs))
        await held.reached.wait()
        await world.blobs.set_owner(await world.database.make_owner())
        put_assets(world, put_blobs(world, [key("first", 1)]))
        held.release.set()
        await late

    asyncio.run(play())


def test_nothing_is_written_into_the_storage_of_another_database(world: World) -> None:
    asyncio.run(world.blobs.set_owner("f" * 32, replace=True))
    unwritable = StorageUnavailable("Send it again.")
    world.swap(blobs=Failing(world.blobs, before={"receive": unwritable}))
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(check_storage(world.services))


@pytest.mark.parametrize("call", ["owner", "set_owner"])
def test_a_storage_that_does_not_say_whose_it_is_is_refused_with_the_cure(world: World, call: str) -> None:
    (world.media / "owner").unlink()
    failure = StorageUnavailable("Send it again.", detail="[Errno 13] Permission denied: 'owner'")
    world.swap(blobs=Failing(world.blobs, before={call: failure}))
    with pytest.raises(SettingRefused, match=r"Permission denied: 'owner'\. Let the server write it"):
        asyncio.run(check_storage(world.services, claim_storage))


def test_clients_read_other_words_of_a_failing_part_than_the_operator(world: World) -> None:
    failure = DatabaseUnavailable("Send the same request again.", detail="attempt to write a readonly database")
    world.swap(database=Failing(world.database, before={"ping": failure}))
    assert asyncio.run(check_ready(world.services))["database"] == "Send the same request again."
    found = asyncio.run(check_parts(world.services))["database"]
    assert found is not None
    assert found.for_operator == "attempt to write a readonly database"


@pytest.mark.parametrize("skew", [0, 300])
@pytest.mark.parametrize("undoes", [False, True])
def test_a_clock_behind_the_database_sets_no_fence(world: World, undoes: bool, skew: int) -> None:
    """Signatures that were used since would work again. The greater skew counts, as for the fence itself."""

    async def fenced(*, trusts_clock: bool = False) -> int | None:
        if undoes:
            await world.database.freeze()
            return await undo_move(world.database, world.blobs, 10, trusts_clock=trusts_clock)
        return await fence(world.services, trusts_clock=trusts_clock)

    world.swap(limits=replace(world.services.limits, skew=10))
    asyncio.run(world.database.note_settings({"skew": str(skew)}))
    assert_accepted(world.upload(world.sign()))
    limit = max(skew, 10)
    world.clock.time -= limit + 1
    with pytest.raises(SettingRefused, match=f"{limit + 1} seconds behind .* limit is {limit} .* add --trust-clock"):
        asyncio.run(fenced())
    assert asyncio.run(world.database.frozen()) == undoes
    assert world.sql("SELECT count(*) FROM fences") == 0
    world.clock.time += 1
    for _ in range(2):
        assert asyncio.run(fenced()) == int(world.clock.time) + limit
    world.clock.time -= 10**6
    assert asyncio.run(fenced(trusts_clock=True)) == int(world.clock.time) + limit


def test_a_fence_with_a_greater_skew_than_now_is_no_sign_of_a_slow_clock(world: World) -> None:
    """As after a restore of a server that had the greater skew."""
    asyncio.run(world.database.fence(3600))
    asyncio.run(world.database.note_settings({"skew": "300"}))
    now = int(world.clock.time)
    assert asyncio.run(world.database.newest_moment()) == now
    assert asyncio.run(fence(world.services)) == now + world.services.limits.skew


def test_doctor_warns_until_fenced_keys_accept_new_signatures(world: World) -> None:
    """Revoked keys accept none anyway."""
    mark = asyncio.run(world.database.fence(300))
    (found,) = asyncio.run(of_fence(world.services))
    assert (found.name, found.state, f"up to {utc(mark)}" in found.detail) == ("fence", State.WARNING, True)
    world.clock.time += 300
    assert len(asyncio.run(of_fence(world.services))) == 1
    world.clock.time += 1
    assert asyncio.run(of_fence(world.services)) == []
    world.clock.time -= 60
    for each in asyncio.run(world.database.list_keys()):
        asyncio.run(world.database.revoke_key(each.api_key))
    assert asyncio.run(of_fence(world.services)) == []


def test_a_loop_that_ends_before_the_checks_begin_is_no_failure(world: World) -> None:
    """No coroutine exists yet that must be awaited."""
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            loop.create_task(check_parts(world.services))
            loop.call_soon(loop.stop)
            loop.run_forever()
        del loop
        gc.collect()
    assert [str(warning.message) for warning in warned] == []
