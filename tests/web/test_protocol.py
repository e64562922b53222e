"""The HTTP server itself, over raw sockets: what it serves, and what it cuts off."""

import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from uponce.core.policy import Limits

ROOT = Path(__file__).parents[2]
HEAD_SECONDS = 1
PATIENT_SECONDS = 60
CLIENT_SECONDS = 50  # a connection that only a deadline ends is seen
MEBIBYTE = 1024 * 1024
FLOOD = 100 * MEBIBYTE
HEAD = b"POST /flood HTTP/1.1\r\nHost: a\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Bare:
    """A running bare_server."""

    pid: int
    port: int

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=CLIENT_SECONDS)

    def say(self, *blocks: bytes) -> bytes:
        """Send these bytes, and all that comes back until the server closes."""
        with self.connect() as client:
            for block in blocks:
                client.sendall(block)
            return everything(client)

    def peak_kib(self) -> int:
        found = re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{self.pid}/status").read_text())
        assert found is not None
        return int(found[1])

    def forget_peak(self) -> None:
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")


@pytest.fixture(scope="module")
def bare() -> Iterator[Bare]:
    """A server that cuts no client which the machine holds up for some seconds."""
    with running(PATIENT_SECONDS) as server:
        yield server


@pytest.fixture(scope="module")
def impatient() -> Iterator[Bare]:
    """A server whose deadlines a test waits for."""
    with running(HEAD_SECONDS) as server:
        yield server


@contextmanager
def running(head_seconds: int, *max_head_bytes: int) -> Iterator[Bare]:
    command = [sys.executable, "-m", "tests.web.bare_server", str(head_seconds), *map(str, max_head_bytes)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        server = Bare(process.pid, int(process.stdout.readline()))
        try:
            assert server.say(get("/warm", close=True)).endswith(b"GET /warm 0")
            yield server
        finally:
            process.kill()


def get(path: str, *, close: bool = False) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n{'Connection: close' if close else 'X: y'}\r\n\r\n".encode()


def everything(client: socket.socket) -> bytes:
    received = b""
    while block := client.recv(65_536):
        received += block
    return received


def up_to(client: socket.socket, end: bytes) -> bytes:
    """All that comes until it ends so; head and body may come in two packets."""
    received = b""
    while not received.endswith(end):
        block = client.recv(65_536)
        assert block, received
        received += block
    return received


def statuses(received: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)]


def begun(bare: Bare, start: bytes, before: bytes = b"", answer: bytes = b"") -> socket.socket:
    """A connection on which `before` was answered and `start` sent, all within the deadline of a head.

    A client that the machine holds up for longer may be cut before its first word. It tries again.
    """
    while True:
        at = time.monotonic()
        client = bare.connect()
        try:
            client.sendall(before)
            up_to(client, answer)
            client.sendall(start)
        except (AssertionError, OSError):
            if time.monotonic() - at < HEAD_SECONDS:
                raise
        if time.monotonic() - at < HEAD_SECONDS:
            return client
        client.close()


# What it serves.


def test_requests_of_a_kept_connection_are_answered_in_turn(bare: Bare) -> None:
    with bare.connect() as client:
        for number in range(5):
            client.sendall(get(f"/{number}"))
            assert up_to(client, f"GET /{number} 0".encode())


@pytest.mark.parametrize("step", [1, 7, 50, 10_000])
def test_pipelined_requests_are_answered_in_order(bare: Bare, step: int) -> None:
    text = b"".join(
        (
            get("/1"),
            b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
            CHUNKED.replace(b"flood", b"3") + b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-Trailer: t\r\n\r\n",
            *(get(f"/{number}") for number in range(4, 9)),
            get("/9", close=True),
        )
    )
    received = bare.say(*(text[start : start + step] for start in range(0, len(text), step)))
    found = re.findall(rb"(?:GET|POST) /(\d) (\d+)", received)
    assert [(int(path), int(size)) for path, size in found] == list(zip(range(1, 10), [0, 5, 5] + [0] * 6, strict=True))


def test_a_large_head_within_the_limit_is_fine(bare: Bare) -> None:
    padding = b"".join(b"X-%d: %s\r\n" % (number, b"v" * 8000) for number in range(7))
    received = bare.say(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + padding + b"\r\n")
    assert statuses(received) == [200]


def test_large_bodies_are_not_counted_as_heads(bare: Bare) -> None:
    body = bytes(5 * MEBIBYTE)
    sized = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
    pieces = b"".join(b"%x\r\n%s\r\n" % (100, body[:100]) for _ in range(3000)) + b"0\r\n\r\n"
    received = bare.say(sized, body, CHUNKED, pieces, get("/end", close=True))
    assert re.findall(rb"POST \S+ (\d+)", received) == [b"%d" % len(body), b"300000"]


def test_trailers_never_become_headers(bare: Bare) -> None:
    """They could change behind its back what a proxy in front has checked or set."""
    chunked = b"POST /headers HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    received = bare.say(chunked, b"1\r\na\r\n0\r\nX-Trailer: t\r\n\r\n")
    assert received.endswith(b"\r\n\r\nhost connection transfer-encoding")


