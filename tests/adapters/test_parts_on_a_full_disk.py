"""A full disk gets the room back that bytes without a record have taken: a full database needs it too."""

import asyncio
import errno
import os
from pathlib import Path
from unittest.mock import Mock, patch

import pytest

from tests.asgi import Answer
from tests.chunks import Client, noise, stored
from tests.tus import Client as Tus
from tests.world import World, assert_refused
from uponce.adapters.spool import parts, uploads
from uponce.core.errors import StorageFull
from uponce.core.policy import Limits
from uponce.core.spans import Span

MIB = 1024 * 1024
DATA = noise(3 * MIB)


def test_a_chunk_that_fills_the_disk_gives_its_room_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, limits=Limits(min_chunk_bytes=MIB))
    client, write, room = Client(world, DATA), parts._write, MIB
    sizes = list[int]()

    def full(descriptor: int, data: memoryview, position: int) -> None:
        nonlocal room
        room -= len(data)
        if room < 0:
            write(descriptor, data[: len(data) // 2], position)
            sizes.append(os.fstat(descriptor).st_blocks)
            raise OSError(errno.ENOSPC, "full")
        write(descriptor, data, position)

    async def play() -> Answer:
        nonlocal room
        assert (await client.chunk(0, MIB - 1)).status == 200
        before = blocks(world)
        for _ in range(2):  # a client comes again soon
            sizes.clear()
            room = MIB
            with monkeypatch.context() as patched:
                patched.setattr(parts, "_write", full)
                assert_refused(await client.chunk(MIB, 3 * MIB - 1), 507, "storage_full")
            assert max(sizes) >= before + MIB // 512
            assert blocks(world) < before + MIB // 1024  # file systems may keep some for themselves
        return await client.chunk(MIB, 3 * MIB - 1)

    assert stored(world, asyncio.run(play())) == DATA
    world.close()


def test_bytes_that_a_row_names_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one request, whose first bytes were recorded while it went on."""
    world = World(tmp_path, limits=Limits(record_bytes=MIB))
    client, write = Tus(world, DATA), parts._write

    def full(descriptor: int, data: memoryview, position: int) -> None:
        if position >= 2 * MIB:
            raise OSError(errno.ENOSPC, "full")
        write(descriptor, data, position)

    async def play() -> Answer:
        await client.create()
        with monkeypatch.context() as patched:
            patched.setattr(parts, "_write", full)
            quarters = [DATA[start : start + MIB // 4] for start in range(0, len(DATA), MIB // 4)]
            assert (await client.patch(0, data=quarters)).status == 507
        recorded = int((await client.head()).headers["upload-offset"])
        assert recorded == 2 * MIB
        assert blocks(world) >= recorded // 512
        return await client.go_on()

    assert asyncio.run(play()).status == 200
    assert stored(world, asyncio.run(client.get())) == DATA
    world.close()


def test_bytes_that_an_earlier_request_synced_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The transaction that records them may have lost its reply, and succeed while the next request repeats them."""
    world = World(tmp_path)

    async def play() -> bytes:
        key = await world.blobs.parts.begin()
        first = await world.blobs.parts.hold(key, Span(0, len(DATA)))
        await first.write(DATA[:MIB])
        await first.sync()
        await first.release()
        again = await world.blobs.parts.hold(key, Span(0, len(DATA)))
        with monkeypatch.context() as patched:
            patched.setattr(parts, "_write", Mock(side_effect=OSError(errno.ENOSPC, "full")))
            with pytest.raises(StorageFull):
                await again.write(DATA)
                await again.sync()
        await again.release()
        return (world.blobs.folder / key).read_bytes()

    assert asyncio.run(play())[:MIB] == DATA[:MIB]
    world.close()


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "full"), parts.other_bytes(0)], ids=["full", "other bytes"])
def test_nothing_is_written_after_a_write_that_failed(tmp_path: Path, failure: Exception) -> None:
    """A second flush may be under way. It would write its bytes where those of the first one belong."""
    with (tmp_path / "file").open("wb+") as file:
        held = parts._HeldBytes(Mock(number=file.fileno), Span(0, len(DATA)))
        held.put([DATA[:MIB]])
        with patch.object(parts, "_write", side_effect=failure), pytest.raises(type(failure)):
            held.put([DATA[MIB : 2 * MIB]])
        with pytest.raises(type(failure)):
            held.put([DATA[2 * MIB :]])
    assert not any((tmp_path / "file").read_bytes()[MIB:])


def blocks(world: World) -> int:
    return sum(path.stat().st_blocks for path in world.blobs.folder.iterdir() if path.is_file())


def no_place(*_: object) -> None:
    raise OSError(errno.ENOSPC, "no place for the pages")


def test_a_chunk_for_whose_pages_the_disk_finds_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write itself succeeded, and no later fsync would report it."""
    world = World(tmp_path, limits=Limits(min_chunk_bytes=MIB))
    client = Client(world, DATA)

    async def play() -> Answer:
        assert (await client.chunk(0, MIB - 1)).status == 200
        before = blocks(world)
        with monkeypatch.context() as patched:
            patched.setattr(parts, "start_writeback", no_place)
            assert_refused(await client.chunk(MIB, 3 * MIB - 1), 507, "storage_full")
        assert blocks(world) < before + MIB // 1024
        return await client.chunk(MIB, 3 * MIB - 1)

    assert stored(world, asyncio.run(play())) == DATA
    world.close()


def test_a_file_for_whose_pages_the_disk_finds_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path)
    fields = world.sign()
    with monkeypatch.context() as patched, world.untouched():
        patched.setattr(uploads, "start_writeback", no_place)
        assert_refused(world.upload(fields, DATA, kind="raw"), 507, "storage_full")
    assert world.upload(fields, DATA, kind="raw").status == 200
    world.close()
