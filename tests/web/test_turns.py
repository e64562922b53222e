"""Thousands of GETs at once take turns, so that an upload that comes with them does not wait for all of them."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from tests.asgi import call
from tests.world import World, assert_accepted
from uponce.web.protocol import HardenedProtocol

MANY = 40


class Turns:
    """A loop whose turns the test takes."""

    def __init__(self) -> None:
        self.next: list[Callable[[], None]] = []

    def call_soon(self, work: Callable[[], None]) -> None:
        self.next.append(work)

    def take(self) -> None:
        work, self.next = self.next, []
        for each in work:
            each()


def test_an_upload_starts_at_once_and_gets_a_few_in_each_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[str] = []
    monkeypatch.setattr(HttpToolsProtocol, "_start_asgi_task", lambda _, cycle, __: started.append(cycle.scope["path"]))
    protocol: Any = HardenedProtocol.__new__(HardenedProtocol)
    protocol.loop = turns = Turns()

    def request(method: str, path: str) -> None:
        protocol._start_asgi_task(SimpleNamespace(scope={"method": method, "path": path}, more_body=False), object())

    for number in range(MANY):
        request("GET", f"/{number}")
    request("POST", "/upload")
    assert started == ["/upload"]
    turns.take()
    assert started == ["/upload", *(f"/{number}" for number in range(HardenedProtocol.GETS_PER_TURN))]
    request("HEAD", "/last")
    for _ in range(MANY):
        turns.take()
    assert started[1:] == [*(f"/{number}" for number in range(MANY)), "/last"]
    request("GET", "/later")
    turns.take()
    assert started[-1] == "/later"


def test_gets_that_a_client_sent_ahead_get_no_more_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each begins inside of the one before, whose answer is complete at once."""
    started, ahead = list[str](), [f"/{number}" for number in range(MANY)]

    def start(_: object, cycle: Any, __: object) -> None:
        started.append(cycle.scope["path"])
        if ahead:
            request(ahead.pop(0))

    monkeypatch.setattr(HttpToolsProtocol, "_start_asgi_task", start)
    protocol: Any = HardenedProtocol.__new__(HardenedProtocol)
    protocol.loop = turns = Turns()

    def request(path: str) -> None:
        protocol._start_asgi_task(SimpleNamespace(scope={"method": "GET", "path": path}, more_body=False), object())

    request("/first")
    while turns.next:
        assert len(turns.next) == 1
        turns.take()
    assert started == ["/first", *(f"/{number}" for number in range(MANY))]
    assert not HardenedProtocol._queued


def test_few_deliveries_ask_the_catalog_at_a_time(world: World) -> None:
    asset = assert_accepted(world.upload(world.sign())).json
    path, running, most = asset["url"].removeprefix("https://media.example"), 0, 0

    class Slow:
        glance = None

        def __getattr__(self, name: str) -> Any:
            return getattr(world.database, name)

        async def find_asset(self, name: Any) -> Any:
            nonlocal running, most
            running, most = running + 1, max(most, running + 1)
            await asyncio.sleep(0)
            found = await world.database.find_asset(name)
            running -= 1
            return found

    async def all_at_once() -> list[int]:
        answers = await asyncio.gather(*(call(world.app, "GET", path) for _ in range(MANY)))
        return [answer.status for answer in answers]

    world.swap(database=Slow())
    assert asyncio.run(all_at_once()) == [200] * MANY
    assert most == 16
