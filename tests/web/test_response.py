"""Answers: their shape, their headers, and that a client that is still writing gets to read them."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from tests.web.bare import request, send_error
from uponce.app.unbroken import finish_unbroken
from uponce.core.errors import BadCredentials, DatabaseUnavailable, NotFound, SignatureUsed, StorageFull, UponceError
from uponce.web import response
from uponce.web.discarding import CYCLE, DISCARD
from uponce.web.request import Message
from uponce.web.response import Response, json_response, send_response

MORE: Message = {"type": "http.request", "body": b"x", "more_body": True}
LAST: Message = {"type": "http.request", "body": b"x", "more_body": False}
GONE: Message = {"type": "http.disconnect"}


class Wire:
    """Records sends and receives in their order; a client that has nothing more to say stays silent."""

    def __init__(self, incoming: Iterable[Message] = ()) -> None:
        self.incoming = iter(incoming)
        self.order: list[str] = []
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        self.order.append("receive")
        message = next(self.incoming, None)
        if message is None:
            await asyncio.Event().wait()
        assert message is not None
        return message

    async def send(self, message: Message) -> None:
        self.order.append("end" if self.sent and not message.get("more_body") else "send")
        self.sent.append(message)

    @property
    def headers(self) -> dict[str, str]:
        found = [(name.decode(), value.decode("latin-1")) for name, value in self.sent[0]["headers"]]
        assert len(dict(found)) == len(found), "a header stands twice"
        return dict(found)

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.sent[1:])


def refuse(
    error: UponceError, incoming: Iterable[Message] = (), *, method: str = "POST", complete: bool = True, **more: Any
) -> Wire:
    wire = Wire(incoming)
    scope = {"type": "http", "method": method, "state": {"request_id": "f" * 32}}
    asyncio.run(send_error(scope, wire.receive, wire.send, error, body_complete=complete, **more))
    return wire


def test_an_error_has_the_shape_that_sdks_surface() -> None:
    wire = refuse(SignatureUsed("Already used at 10:00."))
    assert wire.sent[0]["status"] == 400
    assert json.loads(wire.body) == {"error": {"message": "Already used at 10:00.", "code": "signature_used"}}
    assert wire.headers == {
        "content-type": "application/json; charset=utf-8",
        "content-length": str(len(wire.body)),
        "cache-control": "no-store",
        "x-content-type-options": "nosniff",
        "x-cld-error": "Already used at 10:00.",
        "x-cld-error-code": "signature_used",
        "x-request-id": "f" * 32,
    }
    assert wire.order == ["send", "end"]


def test_who_may_try_again_is_told_when() -> None:
    assert refuse(DatabaseUnavailable("Later.", retry_after=7)).headers["retry-after"] == "7"


def test_credentials_are_asked_for_where_they_are_wrong() -> None:
    wire = refuse(BadCredentials("Who are you?"))
    assert wire.sent[0]["status"] == 401
    assert wire.headers["www-authenticate"] == 'Basic realm="uponce"'
    assert "www-authenticate" not in refuse(NotFound("No.")).headers


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("größer als 10 MB", "gr??er als 10 MB"),
        ("a\r\nSet-Cookie: x=1", "a??Set-Cookie: x=1"),
        ("tab\tnul\0del\x7f", "tab?nul?del?"),
        ("図" * 3, "???"),
        ("x" * 5000, "x" * 500),
    ],
)
def test_the_header_is_one_short_line_of_ascii_and_the_body_tells_all(message: str, shown: str) -> None:
    wire = refuse(NotFound(message))
    assert wire.headers["x-cld-error"] == shown
    assert json.loads(wire.body)["error"]["message"] == message


def test_a_status_and_headers_may_be_given() -> None:
    wire = refuse(NotFound("Use GET."), status=405, headers=[(b"allow", b"GET")])
    assert (wire.sent[0]["status"], wire.headers["allow"]) == (405, "GET")


@pytest.mark.parametrize("complete", [True, False])
def test_head_gets_the_headers_without_the_body(complete: bool) -> None:
    wire = refuse(NotFound("No."), [LAST], method="HEAD", complete=complete)
    assert wire.body == b""
    assert int(wire.headers["content-length"]) > 0


def test_a_get_without_a_body_keeps_its_connection() -> None:
    """There is nothing unread that a reset could hide."""
    wire = refuse(NotFound("No."), method="GET", complete=False)
    assert "connection" not in wire.headers
    assert len(wire.sent) == 2


def test_json_is_sent_whole() -> None:
    for method, body in (("GET", '{"a":"ä"}'.encode()), ("HEAD", b"")):
        wire = Wire()
        asked = request({"type": "http", "method": method}, wire.receive)
        asyncio.run(send_response(asked, json_response({"a": "ä"}, headers=[(b"x-more", b"1")]), wire.send))
        assert wire.body == body
        assert (wire.headers["content-length"], wire.headers["x-more"]) == ("10", "1")


@pytest.mark.parametrize("last", [LAST, GONE], ids=["the body ends", "the client is gone"])
def test_a_body_that_was_not_read_is_dropped_between_the_answer_and_its_end(last: Message) -> None:
    wire = refuse(SignatureUsed("No."), [MORE, MORE, last, MORE], complete=False)
    assert wire.order == ["send", "send", "receive", "receive", "receive", "end"]
    assert len(wire.sent[1]["body"]) == int(wire.headers["content-length"])
    assert wire.sent[2]["body"] == b""
    assert wire.headers["connection"] == "close"


def test_a_file_is_read_no_further_when_its_reader_has_gone() -> None:
    cycle, wire, blocks = SimpleNamespace(disconnected=False, more_body=False), Wire(), iter((b"1", b"2", b"3"))
    cycle.transport = SimpleNamespace(is_closing=lambda: len(wire.sent) > 2)

    async def read() -> AsyncIterator[bytes]:
        for block in blocks:
            yield block

    asked = request({"type": "http", "method": "GET", "extensions": {CYCLE: cycle}}, wire.receive)
    asyncio.run(send_response(asked, Response(200, body=read()), wire.send))
    assert (wire.body, list(blocks)) == (b"1", [b"2", b"3"])


@pytest.mark.parametrize("sized", [True, False], ids=["of a known length", "chunked"])
def test_a_server_that_can_discard_a_body_is_asked_to(sized: bool) -> None:
    """A body of unknown length is read to its end in the ordinary way."""
    wire, asked = Wire([LAST]), []

    async def discard(length: int, *_: object) -> bool:
        asked.append(length)
        assert wire.order == ["send", "send"]
        return True

    framing = (b"content-length", b"1000") if sized else (b"transfer-encoding", b"chunked")
    scope = {"type": "http", "method": "POST", "headers": [framing], "extensions": {DISCARD: discard}}
    asyncio.run(send_error(scope, wire.receive, wire.send, SignatureUsed("No."), body_complete=False))

    assert (asked, "receive" in wire.order) == (([1000], False) if sized else ([], True))
    assert wire.order[-1] == "end"


def test_a_body_that_the_server_cannot_discard_now_is_read() -> None:
    wire = Wire([MORE, LAST])

    async def discard(length: int, *_: object) -> bool:
        return False

    framing = (b"content-length", b"1000")
    scope = {"type": "http", "method": "POST", "headers": [framing], "extensions": {DISCARD: discard}}
    asyncio.run(send_error(scope, wire.receive, wire.send, SignatureUsed("No."), body_complete=False))
    assert wire.order == ["send", "send", "receive", "receive", "end"]


def test_a_server_that_stops_drops_the_rest_of_a_body_first() -> None:
    """Its last connections are cut right after. A client that sends all before it reads would get no reason."""
    dropped = asyncio.Event()

    async def discard(length: int, *_: object) -> bool:
        await dropped.wait()
        return True

    async def play() -> None:
        wire = Wire()
        headers = [(b"content-length", b"1000")]
        scope = {"type": "http", "method": "POST", "headers": headers, "extensions": {DISCARD: discard}}
        answer = asyncio.create_task(
            send_error(scope, wire.receive, wire.send, SignatureUsed("No."), body_complete=False)
        )
        while wire.order != ["send", "send"]:
            await asyncio.sleep(0)
        stop = asyncio.create_task(finish_unbroken(60))
        for _ in range(100):
            await asyncio.sleep(0)
        assert not stop.done()
        dropped.set()
        await asyncio.gather(stop, answer)

    asyncio.run(asyncio.wait_for(play(), 60))


def test_a_silent_client_is_waited_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "LINGER_IDLE_SECONDS", 0.05)
    wire = refuse(SignatureUsed("No."), [MORE], complete=False)
    assert wire.order == ["send", "send", "receive", "receive", "end"]


def test_a_client_that_never_ends_is_left_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(response, "LINGER_SECONDS", 4.5)
    seconds = 0

    class Endless(Wire):
        async def receive(self) -> Message:
            nonlocal seconds
            seconds += 1  # by the clock of the loop
            await asyncio.sleep(0)
            self.order.append("receive")
            return MORE

    async def play() -> Endless:
        wire, scope = Endless(), {"type": "http", "method": "POST"}
        monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: seconds)
        await asyncio.wait_for(send_error(scope, wire.receive, wire.send, NotFound("No."), body_complete=False), 10)
        return wire

    wire = asyncio.run(play())
    assert wire.order.count("receive") > 3
    assert wire.order[-1] == "end"


def test_the_detail_is_for_the_log_only() -> None:
    wire = refuse(StorageFull("No space.", detail="[Errno 28] /data"))
    assert b"Errno" not in wire.body
    assert "Errno" not in str(wire.headers)
