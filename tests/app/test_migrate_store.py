"""A move that is asked for in two steps."""

import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.contract.databases import run
from tests.world import World, assert_accepted
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.upkeep import replace_owner
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.local import PACK_BYTES, LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.check import check_frozen
from uponce.app.copy_media import _Copier, copy_media
from uponce.app.migrate_store import Store, migrate_store
from uponce.app.owner import check_owner, claim_storage, renew, take_storage
from uponce.app.ports import StoredBlob
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable
from uponce.core.lineage import heir


@pytest.fixture
def target(tmp_path: Path, world: World) -> Iterator[Store]:
    database = SqliteDatabase(tmp_path / "target.db", clock=world.clock, secrets=AesSecretBox(bytes(32)))
    blobs = LocalBlobs(tmp_path / "target", ids=RandomIds())
    with closing(database), closing(blobs):
        database.open()
        blobs.open_store()
        yield Store(database, blobs)


def test_media_follow_the_rows_that_an_earlier_run_has_moved(world: World, target: Store) -> None:
    """The first run was without a storage. Servers may run on the target already, so nothing there is deleted."""
    assert_accepted(world.upload(world.sign()))
    source = Store(world.database, world.blobs)
    assert run(migrate_store(source, target, media=False)).rows
    arriving = run(target.blobs.parts.begin())
    world.swap(database=target.database)
    assert_accepted(world.upload(world.sign()))
    for copied, present in ((2, 0), (0, 2)):
        moved = run(migrate_store(source, target))
        assert moved.media is not None
        assert (moved.complete, moved.rows) == (True, {})
        assert (moved.media.copied, moved.media.present) == (copied, present)
    assert arriving in run(spooled(target))


def test_no_server_starts_on_a_storage_that_its_database_has_left(world: World, target: Store, tmp_path: Path) -> None:
    """Servers of one database with two storages share no file. The former one may be the second of two."""
    source = move_in_two_runs(world, target)
    assert run(check_owner(target.database, target.blobs))
    run(target.blobs.set_owner(f"{run(target.database.owner())}.moving", replace=True))  # as if the run had broken off
    assert run(check_owner(target.database, target.blobs))
    with closing(LocalBlobs(tmp_path / "last", ids=RandomIds())) as last:
        last.open_store()
        run(migrate_store(Store(world.database, target.blobs), Store(target.database, last)))
        assert run(check_owner(target.database, last))
        for blobs in (world.blobs, target.blobs):
            with pytest.raises(SettingRefused, match=r"is a former storage.*Set UPONCE_STORAGE to that one"):
                run(check_owner(target.database, blobs))
    before = run(world.blobs.owner())
    assert not run(migrate_store(source, target, media=False)).media  # it takes no storage back
    assert run(world.blobs.owner()) == before


def test_a_fence_takes_no_storage_that_its_database_has_left(world: World, target: Store, tmp_path: Path) -> None:
    """It lacks the later files. The way back is a move too, to an empty storage."""
    move_in_two_runs(world, target)
    with pytest.raises(SettingRefused, match=r"is a former storage.*lost.*--take-storage"):
        run(take_storage(target.database, world.blobs))
    assert run(check_owner(target.database, target.blobs))
    with closing(SqliteDatabase(tmp_path / "back.db", clock=world.clock, secrets=AesSecretBox(bytes(32)))) as database:
        database.open()
        with pytest.raises(SettingRefused, match="a move back needs an empty storage"):
            run(migrate_store(target, Store(database, world.blobs)))
    assert run(take_storage(target.database, world.blobs, anyway=True))
    assert run(check_owner(target.database, world.blobs))
    with pytest.raises(SettingRefused, match="belongs to another database"):
        run(check_owner(target.database, target.blobs))


def test_no_run_copies_from_a_storage_that_its_database_has_left(world: World, target: Store, tmp_path: Path) -> None:
    """Files that came since are in the storage in use. With its settings, the run completes."""
    source = move_in_two_runs(world, target)
    with closing(LocalBlobs(tmp_path / "last", ids=RandomIds())) as last:
        last.open_store()
        with pytest.raises(SettingRefused, match="another storage by now"):
            run(migrate_store(source, Store(target.database, last)))
        assert run(last.owner()) is None
        assert run(migrate_store(Store(world.database, target.blobs), Store(target.database, last))).complete
        assert run(check_owner(target.database, last))


