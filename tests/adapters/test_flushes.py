"""Flushes of an upload that ends before they do: every error of theirs is seen."""

import asyncio
import gc
import os
import threading
import warnings
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.descriptors import descriptors
from tests.app.test_unbroken import complaints
from uponce.adapters.spool.disk import Disk
from uponce.adapters.spool.hashes import digest_of
from uponce.adapters.spool.uploads import SpooledUpload, blocks_of_file
from uponce.app import unbroken
from uponce.app.unbroken import finish_unbroken
from uponce.core.errors import StorageUnavailable
from uponce.core.values import Digest

LARGE, SMALL = bytes(1024 * 1024), bytes(100)


@pytest.mark.parametrize("block", [LARGE, SMALL], ids=["in lanes", "in a thread"])
@pytest.mark.parametrize("torn", [False, True])
def test_an_upload_that_is_discarded_while_it_is_flushed_is_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block: bytes, torn: bool
) -> None:
    """Also where the caller of `discard` is cancelled, and so waits for no flush."""
    disk, gate = Disk(), threading.Event()
    upload = SpooledUpload(tmp_path, "a" * 32, disk, store=None)  # type: ignore[arg-type]
    append = upload._file.append

    def late(blocks: object) -> None:
        gate.wait()
        append(blocks)  # type: ignore[arg-type]

    monkeypatch.setattr(upload._writer, "_put", late)

    async def play() -> None:
        await upload.write(block)
        sealing = asyncio.ensure_future(upload.seal())
        await asyncio.sleep(0.01)
        sealing.cancel()
        discarding = asyncio.ensure_future(upload.discard())
        await asyncio.sleep(0 if torn else 0.05)
        if torn:
            discarding.cancel()
        await asyncio.sleep(0.05)
        gate.set()
        await asyncio.wait([sealing, discarding])
        await asyncio.sleep(0.05)
        upload._writer._flushing.clear()

    try:
        assert complaints(play) == []
    finally:
        disk.close()
    assert list(tmp_path.iterdir()) == []


def test_a_stop_waits_until_a_discarded_upload_is_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its request goes on after that, and still has to write its answer."""
    disk, gate = Disk(), threading.Event()
    upload = SpooledUpload(tmp_path, "a" * 32, disk, store=None)  # type: ignore[arg-type]
    monkeypatch.setattr(upload._writer, "_hash", lambda blocks: gate.wait())

    async def play() -> None:
        await upload.write(LARGE)
        while sum(path.stat().st_size for path in tmp_path.iterdir()) < len(LARGE):
            await asyncio.sleep(0.01)
        discarding = asyncio.ensure_future(upload.discard())
        while not unbroken._running:
            await asyncio.sleep(0)
        while list(tmp_path.iterdir()):
            await asyncio.sleep(0.01)
        stopping = asyncio.ensure_future(finish_unbroken(60))
        await asyncio.sleep(0.1)
        assert not stopping.done()
        gate.set()
        await asyncio.gather(discarding, stopping)

    asyncio.run(asyncio.wait_for(play(), 60))
    disk.close()


def test_a_loop_that_ends_before_a_discard_begins_is_no_failure(tmp_path: Path) -> None:
    """No coroutine exists yet that must be awaited."""
    disk = Disk()
    upload = SpooledUpload(tmp_path, "a" * 32, disk, store=None)  # type: ignore[arg-type]
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        with asyncio.Runner() as runner:
            loop = runner.get_loop()
            discarding = loop.create_task(upload.discard())
            while not unbroken._running:
                loop.call_soon(loop.stop)
                loop.run_forever()
        assert discarding.cancelled()
        del discarding, loop
        gc.collect()
    disk.close()
    assert [str(warning.message) for warning in warned] == []


def test_a_large_flush_waits_for_a_small_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With many writers the buffers are small, and a fast client may still bring a large block next."""
    monkeypatch.setattr(Disk, "buffer_bytes", 400 * 1024)
    disk, gate = Disk(), threading.Event()
    upload = SpooledUpload(tmp_path, "a" * 32, disk, store=None)  # type: ignore[arg-type]
    blocks = [bytes([number]) * size for number, size in enumerate((480 * 1024, len(LARGE), 480 * 1024, len(LARGE)))]

    async def play() -> Digest:
        # The small ones go to these threads.
        busy = [asyncio.ensure_future(disk.in_thread(gate.wait)) for _ in range(disk._threads._most)]
        asyncio.get_running_loop().call_later(0.2, gate.set)
        for block in blocks:
            await upload.write(block)
        digest = await upload.seal()
        await asyncio.gather(*busy)
        return digest

    digest = asyncio.run(play())
    disk.close()
    assert (tmp_path / ("a" * 32)).read_bytes() == b"".join(blocks)
    assert digest == digest_of(blocks)


def test_a_flush_that_fails_is_what_the_writer_gets(tmp_path: Path) -> None:
    disk = Disk()
    upload = SpooledUpload(tmp_path / "missing", "a" * 32, disk, store=None)  # type: ignore[arg-type]

    async def play() -> None:
        await upload.write(LARGE)
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                await upload.seal()

    asyncio.run(play())
    disk.close()


def test_a_stopped_server_has_no_storage(tmp_path: Path) -> None:
    """What a request still asks for after that ends as a refusal, not as a failure of the program."""
    disk = Disk()
    disk.close()
    for size in (0, len(LARGE) + 1):
        with pytest.raises(StorageUnavailable, match="has stopped"):
            asyncio.run(disk.sync(tmp_path.touch, size))
    upload = SpooledUpload(tmp_path, "a" * 32, disk, store=None)  # type: ignore[arg-type]

    async def flush() -> None:
        await upload.write(LARGE)
        await upload.seal()

    with pytest.raises(StorageUnavailable, match="has stopped"):
        asyncio.run(flush())


def test_a_file_that_opens_for_a_cancelled_caller_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, disk, gate = tmp_path / "spooled", Disk(), threading.Event()
    path.write_bytes(SMALL)
    open_ = os.open

    def late(*arguments: Any) -> int:
        gate.wait(60)
        return open_(*arguments)

    async def play() -> None:
        reading = asyncio.ensure_future(anext(blocks_of_file(disk, path, len(SMALL))))
        await asyncio.sleep(0.05)
        reading.cancel()
        await asyncio.wait([reading])
        gate.set()
        await disk.in_thread(lambda: None)

    monkeypatch.setattr(os, "open", late)
    asyncio.run(play())
    disk.close()
    assert descriptors(path) == []
