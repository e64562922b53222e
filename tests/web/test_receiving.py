"""Large bodies, which do not pass the parser: not a byte lost, moved or read too far, however they come and end."""

import hashlib
import random
import re
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from proof.faults.clients import FORM_TAIL, form_head
from tests.server import Server
from tests.web.test_protocol import CLIENT_SECONDS, Bare, bare, everything, get, statuses, up_to
from uponce.web import receiving
from uponce.web.receiving import BLOCK_BYTES, Block, LargeBody, _Pool

__all__ = ["bare"]

BODY = random.Random(1).randbytes(5 * BLOCK_BYTES + 12_345)
SUM = hashlib.sha256(BODY).hexdigest().encode()


def post(path: str, body: bytes = BODY, more: str = "") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n{more}\r\n".encode()


def sums(received: bytes) -> list[bytes]:
    return re.findall(rb"[0-9a-f]{64}", received)


# What it brings.


@pytest.mark.parametrize("length", [BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 2 * BLOCK_BYTES, len(BODY)])
@pytest.mark.parametrize("behind", [b"", post("/sum") + BODY, post("/2", b"hello") + b"hello"])
def test_all_bytes_come_and_the_next_request_too(bare: Bare, length: int, behind: bytes) -> None:
    body = BODY[:length]
    received = bare.say(post("/sum", body) + body + behind + get("/end", close=True))
    assert sums(received)[0] == hashlib.sha256(body).hexdigest().encode()
    assert statuses(received) == [200] * (3 if behind else 2)
    assert received.endswith(b"GET /end 0")
    if behind.startswith(b"POST /sum"):
        assert sums(received)[1] == SUM


def test_two_at_once_on_one_connection_come_in_order(bare: Bare) -> None:
    other = BODY[::-1]
    with ThreadPoolExecutor(1) as pool, bare.connect() as client:
        sending = pool.submit(client.sendall, (post("/sum") + BODY + post("/sum") + other) * 2 + get("/e", close=True))
        received = everything(client)
        sending.result()
    assert sums(received) == [SUM, hashlib.sha256(other).hexdigest().encode()] * 2


@pytest.mark.parametrize("behind", [b"hello", BODY])
@pytest.mark.parametrize("beyond", [20_000, 80_000, 140_000, 200_000])
def test_the_end_of_a_body_may_come_with_the_next_request(bare: Bare, beyond: int, behind: bytes) -> None:
    """In one read, while the application is busy with the bytes before."""
    body = BODY[: BLOCK_BYTES + beyond]
    received = bare.say(post("/pauses", body) + body + post("/sum", behind) + behind + get("/end", close=True))
    assert sums(received) == [hashlib.sha256(each).hexdigest().encode() for each in (body, behind)]
    assert received.endswith(b"GET /end 0")


@pytest.mark.parametrize("step", [1, 999, 70_000])
def test_a_slow_body_comes_as_well(bare: Bare, step: int) -> None:
    """In small steps at its end, where the parser takes over again."""
    with bare.connect() as client:
        client.sendall(post("/sum") + BODY[: -50 * step])
        for start in range(len(BODY) - 50 * step, len(BODY), step):
            time.sleep(0.002)
            client.sendall(BODY[start : start + step])
        assert up_to(client, SUM)


def test_a_client_that_waits_for_100_continue_gets_it(bare: Bare) -> None:
    with bare.connect() as client:
        client.sendall(post("/sum", more="Expect: 100-continue\r\n"))
        assert up_to(client, b"HTTP/1.1 100 Continue\r\n\r\n")
        client.sendall(BODY)
        assert up_to(client, SUM)


def test_an_old_client_gets_its_connection_closed(bare: Bare) -> None:
    received = bare.say(post("/sum").replace(b"HTTP/1.1", b"HTTP/1.0") + BODY)
    assert received.endswith(SUM)


# How it ends.


