"""What ends a connection, and the answers that come before its end."""

import re
import socket
import time
from contextlib import suppress
from pathlib import Path
from timeit import repeat

import pytest
import urllib3

from tests.web.test_protocol import (
    AMBIGUOUS,
    CHUNKED,
    CLIENT_SECONDS,
    HEAD,
    HEAD_SECONDS,
    MEBIBYTE,
    PATIENT_SECONDS,
    Bare,
    bare,
    begun,
    everything,
    get,
    impatient,
    statuses,
    up_to,
)
from uponce.core.policy import Limits

__all__ = ["bare", "impatient"]

TRIES = 3  # the shortest one counts: other work on the machine only adds time

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
    received = bare.say(whole + HEAD + b"X: " + b"a" * (Limits().max_head_bytes + 2 * MEBIBYTE))
    assert statuses(received) == [200]  # and no reset, though the head ends long before its last byte
    assert b"connection: close" in received


@pytest.mark.parametrize(("number", "status"), [(128, 200), (129, 431)])
def test_a_head_has_a_bound_on_its_headers(bare: Bare, number: int, status: int) -> None:
    """However short, each costs 200 bytes of memory for as long as the connection is idle."""
    received = bare.say(get("/after", close=True).replace(b"\r\n\r\n", b"\r\na:" * (number - 2) + b"\r\n\r\n"))
    assert statuses(received) == [status]
    assert (b"The request has more than 128 headers. Send fewer headers." in received) == (status == 431)


def test_the_next_request_of_a_connection_has_headers_of_its_own(bare: Bare) -> None:
    many = HEAD + b"a:\r\n" * 100 + b"\r\n"
    assert statuses(bare.say(many + many + get("/after", close=True))) == [200] * 3


@pytest.mark.parametrize(("size", "status"), [(1, 400), (16, 400), (24, 200)])
def test_a_body_in_tiny_chunks_ends_as_one_in_larger_chunks_does_not(bare: Bare, size: int, status: int) -> None:
    """Each chunk is a call of the loop, before which no upload of another client goes on."""
    chunk = b"%x\r\n%b\r\n" % (size, b"a" * size)
    head = CHUNKED.replace(b"flood HTTP/1.1", b"whole HTTP/1.1\r\nConnection: close")
    received = bare.say(head + chunk * 200_000 + b"0\r\n\r\n")
    assert statuses(received) == [status]
    assert (b"Send chunks of 24 bytes or more" in received) == (status == 400)


EARLY = {
    "a long path": (414, get(f"/{'a' * 17_000}")),
    "a large head": (431, HEAD + b"X: " + b"a" * (Limits().max_head_bytes + 100)),
    "what is no request": (400, b"hello\r\n\r\n"),
    "a chunk without a length": (400, CHUNKED + b"no\r\n"),
}


@pytest.mark.parametrize("kind", EARLY)
def test_a_client_that_writes_first_reads_a_refusal_that_came_before_its_end(bare: Bare, kind: str) -> None:
    """Without the moment in which the server drops bytes, the kernel resets the connection, at least in one of five."""
    status, refused = EARLY[kind]
    for _ in range(5):
        with bare.connect() as client:
            client.sendall(refused)
            assert client.recv(1, socket.MSG_PEEK)  # the server has answered
            for _ in range(3):
                client.sendall(b"a" * MEBIBYTE)
            received = everything(client)
        assert statuses(received) == [status]
        assert b"\r\nx-cld-error-code: malformed_request\r\n" in received


SOON = b"POST /soon HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
WHOLE = {
    "a request": (SOON, b"POST /soon 5"),
    "a request in chunks": (CHUNKED.replace(b"flood", b"soon") + b"5\r\nhello\r\n0\r\n\r\n", b"POST /soon 5"),
    "a request without a body": (get("/soon"), b"GET /soon 0"),
    "a large request": (
        b"POST /soon HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (5 * MEBIBYTE) + bytes(5 * MEBIBYTE),
        b"POST /soon %d" % (5 * MEBIBYTE),
    ),
    "a request and half of another": (SOON + b"POST /half HT", b"POST /soon 5"),
}


def half_closed(bare: Bare, sent: bytes) -> bytes:
    """All that comes back after the client has closed its sending side."""
    with bare.connect() as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        return everything(client)


def descriptors(bare: Bare) -> int:
    return len(list(Path(f"/proc/{bare.pid}/fd").iterdir()))


def answers(bare: Bare) -> int:
    """How many requests it has answered that SOON is like."""
    return bare.say(get("/seen", close=True)).count(b"POST /soon")


def assert_back_to(bare: Bare, number: int) -> None:
    """Nothing of the server stays open."""
    until = time.monotonic() + 60
    while (left := descriptors(bare)) > number and time.monotonic() < until:
        time.sleep(0.02)
    assert left <= number


@pytest.mark.parametrize("kind", WHOLE)
def test_a_client_that_half_closes_after_a_whole_request_gets_its_answer(bare: Bare, kind: str) -> None:
    before = descriptors(bare)
    sent, answer = WHOLE[kind]
    received = half_closed(bare, sent)
    assert statuses(received) == [200]
    assert b"connection: close" in received
    assert received.endswith(answer)
    assert_back_to(bare, before)


