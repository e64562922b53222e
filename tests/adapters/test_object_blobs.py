"""The blob store on objects: what it asks of the bucket, and what it makes of a bucket that is ill."""

import asyncio
import hashlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import obstore
import pytest
import urllib3

from tests.adapters.one_group import body
from tests.chunks import noise
from tests.contract.databases import run
from tests.contract.stores import SECONDS, bucket_of, objects
from tests.contract.test_blobs import get, listed, put
from tests.stores import seaweedfs
from tests.stores.seaweedfs import BUCKET, SeaweedFS
from tests.stores.sick import Illness, Rule, SickStore, healthy, sick, unnamed
from uponce.adapters.store import bucket as bucket_module
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.bucket import Sums
from uponce.adapters.store.objects import BucketBlobs
from uponce.app.ports import Publishable
from uponce.core.errors import StorageUnavailable

ROOT = Path(__file__).parents[2]
MEBIBYTE = 1024 * 1024
DATA = noise(100_000)
LARGE = noise(11 * MEBIBYTE + 3)  # three parts, of which two go at a time


@pytest.fixture
def server() -> SeaweedFS:
    return seaweedfs.shared()


@pytest.fixture
def url(server: SeaweedFS) -> str:
    return server.fresh_url()


@pytest.fixture
def store(server: SeaweedFS, url: str, tmp_path: Path) -> Iterator[Blobs]:
    with objects(url, server.environment, tmp_path) as store:
        yield store


@pytest.fixture
def proxy(server: SeaweedFS) -> Iterator[SickStore]:
    with sick(server.endpoint) as proxy:
        yield proxy


def through(proxy: SickStore, server: SeaweedFS) -> dict[str, str]:
    return server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}


@contextmanager
def behind(proxy: SickStore, server: SeaweedFS, url: str, folder: Path, *, seconds: int = SECONDS) -> Iterator[Blobs]:
    with objects(url, through(proxy, server), folder, seconds=seconds) as store:
        yield store


def prefix_of(url: str) -> str:
    return url.removeprefix(f"s3://{BUCKET}/")


# What is in the bucket.


async def offer(store: Blobs, data: bytes, *, from_memory: bool = False) -> Publishable:
    """Return bytes that have arrived, as a private blob."""
    if from_memory:
        assert store.hold_small is not None
        return store.hold_small(body(data))
    spooled = await store.receive()
    await spooled.write(data)
    await spooled.seal()
    return spooled


@pytest.mark.parametrize("from_memory", [False, True])
@pytest.mark.parametrize(
    ("media_type", "disposition"), [("image/png", None), ("application/octet-stream", "attachment")]
)
def test_an_object_knows_what_it_is(
    store: Blobs, server: SeaweedFS, url: str, media_type: str, disposition: str | None, from_memory: bool
) -> None:
    """A client with a signed URL gets these headers from the store."""

    async def scenario() -> str:
        blob = await offer(store, DATA, from_memory=from_memory)
        await blob.publish(media_type)
        assert await get(store, blob.key) == DATA
        return blob.key

    key = run(scenario())
    found = obstore.get(server.store(prefix_of(url)), f"blobs/{key[:2]}/{key}").attributes
    assert (found["Content-Type"], found.get("Content-Disposition")) == (media_type, disposition)


def test_a_file_of_several_parts_is_one_object(store: Blobs) -> None:
    async def scenario() -> None:
        key = await put(store, LARGE)
        assert await get(store, key) == LARGE
        assert [(blob.key, blob.size) for blob in await listed(store)] == [(key, len(LARGE))]

    run(scenario())


def test_what_others_left_in_the_bucket_is_not_listed(store: Blobs, server: SeaweedFS, url: str) -> None:
    place, key = server.store(prefix_of(url)), "ab" * 16
    for name in (f"blobs/ab/{key}", f"blobs/cd/{key}", "blobs/ab/README", f"other/ab/{key}", f"blobs/{key}"):
        obstore.put(place, name, b"x")
    assert [blob.key for blob in run(listed(store))] == [key]