def wait_for(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.parametrize("reset", [False, True])
def test_a_body_that_ends_early_is_a_lost_connection(bare: Bare, reset: bool) -> None:
    def ended() -> int:
        return bare.say(get("/seen", close=True)).count(b"disconnected from /sum")

    before = ended()
    with bare.connect() as client:
        client.sendall(post("/sum") + BODY[: 3 * BLOCK_BYTES + 5])
        time.sleep(0.1)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    wait_for(lambda: ended() > before)


def test_a_refusal_amid_the_body_is_heard(bare: Bare) -> None:
    received = bare.say(post("/drop") + BODY)
    assert statuses(received) == [400]
    assert b"Already used." in received


def test_an_answer_amid_the_body_leaves_the_connection_usable(bare: Bare) -> None:
    received = bare.say(post("/half") + BODY + post("/sum") + BODY + get("/end", close=True))
    assert statuses(received) == [200, 200, 200]
    assert sums(received)[1] == SUM


def test_a_request_that_does_not_read_makes_the_client_wait(bare: Bare) -> None:
    size = 64 * BLOCK_BYTES
    bare.forget_peak()
    idle = bare.peak_kib()
    with ThreadPoolExecutor(1) as pool, bare.connect() as client:
        pool.submit(client.sendall, post("/stall", bytes(size)) + bytes(size))
        assert statuses(client.recv(65_536)) == [200]
        client.shutdown(socket.SHUT_RDWR)
    assert bare.peak_kib() - idle < 6 * BLOCK_BYTES // 1024


def test_a_block_counts_until_no_one_has_it() -> None:
    pool = _Pool(2)
    first, second = pool.take(), pool.take()
    assert first is not None
    assert second is not None
    assert pool.take() is None
    view = memoryview(first)[:3]
    del first
    assert pool.take() is None
    view.release()
    del view
    assert pool.take() is not None


def test_no_block_is_filled_while_another_object_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """However the interpreter counts: in Python 3.14 a local variable borrows its reference."""
    monkeypatch.setattr(sys, "getrefcount", lambda _: 3)
    pool = _Pool(8)
    on_the_way = [pool.take() for _ in range(8)]  # to the disk
    assert None not in on_the_way
    assert len({id(block) for block in on_the_way}) == 8


@pytest.mark.parametrize("crowd", [0, 8])
def test_a_block_that_is_not_full_stays_except_in_a_crowd(crowd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its bytes were copied. Making a block for each packet would cost a slow upload a third more."""
    pool = _Pool(32)
    monkeypatch.setattr(receiving, "POOL", pool)
    body = LargeBody(MagicMock(body_bytes=0), MagicMock(), 5 * BLOCK_BYTES)
    pool.users.add(body)
    view = body.get_buffer(-1)
    view[:3] = b"abc"
    body.buffer_updated(3)
    for other in range(crowd):
        pool.users.add(other)  # type: ignore[arg-type]
    assert body._take() == b"abc"
    assert (body.get_buffer(-1).obj is view.obj) == (not crowd)


def test_a_crowd_gets_small_pieces_and_gives_its_blocks_back() -> None:
    pool = _Pool(32)
    users = [object() for _ in range(64)]
    for user in users[:8]:
        pool.users.add(user)  # type: ignore[arg-type]
    kept = pool.take()
    assert kept is not None
    pool.users.add(users[8])  # type: ignore[arg-type]
    assert pool.take() is None
    assert len(pool.piece()) == 2 * 1024 * 1024 // (9 * 4)
    for user in users[9:]:
        pool.users.add(user)  # type: ignore[arg-type]
    assert len(pool.piece()) == 8 * 1024
    for user in users[8:]:
        pool.users.discard(user)
    again = pool.take()
    assert again is not None
    assert again is not kept


def test_a_block_behind_no_bytes_is_itself() -> None:
    block = Block(b"abc")
    assert id(b"" + block) == id(bytearray() + block) == id(block)
    assert b"x" + block == b"xabc"
    assert bytearray(b"x") + block == b"xabc"
    assert block == b"abc"


# The rules of an upload hold amid a large body.


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    env = {
        "UPONCE_ATTEMPTS_PER_GRANT": "1",
        "UPONCE_MAX_RAW_BYTES": str(8 * BLOCK_BYTES),
        "UPONCE_METRICS_TOKEN": "0123456789abcdef0123456789abcdef",
    }
    with Server(tmp_path_factory.mktemp("strict") / "data", env=env) as server:
        yield server


def begun(server: Server, fields: dict[str, str], length: int, sent: int) -> socket.socket:
    """An upload of so many bytes of which some are sent."""
    client = socket.create_connection(("127.0.0.1", server.port), timeout=CLIENT_SECONDS)
    client.sendall(form_head(server, fields, length, "raw") + (BODY + BODY)[:sent])
    return client


def answer(client: socket.socket) -> bytes:
    with client:
        received = b""
        while b"}" not in received.partition(b"\r\n\r\n")[2] and (block := client.recv(65_536)):
            received += block
        return received


def spooled(server: Server) -> list[Path]:
    return list((server.data_dir / "media/spool").iterdir())


def test_a_client_that_falls_silent_is_refused(tmp_path: Path) -> None:
    with Server(tmp_path / "data", env={"UPONCE_IDLE_SECONDS": "1"}) as server:
        client = begun(server, server.signed({"nonce": "idle"}), len(BODY), 3 * BLOCK_BYTES)
        received = answer(client)
        assert statuses(received) == [400], received
        assert b"No byte of the body arrived for 1 seconds" in received
        assert b"\r\nretry-after: 1\r\n" in received
        assert spooled(server) == []


def test_a_newer_upload_displaces_it(strict: Server) -> None:
    fields = strict.signed({"nonce": "newer"})
    older = begun(strict, fields, len(BODY), 3 * BLOCK_BYTES)
    wait_for(lambda: bool(spooled(strict)))  # its first bytes are on the disk: the server has taken it up
    newer = begun(strict, fields, len(BODY), 4 * BLOCK_BYTES)
    assert b"A newer upload with this signature replaced this one" in answer(older)
    newer.sendall(BODY[4 * BLOCK_BYTES :] + FORM_TAIL)
    assert statuses(answer(newer)) == [200]
    assert spooled(strict) == []


def test_a_file_that_grows_too_large_is_refused_while_it_comes(strict: Server) -> None:
    client = begun(strict, strict.signed({"nonce": "large"}), 100 * BLOCK_BYTES, 9 * BLOCK_BYTES)
    received = answer(client)
    assert statuses(received) == [400], received
    assert b"file_too_large" in received
    assert spooled(strict) == []


def counted(server: Server) -> int:
    bearer = {"Authorization": "Bearer 0123456789abcdef0123456789abcdef"}
    text = server.get("/metrics", headers=bearer).data
    found = re.search(rb"^uponce_upload_received_bytes_total (\S+)$", text, re.MULTILINE)
    assert found is not None, text
    return int(float(found[1]))


def test_its_bytes_are_counted(strict: Server) -> None:
    before, fields = counted(strict), strict.signed({"nonce": "counted"})
    body = form_head(strict, fields, len(BODY), "raw").partition(b"\r\n\r\n")[2] + BODY + FORM_TAIL
    with begun(strict, fields, len(BODY), len(BODY)) as client:
        client.sendall(FORM_TAIL)
        assert statuses(answer(client)) == [200]
    assert counted(strict) - before == len(body)


@pytest.mark.parametrize("length", [1000, 400_000, len(BODY), 20 * BLOCK_BYTES], ids=str)
@pytest.mark.parametrize("refused", ["before its first byte", "at its signature", "at its size"])
def test_the_bytes_of_a_refused_body_are_counted(strict: Server, refused: str, length: int) -> None:
    """Also those that no code reads, wherever they are when the refusal comes: in memory, or still on the way."""
    fields = strict.signed({"nonce": f"{refused} {length}", **({"max_bytes": "900"} if "size" in refused else {})})
    if "signature" in refused:
        fields["signature"] = "0" * 40
    more = {"Connection": "close", **({"Content-Encoding": "gzip"} if "first" in refused else {})}
    head = form_head(strict, fields, length, "raw", headers=more)
    before, body = counted(strict), head.partition(b"\r\n\r\n")[2] + bytes(length) + FORM_TAIL
    with socket.create_connection(("127.0.0.1", strict.port), timeout=CLIENT_SECONDS) as client:
        client.sendall(head + bytes(length) + FORM_TAIL)
        assert statuses(everything(client)) == [400 + ("signature" in refused)]
    assert counted(strict) - before == len(body)
