"""A system that allows no more threads: each request gets a 503, no work runs for a refused one, nothing leaks."""

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.adapters.descriptors import descriptors
from tests.adapters.packing import opened
from uponce.adapters.database.postgres.connection import DatabaseAddress
from uponce.adapters.database.postgres.pool import Pool
from uponce.adapters.database.sqlite.readers import Readers
from uponce.adapters.store.bucket import PART_BYTES
from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import LINUX, RandomIds
from uponce.core.errors import DatabaseUnavailable, StorageUnavailable

LARGE = bytes(2 * 1024 * 1024)
Allow = Callable[[str], None]


@pytest.fixture
def allow(monkeypatch: pytest.MonkeyPatch) -> Allow:
    """Allow only new threads whose name does not begin with the text."""
    real = threading.Thread.start

    def allow(refused: str) -> None:
        def start(thread: threading.Thread) -> None:
            if thread.name.startswith(refused):
                raise RuntimeError("can't start new thread")
            real(thread)

        monkeypatch.setattr(threading.Thread, "start", start)

    return allow


@pytest.mark.skipif(not LINUX, reason="only Linux lists the descriptors of a process")
def test_an_upload_that_no_thread_can_discard_keeps_no_descriptor(tmp_path: Path, allow: Allow) -> None:
    """A deleted file that stays open would keep its space."""
    store = opened(tmp_path)

    async def play() -> None:
        upload = await store.receive()
        allow("uponce-disk")
        await upload.write(LARGE)
        await upload._writer.settle()
        assert descriptors(store.folder) != []
        (refusal,) = await asyncio.gather(upload.seal(), return_exceptions=True)
        assert isinstance(refusal, StorageUnavailable)
        assert "limit of threads" in str(refusal.for_operator)
        await upload.discard()

    asyncio.run(play())
    store.close()  # a thread may have held the upload for a moment
    assert descriptors(store.folder) == []


def test_a_bucket_begins_no_work_for_a_refused_request(allow: Allow) -> None:
    """And if it has one thread, that one does the work."""
    none: Any = SimpleNamespace(end=lambda: None)
    store, done, go = BucketBlobs(none, Path("unused"), ids=RandomIds(), seconds=60, uploads=2), [1], threading.Event()

    async def play() -> None:
        allow("uponce-upload")
        with pytest.raises(StorageUnavailable):
            await store.run(lambda: done.append(2), PART_BYTES + 1)
        allow("nothing")
        busy = asyncio.ensure_future(store.run(lambda: go.wait(60), PART_BYTES + 1))
        await asyncio.sleep(0.05)
        allow("uponce-upload")
        waiting = asyncio.ensure_future(store.run(lambda: done.append(3), PART_BYTES + 1))
        await asyncio.sleep(0.05)
        go.set()
        await asyncio.gather(busy, waiting)

    asyncio.run(asyncio.wait_for(play(), 60))
    store.close()
    assert done == [1, 3]


def test_a_database_without_a_thread_does_not_answer(allow: Allow) -> None:
    none: Any = None
    pool, readers = Pool(DatabaseAddress("postgresql://", 1), 2, None, none, none), Readers(lambda: none)
    allow("uponce")
    for run in (pool.run, readers.run):
        with pytest.raises(DatabaseUnavailable, match="no signature was spent"):
            asyncio.run(run(none))