def test_one_delivery_costs_a_head_and_a_get(proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path) -> None:
    with behind(proxy, server, url, tmp_path) as store:
        key = run(put(store, DATA))
        proxy.seen.clear()
        assert run(get(store, key)) == DATA
        assert [line.split()[0] for line in proxy.seen] == ["HEAD", "GET"]


def test_a_refused_upload_costs_no_request(proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path) -> None:
    async def scenario(store: Blobs) -> None:
        spooled = await store.receive()
        await spooled.write(LARGE)
        await spooled.seal()
        await spooled.discard()

    with behind(proxy, server, url, tmp_path) as store:
        run(scenario(store))
    assert proxy.seen == []


@pytest.mark.proof
def test_a_signed_url_is_good_for_a_while(store: Blobs) -> None:
    patient, presigner = store.presigner(600), store.presigner(1)
    assert patient is not None and presigner is not None

    async def scenario() -> tuple[str, str]:
        key = await put(store, DATA)
        return await patient.url_of(key), await presigner.url_of(key)

    (lasting, url), asked = run(scenario()), time.monotonic()
    part = urllib3.request("GET", lasting, headers={"Range": "bytes=10-19"}, timeout=60)
    assert (part.status, part.data) == (206, DATA[10:20])
    while (late := urllib3.request("GET", url, timeout=60)).status == 200:
        assert time.monotonic() - asked < 60
        time.sleep(0.1)
    assert late.status == 403


# What a bucket that is ill does to an upload.


def everywhere(illness: Illness) -> Callable[[str, str], Illness]:
    return lambda method, path: illness


def only(wanted: str, illness: Illness, otherwise: Rule = healthy) -> Rule:
    return lambda method, path: illness if wanted in f"{method} {path}" else otherwise(method, path)


@pytest.mark.parametrize("from_memory", [False, True])
def test_a_small_upload_costs_one_request(
    proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path, from_memory: bool
) -> None:
    """The answer to the PUT shows the MD5 of what the store got, so there is nothing to ask for."""

    async def scenario(store: Blobs) -> None:
        blob = await offer(store, DATA, from_memory=from_memory)
        await blob.publish()

    with behind(proxy, server, url, tmp_path) as store:
        proxy.seen.clear()
        run(scenario(store))
    assert [line.split()[0] for line in proxy.seen] == ["PUT"]


def test_a_large_upload_is_not_asked_for(proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path) -> None:
    with behind(proxy, server, url, tmp_path) as store:
        proxy.seen.clear()
        run(put(store, LARGE))
    assert {line.split()[0] for line in proxy.seen} == {"PUT", "POST"}


@pytest.mark.parametrize(
    ("data", "from_memory"), [(DATA, False), (LARGE, False), (DATA, True)], ids=["small", "large", "from memory"]
)
@pytest.mark.parametrize(
    ("wanted", "illness"),
    [
        ("", Illness.ERROR),
        ("", Illness.HANG),
        ("PUT", Illness.ERROR),
        ("PUT", Illness.HANG),
        ("PUT", Illness.EATEN),
        ("HEAD", Illness.ERROR),
        ("HEAD", Illness.EATEN),
    ],
)
def test_a_store_that_fails_takes_nothing(
    proxy: SickStore,
    server: SeaweedFS,
    url: str,
    tmp_path: Path,
    data: bytes,
    from_memory: bool,
    wanted: str,
    illness: Illness,
) -> None:
    """StorageUnavailable soon, and nothing is left when it is well again and the upload was discarded."""

    async def scenario(store: BucketBlobs) -> None:
        blob = await offer(store, data, from_memory=from_memory)
        proxy.rule = only(wanted, illness, otherwise=unnamed)
        with pytest.raises(StorageUnavailable, match="Nothing was stored") as refused:
            await asyncio.wait_for(blob.publish(), 50)
        assert refused.value.detail and refused.value.retry_after
        proxy.rule = healthy
        proxy.released.set()
        store._bucket, store._seconds = bucket_of(url, through(proxy, server), SECONDS), SECONDS
        await blob.discard()
        assert await listed(store) == []
        assert await store.open(blob.key) is None
        assert list(store.folder.iterdir()) == []
        again = await put(store, data)
        assert await get(store, again) == data

    with behind(proxy, server, url, tmp_path, seconds=1 if illness is Illness.HANG else SECONDS) as store:
        assert isinstance(store, BucketBlobs)
        run(scenario(store))