def test_a_server_that_notes_its_owner_during_a_move_keeps_no_storage_in_use(
    world: World, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The former storage has an earlier owner, as after a fence while it was full."""
    assert_accepted(world.upload(world.sign()))
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))
    earlier = run(world.blobs.owner())
    assert earlier is not None
    run(target.database.follow_owner(earlier))
    assert run(world.blobs.owner()) == earlier
    note = target.blobs.set_owner

    async def set_owner(owner: str, *, replace: bool = False) -> None:
        await note(owner, replace=replace)
        if replace and run_once:
            run_once.clear()
            await renew(target.database, world.blobs, earlier)

    run_once = [True]
    monkeypatch.setattr(target.blobs, "set_owner", set_owner)
    run(migrate_store(source, target))
    with pytest.raises(SettingRefused, match="is a former storage"):
        run(check_owner(target.database, world.blobs))


def test_no_server_takes_back_a_storage_that_its_database_has_left(world: World, target: Store) -> None:
    """Nor one that asked whose the storage is just before, and notes the answer only now."""
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))
    before = run(world.blobs.owner())
    run(migrate_store(source, target))
    run(renew(target.database, world.blobs, before))
    with pytest.raises(SettingRefused, match="is a former storage"):
        run(check_owner(target.database, world.blobs))


def test_no_storage_that_stays_is_left(world: World, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The target may be the same place in other words. The run may break off, after an earlier one broke off too."""
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))
    with closing(LocalBlobs(world.media, ids=RandomIds())) as same:
        same.open_store()
        set_owner = same.set_owner

        async def write_and_break_off(owner: str, *, replace: bool = False) -> None:
            await set_owner(owner, replace=replace)
            raise KeyboardInterrupt

        async def break_off(owner: str, *, replace: bool = False) -> None:
            raise KeyboardInterrupt

        for broken in (break_off, write_and_break_off, break_off, write_and_break_off):
            with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
                patched.setattr(same, "set_owner", broken)
                run(migrate_store(source, Store(target.database, same)))
            assert run(check_owner(target.database, world.blobs))
        assert run(migrate_store(source, Store(target.database, same))).complete
    assert run(world.blobs.owner()) == run(target.database.owner())


def test_media_that_stay_belong_to_the_database_that_has_moved(world: World, target: Store) -> None:
    """Also if files are lost, or if the new storage is the present one in other words."""
    assert_accepted(world.upload(world.sign(), bytes(PACK_BYTES + 1), kind="raw"))
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))
    with closing(LocalBlobs(world.media, ids=RandomIds())) as same:
        same.open_store()
        assert run(migrate_store(source, Store(target.database, same))).complete
    assert run(check_owner(target.database, world.blobs))
    (file,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
    file.unlink()
    assert not run(migrate_store(source, target)).complete
    assert run(check_owner(target.database, world.blobs))


@pytest.mark.parametrize("error", [StorageFull, StorageUnavailable])
def test_a_storage_that_takes_no_writes_is_not_left(
    world: World, target: Store, monkeypatch: pytest.MonkeyPatch, error: type[StorageFull | StorageUnavailable]
) -> None:
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))

    async def fail(owner: str, *, replace: bool = False) -> None:
        raise error("Send it again.", detail="the system's reason")

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "set_owner", fail)
        with pytest.raises(SettingRefused, match=r"All files are in.*former one cannot be written.*system's reason"):
            run(migrate_store(source, target))
    assert run(check_owner(target.database, target.blobs))
    assert run(migrate_store(source, target)).complete
    with pytest.raises(SettingRefused, match="is a former storage"):
        run(check_owner(target.database, world.blobs))


def test_media_that_stay_are_handed_over_although_the_storage_has_an_earlier_owner(world: World, target: Store) -> None:
    """As after a fence with a full storage. A frozen database notes nothing there."""
    first = run(world.blobs.owner())
    assert first is not None
    run(world.database.freeze())
    run(world.database.write(replace_owner(heir("2" * 32, first))))
    assert run(migrate_store(Store(world.database, world.blobs), target, media=False)).complete
    assert run(world.blobs.owner()) == run(target.database.owner())


