"""A fence makes its database the only owner of the storage: a copy by other tools has the owner of its original."""

import asyncio
import errno
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.app.test_owner import forget_owner, is_storage_ready, owners, refuse_sweep, upload
from tests.app.test_sweep import orphan
from tests.world import World
from uponce.adapters import files
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.upkeep import replace_owner
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.migrate_store import undo_move
from uponce.app.owner import check_owner, claim_storage, take_storage
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable
from uponce.core.lineage import follows, heir


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Iterator[SqliteDatabase]:
    """A copy of the database with a first upload, as other tools make it."""
    upload(world)
    world.sql(f"VACUUM INTO '{tmp_path}/copy.db'")
    with closing(SqliteDatabase(tmp_path / "copy.db", clock=world.clock, secrets=AesSecretBox(bytes(32)))) as copy:
        copy.open()
        yield copy


def test_a_fence_takes_the_storage_from_the_original_of_a_copy(world: World, copy: SqliteDatabase) -> None:
    """Sweeps of each would delete what the other one has stored. A fence of the original takes the storage back."""
    assert not asyncio.run(take_storage(copy, world.blobs))
    asyncio.run(check_owner(copy, world.blobs))
    refuse_sweep(world)
    assert not is_storage_ready(world)
    assert asyncio.run(take_storage(world.database, world.blobs))
    assert is_storage_ready(world)
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(claim_storage(copy, world.blobs))


def test_each_fence_takes_the_storage_from_copies_since_the_last_one(world: World, tmp_path: Path) -> None:
    upload(world)
    before = owners(world, world.database)[1]
    for number in range(2):
        world.sql(f"VACUUM INTO '{tmp_path}/{number}.db'")
        assert not asyncio.run(take_storage(world.database, world.blobs))
        path = tmp_path / f"{number}.db"
        with closing(SqliteDatabase(path, clock=world.clock, secrets=AesSecretBox(bytes(32)))) as copy:
            copy.open()
            with pytest.raises(SettingRefused, match="belongs to another database"):
                asyncio.run(claim_storage(copy, world.blobs))
    of_storage, own = owners(world, world.database)
    assert of_storage == own is not None and before is not None
    assert follows(own, before)