def test_the_parts_of_a_failed_upload_are_thrown_away(
    proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path
) -> None:
    async def scenario(store: Blobs) -> None:
        spooled = await store.receive()
        await spooled.write(LARGE)
        await spooled.seal()
        proxy.rule = only("partNumber=2", Illness.ERROR)
        with pytest.raises(StorageUnavailable):
            await spooled.publish()
        await spooled.discard()

    with behind(proxy, server, url, tmp_path) as store:
        run(scenario(store))
    assert [line for line in proxy.seen if line.startswith("DELETE") and "uploadId=" in line]


def test_what_the_store_cannot_name_is_read_back(proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path) -> None:
    """Its entity tags may be anything."""
    proxy.rule = unnamed
    with behind(proxy, server, url, tmp_path) as store:
        for data, requests in ((b"", 0), (DATA, 1), (LARGE, 3)):
            proxy.seen.clear()
            key = run(put(store, data))
            assert len([line for line in proxy.seen if line.startswith("GET")]) == requests
            assert run(get(store, key)) == data


def rotten(method: str, path: str) -> Illness:
    return Illness.ROTTEN if method == "GET" else unnamed(method, path)


@pytest.mark.parametrize("from_memory", [False, True])
@pytest.mark.parametrize("blind", [False, True])
def test_other_bytes_in_the_store_are_noticed(
    proxy: SickStore,
    server: SeaweedFS,
    url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    blind: bool,
    from_memory: bool,
) -> None:
    """Without the comparison they are not, which is the negative control."""
    proxy.rule = rotten
    if blind:
        monkeypatch.setattr(bucket_module.Bucket, "_compare", lambda *_: None)

    async def publish(store: Blobs) -> None:
        await (await offer(store, DATA, from_memory=from_memory)).publish()

    with behind(proxy, server, url, tmp_path) as store:
        try:
            run(publish(store))
            noticed = False
        except StorageUnavailable as error:
            noticed = "not what was uploaded" in error.detail
    assert noticed is not blind


def test_a_blob_that_is_cut_short_in_the_store_is_noticed(
    store: Blobs, server: SeaweedFS, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = obstore.put

    def lose_the_end(where: object, name: str, data: bytes, **more: object) -> object:
        return real(server.store(prefix_of(url)), name, data[:-1])

    monkeypatch.setattr(obstore, "put", lose_the_end)
    with pytest.raises(StorageUnavailable):
        run(put(store, DATA))


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 199, 200, 201, 1000])
def test_entity_tags_are_those_of_s3(size: int) -> None:
    """https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity.html"""
    data = noise(size)
    sums = Sums(100)
    assert b"".join(sums.over(data[start : start + 37] for start in range(0, size, 37))) == data
    if size <= 100:
        assert sums.etag() == hashlib.md5(data).hexdigest()
        return
    parts = [data[start : start + 100] for start in range(0, size, 100)]
    joined = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts))
    assert sums.etag() == f"{joined.hexdigest()}-{len(parts)}"


@pytest.mark.proof
def test_who_waits_too_long_for_a_stalled_store_is_not_begun(
    proxy: SickStore, server: SeaweedFS, url: str, tmp_path: Path
) -> None:
    """Far more of them than threads: all fail, soon, and most without a request."""
    proxy.rule = everywhere(Illness.HANG)

    async def scenario(store: Blobs) -> float:
        begun = time.monotonic()
        found = await asyncio.gather(*(store.open(f"{n:032x}") for n in range(200)), return_exceptions=True)
        assert all(isinstance(each, StorageUnavailable) for each in found)
        return time.monotonic() - begun

    with behind(proxy, server, url, tmp_path, seconds=2) as store:
        assert run(scenario(store)) < 30
    assert len(proxy.seen) < 200
