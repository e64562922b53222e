"""What a copy of the media makes of an asset that is overwritten while it runs: any moment of it, on purpose."""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from hashlib import sha256
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from tests.adapters.packing import break_page, opened
from tests.app.failing import Failing
from tests.app.planted import put_assets, put_packed, spoil_packed
from tests.contract.databases import CALLER, run
from tests.world import World
from uponce.adapters.database.sqlite.snapshot import Snapshot, take
from uponce.adapters.files import shard_of
from uponce.adapters.spool.uploads import SpooledUpload
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import PACK_BYTES, LocalBlobs
from uponce.adapters.store.records import HEADER_BYTES
from uponce.adapters.system import RandomIds
from uponce.app.copy_media import Copying, copy_media, forget_unnamed
from uponce.app.ports import PLACES, BlobStore, OpenBlob, StoredBlob
from uponce.app.signed_calls import SignedCall, destroy
from uponce.core.errors import StorageFull, StorageUnavailable
from uponce.core.values import ResourceType

WORLD = World

LARGE = bytes(PACK_BYTES + 1)  # too large for packs


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Blobs]:
    with closing(opened(tmp_path / "copy")) as store:
        yield store


def put(world: World, name: str, data: bytes) -> None:
    answer = world.upload(world.sign({"public_id": name}), data, kind="raw")
    assert answer.status == 200, answer


def remove(world: World, name: str) -> None:
    fields = world.sign({"public_id": name}, key=world.server)
    assert run(destroy(world.services, SignedCall("demo", ResourceType.RAW, fields, CALLER)))


def copied(store: Blobs) -> list[bytes]:
    async def read() -> list[bytes]:
        found = []
        async for stored in store.published():
            blob = await store.open(stored.key)
            assert blob is not None
            found.append(bytes(await blob.read(0, blob.size)))
            blob.close()
        return sorted(found)

    return run(read())


@pytest.mark.parametrize("renewing", [True, False])
def test_an_asset_that_was_overwritten_since_the_snapshot(
    world: World, tmp_path: Path, target: Blobs, renewing: bool
) -> None:
    """Its row in the copy becomes the present one. A copy that only trusts its own rows has an asset without bytes."""
    put(world, "kept", b"kept")
    put(world, "changed", b"one")
    take(world.path, tmp_path / "copy.db", lambda done, pages: None)
    put(world, "changed", b"two")
    put(world, "later", b"later")
    with closing(Snapshot(tmp_path / "copy.db", world.path)) as snapshot:
        done = run(copy_media(snapshot, world.blobs, target, renew=snapshot.renew if renewing else None))
    assert copied(target) == ([b"kept", b"two"] if renewing else [b"kept"])
    assert (done.copied, len(done.lost)) == ((2, 0) if renewing else (1, 1))


def test_an_asset_that_was_deleted_since_the_snapshot(world: World, tmp_path: Path, target: Blobs) -> None:
    """It leaves the copy too. Nothing takes its place, although SQLite gives the numbers of rows away again."""
    for name in ("kept", "one", "two"):
        put(world, name, name.encode())
    take(world.path, tmp_path / "copy.db", lambda done, pages: None)
    remove(world, "one")
    remove(world, "two")
    put(world, "later", b"later")
    put(world, "one", b"one again")
    with closing(Snapshot(tmp_path / "copy.db", world.path)) as snapshot:
        done = run(copy_media(snapshot, world.blobs, target, renew=snapshot.renew))
        left = {digest.sha256 for digest in run(snapshot.digests("")).values()}
    assert copied(target) == [b"kept"]
    assert left == {sha256(b"kept").hexdigest()}
    assert (done.copied, done.lost) == (1, {})


def test_bytes_that_are_truly_gone_are_told(world: World, tmp_path: Path, target: Blobs) -> None:
    put(world, "kept", b"kept")
    put(world, "hollow", b"hollow")
    take(world.path, tmp_path / "copy.db", lambda done, pages: None)
    (hollow,) = [path for path in world.media.rglob("*") if path.is_file() and path.read_bytes() == b"hollow"]
    hollow.unlink()
    with closing(Snapshot(tmp_path / "copy.db", world.path)) as snapshot:
        done = run(copy_media(snapshot, world.blobs, target, renew=snapshot.renew))
    assert copied(target) == [b"kept"]
    assert done.lost.keys() == {"demo/raw/upload/hollow"}


