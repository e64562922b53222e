"""A connection that the server ends loses no answer, and no request that has arrived."""

import asyncio

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


def test_a_new_connection_ends_none_that_still_sends(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of connections without a request. The oldest one is a reader so slow that its whole answer waits."""
    monkeypatch.setattr(HardenedProtocol, "limits", Limits(max_connections_per_address=2))
    slow, idle, new = Reader(stuck=True), Reader(), Reader()

    async def play() -> None:
        protocols = [wire.connect(reader, ServerState()) for reader in (slow, idle)]
        await wire._answered(protocols[0], PAGE, ServerState())
        protocols.append(wire.connect(new, ServerState()))
        assert [reader.ended for reader in (slow, idle, new)] == [False, True, False]
        for protocol in protocols:
            protocol.connection_lost(None)

    asyncio.run(play())
