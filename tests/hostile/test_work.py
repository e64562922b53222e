"""What one request may cost the event loop, which serves no other request for that time."""

import asyncio
import http.client
import sys
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.asgi import call
from tests.hostile.frame import PICTURE
from tests.hostile.work import Ask, asks
from tests.server import Server
from tests.world import QuickWorld, World, assert_accepted
from uponce.web.request import Receive, Scope, Send

STEPS = 400_000
"""Lines of Python that a request may run in the loop: less than 20 ms, since a line takes less than 50 ns."""

NORMALISED = 1024
"""Characters that may be put into Unicode form NFC in one piece: the work may grow with their square."""

KEYLESS_SECONDS, KEYED_SECONDS = 0.020, 0.050
TRIES = 20
LARGEST = 256 * 1024  # bytes of a body that are worked on in one piece


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = QuickWorld(tmp_path_factory.mktemp("work"))
    yield world
    world.close()


class Meter:
    """Counts lines of the thread that it is entered in, and the longest text that is normalised there."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = self.longest = 0
        self._patch, self._normalize = monkeypatch, unicodedata.normalize

    def __enter__(self) -> "Meter":
        self._patch.setattr(unicodedata, "normalize", self._watched)
        sys.settrace(self._trace)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(None)
        self._patch.undo()

    def _watched(self, form: Any, text: str) -> str:
        self.longest = max(self.longest, len(text))
        return self._normalize(form, text)

    def _trace(self, frame: FrameType, event: str, argument: object) -> Any:
        self.steps += 1
        return self._trace


def in_world(world: World) -> dict[str, Ask]:
    stored = assert_accepted(world.upload(world.sign())).json["url"]
    return dict(asks("demo", world.browser.api_key, world.sign, urlsplit(stored).path))


NAMES = [name for name, _ in asks("demo", "1", lambda more: {name: str(value) for name, value in more.items()}, "/x")]


@pytest.mark.parametrize("name", NAMES)
def test_a_request_takes_few_steps(world: World, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Counted, not timed: no request runs a loop over its bytes in Python, or sorts long texts."""
    ask, meter = in_world(world)[name], Meter(monkeypatch)

    async def metered(scope: Scope, receive: Receive, send: Send) -> None:
        with meter:
            await world.app(scope, receive, send)

    body = [ask.body] if ask.body else []
    answer = asyncio.run(call(metered, ask.method, ask.target, headers=ask.headers, chunks=body))
    assert answer.status < 500
    print(f"{name}: {meter.steps} steps, {meter.longest} characters normalised, {answer.status}")
    assert meter.steps < STEPS
    assert meter.longest <= NORMALISED


def test_a_loop_over_bytes_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""

    def wasteful() -> None:
        for _ in bytes(STEPS):
            pass
        unicodedata.normalize("NFC", "a" * (NORMALISED + 1))

    with Meter(monkeypatch) as meter:
        wasteful()
    assert (meter.steps > STEPS, meter.longest > NORMALISED) == (True, True)


def loop_seconds(server: Server) -> float:
    """CPU time of the thread that runs the event loop. Other programs on the machine do not count."""
    return int(Path(f"/proc/{server.pid}/schedstat").read_text().split()[0]) / 1e9


def held(server: Server, ask: Ask, allowed: float) -> float:
    """CPU seconds that one request takes of the loop: the best of some tries. Other work only adds to them."""
    took: list[float] = []
    while not took or (min(took) > allowed and len(took) < TRIES):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.connect()
        before = loop_seconds(server)
        connection.request(ask.method, ask.target, ask.body, dict(ask.headers))
        connection.getresponse().read()
        took.append(loop_seconds(server) - before)
        connection.close()
    return min(took)


@pytest.mark.proof
def test_a_request_holds_the_loop_for_little_time(server: Server) -> None:
    """20 ms without a key, 50 ms with one. A long body comes in pieces, and others have their turn between them."""
    stored = urlsplit(str(server.post(server.signed(), PICTURE).json()["url"])).path
    slow = {}
    for name, ask in asks(server.cloud, server.browser.key, server.signed, stored):
        allowed = max(1, len(ask.body) / LARGEST) * (KEYLESS_SECONDS if ask.keyless else KEYED_SECONDS)
        took = held(server, ask, allowed)
        print(f"{name}: {took * 1000:.1f} ms")
        if took > allowed:
            slow[name] = f"{took * 1000:.0f} ms for {len(ask.body)} bytes"
    assert slow == {}
