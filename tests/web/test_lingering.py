"""Connections after their last answer, which came before the end of a request."""

import asyncio

import pytest

from tests.web.wire import Reader
from uponce.web.lingering import Lingering


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
        await asyncio.sleep(0.1)
        assert lingering.end(ends[3], loop, b"no")

    asyncio.run(play())
