"""An answer that is known whole leaves with one system call, and is what uvicorn would have written."""

from types import SimpleNamespace
from typing import Any

import pytest

from tests.web.wire import Reader, Wire, get, without_id
from tests.world import World
from uponce.web import response
from uponce.web.response import Response

WHOLE = {
    "a page": get("/robots.txt"),
    "a head": get("/robots.txt", method="HEAD"),
    "nothing there": get("/demo/image/upload/dog.png"),
    "a preflight": get(
        "/v1_1/demo/upload", "Origin: https://a.example", "Access-Control-Request-Method: POST", method="OPTIONS"
    ),
    "a refused upload": get("/v1_1/demo/upload", "Content-Length: 3", method="POST") + b"a=b",
    "the last request": get("/robots.txt", "Connection: close"),
    "HTTP/1.0": get("/robots.txt", version="1.0"),
}


def test_it_is_written_at_once_as_uvicorn_writes_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = Wire(world, monkeypatch)
    wire.long_way = True
    for name, request in WHOLE.items():
        at_once, in_parts = Reader(), Reader()
        answer = without_id(wire.say(request, reader=at_once))
        with monkeypatch.context() as patch:
            patch.setattr(response, "_is_written", lambda *_: False)
            assert answer == without_id(wire.say(request, reader=in_parts)), name
        assert len(at_once._blocks) == 1, name


@pytest.mark.parametrize("header", [(b"x", b"a\r\nx: b"), (b"x", b"a\nb"), (b"x\rb", b"a"), (b"x", b"a\0")])
def test_a_header_that_would_break_the_answer_is_left_to_uvicorn(header: tuple[bytes, bytes]) -> None:
    cycle = SimpleNamespace(
        flow=SimpleNamespace(write_paused=False),
        disconnected=False,
        response_started=False,
        keep_alive=True,
        default_headers=[],
    )
    request: Any = SimpleNamespace(cycle=cycle, method="GET")
    assert not response._is_written(request, Response(200), (header, (b"content-length", b"0")))
