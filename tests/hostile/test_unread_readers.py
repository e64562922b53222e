"""Clients that ask for large files and read nothing: what they hold, and what an honest upload waits beside them.

Also when all of them go at once: that must not cost the rest of each file.
"""

import re
import secrets
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.hostile.frame import MIB, Honest, Slow, Waits, budget, check_beside
from tests.server import Server

READERS = 2_000
SETTINGS = {"UPONCE_MAX_CONNECTIONS_PER_ADDRESS": str(READERS + 100), "UPONCE_DECODERS": "2"}
KIB = 1024


@pytest.fixture
def server(quick_path: Path) -> Iterator[Server]:
    """In memory: uploads that wait for a disk, which others use too, say nothing about readers."""
    with Server(quick_path / "data", env=SETTINGS) as server:
        yield server


def stored(server: Server, size: int) -> str:
    answer = server.post(server.signed({"nonce": secrets.token_hex(8)}), secrets.token_bytes(size), resource_type="raw")
    assert answer.status == 200, answer.data
    return urlsplit(str(answer.json()["url"])).path


def kernel_bytes() -> int:
    """What TCP of this machine holds in buffers, of both ends, and of other processes too."""
    match = re.search(r"^TCP: .* mem (\d+)$", Path("/proc/net/sockstat").read_text(), re.MULTILINE)
    assert match is not None
    return int(match[1]) * 4096


def narrow(server: Server) -> socket.socket:
    """A connection whose own system takes next to nothing, so that the server keeps the rest."""
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    reader.connect(("127.0.0.1", server.port))
    return reader


@pytest.mark.proof
@pytest.mark.parametrize("size", [104 * KIB, 256 * KIB, 8 * MIB])
def test_an_unread_reader_holds_little_and_costs_no_upload_its_time(server: Server, honest: Honest, size: int) -> None:
    request = f"GET {stored(server, size)} HTTP/1.1\r\nHost: a\r\n\r\n".encode()

    def attack() -> Waits:
        readers: list[socket.socket] = []
        before = kernel_bytes()
        with honest.beside() as waits, budget(server.pid) as cost:
            for _ in range(READERS):
                readers.append(narrow(server))
                readers[-1].sendall(request)
                time.sleep(0.002)  # no burst: this measures what unread readers cost, not what accepting them does
            time.sleep(3)
            kernel = kernel_bytes() - before
            for reader in readers:
                reader.close()
            time.sleep(1)
        assert cost.memory / READERS < 128 * KIB
        if kernel / READERS >= 512 * KIB:  # other processes only add to that
            raise Slow(f"the kernel holds {kernel / READERS / KIB:.0f} KiB for each reader")
        return waits

    check_beside(attack, worst=0.5)
