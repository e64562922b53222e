"""Clients that hold places and send almost nothing: without a key, with a copy of a signature, with many signatures."""

import base64
import json
import secrets
import socket
import sqlite3
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
import urllib3

from proof.faults.clients import form
from tests.hostile.frame import PICTURE, Honest, Waits, check_beside, dial
from tests.server import Server, asked
from uponce.core.policy import Limits

SETTINGS = {"UPONCE_MAX_SERIES_PER_KEY": "20"}
DECODERS = {"UPONCE_DECODERS": "2"}  # as the other servers of the battery
BOUNDARY = "lockout"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}


def part(name: str, value: str) -> bytes:
    return f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


FILE = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'.encode()


@contextmanager
def dripping(server: Server, count: int, fields: dict[str, str]) -> Iterator[list[socket.socket]]:
    """So many uploads that have sent their fields, and one byte of their file."""
    body = b"".join(part(*pair) for pair in fields.items()) + FILE + b"x"
    head = (
        f"POST /v1_1/{server.cloud}/auto/upload HTTP/1.1\r\nHost: x\r\nContent-Type: {FORM}\r\n"
        f"Content-Length: 1000000\r\n\r\n"
    ).encode()
    held = []
    try:
        for _ in range(count):
            held.append(dial(server.base))
            held[-1].sendall(head + body)
        yield held
    finally:
        for connection in held:
            connection.close()


def post(honest: Honest, fields: dict[str, str], *, file_first: bool = False) -> urllib3.BaseHTTPResponse:
    parts = [part(*pair) for pair in fields.items()]
    file = FILE + PICTURE + b"\r\n"
    body = b"".join([file, *parts] if file_first else [*parts, file]) + f"--{BOUNDARY}--\r\n".encode()
    url = f"{honest.base}/v1_1/{honest.server.cloud}/auto/upload"
    return asked("POST", url, body=body, headers={"Content-Type": FORM})


def fresh(server: Server, **params: str) -> dict[str, str]:
    return {name: str(value) for name, value in server.signed({"nonce": secrets.token_hex(8), **params}).items()}


def test_keyless_connections_do_not_keep_file_first_uploads_out(server: Server, honest: Honest) -> None:
    with dripping(server, 2 * Limits().max_unverified_uploads, {}) as held:
        for _ in range(5):
            answer = post(honest, fresh(server), file_first=True)
            assert answer.status == 200, answer.data
        displaced = b""
        while b"Send the fields" not in displaced and (more := held[0].recv(4096)):
            displaced += more
    assert b" 503 " in displaced
    assert b"retry-after" in displaced
    assert b"Send the fields before the file" in displaced


def test_dripping_uploads_with_a_copy_do_not_keep_the_holder_out(server: Server, honest: Honest) -> None:
    fields = fresh(server, sha256=sha256(PICTURE).hexdigest())
    with dripping(server, 3 * Limits().attempts_per_grant, fields):
        answer = post(honest, fields)
        assert answer.status == 200, answer.data


def tus(server: Server, fields: dict[str, str], body: bytes | None, size: int) -> urllib3.BaseHTTPResponse:
    told = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items())
    head = {**TUS, "Upload-Length": str(size), "Upload-Metadata": told}
    if body is None:
        del head["Content-Type"]
    return asked("POST", f"{server.base}/tus/{server.cloud}/", body=body, headers=head)


def test_one_byte_by_tus_does_not_keep_the_holder_out(server: Server, honest: Honest) -> None:
    fields = fresh(server, sha256=sha256(PICTURE).hexdigest())
    assert tus(server, fields, b"x", len(PICTURE)).status == 201
    answer = tus(server, fields, PICTURE, len(PICTURE))
    assert answer.status == 201, answer.data
    assert json.loads(answer.data)["bytes"] == len(PICTURE)


def test_empty_series_do_not_keep_a_key_from_uploads_in_parts(server: Server, honest: Honest) -> None:
    begun = [tus(server, fresh(server), None, 1000).status for _ in range(60)]
    assert begun == [201] * 60
    answer = tus(server, fresh(server), PICTURE, len(PICTURE))
    assert answer.status == 201, answer.data
    honest.upload()


@pytest.mark.proof
def test_honest_uploads_do_not_wait_beside_strangers_who_hold_places(server: Server, honest: Honest) -> None:
    """Keyless forms, a copied signature and requests that wait for one series, all at once."""

    def attack() -> Waits:
        begun = tus(server, fresh(server), None, 10**8)
        where = urlsplit(begun.headers["Location"]).path
        copied = fresh(server, sha256=sha256(PICTURE).hexdigest())
        head = f"PATCH {where} HTTP/1.1\r\nHost: x\r\n" + "".join(f"{name}: {value}\r\n" for name, value in TUS.items())
        with ExitStack() as held, dripping(server, 64, {}), dripping(server, 12, copied), honest.beside() as waits:
            for _ in range(300):
                waiting = held.enter_context(dial(server.base))
                waiting.sendall(f"{head}Upload-Offset: 0\r\nContent-Length: 100000000\r\n\r\nx".encode())
            for _ in range(20):
                assert post(honest, fresh(server), file_first=True).status == 200
                time.sleep(0.1)
        return waits

    check_beside(attack, worst=1.0)


def test_a_flood_of_reuses_leaves_few_lines_and_all_are_counted(server: Server, honest: Honest) -> None:
    fields = fresh(server)
    stored = post(honest, fields)
    assert stored.status == 200, stored.data
    refused = [post(honest, fields).status for _ in range(60)]
    assert refused == [400] * 60
    with closing(sqlite3.connect(server.data_dir / "uponce.db")) as database:
        rows = database.execute(
            "SELECT count(*), sum(count) FROM audit WHERE event = 'refused' AND code = 'signature_used' "
            "AND grant_key IN (SELECT grant_key FROM audit WHERE asset_id = ?)",
            (json.loads(stored.data)["asset_id"],),
        ).fetchone()
    assert rows == (Limits().refusals_per_grant + 1, 60)


@pytest.mark.proof
def test_sixteen_large_uploads_hold_up_no_small_one(quick_path: Path) -> None:
    """In memory, as a disk that writes 900 MB holds up all others. Each round has a server, whose files then go."""
    content = bytes(56 * 1024 * 1024)

    def upload(server: Server) -> int:
        request = form(server, fresh(server), content)
        with dial(server.base) as client:
            client.settimeout(240)
            client.sendall(request)
            return int(client.recv(65_536)[9:12])

    def attack() -> Waits:
        with (
            TemporaryDirectory(dir=quick_path) as folder,
            Server(Path(folder) / "data", env=DECODERS) as server,
            Honest(server).beside() as waits,
            ThreadPoolExecutor(16) as pool,
        ):
            statuses = list(pool.map(upload, [server] * 16))
        assert statuses == [200] * 16
        return waits

    check_beside(attack, worst=1, rounds=10)  # each of them takes many seconds of a machine that others use too
