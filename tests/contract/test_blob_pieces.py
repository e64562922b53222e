"""Blobs that arrive in pieces, in any BlobStore."""

import asyncio
import hashlib
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.chunks import noise
from tests.contract.databases import run
from tests.contract.test_blobs import ABSENT, MEBIBYTE, get, kind, store
from uponce.adapters.blobs import locks, pieces
from uponce.adapters.blobs.local import LocalBlobStore
from uponce.adapters.clock import RandomIds
from uponce.app.ports import BlobStore, Piece
from uponce.core.errors import ChunkConflict, ChunkInProgress, StorageUnavailable
from uponce.core.spans import Span, merged
from uponce.core.values import Digest

__all__ = ["kind", "store"]  # the fixtures of the neighbour

DATA = noise(3 * MEBIBYTE + 11)


def spans_of(size: int, chunk: int) -> list[Span]:
    return [Span(start, min(start + chunk, size)) for start in range(0, size, chunk)]


async def put(store: BlobStore, key: str, span: Span, present: Sequence[Span] = (), data: bytes = DATA) -> None:
    """Write a span of `data`, in blocks, and keep it."""
    piece = await store.piece(key, span)
    try:
        piece.expect(present)
        for start in range(span.start, span.end, 60_000):
            await piece.write(data[start : min(start + 60_000, span.end)])
        await piece.sync()
        piece.keep()
        assert piece.size == span.size
    finally:
        await piece.release()


async def published(store: BlobStore, key: str, size: int, *, committed: bool = True) -> Digest:
    assembly = await store.assembly(key)
    try:
        digest = await assembly.seal(size)
        await assembly.publish()
        if committed:
            await assembly.clear()
    finally:
        await assembly.release()
    return digest


