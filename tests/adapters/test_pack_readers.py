"""Readers of packs: beside a deletion, and without waiting for a disk."""

import asyncio
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.adapters.descriptors import descriptors
from tests.adapters.packing import LARGE, chance, get, listed, put, sweep
from tests.contract.stores import local_of
from uponce.adapters.files import OpenFile
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.packs import Packs
from uponce.adapters.system import RandomIds
from uponce.core.errors import StorageUnavailable


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the disk: a file system in memory cannot say which pages of a file are in memory."""
    return tmp_path_factory.mktemp("packs")


def test_a_reader_beside_a_deletion_gets_the_bytes_or_an_error(store: Blobs) -> None:
    """Never the zeros of the hole."""
    assert asyncio.run(_read_after_deletion(store)) == "unavailable"


def test_without_a_second_look_at_the_header_a_reader_would_get_zeros(
    store: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    make = OpenFile.__init__

    def without_header(self: OpenFile, threads: object, descriptor: int, size: int, start: int, _: bytes) -> None:
        make(self, threads, descriptor, size, start)  # type: ignore[arg-type]

    monkeypatch.setattr(OpenFile, "__init__", without_header)
    assert asyncio.run(_read_after_deletion(store)) == "zeros"


async def _read_after_deletion(store: Blobs) -> str:
    (key,) = put(store, chance(LARGE))
    blob = await store.open(key)
    assert blob is not None
    assert await blob.read(0, 1000) == chance(LARGE)[:1000]
    await store.delete(key)
    try:
        data = await blob.read(100_000, 1000)
    except StorageUnavailable:
        return "unavailable"
    return "zeros" if data == bytes(1000) else "bytes"


@pytest.mark.parametrize("moment", [2, 3])
@pytest.mark.parametrize("size", [100, LARGE])
def test_a_deletion_between_two_reads_of_an_opening_or_a_digest(
    store: Blobs, monkeypatch: pytest.MonkeyPatch, size: int, moment: int
) -> None:
    """A small blob is then as if it had never been there. A digest says that the bytes cannot be read."""
    read, reads = os.pread, 0
    keys = put(store, chance(size), chance(size))

    def pread(descriptor: int, length: int, offset: int) -> bytes:
        nonlocal reads
        reads += 1
        if reads == moment:
            local_of(store)._packs.delete(key)
        return read(descriptor, length, offset)

    monkeypatch.setattr(os, "pread", pread)
    key = keys[0]
    blob = asyncio.run(local_of(store).open(key))
    assert blob is None if size == 100 else blob is not None and not blob.whole
    key, reads = keys[1], 0
    with pytest.raises(StorageUnavailable):
        asyncio.run(store.digest(key))


# Reading without waiting.


@pytest.mark.parametrize("size", [0, 100, LARGE])
def test_a_blob_in_memory_is_opened_without_waiting(store: Blobs, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Neither what follows it in its pack nor what takes its place is ever read as a part of it."""
    key, _ = put(store, chance(size), chance(LARGE, 2))
    assert asyncio.run(get(store, key)) == chance(size)

    def waits(*arguments: object) -> bytes:
        raise AssertionError("this may wait for a disk")

    monkeypatch.setattr(os, "pread", waits)
    monkeypatch.setattr(os, "open", waits)
    blob = store.open_now(key)
    if blob is None:
        pytest.skip("NOT TESTED: this file system cannot say what is in memory")
    block = memoryview(bytearray(100))
    for offset in (0, 7, 50, size, size + 1):
        taken = blob.read_now(offset, block)
        assert bytes(block[:taken]) == chance(size)[offset : offset + 100] == asyncio.run(blob.read(offset, 100))
    monkeypatch.undo()
    local_of(store)._packs.delete(key)
    assert blob.read_now(0, block) == 0
    if size:
        with pytest.raises(StorageUnavailable):
            asyncio.run(blob.read(0, 100))


def test_what_is_not_there_is_never_opened_without_waiting(store: Blobs) -> None:
    (key,) = put(store, b"abc")
    assert asyncio.run(get(store, key)) == b"abc"
    asyncio.run(store.delete(key))
    for other in (key, "a" * 32, "p" + "0" * 31):
        assert store.open_now(other) is None


def test_no_descriptor_leaks(store: Blobs, root: Path) -> None:
    (key,) = put(store, b"abc")

    def use() -> None:
        asyncio.run(store.ping())
        for other in (key, key[:-1] + "x", f"p{'0' * 31}"):
            local_of(store)._packs.find(other) if other != key else store.open_now(other)
        listed(store)
        asyncio.run(get(store, key))
        sweep(store)

    use()
    before = descriptors(root)
    assert before != []
    use()
    assert descriptors(root) == before
    assert Packs(Path("/nowhere"), RandomIds(), 0, lambda _: ()).close() is None  # type: ignore[func-returns-value]


class Lockstep:
    """A lock whose every turn two threads wait for together."""

    def __init__(self) -> None:
        self._both, self._lock = threading.Barrier(2, timeout=60), threading.Lock()

    def __enter__(self) -> None:
        self._both.wait()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_two_readers_that_open_one_pack_at_once_leak_no_descriptor(store: Blobs, root: Path) -> None:
    (key,) = put(store, b"abc")
    packs = local_of(store)._packs
    packs.close()  # a fresh start: no reader has the pack open

    def find(_: int) -> None:
        found = packs.find(key)
        assert found is not None
        os.close(found[0])

    packs._gate = Lockstep()  # type: ignore[assignment]
    with ThreadPoolExecutor(2) as threads:
        list(threads.map(find, range(2)))
    packs._gate = threading.Lock()
    packs.close()
    assert descriptors(root / "packs" / key[1:11]) == []
