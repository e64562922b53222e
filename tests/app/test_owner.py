"""A storage belongs to one database. No other database deletes anything in it."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.app.test_sweep import orphan
from tests.app.test_sweep import run as sweep
from tests.chunks import CHUNK, Client, noise
from tests.world import World, assert_accepted, assert_refused
from uponce.adapters import files
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.upkeep import replace_owner
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.fsck import OWNER, fsck
from uponce.app.migrate_store import Store, migrate_store, undo_move
from uponce.app.owner import check_owner, claim_storage, take_storage
from uponce.app.services import Ownership
from uponce.core.errors import SettingRefused, StorageUnavailable
from uponce.core.lineage import follows, heir
from uponce.core.policy import Limits

OTHER = "f" * 32


@pytest.fixture
def other(tmp_path: Path, world: World) -> Iterator[SqliteDatabase]:
    """A second database, without rows."""
    database = SqliteDatabase(tmp_path / "other.db", clock=world.clock, secrets=AesSecretBox(bytes(32)))
    with closing(database):
        database.open()
        yield database


def forget_owner(world: World) -> None:
    """As after a start on a full disk, which notes no owner."""
    world.sql("DELETE FROM owner")
    (world.media / "owner").unlink()


def upload(world: World) -> None:
    assert_accepted(world.upload(world.sign()))


def owners(world: World, database: SqliteDatabase) -> tuple[str | None, str | None]:
    """Of the storage and of the database."""

    async def ask() -> tuple[str | None, str | None]:
        return await world.blobs.owner(), await database.owner()

    return asyncio.run(ask())


def refuse_sweep(world: World) -> None:
    with world.untouched(), pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(sweep(world))


def test_a_server_sweeps_nothing_once_another_database_has_its_storage(world: World) -> None:
    upload(world)
    orphan(world)
    (world.media / "spool" / ("a" * 32)).write_bytes(b"arriving")
    asyncio.run(world.blobs.set_owner(OTHER, replace=True))
    refuse_sweep(world)


def test_a_sweep_ends_once_another_database_has_the_storage(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sweeps of a large storage take hours."""
    monkeypatch.setattr("uponce.app.sweep._BATCH", 1)
    for _ in range(3):
        orphan(world)
    delete = world.blobs.delete

    async def lose_the_storage(key: str) -> None:
        await delete(key)
        await world.blobs.set_owner(OTHER, replace=True)

    monkeypatch.setattr(world.blobs, "delete", lose_the_storage)
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(sweep(world))
    assert len(world.traces().blobs) == 2


@pytest.mark.parametrize("notices", ["sweep", "readyz"])
@pytest.mark.parametrize("whole_bodies", [True, False])
def test_a_server_takes_no_upload_while_another_database_has_its_storage(
    world: World, notices: str, whole_bodies: bool
) -> None:
    """Sweeps of the other database would delete the file."""
    world.whole_bodies = whole_bodies
    world.swap(limits=Limits(min_chunk_bytes=CHUNK))
    upload(world)
    own = owners(world, world.database)[1]
    assert own is not None
    asyncio.run(world.blobs.set_owner(OTHER, replace=True))
    if notices == "sweep":
        refuse_sweep(world)
    assert not is_storage_ready(world)
    with world.untouched():
        assert_refused(world.upload(world.sign()), 503, "storage_unavailable")
        deletion = urlencode(world.sign({"public_id": "cat"}, key=world.server))
        assert_refused(world.request("POST", f"/v1_1/demo/image/destroy?{deletion}"), 503, "storage_unavailable")
    in_chunks = Client(world, noise(2 * CHUNK))
    assert_refused(asyncio.run(in_chunks.all_of())[-1], 503, "storage_unavailable")
    asyncio.run(world.blobs.set_owner(own, replace=True))
    if notices == "sweep":
        asyncio.run(sweep(world))
    assert is_storage_ready(world)
    upload(world)
    assert_accepted(asyncio.run(in_chunks.chunk(*in_chunks.spans[-1])))


def is_storage_ready(world: World) -> bool:
    answer = world.get("/readyz")
    assert answer.status == (200 if answer.json["status"] == "ok" else 503)
    return bool(answer.json["checks"]["storage"] == "ok")


