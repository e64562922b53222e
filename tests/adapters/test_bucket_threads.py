"""The threads that talk to a bucket: how long a request waits for one."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import RandomIds
from uponce.core.errors import StorageUnavailable


@contextmanager
def opened(seconds: int, bucket: Any = None) -> Iterator[BucketBlobs]:
    store = BucketBlobs(bucket, Path("unused"), ids=RandomIds(), seconds=seconds, uploads=2)
    yield store
    store.close()


async def all_busy(store: BucketBlobs, until: Event) -> "list[asyncio.Task[bool]]":
    """Give each thread for uploads a long one. Return when all have begun."""
    begun = list[None]()

    def work() -> bool:
        begun.append(None)
        return until.wait(120)

    tasks = [asyncio.create_task(store.run(work)) for _ in range(store._movers._most)]
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
                    await asyncio.wait_for(store.run(ran.set), 60)
            finally:
                may_end.set()
            assert refusal.value.for_operator == (
                "no thread for uploads (UPONCE_STORAGE_UPLOADS) became free within 0.2 seconds"
            )
            return await asyncio.gather(*busy)

    assert all(asyncio.run(play()))
    assert not ran.is_set()


def test_no_thread_begins_the_work_of_a_cancelled_request() -> None:
    may_end, ran = Event(), Event()

    async def play() -> None:
        with opened(60) as store:
            busy = await all_busy(store, may_end)
            waiting = asyncio.create_task(store.run(ran.set))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            may_end.set()
            await asyncio.gather(*busy)

    asyncio.run(play())
    assert not ran.is_set()


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
