"""Fast uploads beside many slow ones, which share the memory: buffers are then smaller than what arrives at once.

What is delivered must be the bytes that were sent, and the answer must have their MD5.
"""

import hashlib
import random
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from urllib3 import encode_multipart_formdata

from tests.server import Server

pytestmark = pytest.mark.proof

CROWD = 150  # above 64, buffers shrink below what goes to the lanes
BEGUN_BYTES, FAST_BYTES = 20_000, 8_000_000
SMALL, LARGE = 900_000, 1_900_000  # the bodies of more than eight large uploads arrive in small pieces
TRIES = 40
MOST_TRIES = 300  # of the broken server; it was red at try 44 at the latest
PATIENT = {"UPONCE_IDLE_SECONDS": "300", "UPONCE_RATE_SECONDS": "300"}


@contextmanager
def beside_a_crowd(tmp_path: Path, size: int, *program: str) -> Iterator[Server]:
    """Yield a server that receives slow uploads as long as the context lasts."""
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "data", env=PATIENT, program=program or ("-m", "uponce")))
        for number in range(CROWD):
            fields = server.signed({"nonce": f"slow {number}"})
            body, kind = encode_multipart_formdata([*fields.items(), ("file", ("slow.bin", bytes(size)))])
            head = f"POST /v1_1/{server.cloud}/raw/upload HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\n"
            line = stack.enter_context(socket.create_connection(("127.0.0.1", server.port)))
            line.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[:BEGUN_BYTES])
        yield server


def is_kept(server: Server, name: str, data: bytes) -> bool:
    answer = server.post(server.signed({"nonce": name}), data, resource_type="raw").json()
    stored = server.get(urlsplit(answer["url"]).path).data
    return bool(stored == data and answer["etag"] == hashlib.md5(data, usedforsecurity=False).hexdigest())


@pytest.mark.parametrize("size", [SMALL, LARGE])
def test_fast_uploads_beside_many_slow_ones_keep_their_bytes(tmp_path: Path, size: int) -> None:
    chance = random.Random(20261128)
    with beside_a_crowd(tmp_path, size) as server, ThreadPoolExecutor(3) as pool:
        tries = [pool.submit(is_kept, server, f"fast {n}", chance.randbytes(FAST_BYTES)) for n in range(TRIES)]
        assert all(each.result() for each in tries)


def test_pieces_that_change_places_are_found(tmp_path: Path) -> None:
    """The negative control."""
    chance = random.Random(20261128)
    with beside_a_crowd(tmp_path, SMALL, "-m", "proof.faults.mutants.flushes_side_by_side") as server:
        for number in range(MOST_TRIES):
            if not is_kept(server, f"fast {number}", chance.randbytes(FAST_BYTES)):
                print(f"control: pieces that change places: red at try {number + 1} of at most {MOST_TRIES}")
                return
    raise AssertionError("no upload was wrong")
