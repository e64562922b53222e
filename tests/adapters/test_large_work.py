"""What large files ask of the threads leaves room for other files, and goes on after its caller."""

import asyncio
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.packing import opened, put
from uponce.adapters import files
from uponce.adapters.files import blocks_of
from uponce.adapters.spool import parts
from uponce.adapters.spool.disk import LARGE_WORKERS, WORKERS
from uponce.adapters.store.blobs import Blobs
from uponce.core.series import StoredPart
from uponce.core.spans import Span

CHUNK = bytes(1024 * 1024 + 1)
SECONDS = 120


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Blobs]:
    store = opened(tmp_path)
    yield store
    store.close()


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> Iterator["Syncs"]:
    syncs = Syncs()
    monkeypatch.setattr(parts, "sync_data", syncs)
    yield syncs
    syncs.may_end.set()


class Syncs:
    """Each fsync of a part: it has begun, and waits until it may end."""

    def __init__(self) -> None:
        self.begun, self.may_end = 0, threading.Event()

    def __call__(self, descriptor: int) -> None:
        self.begun += 1
        self.may_end.wait(SECONDS)

    async def have_begun(self, count: int) -> None:
        while self.begun < count:
            await asyncio.sleep(0.001)


async def nothing() -> AsyncIterator[StoredPart]:
    for part in list[StoredPart]():
        yield part


def test_no_upload_and_no_check_waits_for_reads_of_deliveries(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hard disk may have a thousand reads of cold files to do."""
    (key,), may_end, read = put(store, b"bytes" * 100_000), threading.Event(), files.read_at

    def from_a_slow_disk(descriptor: int, offset: int, length: int, flags: int = 0) -> bytes:
        assert may_end.wait(SECONDS)
        return read(descriptor, offset, length)

    async def scenario() -> None:
        blob = await store.open(key)
        assert blob is not None
        monkeypatch.setattr(files.OpenFile, "read_now", lambda *_: 0)  # not in memory
        monkeypatch.setattr(files, "read_at", from_a_slow_disk)
        readers = [asyncio.create_task(blob.read(number, 1)) for number in range(4 * WORKERS)]
        await asyncio.sleep(0)
        try:
            spooled = await store.receive()
            await spooled.write(CHUNK)
            await spooled.seal()
            await spooled.discard()
            await store.ping()
            assert not any(reader.done() for reader in readers)
        finally:
            may_end.set()
        assert b"".join(await asyncio.gather(*readers)) == (b"bytes" * 7)[: 4 * WORKERS]
        blob.close()

    asyncio.run(asyncio.wait_for(scenario(), SECONDS // 2))


def test_no_small_file_waits_for_the_fsync_of_a_chunk(store: Blobs, syncs: "Syncs") -> None:
    async def play() -> None:
        held = []
        for _ in range(WORKERS):
            piece = await store.parts.hold(await store.parts.begin(), Span(0, len(CHUNK)))
            await piece.write(CHUNK)
            held.append(piece)
        running = [asyncio.ensure_future(piece.sync()) for piece in held]
        await syncs.have_begun(LARGE_WORKERS)
        async with asyncio.timeout(SECONDS / 2):
            await store.disk.in_thread(lambda: None)
        syncs.may_end.set()
        await asyncio.gather(*running)
        for piece in held:
            await piece.release()

    asyncio.run(play())


def test_no_small_file_waits_for_requests_that_look_whether_they_are_wanted(store: Blobs, syncs: "Syncs") -> None:
    """During a slow fsync too. Each request looks a few times a second."""

    async def play() -> None:
        key = await store.parts.begin()
        piece = await store.parts.hold(key, Span(0, len(CHUNK)))
        await piece.write(CHUNK)
        sync = asyncio.ensure_future(piece.sync())
        await syncs.have_begun(1)
        async with asyncio.timeout(SECONDS / 2):
            looks = await asyncio.gather(*(piece.wanted() for _ in range(WORKERS)))
        syncs.may_end.set()
        await sync
        async with store.parts.asking(key, Span(0, 1)):
            assert (any(looks), await piece.wanted()) == (False, True)
        await piece.release()

    asyncio.run(play())


def test_no_large_upload_waits_for_the_completion_of_another(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two completions hash in all threads for large files, piece by piece. Others get a turn between two pieces."""
    monkeypatch.setattr(parts, "_HASHED_AT_ONCE", 1024 * 1024)
    pieces, threads = 16, LARGE_WORKERS
    read, another_waits = list[bytes](), threading.Event()

    def slowly(*span: int) -> Iterator[bytes]:
        for block in blocks_of(*span):
            read.append(block)
            if len(read) > 2 * threads:
                another_waits.wait(SECONDS)
            time.sleep(0.02)
            yield block

    monkeypatch.setattr(parts, "blocks_of", slowly)

    async def play() -> None:
        size = pieces * parts._HASHED_AT_ONCE
        keys = [await store.parts.begin() for _ in range(2)]
        for key in keys:
            os.truncate(store.folder / key, size)
        sealed = [await store.parts.assembly(key) for key in keys]
        seals = [asyncio.ensure_future(each.seal(size, nothing())) for each in sealed]
        while len(read) < threads:
            await asyncio.sleep(0.01)
        other = asyncio.ensure_future(store.disk.lane().run(lambda: len(read)))
        await asyncio.sleep(0)
        another_waits.set()
        read_before = await other
        assert read_before < threads * pieces / 2
        assert len({(await seal).sha256 for seal in seals}) == 1
        for each in sealed:
            await each.release()

    asyncio.run(play())


@pytest.mark.parametrize("step", ["cut", "hash", "publish"])
def test_a_file_stays_open_for_a_step_whose_caller_was_cancelled(
    store: Blobs, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Its number could belong to another file by now."""
    begun, go, seen = threading.Event(), threading.Event(), list[int]()

    def slow(*args: Any) -> None:
        begun.set()
        go.wait(SECONDS)
        seen.append(os.fstat(args[2 if step == "publish" else 0]).st_size)

    async def play() -> None:
        whole: Any = await store.parts.assembly(await store.parts.begin())
        if step == "hash":
            monkeypatch.setattr(whole, "_hash", lambda *_: store.disk.in_thread(lambda: whole._hash_step(None, 0, 1)))
            monkeypatch.setattr(os, "dup", slow)
        elif step == "cut":
            monkeypatch.setattr(os, "ftruncate", slow)
        else:
            monkeypatch.setattr(whole._parts.store, "put", slow)
        doing = asyncio.ensure_future(whole.publish() if step == "publish" else whole.seal(0, nothing()))
        await asyncio.to_thread(begun.wait, SECONDS)
        doing.cancel()
        releasing = asyncio.ensure_future(whole.release())
        await asyncio.sleep(0.1)
        go.set()
        await asyncio.gather(doing, releasing, return_exceptions=True)

    asyncio.run(play())
    assert seen and set(seen) == {0}
