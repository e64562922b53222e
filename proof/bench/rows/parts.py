"""One large file in one request, in chunks, and by tus; and what a thousand unfinished uploads take of memory."""

import base64
import json
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

from proof.bench.client import Client
from proof.bench.measure import Sample
from proof.bench.requests import TAIL, form, head, signed_fields, upload
from proof.bench.row import Case, Claim, Row, Setup, Version
from proof.bench.servers import MIB, BenchmarkError, Key, Server, uponce

_CHUNK = 20_000_000
_LIVE = 1000
_PIECE = 10_000
_SETTLE_SECONDS = 1.0
_TUS = {"Tus-Resumable": "1.0.0"}

Send = Callable[[Client, Server, Key, Path], bytes]
"""Upload the whole file; the answer that tells of the asset."""


def measure(server: Server, setup: Setup, *, send: Send) -> Sample:
    film = setup.film(setup.megabytes)
    server.forget_peak()
    idle, size = server.resident(), film.stat().st_size
    with closing(Client(server, film)) as client:
        cpu, begun = server.cpu(), time.perf_counter()
        told = json.loads(send(client, server, server.keys()[0], film))
        seconds = time.perf_counter() - begun
    if told["bytes"] != size or told.get("done") is False:
        raise BenchmarkError(f"{size} bytes were sent, the answer is {told}")
    return {
        "MB/s": size / 1e6 / seconds,
        "memory above idle MiB": (server.peak() - idle) / MIB,
        "server CPU s": server.cpu() - cpu,
    }


def at_once(client: Client, server: Server, key: Key, film: Path) -> bytes:
    return client.ask(upload(server, key, film, signed_fields(key)), 0, film.stat().st_size, TAIL).body


def in_chunks(client: Client, server: Server, key: Key, film: Path) -> bytes:
    fields = signed_fields(key)
    return [send_chunk(client, server, key, film, fields, *span) for span in _spans(film)][-1]


def send_chunk(
    client: Client, server: Server, key: Key, film: Path, fields: dict[str, str], start: int, end: int
) -> bytes:
    told = {
        "X-Unique-Upload-Id": fields["nonce"],
        "Content-Range": f"bytes {start}-{end - 1}/{film.stat().st_size}",
    }
    path = f"/v1_1/{key.cloud}/auto/upload"
    return client.ask(form(server, path, film, fields, size=end - start, headers=told), start, end, TAIL).body


def by_tus(client: Client, server: Server, key: Key, film: Path, *, at_once: bool) -> bytes:
    address, size = create(client, server, key, film), film.stat().st_size
    for start, end in [(0, size)] if at_once else _spans(film):
        patch(client, server, address, start, end)
    return client.ask(head(server, "GET", address, {})).body


def create(client: Client, server: Server, key: Key, film: Path) -> str:
    """Create an upload, and return the path of its address."""
    pairs = {**signed_fields(key), "filename": film.name}
    told = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs.items())
    size = {"Upload-Length": str(film.stat().st_size), "Content-Length": "0"}
    created = client.ask(head(server, "POST", f"/tus/{key.cloud}/", {**_TUS, **size, "Upload-Metadata": told}))
    return urlsplit(created.headers["location"]).path


def patch(client: Client, server: Server, address: str, start: int, end: int) -> None:
    told = {"Upload-Offset": str(start), "Content-Length": str(end - start)}
    kind = {"Content-Type": "application/offset+octet-stream"}
    client.ask(head(server, "PATCH", address, {**_TUS, **kind, **told}), start, end)


def _spans(film: Path) -> list[tuple[int, int]]:
    """Chunks as SDKs send them; of a small file at least four."""
    size = film.stat().st_size
    chunk = min(_CHUNK, -(-size // 4))
    return [(start, min(start + chunk, size)) for start in range(0, size, chunk)]


def measure_live(server: Server, setup: Setup) -> Sample:
    """So many uploads of each protocol that have begun and do not go on."""
    film, key, half = setup.film(setup.megabytes), server.keys()[0], min(_LIVE, setup.rows) // 2
    server.forget_peak()
    idle = server.resident()
    with closing(Client(server, film)) as client:
        for _ in range(half):
            send_chunk(client, server, key, film, signed_fields(key), 0, _PIECE)
            patch(client, server, create(client, server, key, film), 0, _PIECE)
    time.sleep(_SETTLE_SECONDS)
    return {"memory above idle MiB": (server.peak() - idle) / MIB, "unfinished uploads": float(2 * half)}


ONE, CHUNKS, TUS, TUS_CHUNKS = "one request", "chunks of 20 MB", "tus, one PATCH", "tus, PATCHes of 20 MB"
_LIVE_CASE = "1,000 unfinished uploads"
_SENDS: dict[str, Send] = {
    ONE: at_once,
    CHUNKS: in_chunks,
    TUS: partial(by_tus, at_once=True),
    TUS_CHUNKS: partial(by_tus, at_once=False),
}


def _own(setup: Setup, version: Version) -> Sequence[Case]:
    program = uponce(version.python, min_chunk_bytes=1)
    cases = [Case(version.named(name), program, partial(measure, send=send)) for name, send in _SENDS.items()]
    return [*cases, Case(version.named(_LIVE_CASE), program, measure_live)]


def _claims() -> Sequence[Claim]:
    ratios = [
        Claim(f"{name}, over one request", (f"uponce, {name}",), (f"uponce, {ONE}",), at_least=0.9)
        for name in (CHUNKS, TUS, TUS_CHUNKS)
    ]
    memory = [
        Claim(f"memory above idle, {name}", (f"uponce, {name}",), figure="memory above idle MiB", at_most=64)
        for name in (CHUNKS, TUS, TUS_CHUNKS, _LIVE_CASE)
    ]
    return [*ratios, *memory]


P9 = Row(
    "P9", "An MP4 of 500 MB in one POST, in chunks and by tus, one connection; unfinished uploads", _own, _claims()
)
