"""What ends a connection, and the answers that come before its end."""

import time

import pytest
import urllib3

from tests.web.test_protocol import (
    AMBIGUOUS,
    HEAD,
    HEAD_SECONDS,
    MEBIBYTE,
    Bare,
    bare,
    everything,
    get,
    statuses,
    up_to,
)
from uponce.core.policy import Limits

__all__ = ["bare"]

FOLLOWERS = {
    "what is no request": b"hello\r\n\r\n",
    "more bytes than the length says": b"lo world",
    "a request in two ways": HEAD + AMBIGUOUS["length and chunks"],
    "a request with a long path": get(f"/{'a' * 17_000}"),
    "many requests": get("/many") * 18,
}


@pytest.mark.parametrize("kind", FOLLOWERS)
def test_what_follows_a_whole_request_never_replaces_its_answer(bare: Bare, kind: str) -> None:
    """The request may be an upload that commits, and then its signature is spent."""
    received = bare.say(b"POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello" + FOLLOWERS[kind])
    assert statuses(received) == [200]
    assert b"connection: close" in received
    assert received.endswith(b"POST /whole 5")


@pytest.mark.proof
def test_a_head_over_the_limit_waits_for_the_answer_before_it(bare: Bare) -> None:
    whole = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
    received = bare.say(whole, HEAD + b"X: " + b"a" * (Limits().max_head_bytes + 8 * MEBIBYTE))
    assert statuses(received) == [200]  # and no reset, though the head ends long before its last byte
    assert b"connection: close" in received


@pytest.mark.proof
@pytest.mark.parametrize("rest", [b"a", b"ab"], ids=["more to come", "complete"])
def test_a_body_that_no_request_reads_has_a_deadline(bare: Bare, rest: bytes) -> None:
    with bare.connect() as client:
        client.sendall(b"GET /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
        assert up_to(client, b"GET /unread 0")
        begun = time.monotonic()
        client.sendall(rest)
        assert everything(client) == b""
        assert time.monotonic() - begun < HEAD_SECONDS + 3


@pytest.mark.parametrize("path", ["/refuse", "/account"])
def test_a_session_that_was_refused_while_it_wrote_can_go_on(bare: Bare, path: str) -> None:
    """The rest of a body goes past the parser, so no later request may come by this connection."""
    with urllib3.HTTPConnectionPool("127.0.0.1", bare.port, maxsize=1, retries=False, timeout=10) as session:
        refused = session.request("POST", path, body=bytes(30 * MEBIBYTE))
        assert (refused.status, refused.headers["connection"]) == (400, "close")
        assert session.request("GET", "/after").data == b"GET /after 0"
