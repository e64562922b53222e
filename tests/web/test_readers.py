"""Readers of a large answer: those that stall, those that are slow, and those that have gone."""

import re
import socket
import time

import pytest

from tests.web.bare_server import BLOCK, LARGE
from tests.web.test_protocol import CLIENT_SECONDS, MEBIBYTE, Bare, bare, get, impatient, running

__all__ = ["bare", "impatient"]


def read_download(client: socket.socket) -> int:
    """Bytes that come until the end, or until the connection breaks."""
    size = 0
    try:
        while size < LARGE and (block := client.recv(1024 * 1024)):
            size += len(block)
    except ConnectionResetError:
        pass
    return size


def test_nothing_more_is_read_for_a_reader_that_has_gone(bare: Bare) -> None:
    with socket.socket() as client:
        # The kernel would take up to tcp_rmem, here 32 MiB, that the client never reads.
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.settimeout(CLIENT_SECONDS)
        client.connect(("127.0.0.1", bare.port))
        client.sendall(get("/download"))
        client.recv(BLOCK)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    while not (found := re.findall(rb"downloaded ([0-9]+)", bare.say(get("/seen", close=True)))):
        time.sleep(0.01)
    assert 0 < int(found[-1]) < LARGE // BLOCK / 2


@pytest.mark.proof
def test_a_reader_that_stalls_is_dropped(impatient: Bare) -> None:
    with impatient.connect() as client:
        client.sendall(get("/download", close=True))
        until = time.monotonic() + 30
        while b"downloaded" not in impatient.say(get("/seen", close=True)) and time.monotonic() < until:
            time.sleep(0.1)
        assert read_download(client) < LARGE


@pytest.mark.proof
def test_a_reader_that_is_only_slow_gets_all() -> None:
    """Its pauses together are longer than a reader may stall."""
    with running(head_seconds=8) as bare, bare.connect() as client:
        client.sendall(get("/download", close=True))
        size = 0
        for step in range(1, 11):
            time.sleep(1)
            while size < step * 4 * MEBIBYTE:
                block = client.recv(MEBIBYTE)
                assert block, f"dropped after {size} bytes"
                size += len(block)
        assert size + read_download(client) >= LARGE
