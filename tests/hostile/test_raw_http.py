"""Requests that no client library would send, straight to the server and through the front servers that are shipped.

After each one an honest client uploads. `make test` counts: the upload is stored, and the server fails at nothing.
`make proof` measures: the upload waits for less than a second, also through Caddy and nginx. Other work on the machine
only adds time, so a slow upload is measured again after the same attack, nine times at most.
"""

import gzip
from collections.abc import Callable, Iterator
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.deployment import Caddy, Nginx
from tests.hostile.frame import Heard, Honest, needed, raw
from tests.server import Server

SETTINGS = {"UPONCE_LOG_LEVEL": "info"}
LONGEST_WAIT = 1.0
TRIES = 10

PATH = b"/v1_1/media/auto/upload"
FORM = b"Content-Type: multipart/form-data; boundary=b\r\n"
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
CHUNKED = FORM + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /healthz HTTP/1.1\r\nHost: a\r\n"


class Attack(NamedTuple):
    """Bytes to the host `a`, and what the server itself may answer. None: any 4xx."""

    data: bytes
    then: Literal["listen", "half-close", "reset"] = "half-close"
    allowed: frozenset[int] | None = None
    in_single_bytes: bool = False


def post(rest: bytes) -> bytes:
    return b"POST " + PATH + b" HTTP/1.1\r\nHost: a\r\n" + rest


def sized(body: bytes, length: int | None = None, kind: bytes = FORM) -> bytes:
    return post(kind + b"Content-Length: %d\r\n\r\n" % (len(body) if length is None else length) + body)


def headed(more: bytes) -> bytes:
    return GET + more + b"\r\n\r\n"


