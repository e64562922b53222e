"""A small body is waited for: its request starts when all of it is there, or when that takes too long."""

import time
from collections.abc import Iterator

import pytest

from tests.web.test_protocol import HEAD_SECONDS, Bare, bare, begun, everything, get, impatient, up_to
from uponce.core.policy import Limits
from uponce.web import protocol
from uponce.web.protocol import HardenedProtocol

__all__ = ["bare", "impatient"]  # fixtures

SMALL = Limits().small_body_bytes


def head(size: int, path: str = "/messages", more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n{more}\r\n".encode()


@pytest.mark.parametrize("size", [1, 65_537, SMALL])
def test_a_small_body_in_many_pieces_comes_in_one_message(bare: Bare, size: int) -> None:
    with bare.connect() as client:
        client.sendall(head(size))
        for at in range(0, size, 50_000):
            client.sendall(b"x" * min(50_000, size - at))
            time.sleep(0.01)
        assert up_to(client, b"POST /messages 1")


def test_a_larger_body_is_read_as_it_arrives(bare: Bare) -> None:
    with bare.connect() as client:
        client.sendall(head(SMALL + 1) + b"x")
        time.sleep(0.1)
        client.sendall(b"x" * SMALL)
        answer = up_to_digits(client)
        assert not answer.endswith(b"POST /messages 1")


def up_to_digits(client: object) -> bytes:
    """All of an answer whose head shows its length."""
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.recv(65_536)  # type: ignore[attr-defined]
    start, _, body = received.partition(b"\r\n\r\n")
    length = int(start.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while len(body) < length:
        body += client.recv(65_536)  # type: ignore[attr-defined]
    return body


def test_a_slow_small_body_is_read_as_it_arrives(impatient: Bare) -> None:
    """After a second the request starts, under all limits of slow uploads; nothing of the body is lost."""
    with begun(impatient, head(10, "/total") + b"hello") as client:
        time.sleep(HEAD_SECONDS + 0.3)
        client.sendall(b"world")
        assert up_to(client, b"POST /total 10")


def test_what_has_arrived_of_a_slow_body_waits_for_no_further_byte(impatient: Bare) -> None:
    """A refusal comes at once, and the bytes leave the memory that is for bodies which are soon whole."""
    with begun(impatient, head(10, "/first") + b"hello") as client:
        assert up_to(client, b"POST /first 5")


def test_what_is_pipelined_behind_a_small_body_is_answered_after_it(bare: Bare) -> None:
    answer = bare.say(head(3, "/1") + b"abc" + head(2, "/2") + b"de" + get("/3", close=True))
    places = [answer.index(text) for text in (b"POST /1 3", b"POST /2 2", b"GET /3 0")]
    assert places == sorted(places)


def test_a_small_body_that_begins_behind_a_running_request_is_whole(bare: Bare) -> None:
    """Its first bytes arrive while the request before it is answered, and the rest comes later."""
    with bare.connect() as client:
        client.sendall(get("/soon") + head(10, "/total") + b"hello")
        assert up_to(client, b"GET /soon 0")
        client.sendall(b"world")
        assert up_to(client, b"POST /total 10")


def test_a_body_that_the_server_has_to_ask_for_is_asked_for(bare: Bare) -> None:
    with bare.connect() as client:
        client.sendall(head(5, "/asked", "Expect: 100-continue\r\n"))
        assert up_to(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"hello")
        assert up_to(client, b"POST /asked 5")


@pytest.mark.parametrize("end", [" ", "\t", " \t "])
def test_spaces_behind_a_value_are_no_part_of_it(bare: Bare, end: str) -> None:
    """RFC 9110 5.5: nginx and Caddy drop them, so a client without a proxy gets the same answer."""
    with bare.connect() as client:
        client.sendall(head(5, "/value", f"X-Value: two words{end}\r\nExpect: 100-continue{end}\r\n"))
        assert up_to(client, b"\r\n\r\n").startswith(b"HTTP/1.1 100 ")
        client.sendall(b"hello")
        assert up_to(client, b"[two words]")


def test_a_client_that_leaves_amid_a_small_body_is_noticed(bare: Bare) -> None:
    def left() -> int:
        return bare.say(get("/seen", close=True)).count(b"gone")

    before = left()
    with bare.connect() as client:
        client.sendall(head(100) + b"x")
    until = time.monotonic() + 60
    while left() == before and time.monotonic() < until:
        time.sleep(0.05)
    assert left() == before + 1


@pytest.fixture
def full() -> Iterator[None]:
    HardenedProtocol._gathered_bytes = protocol._MOST_GATHERED_BYTES
    yield
    HardenedProtocol._gathered_bytes = 0


class Cycle:
    """What the protocol asks of a request."""

    waiting_for_100_continue = False
    body = bytearray()

    def __init__(self, *headers: tuple[bytes, bytes]) -> None:
        self.scope = {"headers": list(headers)}


def gathers(*headers: tuple[bytes, bytes]) -> bool:
    waits = HardenedProtocol._gather(HardenedProtocol.__new__(HardenedProtocol), Cycle(*headers))  # type: ignore[arg-type]
    if waits:
        HardenedProtocol._gathered_bytes -= int(dict(headers)[b"content-length"])
    return waits


def test_only_a_body_of_a_known_small_size_is_waited_for() -> None:
    assert gathers((b"content-length", b"1"))
    assert gathers((b"content-length", str(SMALL).encode()))
    assert not gathers((b"content-length", str(SMALL + 1).encode()))
    assert not gathers((b"content-length", b"0"))
    assert not gathers((b"transfer-encoding", b"chunked"))


@pytest.mark.usefixtures("full")
def test_no_more_than_so_many_bytes_are_waited_for() -> None:
    assert not gathers((b"content-length", b"1"))


def test_a_connection_that_closes_gives_its_share_back(bare: Bare) -> None:
    """As many as would fill it twice over, one after the other: each is answered in one message."""
    for _ in range(2 * protocol._MOST_GATHERED_BYTES // SMALL):
        with bare.connect() as client:
            client.sendall(head(SMALL) + b"x")
    with bare.connect() as client:
        client.sendall(head(2, "/messages", "Connection: close\r\n") + b"x")
        bare.say(get("/after", close=True))  # the server has read this byte, and all before it
        client.sendall(b"x")
        assert everything(client).endswith(b"POST /messages 1")