def test_a_server_of_the_fenced_database_goes_on(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the fence breaks off before the storage has the new owner. The server notes the owner there."""
    upload(world)
    first, _ = owners(world, world.database)
    assert first is not None

    async def interrupt(owner: str, *, replace: bool = False) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "set_owner", interrupt)
        with pytest.raises(KeyboardInterrupt):
            asyncio.run(take_storage(world.database, world.blobs))
    of_storage, own = owners(world, world.database)
    assert of_storage == first and own is not None and own != first and follows(own, first)
    assert is_storage_ready(world)
    assert owners(world, world.database) == (own, own)
    upload(world)


def test_a_fence_that_is_repeated_takes_the_storage_from_a_copy_of_its_first_try(
    world: World, copy: SqliteDatabase
) -> None:
    """The copy has an owner that the storage does not have yet, as after a failover."""
    first, _ = owners(world, copy)
    assert first is not None
    for database in (world.database, copy):
        asyncio.run(database.write(replace_owner(heir("2" * 32, first))))
    assert not asyncio.run(take_storage(copy, world.blobs))
    refuse_sweep(world)


def test_a_full_storage_gets_the_owner_of_the_fence_later(
    world: World, copy: SqliteDatabase, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An operator must be able to set a fence on a full disk. Until then the original keeps the storage too."""

    def full(path: Path, blocks: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_new", full)
        assert not asyncio.run(take_storage(copy, world.blobs))
    (warning,) = (record.message for record in caplog.records)
    assert "is full" in warning and "Keep every server of the original stopped" in warning
    asyncio.run(claim_storage(copy, world.blobs))
    refuse_sweep(world)
    caplog.clear()
    assert not asyncio.run(take_storage(copy, world.blobs))
    assert not caplog.records


def test_servers_deliver_from_a_storage_that_does_not_take_the_owner_of_the_fence(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a bucket whose key may only read. A server that starts is refused, and so is one of another database."""
    upload(world)

    async def refuse(owner: str, *, replace: bool = False) -> None:
        raise StorageUnavailable("Send it again.", detail="AccessDenied")

    monkeypatch.setattr(world.blobs, "set_owner", refuse)
    with pytest.raises(StorageUnavailable):
        asyncio.run(take_storage(world.database, world.blobs))
    assert is_storage_ready(world)
    with pytest.raises(StorageUnavailable):
        asyncio.run(claim_storage(world.database, world.blobs))
    first, own = owners(world, world.database)
    assert first is not None and own is not None
    for name, is_ready in ((heir("2" * 32, "3" * 32), False), (own, True)):
        asyncio.run(world.database.write(replace_owner(name)))
        assert is_storage_ready(world) == is_ready
    assert owners(world, world.database) == (first, own)


def test_a_database_that_lacks_the_last_fence_needs_one(world: World) -> None:
    """As an asynchronous standby that was promoted, or a recovery to a time before the fence."""
    upload(world)
    _, first = owners(world, world.database)
    assert first is not None
    asyncio.run(take_storage(world.database, world.blobs))
    asyncio.run(world.database.write(replace_owner(heir("3" * 32, first))))
    with pytest.raises(SettingRefused, match=r"belongs to another database.*run `uponce fence`"):
        asyncio.run(claim_storage(world.database, world.blobs))
    assert asyncio.run(take_storage(world.database, world.blobs))
    assert is_storage_ready(world)


def test_a_move_may_be_given_up_after_a_fence_on_a_full_storage(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage has an earlier owner then. No other store has changed its files, although one is an orphan."""
    upload(world)
    orphan(world)

    async def full(owner: str, *, replace: bool = False) -> None:
        raise StorageFull("Send it again.", detail="[Errno 28] No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(world.blobs, "set_owner", full)
        assert not asyncio.run(take_storage(world.database, world.blobs))
    asyncio.run(world.database.freeze())
    assert asyncio.run(undo_move(world.database, world.blobs, 300)) is not None
    assert len(set(owners(world, world.database))) == 1
    asyncio.run(world.database.freeze())
    with closing(LocalBlobs(tmp_path / "empty", ids=RandomIds())) as empty:
        empty.open_store()
        with pytest.raises(SettingRefused, match="lacks 1 files"):  # without an owner: the wrong storage
            asyncio.run(undo_move(world.database, empty, 300))


def test_a_frozen_database_takes_no_storage_of_another_one(
    world: World, copy: SqliteDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else --undo would take the new owner for its own, and not ask about the files of the other store."""
    asyncio.run(take_storage(copy, world.blobs))
    upload(world)
    asyncio.run(world.database.freeze())
    before = owners(world, world.database)
    with pytest.raises(SettingRefused, match="This database is frozen"):
        asyncio.run(take_storage(world.database, world.blobs))
    assert owners(world, world.database) == before


@pytest.mark.parametrize("is_empty", [False, True])
def test_a_fence_gives_a_storage_without_an_owner_to_the_copy_alone(
    world: World, copy: SqliteDatabase, tmp_path: Path, is_empty: bool
) -> None:
    """As a bucket that was copied without its owner, or a new one for files that are lost."""
    (world.media / "owner").unlink()
    with closing(LocalBlobs(tmp_path / "empty", ids=RandomIds())) as empty:
        empty.open_store()
        blobs = empty if is_empty else world.blobs
        assert asyncio.run(take_storage(copy, blobs)) == is_empty
        asyncio.run(claim_storage(copy, blobs))
        with pytest.raises(SettingRefused, match="belongs to another database"):
            asyncio.run(claim_storage(world.database, blobs))


def test_a_fence_makes_no_owner_for_a_database_that_has_no_storage_yet(world: World) -> None:
    upload(world)
    forget_owner(world)
    assert not asyncio.run(take_storage(world.database, world.blobs))
    assert owners(world, world.database) == (None, None)
