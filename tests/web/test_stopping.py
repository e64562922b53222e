"""A server that stops answers what has arrived, and keeps no connection."""

import pytest

from tests.web.wire import Wire, get
from tests.world import World

REQUESTS = {
    "a GET": get("/robots.txt"),
    "an upload": get("/v1_1/demo/upload", "Content-Length: 3", method="POST") + b"a=b",
}


@pytest.fixture
def wire(world: World, monkeypatch: pytest.MonkeyPatch) -> Wire:
    monkeypatch.setattr("uponce.web.protocol._FIRST_REQUEST_SECONDS", 0.05)
    return Wire(world, monkeypatch)


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_that_nothing_has_read_yet_is_answered(wire: Wire, name: str) -> None:
    """The kernel had taken it for the worker that stops. Its client would have lost a new connection for no reason."""
    assert wire.say(REQUESTS[name], stops=True).startswith(b"HTTP/1.1 ")


def test_a_connection_without_a_request_ends(wire: Wire) -> None:
    """A browser opens some ahead of time, and a server must not wait for them."""
    assert wire.say(stops=True) == b""
