"""Readers of blobs whose blocks are large, as those of a bucket are: what they hold while they do not read."""

import asyncio
import tracemalloc
from collections.abc import AsyncIterator
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest

from tests.asgi import Message, scope_of
from tests.world import World, assert_accepted
from uponce.adapters.files import OpenFile
from uponce.core.errors import StorageUnavailable
from uponce.core.spans import Span
from uponce.web import blocks, places
from uponce.web.blocks import Blocks, first_block, pieces_of

MEBIBYTE = 1024 * 1024
DATA = bytes(range(256)) * 32 * 1024  # 8 MiB


class Bucket:
    """A blob that counts its reads."""

    size, first_bytes, block_bytes = len(DATA), 128 * 1024, 2 * MEBIBYTE

    def __init__(self) -> None:
        self.reads: list[int] = []

    async def read(self, offset: int, length: int) -> bytes:
        self.reads.append(length)
        return DATA[offset : offset + length]

    def pieces(self, start: int = 0) -> AsyncIterator[blocks.Block]:
        return pieces_of(self, "key", Span(start, len(DATA)))  # type: ignore[arg-type]


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    """Room for two whole blocks, and pieces for each reader."""
    monkeypatch.setattr(blocks, "BLOCKS", Blocks(4 * MEBIBYTE))
    monkeypatch.setattr(blocks, "_WHOLE_BLOCKS", 0)
    return blocks.BLOCKS


def test_stalled_readers_hold_little_together(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They took 2 MiB each, as long as each of them took a piece now and then."""
    monkeypatch.setattr(OpenFile, "block_bytes", 2 * MEBIBYTE)
    monkeypatch.setattr(places, "WAIT_SECONDS", 60)
    asset = assert_accepted(world.upload(world.sign(), DATA, kind="raw", filename="a.bin")).json
    path = urlsplit(asset["url"]).path

    async def read(stalled: asyncio.Semaphore) -> None:
        size, stuck = 0, asyncio.Event()

        async def send(message: Message) -> None:
            nonlocal size
            size += len(message.get("body", b""))
            if size > 5 * MEBIBYTE:
                stalled.release()
                await stuck.wait()

        await world.app(scope_of("GET", path, {}), asyncio.Event().wait, send)  # type: ignore[arg-type]

    async def play() -> int:
        stalled = asyncio.Semaphore(0)
        before, _ = tracemalloc.get_traced_memory()
        tasks = []
        for readers in (16, 34):  # the first ones get whole blocks
            tasks += [asyncio.create_task(read(stalled)) for _ in range(readers)]
            for _ in range(readers):
                await stalled.acquire()
        held = tracemalloc.get_traced_memory()[0] - before
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return held

    tracemalloc.start()
    try:
        assert asyncio.run(play()) < 75 * MEBIBYTE
    finally:
        tracemalloc.stop()
    assert blocks.BLOCKS.size == 0


@pytest.mark.parametrize("whole", [0, 16])
def test_one_reader_needs_few_reads(bounded: Blocks, monkeypatch: pytest.MonkeyPatch, whole: int) -> None:
    monkeypatch.setattr(blocks, "_WHOLE_BLOCKS", whole)
    blob = Bucket()

    async def play() -> bytes:
        return b"".join([piece async for piece in blob.pieces(7)])

    assert asyncio.run(play()) == DATA[7:]
    assert blob.reads[:5] == [128 * 1024, 256 * 1024, 512 * 1024, MEBIBYTE, 2 * MEBIBYTE]
    assert len(blob.reads) == 8
    assert bounded.size == 0


@pytest.mark.proof
def test_the_block_that_waited_longest_goes_and_its_reader_misses_nothing(bounded: Blocks) -> None:
    async def play() -> list[bytes]:
        readers = [Bucket().pieces() for _ in range(5)]
        got = [b""] * len(readers)
        while not all(len(each) == len(DATA) for each in got):
            for number, reader in enumerate(readers):
                got[number] += await anext(reader, b"")
                assert bounded.size <= 4 * MEBIBYTE
        return got

    assert asyncio.run(play()) == [DATA] * 5


def test_readers_that_stall_cost_another_one_no_reads(bounded: Blocks) -> None:
    async def play() -> list[int]:
        stalled = [Bucket().pieces() for _ in range(9)]
        for reader in stalled:
            for _ in range(40):
                await anext(reader)
        alone, beside = Bucket(), Bucket()
        for blob in (alone, beside):
            assert b"".join([piece async for piece in blob.pieces()]) == DATA
            await anext(stalled[0])
        assert alone.reads == beside.reads
        return alone.reads

    assert len(asyncio.run(play())) == 8


def test_a_blob_that_ends_early_ends_its_pieces() -> None:
    async def read(offset: int, length: int) -> bytes:
        return DATA[offset : min(offset + length, 200_000)]

    async def play() -> int:
        blob, size = SimpleNamespace(read=read, first_bytes=128 * 1024, block_bytes=2 * MEBIBYTE), 0
        with pytest.raises(StorageUnavailable) as failed:
            async for piece in pieces_of(blob, "key", Span(0, len(DATA))):
                size += len(piece)
        assert failed.value.detail == "blob key: it ends at 200000"
        return size

    assert asyncio.run(play()) == 200_000
    assert blocks.BLOCKS.size == 0


def test_the_first_block_is_read_once_and_sent(bounded: Blocks) -> None:
    async def play() -> bytes:
        first = await first_block(blob, "key", range_)  # type: ignore[arg-type]
        return b"".join([piece async for piece in pieces_of(blob, "key", range_, first)])  # type: ignore[arg-type]

    blob, range_ = Bucket(), Span(7, len(DATA))
    assert asyncio.run(play()) == DATA[7:]
    assert blob.reads[:3] == [128 * 1024, 256 * 1024, 512 * 1024]
    assert bounded.size == 0


def test_one_reader_gets_each_block_without_a_copy() -> None:
    """A slice of a bytearray is a copy."""
    block = bytearray(DATA)
    with blocks.BLOCKS.reader() as reader:
        blocks.BLOCKS.keep(reader, block)
        assert blocks.BLOCKS.take(reader, 0) is block
