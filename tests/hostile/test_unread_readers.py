"""Clients that ask for large files and read nothing: what they hold, and what an honest upload waits beside them."""

import re
import secrets
import socket
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hostile.frame import MIB, Honest, budget, dial
from tests.server import Server

READERS = 500
KIB = 1024


def stored(server: Server, size: int) -> str:
    answer = server.post(server.signed({"nonce": secrets.token_hex(8)}), secrets.token_bytes(size), resource_type="raw")
    assert answer.status == 200, answer.data
    return urlsplit(str(answer.json()["url"])).path


def kernel_bytes() -> int:
    """What TCP of this machine holds in buffers, of both ends."""
    match = re.search(r"^TCP: .* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 4096


@pytest.mark.proof
@pytest.mark.parametrize("size", [100 * KIB, 8 * MIB])
def test_an_unread_reader_holds_little_and_costs_no_upload_its_time(server: Server, honest: Honest, size: int) -> None:
    request = f"GET {stored(server, size)} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    readers: list[socket.socket] = []
    before = kernel_bytes()
    with honest.beside() as waits, budget(server.pid) as cost:
        for _ in range(READERS):
            readers.append(dial(server.base))
            readers[-1].sendall(request)
            time.sleep(0.002)  # no burst: what is measured is what unread readers cost, not what accepting them does
        time.sleep(3)
    kernel = kernel_bytes() - before
    for reader in readers:
        reader.close()
    waits.check(worst=0.5)
    assert cost.memory / READERS < 128 * KIB
    assert kernel / READERS < 512 * KIB
