"""Blobs that arrive in pieces, in any BlobStore."""

import asyncio
import errno
import hashlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.chunks import noise
from tests.contract.databases import run
from tests.contract.stores import STORES, back_ends
from tests.contract.test_blobs import ABSENT, MEBIBYTE, get
from uponce.adapters.files import blocks_of
from uponce.adapters.spool import parts
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.ports import BlobStore, HeldPart, Parts
from uponce.core.errors import ChunkConflict, ChunkInProgress, StorageUnavailable
from uponce.core.series import StoredPart
from uponce.core.spans import Span, merged
from uponce.core.values import Digest

DATA = noise(3 * MEBIBYTE + 11)


@dataclass(frozen=True, slots=True)
class Arena:
    store: BlobStore

    @property
    def pieces(self) -> Parts:
        return self.store.parts

    @property
    def is_shared(self) -> bool:
        return self.pieces.shared


@pytest.fixture(params=back_ends(STORES))
def arena(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Arena]:
    with STORES[request.param].opened(tmp_path) as store:
        yield Arena(store)


@dataclass
class Upload:
    """An unfinished blob, and what a database knows of it."""

    arena: Arena
    key: str
    present: tuple[Span, ...] = ()
    parts: list[StoredPart] = field(default_factory=list)

    def recorded(self, span: Span) -> list[StoredPart]:
        return [part for part in self.parts if part.span.start < span.end and span.start < part.span.end]

    async def all_parts(self) -> AsyncIterator[StoredPart]:
        for part in sorted(self.parts, key=lambda part: part.span):
            yield part

    async def put(self, span: Span, data: bytes = DATA) -> None:
        """Write a span of `data`, in blocks, and keep it."""
        piece = await self.arena.pieces.hold(self.key, span)
        try:
            piece.expect(self.present)
            for start in range(span.start, span.end, 60_000):
                await piece.write(data[start : min(start + 60_000, span.end)])
            self.parts += await piece.sync(self.recorded(span))
            piece.keep()
            self.present = merged([*self.present, span])
            assert piece.size == span.size
        finally:
            await piece.release()

    async def publish(self, size: int, *, committed: bool = True) -> tuple[str, Digest]:
        """Its key there, and its digest."""
        assembly = await self.arena.pieces.assembly(self.key)
        try:
            digest = await assembly.seal(size, self.all_parts())
            assert Path(assembly.path).read_bytes() == DATA[:size]
            await assembly.publish()
            if committed:
                await assembly.clear()
        finally:
            await assembly.release()
        return assembly.key, digest

    async def becomes(self, data: bytes) -> bool:
        key, digest = await self.publish(len(data))
        return digest == digest_of(data) and await get(self.arena.store, key) == data

    async def left(self) -> int:
        """How many files and objects it is made of."""
        store = self.arena.store
        objects = [part async for part in store.parts.listed()]
        return len([blob async for blob in store.spooled()]) + len(objects)


async def begun(arena: Arena) -> Upload:
    return Upload(arena, await arena.pieces.begin())


def spans_of(size: int, chunk: int) -> list[Span]:
    return [Span(start, min(start + chunk, size)) for start in range(0, size, chunk)]