OK = frozenset({200})
ATTACKS: dict[str, Attack] = {
    "a chunk without a size": Attack(post(CHUNKED) + b"ZZ\r\n"),
    "a length of 5,000 zeros": Attack(
        post(FORM + b"Content-Length: " + b"0" * 5000 + b"5\r\nExpect: 100-continue\r\n\r\n")
    ),
    "a chunk of a negative size": Attack(post(CHUNKED) + b"-1\r\n"),
    "a chunk of a size beyond all numbers": Attack(post(CHUNKED) + b"F" * 40 + b"\r\n"),
    "a chunk of eight exabytes": Attack(post(CHUNKED) + b"7FFFFFFFFFFFFFFF\r\nx", "reset"),
    "a chunk that is longer than its size": Attack(post(CHUNKED) + b"2\r\nabcdef\r\n0\r\n\r\n"),
    "an extension of a chunk without an end": Attack(post(CHUNKED) + b"1;" + b"a" * 100_000),
    "half a chunk": Attack(post(CHUNKED) + b"5\r\nab"),
    "half a chunk, reset": Attack(post(CHUNKED) + b"5\r\nab", "reset"),
    "trailers without an end": Attack(post(CHUNKED) + b"0\r\n" + b"X: y\r\n" * 20_000),
    "a body shorter than its length": Attack(sized(FILE, 5000)),
    "a body shorter than its length, reset": Attack(sized(FILE, 5000), "reset"),
    "a length and chunks": Attack(post(FORM + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")),
    "two lengths": Attack(post(FORM + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello")),
    "a length with a sign": Attack(post(FORM + b"Content-Length: +5\r\n\r\nhello")),
    "a length beyond all numbers": Attack(post(FORM + b"Content-Length: " + b"9" * 40 + b"\r\n\r\nhello")),
    "chunks spelt otherwise": Attack(post(FORM + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n")),
    "lines that end in LF": Attack(b"GET /healthz HTTP/1.1\nHost: a\n\n", allowed=frozenset({200, 400})),
    "a folded header": Attack(headed(b"X: a\r\n b"), allowed=frozenset({200, 400})),
    "a NUL in a header": Attack(headed(b"X: a\0b")),
    "a NUL in the path": Attack(b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a NUL in the path, escaped": Attack(b"GET /media/raw/upload/%00 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a header name with a space": Attack(headed(b"X Y: a")),
    "a header without a name": Attack(headed(b": a")),
    "a path of 200 KB": Attack(b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a header of 200 KB": Attack(headed(b"X: " + b"a" * 200_000)),
    "20,000 headers": Attack(headed(b"\r\n".join(b"X%d: y" % number for number in range(20_000)))),
    "no host": Attack(b"GET /healthz HTTP/1.1\r\n\r\n", allowed=frozenset({200, 400})),
    "two hosts": Attack(headed(b"Host: b"), allowed=frozenset({200, 400})),
    "HTTP/0.9": Attack(b"GET /healthz\r\n\r\n", allowed=frozenset({200, 400})),
    "HTTP/1.0": Attack(b"GET /healthz HTTP/1.0\r\n\r\n", allowed=OK),
    "HTTP/2 without asking": Attack(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/9.9": Attack(b"GET /healthz HTTP/9.9\r\nHost: a\r\n\r\n", allowed=frozenset({200, 400, 505})),
    "no HTTP": Attack(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(500)),
    "a method of its own": Attack(b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a URL as the path": Attack(
        b"GET http://a/healthz HTTP/1.1\r\nHost: a\r\n\r\n", allowed=frozenset({200, 400, 404})
    ),
    "a tunnel": Attack(b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "all of the server": Attack(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", allowed=frozenset({200, 204, 400, 404, 405})),
    "an upgrade": Attack(
        headed(b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: eA=="),
        allowed=frozenset({200, 400, 426}),
    ),
    "a body that is announced and never sent": Attack(
        post(FORM + b"Content-Length: 99\r\nExpect: 100-continue\r\n\r\n"), "reset"
    ),
    "an expectation of its own": Attack(post(FORM + b"Content-Length: 0\r\nExpect: a-miracle\r\n\r\n")),
    "a packed body": Attack(sized(gzip.compress(FILE), kind=FORM + b"Content-Encoding: gzip\r\n")),
    "no boundary": Attack(sized(FILE, kind=b"Content-Type: multipart/form-data\r\n")),
    "two boundaries": Attack(sized(FILE, kind=b"Content-Type: multipart/form-data; boundary=b; boundary=c\r\n")),
    "a boundary of 5,000 characters": Attack(sized(FILE, kind=FORM.replace(b"=b", b"=" + b"b" * 5000))),
    "a form without an end": Attack(sized(FILE + b"abc")),
    "a form of boundaries alone": Attack(sized(b"--b\r\n" * 50_000)),
    "a part with 10,000 headers": Attack(sized(b"--b\r\n" + b"X: y\r\n" * 10_000 + b"\r\n")),
    "a part with a header of 200 KB": Attack(sized(b"--b\r\nX: " + b"a" * 200_000)),
    "10,000 empty fields": Attack(
        sized(b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\n\r\n' * 10_000 + b"--b--\r\n")
    ),
    "half a head": Attack(GET, "reset"),
    "a head in single bytes": Attack(headed(b"Connection: close"), "listen", OK, in_single_bytes=True),
    "1,000 requests at once": Attack((GET + b"\r\n") * 999 + headed(b"Connection: close"), "listen", OK),
    "an upload without a word of a grant": Attack(sized(FILE + b"x\r\n--b--\r\n")),
}


def launch(attack: Attack, base: str, wait: float) -> Heard:
    """To the host of this URL: a front server answers for no other. Ends after `wait` seconds of silence."""
    data = attack.data.replace(b"Host: a", b"Host: " + urlsplit(base).netloc.encode())
    pieces = [bytes([byte]) for byte in data] if attack.in_single_bytes else [data]
    return raw(base, *pieces, wait=wait, then=attack.then)


def harmless(server: Server, base: str, attack: Attack, upload: Callable[[], float]) -> tuple[Heard, float]:
    """Attack; an honest upload is stored after it, and the server has failed at nothing. Seconds of that upload."""
    before = len(server.output)
    # The server itself always ends the connection. A front server may leave it open.
    heard = launch(attack, base, 60.0 if base == server.base else 2.0)
    seconds = upload()
    assert "Traceback" not in server.output[before:], server.output[before:][-2000:]
    return heard, seconds


def slow_after(server: Server, base: str, upload: Callable[[], float]) -> list[str]:
    """The attacks after which an honest upload waits too long in each of the tries."""

    def waits_too_long(attack: Attack) -> bool:
        return harmless(server, base, attack, upload)[1] > LONGEST_WAIT

    return [name for name, attack in ATTACKS.items() if all(waits_too_long(attack) for _ in range(TRIES))]


@pytest.mark.parametrize("name", ATTACKS)
def test_it_is_refused_and_hurts_nobody(server: Server, honest: Honest, name: str) -> None:
    attack = ATTACKS[name]
    heard, _ = harmless(server, server.base, attack, honest.upload)
    allowed = attack.allowed or range(400, 500)
    assert [status for status in heard.statuses if status not in allowed] == [], heard.data[:500]
    assert heard.statuses or heard.closed, "an answer, or the end of the connection"


@pytest.mark.proof
def test_an_honest_upload_after_each_is_quick(server: Server, honest: Honest) -> None:
    assert slow_after(server, server.base, honest.upload) == []


@pytest.fixture(params=["caddy", "nginx"])
def front(request: pytest.FixtureRequest, server: Server) -> Iterator[str]:
    """The address of a front server with the file that is shipped, before this one server."""
    needed(request.param)
    program = Caddy() if request.param == "caddy" else Nginx()
    program.run([server])
    yield program.url
    program.stop()


@pytest.mark.proof
def test_an_honest_upload_behind_a_front_server_is_quick_after_each(server: Server, front: str) -> None:
    """A front server that took its one server for dead would make the honest wait, or fail."""
    honest = Honest(server, front)
    honest.upload()
    assert slow_after(server, front, honest.upload) == []