SEVERAL = {
    "two": (SOON * 2, [b"POST /soon 5"] * 2),
    "three, without a body": (get("/soon") + get("/2") + get("/3"), [b"GET /soon 0", b"GET /2 0", b"GET /3 0"]),
    "two and a half": (SOON * 2 + SOON[:-1], [b"POST /soon 5"] * 2),
    "one that closes, and another": (get("/soon", close=True) + get("/2"), [b"GET /soon 0"]),
}


@pytest.mark.parametrize("kind", SEVERAL)
def test_a_client_that_half_closes_after_several_requests_gets_all_answers(bare: Bare, kind: str) -> None:
    before = descriptors(bare)
    sent, answers = SEVERAL[kind]
    received = half_closed(bare, sent)
    assert statuses(received) == [200] * len(answers)
    assert re.findall(rb"(?:GET|POST) /\w+ \d+", received) == answers
    assert received.count(b"connection: close") == 1
    assert_back_to(bare, before)


CUT = {
    "amid a head": HEAD + b"X: ",
    "amid a small body": b"POST /whole HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhell",
    "amid a large body": b"POST /sum HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n" + bytes(5 * MEBIBYTE),
    "amid chunks": CHUNKED + b"5\r\nhello\r\n",
    "before a word": b"",
}


@pytest.mark.parametrize("kind", CUT)
def test_a_client_that_half_closes_amid_a_request_is_cut_at_once(bare: Bare, kind: str) -> None:
    before = descriptors(bare)
    begun = time.monotonic()
    assert half_closed(bare, CUT[kind]) == b""
    assert time.monotonic() - begun < PATIENT_SECONDS
    assert_back_to(bare, before)


def test_an_idle_connection_that_is_half_closed_ends(bare: Bare) -> None:
    before = descriptors(bare)
    with bare.connect() as client:
        client.sendall(get("/first"))
        assert up_to(client, b"GET /first 0")
        client.shutdown(socket.SHUT_WR)
        assert everything(client) == b""
    assert_back_to(bare, before)


def test_a_client_that_has_gone_leaves_nothing_open(bare: Bare) -> None:
    """The server cannot tell such a client from one that half-closes, until it answers."""
    before, answered = descriptors(bare), answers(bare)
    with bare.connect() as client:
        client.sendall(SOON)
    while answers(bare) == answered:
        time.sleep(0.02)
    assert_back_to(bare, before)


@pytest.mark.proof
@pytest.mark.parametrize(("before", "answer"), [(b"", b""), (get("/first"), b"GET /first 0")], ids=["first", "second"])
@pytest.mark.parametrize("start", [b"G", b"GET / HTTP/1.1\r\nHost: a\r\n", HEAD + b"X: y"])
def test_half_a_head_is_cut_at_the_deadline(impatient: Bare, before: bytes, answer: bytes, start: bytes) -> None:
    def cut() -> None:
        with begun(impatient, start, before, answer) as client:
            assert statuses(everything(client)) == [408]

    assert HEAD_SECONDS * 0.9 < min(repeat(cut, number=1, repeat=TRIES)) < HEAD_SECONDS + 3


@pytest.mark.proof
def test_dripping_bytes_do_not_extend_the_deadline(impatient: Bare) -> None:
    def cut() -> None:
        with begun(impatient, HEAD[:1]) as client:
            client.settimeout(0.1)
            for byte in HEAD[1:] + b"a" * 50:
                client.send(bytes([byte]))
                with suppress(TimeoutError):
                    assert statuses(client.recv(65_536)) == [408]
                    return
        raise AssertionError("it is still open")

    assert min(repeat(cut, number=1, repeat=TRIES)) < HEAD_SECONDS + 3


@pytest.mark.proof
def test_a_connection_without_a_word_is_closed_without_one(impatient: Bare) -> None:
    def cut() -> None:
        assert impatient.say() == b""

    assert HEAD_SECONDS * 0.9 < min(repeat(cut, number=1, repeat=TRIES)) < HEAD_SECONDS + 3


@pytest.mark.proof
@pytest.mark.parametrize("rest", [b"a", b"ab"], ids=["more to come", "complete"])
def test_a_body_that_no_request_reads_has_a_deadline(impatient: Bare, rest: bytes) -> None:
    def ended() -> None:
        head = b"GET /unread HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n"
        with begun(impatient, rest, head, b"GET /unread 0") as client:
            assert everything(client) == b""

    assert min(repeat(ended, number=1, repeat=TRIES)) < HEAD_SECONDS + 3


@pytest.mark.parametrize("path", ["/refuse", "/account"])
def test_a_session_that_was_refused_while_it_wrote_can_go_on(bare: Bare, path: str) -> None:
    """The rest of a body goes past the parser, so no later request may come by this connection."""
    with urllib3.HTTPConnectionPool(
        "127.0.0.1", bare.port, maxsize=1, retries=False, timeout=CLIENT_SECONDS
    ) as session:
        refused = session.request("POST", path, body=bytes(30 * MEBIBYTE))
        assert (refused.status, refused.headers["connection"]) == (400, "close")
        assert session.request("GET", "/after").data == b"GET /after 0"
