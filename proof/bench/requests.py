"""Heads of requests, made and signed before the clock runs."""

import base64
import random
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from proof.bench.servers import Key, Server
from uponce.core.signature import grant_key, sign, string_to_sign

_BOUNDARY = "----bench0123456789"
TAIL = f"\r\n--{_BOUNDARY}--\r\n"


def signed_fields(key: Key) -> dict[str, str]:
    """Return what a back end hands to a browser. The nonce makes each signature different."""
    fields = {"timestamp": str(int(time.time())), "nonce": secrets.token_hex(10)}
    return fields | {"signature": sign(string_to_sign(fields), key.secret), "api_key": key.api_key}


def uploads(server: Server, key: Key, file: Path, count: int) -> Iterator[bytes]:
    """Return so many uploads of the file, each with its own signature."""
    return (upload(server, key, file, signed_fields(key)) for _ in range(count))


def upload(server: Server, key: Key, file: Path, fields: Mapping[str, str]) -> bytes:
    return form(server, f"/v1_1/{key.cloud}/auto/upload", file, fields)


def form(
    server: Server,
    path: str,
    file: Path,
    fields: Mapping[str, str],
    *,
    size: int | None = None,
    headers: Mapping[str, str] | None = None,
) -> bytes:
    """Return a multipart POST up to its file: the fields, and the head of the part with the file.

    The part has `size` bytes of the file, or all.
    """
    parts = "".join(
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    )
    before = (
        f'{parts}--{_BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    length = len(before) + (file.stat().st_size if size is None else size) + len(TAIL)
    told = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}", "Content-Length": str(length)}
    return head(server, "POST", path, {**told, **(headers or {})}) + before.encode()


def put(server: Server, path: str, file: Path) -> bytes:
    return head(server, "PUT", path, {"Content-Length": str(file.stat().st_size)})


def get(server: Server, path: str, headers: Mapping[str, str] | None = None) -> bytes:
    return head(server, "GET", path, headers or {})


def look_ups(server: Server, key: Key, grants: Sequence[str], count: int) -> Iterator[bytes]:
    """Ask for the status of so many signatures, by their ids in no order."""
    chance = random.Random(1)
    credentials = base64.b64encode(f"{key.api_key}:{key.secret}".encode()).decode()
    headers = {"Authorization": f"Basic {credentials}"}
    return (get(server, f"/v1_1/{key.cloud}/signatures/{chance.choice(grants)}", headers) for _ in range(count))


def grant_of(key: Key, fields: Mapping[str, str]) -> str:
    """Return the id of a signature in the ledger."""
    return grant_key(key.cloud, key.api_key, int(fields["timestamp"]), string_to_sign(fields)).hex()


def head(server: Server, method: str, path: str, headers: Mapping[str, str]) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\n{lines}\r\n".encode()
