"""What large files ask of the threads leaves room for other files."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.packing import opened
from uponce.adapters.spool import parts
from uponce.adapters.spool.disk import WORKERS
from uponce.adapters.store.blobs import Blobs
from uponce.core.spans import Span

CHUNK = bytes(1024 * 1024 + 1)
SECONDS = 20


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Blobs]:
    store = opened(tmp_path)
    yield store
    store.close()


def test_no_small_file_waits_for_the_fsync_of_a_chunk(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    slow = threading.Event()
    monkeypatch.setattr(parts, "sync_data", lambda _: slow.wait(SECONDS))

    async def play() -> None:
        held = []
        for _ in range(WORKERS):
            piece = await store.hold(await store.begin(), Span(0, len(CHUNK)))
            await piece.write(CHUNK)
            held.append(piece)
        syncs = [asyncio.ensure_future(piece.sync()) for piece in held]
        await asyncio.sleep(0.3)
        async with asyncio.timeout(SECONDS / 2):
            await store.spool.disk.in_thread(lambda: None)
        slow.set()
        await asyncio.gather(*syncs)
        for piece in held:
            await piece.release()

    asyncio.run(play())