def digest_of(data: bytes) -> Digest:
    return Digest(len(data), hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize("order", ["ascending", "descending", "shuffled"])
def test_pieces_in_any_order_make_the_whole(arena: Arena, order: str) -> None:
    spans = spans_of(len(DATA), 700_001)
    chosen = {"ascending": spans, "descending": spans[::-1], "shuffled": random.Random(1).sample(spans, len(spans))}

    async def play() -> None:
        upload = await begun(arena)
        for span in chosen[order]:
            await upload.put(span)
        assert await get(arena.store, upload.key) is None
        assert await upload.becomes(DATA)
        assert await upload.left() == 0

    run(play())


def test_pieces_in_parallel(arena: Arena) -> None:
    async def play() -> None:
        upload = await begun(arena)
        await asyncio.gather(*(upload.put(span) for span in spans_of(len(DATA), 200_003)))
        assert await upload.becomes(DATA)

    run(play())


def test_a_span_is_held_by_one_at_a_time(arena: Arena) -> None:
    async def play() -> None:
        store = arena.pieces
        key = await store.begin()
        held = await store.hold(key, Span(100, 200))
        for overlapping in (Span(0, 101), Span(100, 200), Span(150, 160), Span(199, 300)):
            with pytest.raises(ChunkInProgress):
                await store.hold(key, overlapping)
        with pytest.raises(ChunkInProgress):
            await store.assembly(key)
        for beside in (Span(0, 100), Span(200, 300)):
            await (await store.hold(key, beside)).release()
        await held.release()
        await held.release()
        whole = await store.assembly(key)
        with pytest.raises(ChunkInProgress):
            await store.hold(key, Span(10**12, 10**12 + 1))
        with pytest.raises(ChunkInProgress):
            await store.assembly(key)
        await whole.release()
        await (await store.hold(key, Span(0, 1))).release()

    run(play())


def test_who_holds_a_span_is_told_that_it_is_wanted(arena: Arena) -> None:
    """As long as another request asks for a part of it, and only then."""

    async def play() -> None:
        store = arena.pieces
        key = await store.begin()
        first, second = await store.hold(key, Span(0, 100)), await store.hold(key, Span(100, 200))
        empty = await store.hold(key, Span(10**17, 10**17))

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


def test_what_is_there_is_compared_and_not_written(arena: Arena) -> None:
    """Equal bytes are fine, others spoil the piece, also where it overlaps; the blob stays as it was."""
    other = noise(len(DATA), seed=9)

    async def play() -> None:
        upload = await begun(arena)
        await upload.put(Span(0, MEBIBYTE))
        await upload.put(Span(0, 2 * MEBIBYTE))
        await upload.put(Span(MEBIBYTE - 7, MEBIBYTE + 9))
        for span in (Span(0, 10), Span(MEBIBYTE, 3 * MEBIBYTE)):
            with pytest.raises(ChunkConflict, match="Other bytes have arrived before"):
                await upload.put(span, other)
        await upload.put(Span(2 * MEBIBYTE, len(DATA)))
        assert await upload.becomes(DATA)

    run(play())


def test_a_piece_is_kept_again_and_again(arena: Arena) -> None:
    """Each time what came since; bytes around it may be there already."""

    async def play() -> None:
        upload = await begun(arena)
        await upload.put(Span(250_000, 300_000))
        piece = await arena.pieces.hold(upload.key, Span(0, len(DATA)))
        piece.expect(upload.present)
        kept = 0
        for end in (100_000, 100_001, 400_000, len(DATA)):
            await piece.write(DATA[kept:end])
            upload.parts += await piece.sync(upload.recorded(Span(kept, end)))
            piece.keep()
            assert await piece.sync() == ()
            kept = end
        await piece.release()
        assert await upload.becomes(DATA)

    run(play())


def test_what_was_not_kept_counts_for_nothing(arena: Arena) -> None:
    """Other bytes in the same place and beyond the end, from a client that gave up."""

    async def play() -> None:
        upload = await begun(arena)
        await upload.put(Span(0, 1000))
        lost = await arena.pieces.hold(upload.key, Span(1000, 9000))
        lost.expect([Span(0, 1000)])
        await lost.write(bytes(8000))
        await lost.sync()
        await lost.release()
        await upload.put(Span(1000, 2000))
        assert await upload.becomes(DATA[:2000])
        assert await upload.left() == 0

    run(play())


def test_publishing_may_be_repeated_by_another(arena: Arena) -> None:
    """The first one published and could not commit."""

    async def play() -> None:
        upload = await begun(arena)
        await upload.put(Span(0, 1000))
        _, digest = await upload.publish(1000, committed=False)
        assert digest == digest_of(DATA[:1000])
        await upload.put(Span(0, 500))
        assert await upload.becomes(DATA[:1000])

    run(play())


def test_a_blob_that_was_published_stays_while_another_try_is_made(arena: Arena) -> None:
    """The first commit, which had no answer, may name it. So it also stays when the second try fails and is swept."""

    async def play() -> None:
        upload = await begun(arena)
        await upload.put(Span(0, 1000))
        key, _ = await upload.publish(1000, committed=False)
        second = await arena.pieces.assembly(upload.key)
        await second.seal(1000, upload.all_parts())
        assert await get(arena.store, key) == DATA[:1000]
        await second.release()
        await arena.store.sweep_spool(0)
        assert await get(arena.store, key) == DATA[:1000]

    run(play())


def test_another_try_on_a_disk_without_links_can_be_published(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)

    async def play() -> None:
        upload = await begun(arena)
        await upload.put(Span(0, 1000))
        await upload.publish(1000, committed=False)
        second = await arena.pieces.assembly(upload.key)
        await second.seal(1000, upload.all_parts())
        await second.publish()
        assert await get(arena.store, second.key) == DATA[:1000]
        await second.release()

    run(play())


def test_ended_ones(arena: Arena) -> None:
    async def play() -> None:
        store, parts = arena.store, arena.store.parts
        if parts.shared:
            first, second = await begun(arena), await begun(arena)
            for upload in (first, second):
                await upload.put(Span(0, 10))
                await upload.put(Span(10, 20))
            for _ in range(2):
                await parts.drop(first.key)
                assert {part.key async for part in parts.listed()} == {second.key}
            with pytest.raises(StorageUnavailable):
                await first.publish(20)
            assert await second.becomes(DATA[:20])
            return
        keys = [await parts.begin() for _ in range(3)]
        assert {blob.key async for blob in store.spooled()} == set(keys)
        assert await store.sweep_spool(0, spare=keys[1:]) == 1
        await store.delete(keys[1])
        assembly = await parts.assembly(keys[2])
        await assembly.discard()
        await assembly.release()
        for key in (*keys, ABSENT):
            with pytest.raises(StorageUnavailable):
                await parts.hold(key, Span(0, 1))
            with pytest.raises(StorageUnavailable):
                await parts.assembly(key)

    run(play())


def test_a_cancelled_hold_is_let_go(arena: Arena) -> None:
    """No caller is left that could release it."""

    async def play() -> None:
        store = arena.pieces
        key = await store.begin()
        for _ in range(20):
            holding: asyncio.Task[HeldPart] = asyncio.ensure_future(store.hold(key, Span(0, 10)))
            await asyncio.sleep(0)
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
        del holding
        until = asyncio.get_running_loop().time() + 60
        while True:
            try:
                await (await store.hold(key, Span(0, 10))).release()
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

    def counted(descriptor: int, start: int, end: int) -> object:
        nonlocal seen
        seen += end - start
        return blocks_of(descriptor, start, end)

    monkeypatch.setattr(parts, "blocks_of", counted)
    stores = [LocalBlobs(tmp_path / "media", ids=RandomIds()) for _ in range(2)]
    for each in stores:
        each.open_store()

    async def play() -> Digest:
        upload = await begun(Arena(stores[0]))
        first, *rest = spans_of(len(DATA), MEBIBYTE)
        for span in (first, *(rest if ascending else rest[::-1])):
            await upload.put(span)
        upload.arena = Arena(stores[restarted])
        return (await upload.publish(len(DATA)))[1]

    try:
        assert run(play()) == digest_of(DATA)
        assert seen == read
    finally:
        for each in stores:
            each.close()
