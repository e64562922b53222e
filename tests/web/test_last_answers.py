"""A connection that the server ends loses no answer, and no request that has arrived."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from uvicorn.server import ServerState

from tests.web.wire import Reader, Wire, get
from tests.world import World
from uponce.core.policy import Limits
from uponce.web.protocol import HardenedProtocol

PAGE = get("/robots.txt")
REQUESTS = {"a GET": PAGE, "an upload": get("/v1_1/demo/upload", "Content-Length: 3", method="POST") + b"a=b"}


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr("uponce.web.protocol._LAST_REQUEST_SECONDS", 0.05)
    return Wire(world, monkeypatch)


@pytest.mark.parametrize("name", REQUESTS)
@pytest.mark.parametrize("before", [b"", PAGE], ids=["a new connection", "a kept connection"])
def test_a_server_that_stops_answers_a_request_that_it_has_not_read(wire: Wire, name: str, before: bytes) -> None:
    """The kernel has taken it, so the client does not send it again. The answer says that it is the last one."""
    *_, answer = wire.say(REQUESTS[name], before_a_stop=before).split(b"HTTP/1.1 ")
    assert answer.startswith(b"200" if name == "a GET" else b"400")
    assert b"connection: close\r\n" in answer


@pytest.mark.parametrize("before", [b"", PAGE], ids=["a new connection", "a kept connection"])
def test_a_server_that_stops_ends_a_connection_without_a_request(wire: Wire, before: bytes) -> None:
    assert wire.say(before_a_stop=before).count(b"HTTP/1.1 ") == bool(before)


@pytest.mark.parametrize("stuck", [[True, False], [True, True]], ids=["one of two", "both"])
def test_a_new_connection_ends_one_that_still_sends_only_if_all_do(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, stuck: list[bool]
) -> None:
    """Of connections without a request. Such readers are so slow that a whole answer waits for them."""
    monkeypatch.setattr(HardenedProtocol, "limits", Limits(max_connections_per_address=2))
    readers = [Reader(stuck=each) for each in (*stuck, False)]

    async def play() -> None:
        for reader in readers:
            protocol = wire.connect(reader, ServerState())
            if reader is not readers[-1]:
                await wire._answered(protocol, PAGE, ServerState())
        assert [reader.ended for reader in readers] == [stuck[1], not stuck[1], False]
        for reader in readers:
            reader.protocol.connection_lost(None)

    asyncio.run(play())


@pytest.mark.parametrize("stuck", [True, False])
def test_who_takes_nothing_of_a_small_answer_loses_the_connection(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, stuck: bool
) -> None:
    """An answer below the limit of the buffer is complete for the server, and would wait for its client for ever."""
    monkeypatch.setattr(HardenedProtocol, "limits", Limits(write_seconds=0.05))  # type: ignore[arg-type]
    reader = Reader(stuck=stuck)

    async def play() -> None:
        protocol = wire.connect(reader, ServerState())
        await wire._answered(protocol, PAGE, ServerState())
        assert protocol._write_deadline is not None
        while protocol._write_deadline is not None and not reader.ended:
            await asyncio.sleep(0.01)
        assert reader.ended is stuck
        protocol.connection_lost(None)

    asyncio.run(asyncio.wait_for(play(), 60))


class Silent(Reader):
    """It takes nothing, so a connection that is closed does not end, as with a real transport."""

    def __init__(self) -> None:
        super().__init__(stuck=True)
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed


def test_who_takes_nothing_of_a_refusal_loses_the_connection(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a refusal that belongs to no request, and ends the connection."""
    monkeypatch.setattr("uponce.web.lingering._SECONDS", 0.01)
    monkeypatch.setattr(HardenedProtocol, "limits", Limits(write_seconds=0.05))  # type: ignore[arg-type]
    reader = Silent()

    async def play() -> None:
        protocol = wire.connect(reader, ServerState())
        protocol.data_received(b"no HTTP\r\n\r\n")
        while not (reader.closed and reader.ended):
            await asyncio.sleep(0.01)
        protocol.connection_lost(None)

    asyncio.run(asyncio.wait_for(play(), 60))
    assert reader.received().startswith(b"HTTP/1.1 400 ")


def test_bytes_in_place_of_others_are_no_sign_of_a_client_that_takes_nothing(wire: Wire) -> None:
    """A client took all that was unsent. Then the answer ended, with as many bytes more."""
    reader = Reader(stuck=True)

    async def play() -> None:
        protocol: Any = wire.connect(reader, ServerState())
        protocol._running = SimpleNamespace(response_complete=False, message_event=asyncio.Event())
        reader.write(b"bytes")
        protocol._watch_reader()
        reader._blocks.clear()
        reader.write(b"other")
        protocol._running.response_complete = True
        ended = []
        for _ in range(2):
            protocol._check_reader(*protocol._write_deadline._args)
            ended.append(reader.ended)
        assert ended == [False, True]
        protocol._running = None
        protocol.connection_lost(None)

    asyncio.run(play())