@pytest.mark.proof
def test_a_body_and_an_answer_may_take_longer_than_a_head(impatient: Bare) -> None:
    """Also while the half head of the next request is there already."""
    with begun(impatient, b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na") as client:
        time.sleep(HEAD_SECONDS * 1.3)
        client.sendall(b"b")
        time.sleep(0.1)  # a separate read, which starts the deadline of the next head
        client.sendall(b"GET /half HT")
        received = b""
        while b"POST /slow 2" not in received:  # the refusal of the half head may come with it
            received += (block := client.recv(65_536))
            assert block, received


SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADES = {
    "h2c": b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": b"Connection: keep-alive, upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
}


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("kind", UPGRADES)
def test_an_upgrade_is_ignored_and_the_request_answered(bare: Bare, kind: str, step: int) -> None:
    """Its body is not read as a request, and the requests behind it are answered too."""
    head = b" HTTP/1.1\r\nHost: a\r\n" + UPGRADES[kind]
    text = b"".join(
        (
            b"POST /1" + head + b"Content-Length: %d\r\n\r\n" % len(SMUGGLED) + SMUGGLED,
            b"GET /2" + head + b"\r\n",
            b"POST /3" + head + b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX-T: t\r\n\r\n",
            get("/4", close=True),
        )
    )
    received = bare.say(*(text[start : start + step] for start in range(0, len(text), step)))
    found = re.findall(rb"(?:GET|POST) /(\S+) (\d+)", received)
    assert [(int(path), int(size)) for path, size in found] == [(1, len(SMUGGLED)), (2, 0), (3, 5), (4, 0)]


def test_a_request_with_an_upgrade_keeps_its_headers(bare: Bare) -> None:
    head = b"POST /headers HTTP/1.1\r\nHost: a\r\n" + UPGRADES["websocket"] + b"Content-Length: 2\r\n\r\nhi"
    received = bare.say(head + get("/end", close=True))
    assert b"\r\n\r\nhost connection upgrade sec-websocket-version content-lengthHTTP/1.1 200" in received


# What it cuts off.


def flood(client: socket.socket, start: bytes, repeated: bytes) -> tuple[int, bytes]:
    """Send until the server has had enough; how much that was, and its answer."""
    sent = client.send(start)
    block = memoryview(repeated * (65_536 // len(repeated)))
    try:
        while sent < FLOOD:
            sent += client.send(block)
    except (BrokenPipeError, ConnectionResetError):
        pass
    try:
        return sent, everything(client)
    except ConnectionResetError:
        return sent, b""


FLOODS = {
    "one header line": (HEAD + b"X: ", b"a"),
    "one header name": (HEAD, b"a"),
    "header lines": (HEAD, b"X-Header: value\r\n"),
    "short header lines": (HEAD, b"a:b\r\n"),
    "the address": (b"GET /", b"a"),
    "chunk extensions": (CHUNKED + b"1;", b"a"),
    "trailer lines": (CHUNKED + b"1\r\na\r\n0\r\n", b"a:b\r\n"),
    "one trailer line": (CHUNKED + b"1\r\na\r\n0\r\nX: ", b"a"),
    "pipelined requests": (b"", b"GET /slow HTTP/1.1\r\n\r\n"),
    "empty lines": (b"", b"\r\n"),
}


@pytest.mark.proof
@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_is_cut_early_with_flat_memory(bare: Bare, kind: str) -> None:
    """What the kernel's buffers take counts as sent. They hold about a mebibyte at most, see bare_server."""
    bare.forget_peak()
    before = bare.peak_kib()
    with bare.connect() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
        sent, _ = flood(client, *FLOODS[kind])
    assert sent < 8 * MEBIBYTE
    assert bare.peak_kib() - before < 8 * 1024
    assert bare.say(get("/after", close=True)).endswith(b"GET /after 0")


def test_a_head_over_the_limit_is_told_so(bare: Bare) -> None:
    """A client that sends little more than the limit, and then listens, can read why."""
    half = b"a" * (Limits().max_head_bytes // 2 + 100)
    with bare.connect() as client:
        client.sendall(HEAD + b"X: " + half)
        time.sleep(0.1)
        client.sendall(half)
        assert statuses(everything(client)) == [431]


def test_a_path_over_the_limit_is_told_so_and_a_query_may_be_longer(bare: Bare) -> None:
    for mark, status in (("", 414), ("?", 200)):
        answer = bare.say(get(f"/{mark}{'a' * 16384}", close=True))
        assert statuses(answer) == [status]
        assert (b"x-cld-error: The request's path is 16385 bytes long" in answer) == (status == 414)


def test_an_address_over_the_limit_of_the_parser_is_told_so() -> None:
    with running(PATIENT_SECONDS, 256 * 1024) as roomy:
        for size, status in ((65_535, 200), (65_536, 414)):
            answer = roomy.say(get(f"/?{'a' * (size - 2)}", close=True))
            assert statuses(answer) == [status]
            assert (b"address is 65536 bytes long, the limit is 65535. Shorten its query" in answer) == (status == 414)


@pytest.mark.parametrize("address", ["/é", "/?é", "/a\x01"])
def test_a_character_that_is_not_allowed_in_an_address_is_told_so(bare: Bare, address: str) -> None:
    """curl sends such an address as it is."""
    answer = bare.say(f"GET {address} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert statuses(answer) == [400]
    assert b"Percent-encode it, as %C3%A9" in answer
    assert b"valid HTTP/1.1" in bare.say(b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n")


def test_the_second_request_of_a_connection_has_the_same_limit(bare: Bare) -> None:
    with bare.connect() as client:
        client.sendall(get("/first"))
        assert statuses(client.recv(65_536)) == [200]
        client.sendall(HEAD + b"X: " + b"a" * (Limits().max_head_bytes + 100))
        assert statuses(everything(client)) == [431]


AMBIGUOUS = {
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "a list of lengths": b"Content-Length: 5, 5\r\n\r\nhello",
    "a signed length": b"Content-Length: +5\r\n\r\nhello",
    "a negative length": b"Content-Length: -5\r\n\r\nhello",
    "a huge length": b"Content-Length: 99999999999999999999999\r\n\r\nhello",
    "chunked is not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "a space before the colon": b"Content-Length : 5\r\n\r\nhello",
    "a huge chunk": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
    "a chunk size that is none": b"Transfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after a chunk": b"Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n",
    "a control character": b"X: a\0b\r\n\r\n",
    "a folded line": b"X: a\r\n b: c\r\n\r\n",
}


@pytest.mark.parametrize("kind", AMBIGUOUS)
def test_what_two_servers_could_read_differently_is_refused(bare: Bare, kind: str) -> None:
    """And what follows it on the connection is never taken for a request."""
    received = bare.say(HEAD + AMBIGUOUS[kind] + SMUGGLED)
    assert statuses(received) == [400]
    assert b"/smuggled" not in bare.say(get("/seen", close=True))


GARBAGE = [b"\x16\x03\x01\x02\x00\x01\x00", b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"GET \xff HTTP/1.1\r\n\r\n"]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_400(bare: Bare, garbage: bytes) -> None:
    received = bare.say(garbage)
    assert statuses(received) == [400]
    exposed = b"access-control-expose-headers: X-Cld-Error, X-Cld-Error-Code, Retry-After"
    assert b"\r\naccess-control-allow-origin: *\r\n%b\r\nx-cld-error: The request is not " % exposed in received


# Answers to clients that are still writing.
def post(bare: Bare, path: str, size: int) -> bytes:
    """As a simple client does it: write all, then read."""
    blocks: Iterable[bytes] = (bytes(MEBIBYTE) for _ in range(size // MEBIBYTE))
    head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode()
    return bare.say(head, *blocks)


def test_a_client_that_writes_first_reads_why_it_was_refused(bare: Bare) -> None:
    for _ in range(5):
        received = post(bare, "/refuse", 30 * MEBIBYTE)
        assert statuses(received) == [400]
        assert received.endswith(b'{"error":{"message":"Already used.","code":"signature_used"}}')


def test_what_a_refused_client_goes_on_to_write_is_handed_to_nobody(bare: Bare) -> None:
    """The control has no length, and is read in the ordinary way."""
    post(bare, "/refuse", 5 * MEBIBYTE)
    assert b"received for" not in bare.say(get("/seen", close=True))

    bare.say(b"POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n", b"2\r\nxx\r\n0\r\n\r\n")
    assert b"received for /refuse" in bare.say(get("/seen", close=True))


def test_a_client_reads_why_it_was_refused_also_if_no_descriptor_is_free(bare: Bare) -> None:
    before = bare.say(get("/seen", close=True)).count(b"refused /crowded")
    received = post(bare, "/crowded", 30 * MEBIBYTE)
    assert statuses(received) == [400]
    assert received.endswith(b'{"error":{"message":"Already used.","code":"signature_used"}}')
    assert bare.say(get("/seen", close=True)).count(b"refused /crowded") == before + 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_has_gone_before_it_is_refused_is_no_failure(bare: Bare, reset: bool) -> None:
    def count() -> int:
        return bare.say(get("/seen", close=True)).count(b"refused /late")

    before = count()
    with bare.connect() as client:
        client.sendall(b"POST /late HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nhello")
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until = time.monotonic() + 60
    while count() == before and time.monotonic() < until:
        time.sleep(0.05)
    assert count() == before + 1


def test_without_lingering_it_would_meet_a_reset_connection(bare: Bare) -> None:
    """The control of the test above."""
    with pytest.raises((ConnectionResetError, BrokenPipeError)):
        for _ in range(5):
            post(bare, "/reset", 30 * MEBIBYTE)