def test_a_database_without_an_owner_takes_the_storage_with_its_files(world: World) -> None:
    upload(world)
    forget_owner(world)
    orphan(world)
    assert owners(world, world.database) == (None, None)
    assert asyncio.run(sweep(world)).blobs == 1
    of_storage, of_database = owners(world, world.database)
    assert of_storage == of_database is not None


def test_a_database_that_names_none_of_the_files_does_not_take_the_storage(world: World, other: SqliteDatabase) -> None:
    """Also if the database has had another storage before."""
    upload(world)
    forget_owner(world)
    for _ in range(2):
        with pytest.raises(SettingRefused, match="names none of them"):
            asyncio.run(claim_storage(other, world.blobs))
        asyncio.run(other.make_owner())
    assert owners(world, world.database) == (None, None)


def test_a_database_with_files_takes_no_empty_storage_by_mistake(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is not mounted, or the wrong bucket. A fence takes it, if the operator knows that files are lost."""
    with closing(LocalBlobs(tmp_path / "empty", ids=RandomIds())) as empty:
        empty.open_store()
        asyncio.run(claim_storage(world.database, empty))  # names no file yet
        (warning,) = (record.message for record in caplog.records if "had no owner" in record.message)
        assert "give it the same UPONCE_STORAGE" in warning
        (tmp_path / "empty" / "owner").unlink()
        upload(world)
        for work in (claim_storage(world.database, empty), check_owner(world.database, empty)):
            with pytest.raises(SettingRefused, match=r"is empty.*Mount the disk.*uponce fence"):
                asyncio.run(work)
        assert asyncio.run(empty.owner()) is None
        assert asyncio.run(take_storage(world.database, empty))
        assert asyncio.run(check_owner(world.database, empty))


def test_of_two_databases_that_claim_a_storage_at_once_one_has_it(world: World, other: SqliteDatabase) -> None:
    """Both found no owner."""
    (world.media / "owner").unlink()

    async def both() -> list[BaseException | None]:
        return await asyncio.gather(
            *(claim_storage(database, world.blobs) for database in (world.database, other)), return_exceptions=True
        )

    assert sorted(isinstance(each, SettingRefused) for each in asyncio.run(both())) == [False, True]


def test_a_storage_that_stays_moves_with_its_database_and_back(world: World, other: SqliteDatabase) -> None:
    """The database that was left deletes nothing there, whatever becomes of its frozen rows."""
    upload(world)
    source = Store(world.database, world.blobs)
    first = owners(world, world.database)[0]
    for _ in range(2):  # repeated, as after an interruption
        assert asyncio.run(migrate_store(source, Store(other, world.blobs), media=False)).complete
        moved = owners(world, other)
        assert moved[0] == moved[1] != first
        refuse_sweep(world)
    asyncio.run(undo_move(world.database, world.blobs, 300))
    assert owners(world, world.database) == (first, first)
    asyncio.run(sweep(world))
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(check_owner(other, world.blobs))


def test_giving_up_a_move_loses_no_upload_of_the_new_store_without_a_word(world: World, other: SqliteDatabase) -> None:
    """The storage stayed, and the new store has taken an upload there."""
    upload(world)
    asyncio.run(migrate_store(Store(world.database, world.blobs), Store(other, world.blobs), media=False))
    with closing(SqliteDatabase(world.path, clock=world.clock, secrets=AesSecretBox(bytes(32)))) as source:
        source.open()
        world.swap(database=other)
        upload(world)
        before = owners(world, other)
        with pytest.raises(SettingRefused, match="holds 1 files that this database does not name"):
            asyncio.run(undo_move(source, world.blobs, 300))
        assert (asyncio.run(source.frozen()), owners(world, other)) == (True, before)
        asyncio.run(undo_move(source, world.blobs, 300, loses_files=True))
        assert not asyncio.run(source.frozen())


@pytest.mark.parametrize(
    ("overwrites", "found"), [(True, "holds 1 files .* and lacks 1 files"), (False, "lacks 1 files")]
)
def test_giving_up_a_move_loses_no_asset_that_the_new_store_has_changed(
    world: World, other: SqliteDatabase, overwrites: bool, found: str
) -> None:
    """The storage stayed, and the new store has deleted the file of an asset from before the move."""
    fields = {"public_id": "a"}
    assert_accepted(world.upload(world.sign(fields)))
    asyncio.run(migrate_store(Store(world.database, world.blobs), Store(other, world.blobs), media=False))
    with closing(SqliteDatabase(world.path, clock=world.clock, secrets=AesSecretBox(bytes(32)))) as source:
        source.open()
        world.swap(database=other)
        if overwrites:
            assert_accepted(world.upload(world.sign(fields)))
        else:
            deletion = urlencode(world.sign(fields, key=world.server))
            assert world.request("POST", f"/v1_1/demo/image/destroy?{deletion}").json == {"result": "ok"}
        with pytest.raises(SettingRefused, match=found):
            asyncio.run(undo_move(source, world.blobs, 300))
        assert asyncio.run(source.frozen())
        asyncio.run(undo_move(source, world.blobs, 300, loses_files=True))
        assert not asyncio.run(source.frozen())


def test_giving_up_a_move_that_never_was_takes_no_storage(world: World, other: SqliteDatabase) -> None:
    before = owners(world, world.database)
    asyncio.run(undo_move(other, world.blobs, 300))
    assert owners(world, world.database) == before


def test_no_store_moves_into_a_storage_in_use(world: World, other: SqliteDatabase) -> None:
    upload(world)
    in_use = Store(other, world.blobs)
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(migrate_store(Store(world.database, world.blobs), in_use))
    assert not asyncio.run(world.database.frozen())


def test_a_full_storage_gets_its_owner_once_a_sweep_has_made_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a start nor the sweep that makes room may need room."""
    upload(world)
    forget_owner(world)
    orphan(world)

    def full(path: Path, blocks: object) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_new", full)
        asyncio.run(claim_storage(world.database, world.blobs))
        assert asyncio.run(sweep(world)).blobs == 1
    assert list(world.media.glob("owner*")) == []
    asyncio.run(sweep(world))
    of_storage, of_database = owners(world, world.database)
    assert of_storage == of_database is not None


def test_a_fence_takes_the_storage_back_for_a_dump_from_before_it_had_an_owner(world: World) -> None:
    upload(world)
    forget_owner(world)
    asyncio.run(world.blobs.set_owner(OTHER))
    assert asyncio.run(take_storage(world.database, world.blobs))
    assert asyncio.run(check_owner(world.database, world.blobs))
    assert not asyncio.run(take_storage(world.database, world.blobs))


def test_a_fence_takes_no_storage_whose_files_its_database_does_not_name(world: World, other: SqliteDatabase) -> None:
    """Nor one without files, unless an operator says so, nor one without an owner."""
    before = owners(world, world.database)
    with pytest.raises(SettingRefused, match="names 0 of 0 files"):
        asyncio.run(take_storage(other, world.blobs))
    upload(world)
    with pytest.raises(SettingRefused, match="names 0 of 1 files"):
        asyncio.run(take_storage(other, world.blobs))
    assert owners(world, world.database) == before
    assert asyncio.run(take_storage(other, world.blobs, anyway=True))
    refuse_sweep(world)
    (world.media / "owner").unlink()
    assert not asyncio.run(take_storage(world.database, world.blobs, anyway=True))
    assert asyncio.run(world.blobs.owner()) is None


def test_a_fence_takes_the_storage_only_if_its_database_names_nine_of_ten_files(world: World) -> None:
    """An old copy of the database names some, and its sweeps would delete the rest."""
    for _ in range(9):
        upload(world)
    for _ in range(2):
        orphan(world)
    asyncio.run(world.blobs.set_owner(OTHER, replace=True))
    with pytest.raises(SettingRefused, match=r"names 9 of 11 files there\. The limit is nine of ten.*--take-storage"):
        asyncio.run(take_storage(world.database, world.blobs))
    assert asyncio.run(world.blobs.owner()) == OTHER
    upload(world)
    with pytest.raises(SettingRefused, match="names 10 of 12"):
        asyncio.run(take_storage(world.database, world.blobs))
    for _ in range(8):
        upload(world)
    assert asyncio.run(take_storage(world.database, world.blobs))


def test_a_database_that_took_over_takes_the_storage_from_the_one_before(world: World, other: SqliteDatabase) -> None:
    """As a standby that was promoted. The one before is refused, and so is another standby of that one."""
    upload(world)
    first, _ = owners(world, other)
    assert first is not None
    second = heir("2" * 32, first)
    asyncio.run(world.database.write(replace_owner(second)))
    asyncio.run(check_owner(world.database, world.blobs))
    assert owners(world, world.database) == (first, second)
    assert is_storage_ready(world)
    assert owners(world, world.database) == (second, second)
    upload(world)
    for of_another in (first, heir("3" * 32, first)):
        asyncio.run(world.database.write(replace_owner(of_another)))
        refuse_sweep(world)


def test_a_database_from_which_a_fence_took_the_storage_does_not_take_it_back(
    world: World, other: SqliteDatabase
) -> None:
    """Although it had taken over from the one of the fence: as a former primary that an operator chose again."""
    upload(world)
    first, _ = owners(world, other)
    assert first is not None
    second = heir("2" * 32, first)
    asyncio.run(world.blobs.set_owner(second, replace=True))
    asyncio.run(other.write(replace_owner(second)))
    assert asyncio.run(take_storage(world.database, world.blobs))
    assert is_storage_ready(world)
    with pytest.raises(SettingRefused, match="belongs to another database"):
        asyncio.run(claim_storage(other, world.blobs))


@pytest.mark.parametrize("take", [claim_storage, take_storage])
def test_a_start_and_a_fence_take_the_storage_from_the_database_before(
    world: World, take: Callable[[SqliteDatabase, Any], Awaitable[object]]
) -> None:
    first, _ = owners(world, world.database)
    assert first is not None
    orphan(world)  # so few files does the database name: it needs no question
    asyncio.run(world.database.write(replace_owner(heir("2" * 32, first))))
    assert not asyncio.run(_taken(take(world.database, world.blobs)))
    of_storage, own = owners(world, world.database)
    assert of_storage == own is not None and follows(own, heir("2" * 32, first))
    assert (own == heir("2" * 32, first)) == (take is claim_storage)


async def _taken(done: Awaitable[object]) -> object:
    return await done


def test_a_frozen_database_takes_no_storage(world: World) -> None:
    """Its storage may be on the way to another database."""
    upload(world)
    (world.media / "owner").unlink()
    asyncio.run(world.database.freeze())
    for work in (sweep(world), claim_storage(world.database, world.blobs)):
        with world.untouched(), pytest.raises(SettingRefused, match="is frozen"):
            asyncio.run(work)
    assert owners(world, world.database)[0] is None


def test_a_move_goes_on_whose_frozen_source_has_no_owner(world: World, other: SqliteDatabase, tmp_path: Path) -> None:
    upload(world)
    forget_owner(world)
    asyncio.run(world.database.freeze())
    with closing(LocalBlobs(tmp_path / "moved", ids=RandomIds())) as target:
        target.open_store()
        assert asyncio.run(migrate_store(Store(world.database, world.blobs), Store(other, target))).complete


def test_fsck_names_the_wrong_database(world: World) -> None:
    asyncio.run(world.blobs.set_owner(OTHER, replace=True))
    report = asyncio.run(fsck(world.services, grace_seconds=0, audit_seconds=10**9, settle_seconds=0))
    ((finding,),) = report.findings.values()
    assert (finding.kind, OTHER in finding.detail) == (OWNER, True)


def test_a_refusal_that_ends_while_an_upload_reads_it_is_still_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread that commits reads it, and the event loop notes the next answer at any moment."""
    found = iter([SettingRefused("another database has the storage"), None])
    monkeypatch.setattr(Ownership, "_refusal", property(lambda _: next(found), lambda *_: None), raising=False)
    with pytest.raises(StorageUnavailable):
        Ownership().check()