class NoRoomForOne(LocalBlobs):
    is_full = True

    async def receive(self, key: str | None = None) -> SpooledUpload:
        if self.is_full:
            self.is_full = False
            raise StorageFull("no room")
        return await super().receive(key)


def test_a_copy_that_fails_writes_nothing_more(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backup then deletes files of the target, and begins again."""
    monkeypatch.setattr("uponce.app.copy_media.PLACES", ("",))
    for name in ("one", "two", "three"):
        put(world, name, name.encode())
    target = NoRoomForOne(tmp_path / "copy", ids=RandomIds())
    target.open_store()

    async def copy() -> int:
        with pytest.raises(StorageFull):
            await copy_media(world.database, world.blobs, target)
        return len(asyncio.all_tasks())

    with closing(target):
        assert run(copy()) == 1  # this one
        assert len(copied(target)) == 2


def test_progress_counts_what_was_there(world: World, tmp_path: Path, target: Blobs) -> None:
    for name in ("one", "two"):
        put(world, name, name.encode())
    first = run(copy_media(world.database, world.blobs, target))
    put(world, "three", b"three")
    seen: list[Copying] = []
    second = run(copy_media(world.database, world.blobs, target, progress=seen.append))
    assert (first.copied, first.bytes) == (2, 6)
    assert (second.present, second.copied, second.bytes, second.places) == (2, 1, 5, len(PLACES))
    assert len(seen) >= len(PLACES)


def test_a_file_that_cannot_be_deleted_keeps_no_other_file(
    world: World, target: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_assets(world, put_packed(world, *[b"data"] * 5), b"data")
    assert run(copy_media(world.database, world.blobs, target)).copied == 5
    world.sql("DELETE FROM assets")
    stuck: list[str] = []
    real = target.delete

    async def delete(key: str) -> None:
        if not stuck:
            stuck.append(key)
            raise StorageUnavailable("immutable")
        await real(key)

    monkeypatch.setattr(target, "delete", delete)
    with pytest.raises(StorageUnavailable, match="immutable"):
        run(forget_unnamed(target, world.database))
    assert copied(target) == [b"data"]


def test_copies_of_packed_blobs_are_files_under_the_same_keys(world: World, tmp_path: Path, target: Blobs) -> None:
    """There and back, as by a backup and a restore; what is deleted in between leaves the backup."""
    data = [b"one", b"two" * 50_000, b""]
    keys = put_packed(world, *data)
    for key, each in zip(keys, data, strict=True):
        put_assets(world, [key], each)
    for copied_now in (3, 0):
        assert run(copy_media(world.database, world.blobs, target)).copied == copied_now
    assert copied(target) == sorted(data)
    assert sorted(path.name for path in (tmp_path / "copy" / "blobs").rglob("p*") if path.is_file()) == sorted(keys)
    world.sql(f"DELETE FROM assets WHERE blob_key = '{keys[0]}'")
    assert run(forget_unnamed(target, world.database)) == 1
    restored = LocalBlobs(tmp_path / "restored", ids=RandomIds())
    restored.open_store()
    with closing(restored):
        assert run(copy_media(world.database, target, restored, deep=True)).copied == 2
        assert copied(restored) == sorted(data[1:])
        assert run(restored.digest(keys[1])) == run(world.blobs.digest(keys[1]))
        assert restored.open_now(keys[1]) is None
        run(restored.delete(keys[1]))
        assert copied(restored) == [b""]


def test_a_good_copy_takes_the_place_of_a_damaged_blob_in_a_pack(world: World, target: Blobs) -> None:
    """As `uponce restore --reuse-storage` does it. A pack is asked before a file, so the record must go."""
    data = [b"damaged", b"neighbour"]
    keys = put_packed(world, *data)
    for key, each in zip(keys, data, strict=True):
        put_assets(world, [key], each)
    run(copy_media(world.database, world.blobs, target))
    spoil_packed(world, keys[0], HEADER_BYTES)
    repaired = run(copy_media(world.database, target, world.blobs, deep=True))
    assert (repaired.copied, repaired.present, repaired.lost) == (1, 1, {})
    assert copied(world.blobs) == sorted(data)
    again = run(copy_media(world.database, target, world.blobs, deep=True))
    assert (again.copied, again.present) == (0, 2)


def test_a_good_copy_takes_the_place_of_a_blob_whose_header_the_disk_cannot_read(
    world: World, target: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = [b"damaged", b"neighbour"]
    keys = put_packed(world, *data)
    for key, each in zip(keys, data, strict=True):
        put_assets(world, [key], each)
    run(copy_media(world.database, world.blobs, target))
    break_page(monkeypatch, 0)
    repaired = run(copy_media(world.database, target, world.blobs))
    assert (repaired.copied, repaired.present, repaired.lost) == (1, 1, {})
    assert copied(world.blobs) == sorted(data)


def spoil_file(world: World, data: bytes) -> None:
    """Make the file of these bytes one that cannot be read: a folder has its name."""
    (path,) = [path for path in (world.media / "blobs").rglob("*") if path.is_file() and path.read_bytes() == data]
    path.unlink()
    path.mkdir()


class Away:
    """A store whose folder cannot be listed."""

    def __init__(self, real: BlobStore, failure: Exception | None) -> None:
        self._real, self._failure = real, failure

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def published(self) -> AsyncIterator[StoredBlob]:
        if self._failure is not None:
            raise self._failure
        for blob in [each async for each in self._real.published()]:
            yield blob


def test_a_file_that_cannot_be_read_is_lost_and_the_rest_is_copied(
    world: World, target: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the source is mounted read-only, as a failing disk should be."""
    monkeypatch.setattr("os.access", lambda path, mode, **_: mode != os.W_OK or path != world.media / "spool")
    put(world, "kept", LARGE)
    put(world, "damaged", LARGE + b"damaged")
    spoil_file(world, LARGE + b"damaged")
    done = run(copy_media(world.database, world.blobs, target))
    assert copied(target) == [LARGE]
    assert "its bytes cannot be read: [Errno 21] Is a directory" in done.lost["demo/raw/upload/damaged"]


class Remote:
    """A store that is a bucket, as far as a copy can see. Some reads of broken blobs fail. The list has them first."""

    is_remote = True

    def __init__(self, real: BlobStore, broken: set[str], failures: Iterator[bool], most_listed: int = 100) -> None:
        self._real, self._broken, self._failures, self._most_listed = real, broken, failures, most_listed

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def open(self, key: str) -> object:
        blob = await self._real.open(key)
        assert blob is not None
        return FailingBlob(blob, self._failures) if key in self._broken else blob

    async def published(self) -> AsyncIterator[StoredBlob]:
        listed = [blob async for blob in self._real.published()]
        for blob in sorted(listed, key=lambda blob: blob.key not in self._broken)[: self._most_listed]:
            yield blob


class FailingBlob:
    """A blob whose reads fail while the failures are true."""

    def __init__(self, real: OpenBlob, failures: Iterator[bool]) -> None:
        self._real, self._failures = real, failures

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)

    async def read(self, offset: int, length: int) -> bytes | bytearray:
        if next(self._failures):
            raise StorageUnavailable("Send it again.", detail="InvalidObjectState")
        return await self._real.read(offset, length)


