"""What any BlobStore must do, run on every back end."""

import asyncio
import hashlib
import random
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.adapters.one_group import body
from tests.contract.databases import run
from tests.contract.stores import STORES, Kind, PackedBlobs, back_ends, local_of, packed
from uponce.adapters.files import OpenFile, shard_of
from uponce.app.ports import PLACES, BlobStore, StoredBlob
from uponce.core.errors import StorageUnavailable
from uponce.core.values import Digest

MEBIBYTE = 1024 * 1024
ABSENT = "0" * 32


KINDS = {**STORES, "packs": Kind(packed)}


@pytest.fixture(params=back_ends(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def store(kind: Kind, tmp_path: Path) -> Iterator[BlobStore]:
    with kind.opened(tmp_path) as store:
        yield store


async def put(store: BlobStore, *blocks: bytes) -> str:
    """Publish these bytes; the key."""
    if isinstance(store, PackedBlobs):
        return local_of(store).put_group([body(b"".join(blocks))])[0]
    spooled = await store.receive()
    for block in blocks:
        await spooled.write(block)
    await spooled.seal()
    await spooled.publish()
    return spooled.key


async def get(store: BlobStore, key: str) -> bytes | None:
    blob = await store.open(key)
    if blob is None:
        return None
    try:
        return bytes(await blob.read(0, blob.size))
    finally:
        blob.close()


async def listed(store: BlobStore) -> list[StoredBlob]:
    return [blob async for blob in store.published()]


def cut(data: bytes, places: list[int]) -> list[bytes]:
    return [data[start:end] for start, end in pairwise([0, *sorted(places), len(data)])]


@pytest.mark.parametrize("size", [0, 1, 3 * MEBIBYTE + 17])
def test_bytes_that_pass_through_are_spooled_until_they_are_discarded(store: BlobStore, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def play() -> None:
        chunk = await store.receive_chunk()
        for block in cut(data, [size // 3, size // 2]):
            await chunk.write(block)
        await chunk.flush()
        assert (chunk.size, b"".join([block async for block in chunk.blocks()])) == (size, data)
        assert [blob.size async for blob in store.spooled()] == [size]
        await chunk.discard()
        await chunk.discard()
        assert [blob async for blob in store.spooled()] == []

    asyncio.run(play())


@pytest.mark.parametrize(
    "size", [0, 1, MEBIBYTE - 1, MEBIBYTE, MEBIBYTE + 1, 3 * MEBIBYTE + 17], ids=lambda size: f"{size}-bytes"
)
@pytest.mark.parametrize("cuts", [0, 7, 3000])
def test_bytes_come_back_as_they_went_in(store: BlobStore, size: int, cuts: int) -> None:
    """Whatever the pieces: the size, both digests and the content are those of the whole."""
    chance = random.Random(f"{size}/{cuts}")
    data = chance.randbytes(size)

    async def scenario() -> None:
        spooled = await store.receive()
        for block in cut(data, [chance.randint(0, size) for _ in range(cuts)]):
            await spooled.write(block)
        assert spooled.size == size
        digest = Digest(size, hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
        assert await spooled.seal() == digest
        assert Path(spooled.path).read_bytes() == data
        await spooled.publish()
        assert await get(store, spooled.key) == data

    run(scenario())


def test_nothing_is_visible_before_it_is_published(store: BlobStore) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.write(b"x" * 2 * MEBIBYTE)
        await spooled.seal()
        assert await store.open(spooled.key) is None
        assert await listed(store) == []
        await spooled.publish()
        assert [(blob.key, blob.size) for blob in await listed(store)] == [(spooled.key, 2 * MEBIBYTE)]

    run(scenario())


def test_keys_are_never_the_same(store: BlobStore) -> None:
    async def scenario() -> None:
        spooled_files = [await store.receive() for _ in range(100)]
        assert len({spooled.key for spooled in spooled_files}) == 100
        for spooled in spooled_files:
            await spooled.discard()

    run(scenario())


@pytest.mark.parametrize("published", [False, True])
def test_discarded_bytes_are_gone_published_or_not(store: BlobStore, published: bool) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.write(b"abc")
        await spooled.seal()
        path = spooled.path
        if published:
            await spooled.publish()
        for _ in range(2):
            await spooled.discard()
            assert await store.open(spooled.key) is None
            assert await listed(store) == []
            assert not Path(path).exists()

    run(scenario())


def test_a_stage_may_be_discarded_before_anything_was_written(store: BlobStore) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.discard()
        with pytest.raises(StorageUnavailable):
            await spooled.seal()

    run(scenario())
    assert run(store.sweep_spool(0)) == 0


def test_a_discard_waits_for_the_write_that_is_under_way(store: BlobStore) -> None:
    """Nothing appears after it: not even when the writer was cancelled in the middle."""

    async def scenario() -> None:
        for _ in range(30):
            spooled = await store.receive()
            await spooled.write(b"a" * MEBIBYTE)
            writing = asyncio.ensure_future(spooled.write(b"b" * MEBIBYTE))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
            await spooled.discard()
            assert not Path(spooled.path).exists()

    run(scenario())
    assert run(store.sweep_spool(0)) == 0


def test_a_cancelled_write_loses_no_byte(store: BlobStore) -> None:
    """A caller that gives up waiting and goes on has all its bytes in the blob, in order."""
    blocks = [bytes([number]) * MEBIBYTE for number in range(10)]

    async def scenario() -> None:
        spooled = await store.receive()
        for block in blocks:
            writing = asyncio.ensure_future(spooled.write(block))
            await asyncio.sleep(0)
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        digest = await spooled.seal()
        await spooled.publish()
        assert digest.sha256 == hashlib.sha256(b"".join(blocks)).hexdigest()
        assert await get(store, spooled.key) == b"".join(blocks)

    run(scenario())


def test_ranges_are_read_exactly(store: BlobStore) -> None:
    data = random.Random(1).randbytes(300_000)

    async def scenario() -> None:
        blob = await store.open(await put(store, data))
        assert blob is not None and blob.size == len(data)
        assert await blob.read(0, 10) == data[:10]
        assert await blob.read(123_456, 150_000) == data[123_456:273_456]
        assert await blob.read(len(data) - 5, 100) == data[-5:]
        assert await blob.read(len(data), 100) == b""
        blob.close()
        blob.close()

    run(scenario())


def test_what_is_had_at_once_is_the_same_or_nothing(store: BlobStore) -> None:
    data = random.Random(1).randbytes(300_000)

    async def scenario() -> None:
        key, block = await put(store, data), bytearray(200_000)
        assert store.open_now("0" * 32) is None
        if (blob := store.open_now(key)) is not None:
            assert blob.size == len(data)
            for start in (0, 123_456, 299_999, 300_000):
                taken = blob.read_now(start, memoryview(block))
                assert taken in (0, min(len(block), len(data) - start))
                assert block[:taken] == data[start : start + taken]
            assert await blob.read(0, 10) == data[:10]
            blob.close()
        await store.delete(key)
        assert store.open_now(key) is None

    run(scenario())


def test_an_open_blob_outlives_its_deletion_or_says_that_it_is_gone(kind: Kind, store: BlobStore) -> None:
    async def scenario() -> None:
        key = await put(store, b"abc")
        blob = await store.open(key)
        assert blob is not None
        await store.delete(key)
        assert await store.open(key) is None
        if kind.keeps_open or isinstance(blob, OpenFile):  # the bytes of such a small one are in memory
            assert await blob.read(0, 3) == b"abc"
        else:
            with pytest.raises(StorageUnavailable):
                await blob.read(0, 3)
        blob.close()

    run(scenario())


def test_deleting_what_is_not_there_is_fine(store: BlobStore) -> None:
    async def scenario() -> None:
        key = await put(store, b"abc")
        for _ in range(2):
            await store.delete(key)
        await store.delete(ABSENT)
        assert await store.open(ABSENT) is None
        assert await listed(store) == []

    run(scenario())


@pytest.mark.parametrize(
    "key",
    [
        "",
        ".",
        "..",
        "../" + "a" * 29,
        "p" * 32,
        "p" + "a" * 32,
        "q" + "a" * 31,
        "A" * 32,
        "a" * 31,
        "a" * 33,
        "a" * 32 + "\n",
        "٣" * 32,
    ],
)
def test_what_is_no_key_never_becomes_a_path(store: BlobStore, key: str) -> None:
    with pytest.raises(StorageUnavailable):
        run(store.open(key))
    with pytest.raises(StorageUnavailable):
        run(store.delete(key))


def test_every_published_blob_is_listed_once(store: BlobStore) -> None:
    """More than one batch of them."""

    async def scenario() -> None:
        keys = await asyncio.gather(*(put(store, bytes(number % 7)) for number in range(600)))
        found = await listed(store)
        assert sorted(blob.key for blob in found) == sorted(keys)
        assert sorted(blob.size for blob in found) == sorted(number % 7 for number in range(600))
        assert all(-1 <= blob.age < 3600 for blob in found)

    run(scenario())


def test_a_listing_can_be_narrowed_to_a_prefix(store: BlobStore) -> None:
    """Of any length; the parts together are the whole."""

    async def scenario() -> None:
        keys = await asyncio.gather(*(put(store, b"abc") for _ in range(100)))
        for length in (0, 1, 2, 5, 32):
            for prefix in {key[:length] for key in keys}:
                found = [blob.key async for blob in store.published(prefix)]
                assert sorted(found) == sorted(key for key in keys if key.startswith(prefix))

    run(scenario())


def test_listings_begin_at_any_place_and_are_the_whole(store: BlobStore) -> None:
    async def scenario() -> None:
        keys = await asyncio.gather(*(put(store, b"abc") for _ in range(20)))
        for first in (PLACES[0], *sorted(shard_of(key) for key in keys)[::9], PLACES[-1]):
            found = [blob.key for listing in store.listings(first) async for blob in listing]
            assert sorted(found) == sorted(keys)
            assert found == sorted(found, key=lambda key: shard_of(key) < first)

    run(scenario())


def test_staged_blobs_are_listed_until_they_are_published_or_discarded(store: BlobStore) -> None:
    async def scenario() -> None:
        one, other = await store.receive(), await store.receive()
        for spooled in (one, other):
            await spooled.write(b"abc")
            await spooled.seal()
        found = [blob async for blob in store.spooled()]
        assert {(blob.key, blob.size) for blob in found} == {(one.key, 3), (other.key, 3)}
        assert all(-1 <= blob.age < 3600 for blob in found)
        await one.publish()
        await other.discard()
        assert [blob async for blob in store.spooled()] == []

    run(scenario())


@pytest.mark.parametrize("size", [0, 1, MEBIBYTE, 2 * MEBIBYTE + 5])
def test_a_digest_is_of_the_bytes_that_lie_there(store: BlobStore, size: int) -> None:
    data = random.Random(size).randbytes(size)

    async def scenario() -> None:
        key = await put(store, data)
        assert await store.digest(key) == Digest(size, hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())
        await store.delete(key)
        assert await store.digest(key) is None

    run(scenario())


def test_a_listing_may_be_left_in_the_middle(store: BlobStore) -> None:
    async def scenario() -> None:
        for _ in range(3):
            await put(store, b"abc")
        async for _ in store.published():
            break

    run(scenario())


def test_only_spooled_files_that_are_old_enough_are_swept(store: BlobStore) -> None:
    async def scenario() -> None:
        spooled = await store.receive()
        await spooled.write(b"abc")
        await spooled.seal()
        assert await store.sweep_spool(3600) == 0
        assert await store.sweep_spool(0) == 1
        assert await store.sweep_spool(0) == 0
        with pytest.raises(StorageUnavailable, match="paused so long that its bytes were removed"):
            await spooled.publish()
        assert await listed(store) == []
        await spooled.discard()

    run(scenario())


def test_a_sweep_of_spooled_files_leaves_published_blobs_alone(store: BlobStore) -> None:
    async def scenario() -> None:
        key = await put(store, b"abc")
        assert await store.sweep_spool(0) == 0
        assert await get(store, key) == b"abc"

    run(scenario())


def test_many_uploads_at_once_do_not_mix(store: BlobStore) -> None:
    async def one(number: int) -> None:
        blocks = [bytes([number]) * 300_000 for _ in range(8)]
        assert await get(store, await put(store, *blocks)) == b"".join(blocks)

    async def scenario() -> None:
        await asyncio.gather(*(one(number) for number in range(24)))

    run(scenario())


def test_a_healthy_store_answers(store: BlobStore) -> None:
    run(store.ping())
