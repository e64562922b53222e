"""The threads that talk to a bucket: how long a request waits for one."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import obstore
import pytest

from tests.app.uploads import pass_time
from uponce.adapters.store import bucket as bucket_module
from uponce.adapters.store import objects as objects_module
from uponce.adapters.store.bucket import PART_BYTES
from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import RandomIds
from uponce.core.errors import StorageUnavailable
from uponce.core.formats import BINARY
from uponce.core.series import StoredPart
from uponce.core.spans import Span

LARGE = PART_BYTES + 1


@contextmanager
def opened(
    seconds: int, bucket: Any = None, *, folder: Path = Path("unused"), uploads: int = 2
) -> Iterator[BucketBlobs]:
    bucket = bucket or SimpleNamespace(end=lambda: None)
    store = BucketBlobs(bucket, folder, ids=RandomIds(), seconds=seconds, uploads=uploads)
    yield store
    store.close()


async def all_busy(
    store: BucketBlobs, until: Event, number: int | None = None, series: str | None = None
) -> "list[asyncio.Task[bool]]":
    """Give each thread for large uploads a long one, or only so many. Return when all have begun."""
    begun = list[None]()

    def work() -> bool:
        begun.append(None)
        return until.wait(120)

    tasks = [asyncio.create_task(store.run(work, LARGE, series)) for _ in range(number or store._movers._most)]
    while len(begun) < len(tasks):
        await asyncio.sleep(0.001)
    return tasks


def test_a_request_waits_for_a_thread_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Behind as many large uploads as there are threads. They end as usual, however long they take."""
    may_end, ran = Event(), Event()

    async def play() -> list[bool]:
        with opened(60) as store:
            busy = await all_busy(store, may_end)
            monkeypatch.setattr(store, "_seconds", 0.2)
            try:
                with pytest.raises(StorageUnavailable, match="too slow now") as refusal:
                    await asyncio.wait_for(store.run(ran.set, LARGE), 60)
            finally:
                may_end.set()
            assert refusal.value.for_operator == (
                "no thread for large uploads (UPONCE_STORAGE_UPLOADS) became free within 0.2 seconds "
                "(UPONCE_STORAGE_SECONDS)"
            )
            return await asyncio.gather(*busy)

    assert all(asyncio.run(play()))
    assert not ran.is_set()


def test_no_thread_begins_the_work_of_a_cancelled_request() -> None:
    may_end, ran = Event(), Event()

    async def play() -> None:
        with opened(60) as store:
            busy = await all_busy(store, may_end)
            waiting = asyncio.create_task(store.run(ran.set, LARGE))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            may_end.set()
            await asyncio.gather(*busy)

    asyncio.run(play())
    assert not ran.is_set()


def test_no_small_upload_waits_for_large_ones() -> None:
    may_end = Event()

    async def play() -> None:
        with opened(60) as store:
            busy = await all_busy(store, may_end)
            try:
                assert await asyncio.wait_for(store.run(lambda: 1, PART_BYTES), 30) == 1
            finally:
                may_end.set()
            await asyncio.gather(*busy)

    asyncio.run(play())


class Stalling:
    """A bucket that stores no large object until `may_end`. `begun` counts the large ones that were begun."""

    def __init__(self) -> None:
        self.begun = 0
        self.may_end = Event()

    def upload(self, name: str, descriptor: int, span: Span, media_type: str) -> None:
        if span.size > PART_BYTES:
            self.begun += 1
            self.may_end.wait(120)

    def read(self, name: str, offset: int, length: int) -> bytes:
        return bytes(length)

    def delete_below(self, folder: str) -> None:
        return

    def end(self) -> None:
        return


async def kept(store: BucketBlobs, key: str, start: int, size: int) -> Sequence[StoredPart]:
    part = await store.parts.hold(key, Span(start, start + size))
    try:
        await part.write(bytes(size))
        return await part.sync()
    finally:
        await part.release()


def test_the_parts_of_one_upload_hold_some_of_the_threads_only(tmp_path: Path) -> None:
    """Also if their requests are cancelled: the threads go on. Small parts, and the way to the end, stay free."""
    bucket, key, other = Stalling(), "a" * 32, "b" * 32

    async def play() -> None:
        with opened(60, bucket, folder=tmp_path / "spool", uploads=8) as store:
            store.open_store()
            tasks = list[asyncio.Task[Sequence[StoredPart]]]()
            for number, most in ((1, 1), (8, 2)):
                tasks += [asyncio.create_task(kept(store, key, (len(tasks) + n) * LARGE, LARGE)) for n in range(number)]
                while bucket.begun < most:
                    await asyncio.sleep(0.001)
            tasks.pop(0).cancel()
            tasks.append(asyncio.create_task(kept(store, other, 0, LARGE)))
            while bucket.begun < 3:
                await asyncio.sleep(0.001)
            (small,) = await asyncio.wait_for(kept(store, key, 9 * LARGE, 10), 30)
            assembly = await store.parts.assembly("c" * 32)
            await asyncio.wait_for(assembly.seal(10, sent(replace(small, span=Span(0, 10)))), 30)
            await assembly.release()
            await asyncio.wait_for(store.parts.drop(key), 30)
            assert bucket.begun == 3
            bucket.may_end.set()
            await asyncio.gather(*tasks)
            assert bucket.begun == 10

    asyncio.run(play())