def remote(world: World, *failures: bool) -> BlobStore:
    """Return a bucket with two blobs. The reads of one fail so often."""
    put(world, "kept", LARGE)
    put(world, "damaged", LARGE + b"damaged")
    broken = {key for key, digest in run(world.database.digests("")).items() if digest.size > len(LARGE)}
    return cast(BlobStore, Remote(world.blobs, broken, chain(failures, repeat(False))))


def test_an_object_that_cannot_be_read_is_lost_and_the_rest_is_copied(world: World, target: Blobs) -> None:
    """Such as an object that was moved to an archive class: its HEAD succeeds."""
    done = run(copy_media(world.database, remote(world, True, True), target))
    assert copied(target) == [LARGE]
    assert done.lost.keys() == {"demo/raw/upload/damaged"}
    assert "its bytes cannot be read: InvalidObjectState" in done.lost["demo/raw/upload/damaged"]


def test_an_object_that_fails_once_is_copied(world: World, target: Blobs) -> None:
    done = run(copy_media(world.database, remote(world, True), target))
    assert (done.copied, done.lost) == (2, {})


def many(world: World, number: int) -> list[str]:
    """Return the keys of so many new blobs, in the order of their copies."""
    for name in map(str, range(number)):
        put(world, name, LARGE)
    return sorted(run(world.database.digests("")))


