"""A store that fails, or is slow, while it delivers: each reader gets an answer, and the operator learns of it."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import pytest

from tests.asgi import Answer, Message, TornAnswer, call, scope_of
from tests.web.test_delivery import RAW, store
from tests.world import World, assert_refused
from uponce.app.services import Metrics
from uponce.core.errors import StorageUnavailable
from uponce.web import places
from uponce.web.discarding import CYCLE
from uponce.web.request import Request

BIG = bytes(range(256)) * 4096


class Counted(Metrics):
    def __init__(self) -> None:
        self.statuses: list[int] = []

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        self.statuses.append(status)


class FarBlob:
    """A blob of a bucket: each block is a request, which `before_read` may let fail."""

    def __init__(self, blob: Any, before_read: Callable[[int], None], most: int) -> None:
        self._blob, self._before_read, self._most = blob, before_read, most
        self.size, self.first_bytes, self.block_bytes = blob.size, 128 * 1024, 256 * 1024

    async def read(self, offset: int, length: int) -> Any:
        self._before_read(offset)
        return await self._blob.read(offset, max(0, min(length, self._most - offset)))

    def close(self) -> None:
        self._blob.close()


class Far:
    """The stored blobs, as a bucket has them. `opened` counts the requests for a size."""

    def __init__(self, world: World) -> None:
        self._blobs = world.services.blobs
        self.opened = 0
        self.may_open = asyncio.Event()
        self.may_open.set()
        self.most = len(BIG)  # the bytes that each blob still has
        self.before_read: Callable[[int], None] = lambda _: None
        world.swap(blobs=self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._blobs, name)

    def open_now(self, key: str) -> None:
        return None

    async def open(self, key: str) -> Any:
        self.opened += 1
        await self.may_open.wait()
        blob = await self._blobs.open(key)
        return blob and FarBlob(blob, self.before_read, self.most)


def fail(_: int) -> None:
    raise StorageUnavailable("The server's storage cannot be used now.", detail="GET: 404 NoSuchKey")


def fail_later(offset: int) -> None:
    if offset > 100_000:
        fail(offset)


def key_of(world: World) -> str:
    with closing(sqlite3.connect(world.path)) as database:
        ((key,),) = database.execute("SELECT blob_key FROM assets WHERE public_id = 'big'")
    return str(key)


@pytest.fixture
def path(world: World) -> Any:
    return store(world, BIG, kind="raw", public_id="big")["path"]


@pytest.mark.parametrize("range_", [{}, {"range": "bytes=9-"}, {"range": "bytes=0-1,5-6"}], ids=str)
@pytest.mark.parametrize("damage", ["fails", "ends early"])
def test_a_first_block_that_cannot_be_read_is_a_refusal(
    world: World, path: str, damage: str, range_: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    far = Far(world)
    if damage == "fails":
        far.before_read = fail
    else:
        far.most = 0
    answer = world.get(path, **range_)
    assert_refused(answer, 503, "storage_unavailable")
    assert (answer.headers["cache-control"], answer.headers["retry-after"]) == ("no-store", "5")
    assert "etag" not in answer.headers
    (record,) = (record for record in caplog.records if (record.name, record.levelno) == ("uponce", logging.ERROR))
    assert key_of(world) in record.__dict__["facts"]["detail"]
    assert far.opened == 1  # the look-up found no newer bytes


@pytest.mark.parametrize("overwrites", [1, 3])
def test_overwrites_before_the_first_block_is_read_deliver_the_new_bytes(
    world: World, path: str, overwrites: int
) -> None:
    far, pending = Far(world), [bytes([number]) * len(BIG) for number in range(overwrites)]

    def overwrite(_: int) -> None:
        if far.opened <= overwrites:
            with ThreadPoolExecutor(1) as thread:
                thread.submit(store, world, pending[far.opened - 1], kind="raw", public_id="big").result()
            fail(0)

    far.before_read = overwrite
    answer = world.get(path)
    assert (answer.status, answer.body, far.opened) == (200, pending[-1], overwrites + 1)


def test_an_answer_without_bytes_reads_none(world: World, path: str) -> None:
    far = Far(world)
    far.before_read = fail
    assert world.request("HEAD", path).headers["content-length"] == str(len(BIG))
    assert world.get(path, if_none_match="*").status == 304
    assert world.get(path, if_match='"x"').status == 412
    assert world.get(path, range=f"bytes={len(BIG)}-").status == 416


@pytest.mark.parametrize("range_", [{}, {"range": "bytes=9-"}, {"range": "bytes=0-1,500000-"}], ids=str)
@pytest.mark.parametrize("damage", ["fails", "ends early"])
def test_a_failure_in_the_middle_is_an_error_of_the_log_and_of_the_metrics(
    world: World, path: str, damage: str, range_: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    far, metrics = Far(world), Counted()
    world.swap(metrics=metrics)
    if damage == "fails":
        far.before_read = fail_later
    else:
        far.most = 200_000
    with pytest.raises(TornAnswer):
        world.get(path, **range_)
    (record,) = (record for record in caplog.records if record.name == "uponce")
    facts = record.__dict__["facts"]
    assert (record.levelname, record.getMessage(), facts["code"]) == ("ERROR", "failed", "storage_unavailable")
    assert key_of(world) in facts["detail"]
    assert facts["route"] == "/{cloud}/raw/{rest}"
    assert len(record.__dict__["request_id"]) == 32
    assert metrics.statuses == [503]


def test_a_slow_store_keeps_no_other_delivery_waiting(world: World, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "WAIT_SECONDS", 60)
    far = Far(world)
    far.may_open.clear()
    wait, waiting = places.Places.wait, 0

    async def noted(self: places.Places, request: Request) -> None:
        nonlocal waiting
        waiting += 1
        await wait(self, request)

    monkeypatch.setattr(places.Places, "wait", noted)

    async def play() -> tuple[list[Answer], list[Answer], list[Answer]]:
        slow = [asyncio.create_task(call(world.app, "GET", path)) for _ in range(3 * places.PLACES)]
        others: list[tuple[str, dict[str, str]]] = [
            ("/demo/image/upload/none.png", {}),
            (path, {"if-none-match": "*"}),
            ("/demo/image/private/x.png", {}),
        ]
        async with asyncio.timeout(60):
            while far.opened < places.PLACES or waiting < 2 * places.PLACES:
                await asyncio.sleep(0.01)
            quick = [await call(world.app, "GET", other, headers=headers) for other, headers in others]
        monkeypatch.setattr(places, "WAIT_SECONDS", 0.1)
        refused = await asyncio.gather(*(call(world.app, "GET", path) for _ in range(2 * places.PLACES)))
        assert far.opened == places.PLACES
        far.may_open.set()
        return quick, refused, await asyncio.gather(*slow)

    quick, refused, answers = asyncio.run(play())
    assert [answer.status for answer in quick] == [404, 304, 401]
    assert [answer.status for answer in answers] == [200] * len(answers)
    for answer in refused:
        assert_refused(answer, 503, "server_busy")
        assert int(answer.headers["retry-after"]) > 0
        assert f"{places.PLACES} deliveries" in answer.message


def test_a_request_whose_client_has_left_opens_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    path = store(world, RAW, kind="raw", public_id="big")["path"]
    monkeypatch.setattr(places, "WAIT_SECONDS", 60)
    far = Far(world)
    far.may_open.clear()
    wait, waits = places.Places.wait, asyncio.Event()

    async def noted(self: places.Places, request: Request) -> None:
        waits.set()
        await wait(self, request)

    monkeypatch.setattr(places.Places, "wait", noted)

    async def play() -> None:
        sent: list[Message] = []

        async def send(message: Message) -> None:
            sent.append(message)

        cycle = SimpleNamespace(disconnected=True, flow=SimpleNamespace(write_paused=False))
        scope = {**scope_of("GET", path, {}), "extensions": {CYCLE: cycle}}
        async with asyncio.timeout(60):
            tasks = [asyncio.create_task(call(world.app, "GET", path)) for _ in range(places.PLACES)]
            while far.opened < places.PLACES:
                await asyncio.sleep(0.01)
            gone = asyncio.create_task(world.app(scope, asyncio.Event().wait, send))  # type: ignore[arg-type]
            await waits.wait()
            far.may_open.set()
            await asyncio.gather(gone, *tasks)

    asyncio.run(play())
    assert far.opened == places.PLACES
