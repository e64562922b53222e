"""The threads that talk to a bucket: how long a request waits for one."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from uponce.adapters.store.objects import BucketBlobs
from uponce.adapters.system import RandomIds
from uponce.core.errors import StorageUnavailable


@contextmanager
def opened(seconds: float) -> Iterator[BucketBlobs]:
    nothing: Any = None
    store = BucketBlobs(nothing, Path("unused"), ids=RandomIds(), seconds=seconds, uploads=2)  # type: ignore[arg-type]
    yield store
    store.close()


async def all_busy(store: BucketBlobs, until: Event) -> "list[asyncio.Task[bool]]":
    """Give each thread for uploads a long one."""
    tasks = [asyncio.create_task(store.run(lambda: until.wait(60))) for _ in range(store._movers._max_workers)]
    await asyncio.sleep(0.05)
    return tasks


def test_a_request_waits_for_a_thread_so_long_and_no_longer() -> None:
    """Behind as many large uploads as there are threads. They end as usual, however long they take."""
    may_end, ran = Event(), Event()

    async def play() -> list[bool]:
        with opened(0.2) as store:
            busy = await all_busy(store, may_end)
            try:
                with pytest.raises(StorageUnavailable, match="too slow now") as refusal:
                    await asyncio.wait_for(store.run(ran.set), 10)
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
