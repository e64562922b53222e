"""Connections after their last answer, which came before the end of a request."""

import asyncio
import logging
from typing import Any

import pytest
from uvicorn.server import ServerState

from tests.web.bare import request
from tests.web.wire import Reader, Wire, get, store
from tests.world import World
from uponce.web.lingering import Lingering

CHUNKED = "Transfer-Encoding: chunked"


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uponce.web.lingering._SECONDS", 0.05)
    monkeypatch.setattr("uponce.web.lingering._MOST_CONNECTIONS", 2)


def test_a_connection_is_half_closed_at_once_and_closed_after_a_moment() -> None:
    async def play() -> None:
        end = Reader()
        assert Lingering().end(end, asyncio.get_running_loop(), b"no")
        assert (end.received(), end.half_closed, end.ended) == (b"no", True, False)
        await asyncio.sleep(0.1)
        assert end.ended

    asyncio.run(play())


def test_only_so_many_connections_wait_and_each_leaves_its_place_to_another() -> None:
    async def play() -> None:
        lingering, ends = Lingering(), [Reader() for _ in range(4)]
        loop = asyncio.get_running_loop()
        assert [lingering.end(end, loop, b"no") for end in ends[:3]] == [True, True, False]
        assert [end.ended for end in ends[:3]] == [False, False, True]
        lingering.discard(ends[0])
        assert lingering.end(ends[3], loop, b"no")

    asyncio.run(play())


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_request_whose_body_is_refused_does_no_more_work(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, method: str
) -> None:
    """No file is read for it, and no 100 follows the refusal: uvicorn would send it when the application reads."""
    form = ("Content-Type: multipart/form-data; boundary=b", "Expect: 100-continue") if method == "POST" else ()
    path = "/v1_1/demo/upload" if method == "POST" else store(world)
    wire, reader = Wire(world, monkeypatch), Reader()

    async def play() -> None:
        state = ServerState()
        protocol = wire.connect(reader, state)
        protocol.data_received(get(path, CHUNKED, *form, method=method) + b"zz\r\n")
        cycle: Any = protocol.cycle
        assert request(cycle.scope, cycle.receive).is_gone
        await asyncio.sleep(0)
        while state.tasks:
            await asyncio.sleep(0)
        protocol.connection_lost(None)

    with caplog.at_level(logging.ERROR):
        asyncio.run(asyncio.wait_for(play(), 60))
    assert reader.received().startswith(b"HTTP/1.1 400 ")
    assert reader.received().count(b"HTTP/1.1 ") == 1
    assert caplog.records == []