@pytest.mark.parametrize("stored", [True, False])
def test_a_part_waits_as_long_as_other_parts_of_its_upload_are_stored(stored: bool) -> None:
    """The other threads are free. If the bucket stores nothing more, the part is refused in time."""
    may_end, begun = (Event(), Event()), (Event(), Event())

    def work(number: int) -> None:
        begun[number].set()
        may_end[number].wait(120)
        if not stored:
            raise StorageUnavailable("no part is stored")

    async def play() -> None:
        with opened(60, uploads=4) as store:
            sent = [asyncio.create_task(store.run(partial(work, number), LARGE, "a")) for number in range(2)]
            last = asyncio.create_task(store.run(lambda: True, LARGE, "a"))
            try:
                await until(begun[0].is_set)
                pass_time(40)
                may_end[0].set()
                await until(begun[1].is_set)
                pass_time(40)
                await asyncio.sleep(0.1)
                assert last.done() is not stored
                pass_time(40)
                with pytest.raises(StorageUnavailable) as refusal:
                    await asyncio.wait_for(last, 60)
            finally:
                may_end[1].set()
            assert refusal.value.for_operator == (
                "none of the 1 parts of this upload that go at a time was stored within 60 seconds "
                "(UPONCE_STORAGE_SECONDS)"
            )
            await asyncio.gather(*sent, return_exceptions=True)

    asyncio.run(play())


async def until(holds: Callable[[], bool]) -> None:
    while not holds():
        await asyncio.sleep(0.001)


def test_a_refused_or_cancelled_part_makes_room_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it waits for a thread, or for another part of its upload."""
    may_end, ran = Event(), Event()

    async def play() -> None:
        with opened(60, uploads=1) as store:
            busy = await all_busy(store, may_end)
            try:
                monkeypatch.setattr(store, "_seconds", 0)
                with pytest.raises(StorageUnavailable, match="too slow now"):
                    await store.run(ran.set, LARGE, "a")
                monkeypatch.setattr(store, "_seconds", 60)
                gone = [asyncio.create_task(store.run(ran.set, LARGE, "a")) for _ in range(2)]
                last = asyncio.create_task(store.run(lambda: 1, LARGE, "a"))
                await asyncio.sleep(0)
                for task in gone:
                    task.cancel()
                await asyncio.wait(gone)
            finally:
                may_end.set()
            assert await asyncio.wait_for(last, 60) == 1
            await asyncio.gather(*busy)

    asyncio.run(play())
    assert not ran.is_set()


async def sent(part: StoredPart) -> AsyncIterator[StoredPart]:
    yield part


class Listed:
    """A bucket of many objects. `most` is of how many of them one piece of work has asked."""

    def __init__(self) -> None:
        self.keys = [f"{number:03x}{'0' * 29}" for number in range(4096)]
        self.most = self._asked = 0

    def listing(self, folder: str, after: str = "") -> Iterator[tuple[str, int, float]]:
        for key in self.keys:
            if (name := f"blobs/{key[:2]}/{key}") > after:
                self._asked += 1
                self.most = max(self.most, self._asked)
                yield name, 1, 0.0

    def begin(self) -> None:
        self._asked = 0

    def end(self) -> None:
        return


def test_no_step_of_a_listing_reads_the_rest_of_the_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for the step that runs, and a sweep rests after each step."""
    bucket = Listed()
    ask = BucketBlobs._ask

    async def step(store: BucketBlobs, work: Callable[[], Any]) -> Any:
        bucket.begin()
        return await ask(store, work)

    monkeypatch.setattr(BucketBlobs, "_ask", step)

    async def play() -> list[str]:
        with opened(60, bucket) as store:
            return [blob.key for listing in store.listings("10") async for blob in listing]

    assert sorted(asyncio.run(play())) == bucket.keys
    assert bucket.most <= 101


def test_a_stop_ends_uploads_that_are_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """No commit can name them any more. obstore removes the parts of an object when it gets no more blocks."""
    begun, may_end = Event(), Event()

    def endless(*_: object) -> Iterator[bytes]:
        while not may_end.is_set():
            begun.set()
            yield b"block"

    def take(where: object, name: str, blocks: Iterator[bytes], **more: object) -> None:
        for _ in blocks:
            pass

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"):
        monkeypatch.setenv(name, "unused")
    monkeypatch.setattr(bucket_module, "blocks_of", endless)
    monkeypatch.setattr(obstore, "put", take)
    bucket = bucket_module.Bucket("s3://bucket", 60)

    async def play() -> None:
        with opened(60, bucket) as store:
            upload = asyncio.create_task(store.run(lambda: bucket.upload("name", 0, Span(0, LARGE), BINARY), LARGE))
            try:
                await until(begun.is_set)
                await asyncio.wait_for(asyncio.to_thread(store.close), 60)
                with pytest.raises(StorageUnavailable) as refusal:
                    await asyncio.wait_for(upload, 60)
            finally:
                may_end.set()
            assert refusal.value.detail == "the server has stopped"

    asyncio.run(play())


def test_a_stop_waits_for_a_request_that_hangs_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "_ENDING_SECONDS", 0.1)
    may_end = Event()

    async def play() -> None:
        with opened(60) as store:
            busy = await all_busy(store, may_end)
            try:
                await asyncio.wait_for(asyncio.to_thread(store.close), 60)
                assert not any(task.done() for task in busy)
            finally:
                may_end.set()
            await asyncio.gather(*busy)

    asyncio.run(play())
