"""Connections of one address: the oldest without a request makes room, and trusted proxies have no bound."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests.hostile.frame import PICTURE
from tests.server import Server

LIMIT = 20
PATIENT = {"UPONCE_HEAD_SECONDS": "600", "UPONCE_IDLE_SECONDS": "600"}  # only the number of connections ends one here


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def started(stack: ExitStack, folder: Path, **more: str) -> Server:
    env = PATIENT | {"UPONCE_MAX_CONNECTIONS_PER_ADDRESS": str(LIMIT)} | more
    return stack.enter_context(Server(folder / "data", env=env))


def connect(stack: ExitStack, server: Server, first: bytes = b"") -> socket.socket:
    made = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=60))
    made.sendall(first)
    return made


def uploading(stack: ExitStack, server: Server, nonce: int) -> socket.socket:
    """A connection on which the server waits for the bytes of a file: it has asked for them."""
    target = f"/v1_1/{server.cloud}/auto/upload?{urlencode(server.signed({'nonce': nonce}))}"
    head = f"PUT {target} HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n"
    made = connect(stack, server, head.encode())
    assert made.recv(65536).startswith(b"HTTP/1.1 100 ")
    return made


def is_open(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def test_silent_connections_keep_no_upload_out(stack: ExitStack, tmp_path: Path) -> None:
    server = started(stack, tmp_path)
    silent = [connect(stack, server, b"GET / HTTP/1.1\r\n") for _ in range(3 * LIMIT)]
    for number in range(5):
        assert server.post(server.signed({"nonce": str(number)}), PICTURE).status == 200
    still_open = [is_open(connection) for connection in silent]
    assert 0 < sum(still_open) <= LIMIT
    assert still_open == sorted(still_open), "the oldest end first"


def test_busy_connections_end_with_a_refusal_of_the_next_one(stack: ExitStack, tmp_path: Path) -> None:
    """An upload under way is never cut for a new connection."""
    server = started(stack, tmp_path)
    busy = [uploading(stack, server, number) for number in range(LIMIT)]
    refused = connect(stack, server)
    answer = b"".join(iter(lambda: refused.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 503 "), answer
    assert b"retry-after: 5" in answer
    assert b"20 connections of this address are in use" in answer
    assert all(map(is_open, busy))


def test_a_trusted_proxy_has_no_bound(stack: ExitStack, tmp_path: Path) -> None:
    server = started(stack, tmp_path, UPONCE_TRUSTED_PROXIES="127.0.0.1")
    silent = [connect(stack, server, b"GET / HTTP/1.1\r\n") for _ in range(3 * LIMIT)]
    assert server.post(server.signed(), PICTURE).status == 200
    assert all(map(is_open, silent))
