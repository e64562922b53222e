"""A system that reads and writes fewer bytes at a time than it was asked for loses and refuses nothing."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from types import SimpleNamespace
from typing import Any

import pytest

from tests import samples
from tests.adapters.packing import put
from uponce.adapters.media import pool
from uponce.adapters.spool.disk import Disk
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.parts import ObjectPart, ObjectParts
from uponce.adapters.system import RandomIds
from uponce.app.ports import PLACES
from uponce.core.errors import StorageUnavailable
from uponce.core.series import StoredPart
from uponce.core.spans import Span

MOST = 61  # less than the header of a record in a pack
DATA = bytes(range(256)) * 40


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each call takes at most so many bytes."""
    pread, pwrite, writev, preadv = os.pread, os.pwrite, os.writev, os.preadv

    def some(blocks: Sequence[Any]) -> list[memoryview]:
        return [memoryview(blocks[0])[:MOST]]

    monkeypatch.setattr(os, "pread", lambda file, length, offset: pread(file, min(length, MOST), offset))
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: pwrite(file, memoryview(data)[:MOST], offset))
    monkeypatch.setattr(os, "writev", lambda file, blocks: writev(file, some(blocks)))
    monkeypatch.setattr(os, "preadv", lambda file, blocks, *more: preadv(file, some(blocks), *more))


def play(folder: Path, scenario: Callable[[Any], Any]) -> None:
    store = LocalBlobs(folder, ids=RandomIds(), pack_bytes=len(DATA))
    store.open_store()
    try:
        asyncio.run(scenario(store))
    finally:
        store.close()


@pytest.mark.parametrize("size", [100, len(DATA), len(DATA) + 1], ids=["small", "in a pack", "a file"])
def test_a_blob_is_read_listed_kept_and_deleted(tmp_path: Path, size: int) -> None:
    data = (DATA * 2)[:size]

    async def scenario(store: Any) -> None:
        (key,) = put(store, data)
        blob = await store.open(key)
        assert await blob.read(0, size) == data
        assert await blob.read(7, size) == data[7:]
        blob.close()
        assert [found.key async for found in store.published()] == [key]
        store._packs.close()  # so that the sweep may delete its pack
        assert [found.key for listing in store.listings(PLACES[0]) async for found in listing] == [key]
        assert (await store.digest(key)).size == size
        await store.delete(key)
        assert await store.open(key) is None

    play(tmp_path, scenario)


async def none() -> AsyncIterator[Any]:
    return
    yield


def test_a_part_that_is_sent_twice_is_the_same_part(tmp_path: Path) -> None:
    async def scenario(store: Any) -> None:
        key, span = await store.parts.begin(), Span(0, len(DATA))
        for present in ([], [span]):
            part = await store.parts.hold(key, span)
            part.expect(present)
            await part.write(DATA)
            await part.sync()
            await part.release()
        whole = await store.parts.assembly(key)
        assert (await whole.seal(len(DATA), none())).size == len(DATA)
        assert b"".join([block async for block in whole.blocks()]) == DATA
        await whole.release()

    play(tmp_path, scenario)


def test_an_object_that_lost_bytes_is_no_conflict() -> None:
    """The client sent the right bytes: no answer may say that they are other ones."""

    class Cut:
        def read(self, name: str, offset: int, length: int) -> bytes:
            return DATA[offset : offset + length - 1]

    spool: Any = SimpleNamespace(disk=Disk(), folder=Path())
    parts = ObjectParts(spool, None, None, Cut(), RandomIds())  # type: ignore[arg-type]
    held = ObjectPart(parts, "a" * 32, Span(0, 10), None)  # type: ignore[arg-type]
    with TemporaryFile() as file, pytest.raises(StorageUnavailable):
        held._compare("a" * 32, StoredPart(Span(0, 10), "name", "hash"), Span(0, 10), file.fileno())
    spool.disk.close()


def test_a_picture_is_known_by_its_first_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Short(io.FileIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(5)

        def readinto(self, into: Any) -> int | None:
            return super().readinto(memoryview(into)[:5])

    def open_(path: Path, _: str, buffering: int = -1) -> Any:
        return io.BufferedReader(Short(path)) if buffering else Short(path)

    picture = samples.png(7, 64, 64)
    (tmp_path / "picture").write_bytes(picture)
    monkeypatch.setattr(Path, "open", open_)
    assert pool._head(str(tmp_path / "picture"))[0] == picture