@pytest.mark.parametrize("number", [1, 12])
def test_a_bucket_that_gives_no_blob_ends_the_copy(world: World, target: Blobs, number: int) -> None:
    """Its data may be away where the list and the short object of the owner are not. A backup must not end well."""
    source = Remote(world.blobs, {*many(world, number)}, repeat(True))
    if number > 1:
        put(world, "short", b"as the list, from another machine")
    with pytest.raises(StorageUnavailable) as refused:
        run(copy_media(world.database, cast(BlobStore, source), target))
    assert "InvalidObjectState" in refused.value.detail
    assert LARGE not in copied(target)


def test_a_blob_does_not_show_that_its_bucket_gives_others(world: World, target: Blobs) -> None:
    """Two of its reads fail. A probe of the same blob would be one of them."""
    source = Remote(world.blobs, {*many(world, 1)}, chain([True, True], repeat(False)))
    with pytest.raises(StorageUnavailable):
        run(copy_media(world.database, cast(BlobStore, source), target))


def test_a_bucket_that_has_lost_most_blobs_gives_the_others(world: World, target: Blobs) -> None:
    broken = {*many(world, 12)[:-1]}
    done = run(copy_media(world.database, cast(BlobStore, Remote(world.blobs, broken, repeat(True))), target))
    assert (done.copied, len(done.lost)) == (1, 11)
    assert copied(target) == [LARGE]
    assert all("its bytes cannot be read" in why for why in done.lost.values())


def test_a_blob_that_was_copied_shows_that_a_bucket_gives_blobs(world: World, target: Blobs) -> None:
    """Of the blobs that a list begins with, none may be readable."""
    keys = many(world, 20)
    broken = {key for key in keys if shard_of(key) != shard_of(keys[0])}  # blobs of one place are copied at once
    source = Remote(world.blobs, broken, repeat(True), most_listed=len(broken))
    done = run(copy_media(world.database, cast(BlobStore, source), target))
    assert (done.copied, len(done.lost)) == (20 - len(broken), len(broken))


def test_a_copy_that_cannot_be_read_is_made_again(world: World, target: Blobs) -> None:
    put(world, "damaged", LARGE)
    run(copy_media(world.database, world.blobs, target))
    unreadable = Failing(target, before={"digest": StorageUnavailable("Send it again.", detail="[Errno 5] I/O error")})
    done = run(copy_media(world.database, world.blobs, cast(BlobStore, unreadable), deep=True))
    assert (done.present, done.copied, done.lost) == (0, 1, {})


@pytest.mark.parametrize("broken", ["source", "target"])
def test_a_store_that_fails_ends_the_copy_and_the_error_names_the_asset(
    world: World, target: Blobs, broken: str
) -> None:
    put(world, "damaged", LARGE)
    if broken == "source":
        spoil_file(world, LARGE)
    failure = StorageUnavailable("Send it again.", detail="[Errno 5] I/O error")
    source = Away(world.blobs, failure) if broken == "source" else world.blobs
    other = Failing(target, before={"receive": failure} if broken == "target" else {})
    with pytest.raises(StorageUnavailable) as told:
        run(copy_media(world.database, cast(BlobStore, source), cast(BlobStore, other)))
    assert told.value.detail.startswith("demo/raw/upload/damaged, blob ")


@pytest.mark.parametrize(("inodes", "left", "told"), [(9, 0, True), (9, 1, False), (0, 0, False)])
def test_a_target_without_inodes_is_not_told_to_lack_space(
    world: World, target: Blobs, monkeypatch: pytest.MonkeyPatch, inodes: int, left: int, told: bool
) -> None:
    """A pack holds many blobs, and a copy has a file for each. `df` shows space there; btrfs counts no inodes."""

    def refuse(path: Path) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    put(world, "small", b"small")
    monkeypatch.setattr("uponce.adapters.spool.uploads.make_file", refuse)
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=9, f_files=inodes, f_favail=left))
    with pytest.raises(StorageFull) as refusal:
        run(copy_media(world.database, world.blobs, target))
    assert ("No inodes are left there (df -i)" in refusal.value.detail) == told