def digest_of(data: bytes) -> Digest:
    return Digest(len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_pieces_in_any_order_make_the_whole(store: BlobStore, order: str) -> None:
    spans = spans_of(len(DATA), 700_001)
    chosen = {"ascending": spans, "descending": spans[::-1], "shuffled": random.Random(1).sample(spans, len(spans))}

    async def play() -> None:
        key = await store.begin()
        present: list[Span] = []
        for span in chosen[order]:
            await put(store, key, span, merged(present))
            present.append(span)
        assert await get(store, key) is None
        assert await published(store, key, len(DATA)) == digest_of(DATA)
        assert await get(store, key) == DATA
        assert [blob async for blob in store.staged()] == []

    run(play())


def test_pieces_in_parallel(store: BlobStore) -> None:
    async def play() -> None:
        key = await store.begin()
        await asyncio.gather(*(put(store, key, span) for span in spans_of(len(DATA), 200_003)))
        assert await published(store, key, len(DATA)) == digest_of(DATA)

    run(play())


def test_a_span_is_held_by_one_at_a_time(store: BlobStore) -> None:
    async def play() -> None:
        key = await store.begin()
        held = await store.piece(key, Span(100, 200))
        for overlapping in (Span(0, 101), Span(100, 200), Span(150, 160), Span(199, 300)):
            with pytest.raises(ChunkInProgress):
                await store.piece(key, overlapping)
        with pytest.raises(ChunkInProgress):
            await store.assembly(key)
        for beside in (Span(0, 100), Span(200, 300)):
            await (await store.piece(key, beside)).release()
        await held.release()
        await held.release()
        whole = await store.assembly(key)
        with pytest.raises(ChunkInProgress):
            await store.piece(key, Span(10**12, 10**12 + 1))
        with pytest.raises(ChunkInProgress):
            await store.assembly(key)
        await whole.release()
        await (await store.piece(key, Span(0, 1))).release()

    run(play())


def test_who_holds_a_span_is_told_that_it_is_wanted(store: BlobStore) -> None:
    """As long as somebody asks for a part of it, and only then."""

    async def play() -> None:
        key = await store.begin()
        first, second = await store.piece(key, Span(0, 100)), await store.piece(key, Span(100, 200))
        empty = await store.piece(key, Span(10**17, 10**17))

        async def wanted() -> list[bool]:
            return [await piece.wanted() for piece in (first, second, empty)]

        assert await wanted() == [False] * 3
        async with store.asking(key, Span(50, 100)), store.asking(key, Span(99, 100)):
            assert await wanted() == [True, False, False]
        async with store.asking(key, Span(99, 101)):
            assert await wanted() == [True, True, False]
        async with store.asking(key, None):
            assert await wanted() == [True] * 3
        assert await wanted() == [False] * 3
        for piece in (first, second, empty):
            await piece.release()
        whole = await store.assembly(key)
        async with store.asking(key, Span(0, 1)), store.asking(key, None):
            await whole.release()

    run(play())


def test_what_is_there_is_compared_and_not_written(store: BlobStore) -> None:
    """Equal bytes are fine, others spoil the piece, also where it overlaps; the blob stays as it was."""
    other = noise(len(DATA), seed=9)

    async def play() -> None:
        key = await store.begin()
        present = (Span(0, MEBIBYTE),)
        await put(store, key, present[0])
        await put(store, key, Span(0, 2 * MEBIBYTE), present)
        present = (Span(0, 2 * MEBIBYTE),)
        for span in (Span(0, 10), Span(MEBIBYTE, 3 * MEBIBYTE)):
            with pytest.raises(ChunkConflict, match="Other bytes have arrived before"):
                await put(store, key, span, present, other)
        await put(store, key, Span(2 * MEBIBYTE, len(DATA)), present)
        assert await published(store, key, len(DATA)) == digest_of(DATA)

    run(play())


def test_what_was_not_kept_counts_for_nothing(store: BlobStore) -> None:
    """Other bytes in the same place and beyond the end, from a client that gave up."""

    async def play() -> None:
        key = await store.begin()
        await put(store, key, Span(0, 1000))
        lost = await store.piece(key, Span(1000, 9000))
        lost.expect([Span(0, 1000)])
        await lost.write(bytes(8000))
        await lost.sync()
        await lost.release()
        await put(store, key, Span(1000, 2000), [Span(0, 1000)])
        assert await published(store, key, 2000) == digest_of(DATA[:2000])
        assert await get(store, key) == DATA[:2000]

    run(play())


def test_publishing_may_be_repeated_by_another(store: BlobStore) -> None:
    """The first one published and could not commit."""

    async def play() -> None:
        key = await store.begin()
        await put(store, key, Span(0, 1000))
        assert await published(store, key, 1000, committed=False) == digest_of(DATA[:1000])
        await put(store, key, Span(0, 500), [Span(0, 1000)])
        assembly = await store.assembly(key)
        assert await assembly.seal(1000) == digest_of(DATA[:1000])
        assert Path(assembly.path).read_bytes() == DATA[:1000]
        await assembly.publish()
        await assembly.release()
        assert await get(store, key) == DATA[:1000]

    run(play())


def test_ended_ones(store: BlobStore) -> None:
    async def play() -> None:
        keys = [await store.begin() for _ in range(3)]
        assert {blob.key async for blob in store.staged()} == set(keys)
        assert await store.sweep_stages(0, spare=keys[1:]) == 1
        await store.delete(keys[1])
        assembly = await store.assembly(keys[2])
        await assembly.discard()
        await assembly.release()
        for key in (*keys, ABSENT):
            with pytest.raises(StorageUnavailable):
                await store.piece(key, Span(0, 1))
            with pytest.raises(StorageUnavailable):
                await store.assembly(key)

    run(play())


def test_a_cancelled_hold_is_let_go(store: BlobStore) -> None:
    """Nobody is there who could release it."""

    async def play() -> None:
        key = await store.begin()
        for _ in range(20):
            holding: asyncio.Task[Piece] = asyncio.ensure_future(store.piece(key, Span(0, 10)))
            await asyncio.sleep(0)
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
        del holding
        until = asyncio.get_running_loop().time() + 10
        while True:
            try:
                await (await store.piece(key, Span(0, 10))).release()
                break
            except ChunkInProgress:
                assert asyncio.get_running_loop().time() < until
                await asyncio.sleep(0.01)

    run(play())


@pytest.mark.parametrize(
    ("ascending", "restarted", "read"),
    [(True, False, 0), (False, False, 2 * (len(DATA) - 2 * MEBIBYTE)), (True, True, 2 * len(DATA))],
)
def test_only_what_did_not_come_in_order_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ascending: bool, restarted: bool, read: int
) -> None:
    """Twice, once for each hash; nothing when all came in order to one process."""
    seen = 0

    def counted(hold: locks.Hold, start: int, end: int) -> object:
        nonlocal seen
        seen += end - start
        return real(hold, start, end)

    real = pieces._blocks
    monkeypatch.setattr(pieces, "_blocks", counted)
    stores = [LocalBlobStore(tmp_path / "media", ids=RandomIds()) for _ in range(2)]
    for each in stores:
        each.open_store()

    async def play() -> Digest:
        key = await stores[0].begin()
        first, *rest = spans_of(len(DATA), MEBIBYTE)
        present: list[Span] = []
        for span in (first, *(rest if ascending else rest[::-1])):
            await put(stores[0], key, span, merged(present))
            present.append(span)
        return await published(stores[restarted], key, len(DATA))

    try:
        assert run(play()) == digest_of(DATA)
        assert seen == read
    finally:
        for each in stores:
            each.close()