def test_no_server_starts_on_a_part_of_a_store(world: World, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would import keys from its settings, and know no spent signature. Here media come only with the second run."""
    assert_accepted(world.upload(world.sign()))
    source, freeze = Store(world.database, world.blobs), world.database.freeze

    async def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(world.database, "freeze", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(migrate_store(source, target, media=False))
    world.swap(database=target.database)
    with pytest.raises(SettingRefused, match="has not filled it yet"):
        run(check_frozen(world.services))
    monkeypatch.setattr(world.database, "freeze", freeze)
    moved = run(migrate_store(source, target))
    assert moved.media is not None
    assert (moved.complete, moved.media.present, moved.media.copied) == (True, 0, 1)
    world.swap(database=target.database)
    run(check_frozen(world.services))


def test_media_that_cannot_follow_are_named(world: World, target: Store) -> None:
    assert_accepted(world.upload(world.sign({"public_id": "gone"}), bytes(PACK_BYTES + 1), kind="raw"))
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))
    (file,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
    file.unlink()
    moved = run(migrate_store(source, target))
    assert moved.media is not None
    assert (moved.complete, moved.earlier, list(moved.media.lost)) == (False, True, ["demo/raw/upload/gone"])


def test_a_move_that_would_lose_media_freezes_nothing(world: World, target: Store) -> None:
    """The server goes on taking uploads while the operator looks for the files."""
    assert_accepted(world.upload(world.sign({"public_id": "gone"}), bytes(PACK_BYTES + 1), kind="raw"))
    (file,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
    away = file.rename(world.media / "away")
    moved = run(migrate_store(Store(world.database, world.blobs), target))
    assert moved.media is not None
    assert (moved.complete, moved.frozen, list(moved.media.lost)) == (False, False, ["demo/raw/upload/gone"])
    assert_accepted(world.upload(world.sign()))
    away.rename(file)
    moved = run(migrate_store(Store(world.database, world.blobs), target))
    assert (moved.complete, moved.frozen) == (True, True)


def test_a_file_that_is_gone_from_the_target_is_copied_before_the_rows_move(
    world: World, target: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run has deleted it, after this run counted it as copied."""
    for _ in range(2):
        assert_accepted(world.upload(world.sign()))
    (first, second), freeze, copy = run(world.database.digests("")), world.database.freeze, _Copier._copy

    async def lose(key: str) -> None:
        await target.blobs.delete(key)

    async def freeze_and_lose() -> None:
        await freeze()
        await lose(first)

    async def copy_and_lose(copier: _Copier, key: str) -> None:
        await copy(copier, key)
        if await world.database.frozen() and key == first:
            await lose(second)

    monkeypatch.setattr(world.database, "freeze", freeze_and_lose)
    monkeypatch.setattr(_Copier, "_copy", copy_and_lose)
    moved = run(migrate_store(Store(world.database, world.blobs), target))
    assert moved.media is not None
    assert (moved.complete, moved.media.present, moved.media.copied) == (True, 0, 4)
    assert {blob.key for blob in run(published(target))} == {first, second}


def test_a_move_counts_what_each_pass_has_copied(world: World, target: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last pass only finds all files there."""
    size, freeze, source = PACK_BYTES + 1, world.database.freeze, Store(world.database, world.blobs)

    def upload() -> None:
        assert_accepted(world.upload(world.sign(), bytes(size), kind="raw"))

    async def freeze_late() -> None:
        await asyncio.to_thread(upload)
        await freeze()

    upload()
    run(claim_storage(target.database, target.blobs))
    run(copy_media(world.database, world.blobs, target.blobs))
    upload()
    monkeypatch.setattr(world.database, "freeze", freeze_late)
    moved = run(migrate_store(source, target))
    assert moved.media is not None
    assert (moved.media.present, moved.media.copied, moved.media.bytes) == (1, 2, 2 * size)


def move_in_two_runs(world: World, target: Store) -> Store:
    """Move a first upload, with its file only in the second run. Return the source."""
    assert_accepted(world.upload(world.sign()))
    source = Store(world.database, world.blobs)
    run(migrate_store(source, target, media=False))
    run(migrate_store(source, target))
    return source


async def published(store: Store) -> list[StoredBlob]:
    return [blob async for blob in store.blobs.published()]


async def spooled(store: Store) -> set[str]:
    return {blob.key async for blob in store.blobs.spooled()}
