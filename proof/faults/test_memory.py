"""What uploads cost in memory: of the server, its workers and its decoders together, by their peaks (VmHWM)."""

import asyncio
import random
import struct
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from proof.faults.audit import count
from proof.faults.campaigns.clients import healthy, open_file_limit
from proof.faults.clients import FORM_TAIL, LOST, Connection, Reply, connected, form, form_head
from proof.faults.fleet import fresh_bucket
from proof.faults.processes import open_files, peak_memory
from proof.faults.test_crowd import PATIENT
from tests import samples
from tests.server import Server
from uponce.web.protocol import _GATHER_SECONDS

pytestmark = pytest.mark.proof

MIB = 1024 * 1024
GIB = 1024 * MIB
ALLOWED = 64 * MIB
ALLOWED_TO_A_BUCKET = 32 * MIB
CHUNK = 20 * MIB
PATIENCE_SECONDS = 300

STALLED = 2_000
TWO_DECODERS = {"UPONCE_DECODERS": "2"}  # as a server has by default
MANY_CONNECTIONS = {"UPONCE_MAX_CONNECTIONS_PER_ADDRESS": str(2 * STALLED)}
IDLE_SECONDS = 60  # all connections must be there before the first one is hung up
SLOW, ALMOST, LARGE_ALMOST = 500, 900_000, 1_900_000
SLOW_SMALL, SMALL_ALMOST = 1_000, 250_000

BLOCK = random.Random(1).randbytes(MIB)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    seconds = {"UPONCE_HEAD_SECONDS": str(IDLE_SECONDS), "UPONCE_IDLE_SECONDS": str(IDLE_SECONDS)}
    with Server(tmp_path / "data", env=seconds | MANY_CONNECTIONS | TWO_DECODERS) as started:
        yield started


def film(size: int) -> tuple[bytes, int]:
    """Return a whole MP4 and the length of its `free` box (with a 64-bit size), which makes it so large.

    The bytes of the box follow the returned ones.
    """
    start = samples.mp4(1)
    filling = size - len(start) - 16
    return start + struct.pack(">I4sQ", 1, b"free", 16 + filling), filling


async def upload(server: Server, kind: str, start: bytes, filling: int) -> Reply:
    """Make a multipart upload that is never whole in our memory either."""
    head = form_head(server, server.signed({"nonce": kind}), len(start) + filling, kind)
    async with connected(server) as connection:
        return await send(connection, head + start, filling)


async def upload_in_chunks(server: Server, size: int) -> Reply:
    """Make the same upload in several requests, and return the last reply."""
    fields, reply = server.signed({"nonce": "chunks"}), Reply(LOST)
    async with connected(server) as connection:
        for start in range(0, size, CHUNK):
            end = min(start + CHUNK, size)
            headers = {"X-Unique-Upload-Id": "large", "Content-Range": f"bytes {start}-{end - 1}/{size}"}
            head = form_head(server, fields, end - start, "raw", headers=headers)
            reply = await send(connection, head, end - start)
    return reply


async def send(connection: Connection, opening: bytes, filling: int) -> Reply:
    await connection.send(opening)
    for at in range(0, filling, MIB):
        await connection.send(BLOCK[: min(MIB, filling - at)])
    await connection.send(FORM_TAIL)
    return await connection.reply(seconds=PATIENCE_SECONDS)  # a slow disk syncs two gigabytes


def check_large(server: Server, kind: str, size: int) -> None:
    start, filling = film(size) if kind == "video" else (b"", size)
    check(server, kind, upload(server, kind, start, filling), size, ALLOWED)


def check(server: Server, kind: str, uploading: Coroutine[None, None, Reply], size: int, allowed: int) -> None:
    idle = peak_memory(server.pid)
    begun = time.monotonic()
    reply = asyncio.run(uploading)
    seconds = time.monotonic() - begun
    grown = peak_memory(server.pid) - idle
    print(
        f"{kind}, {size / MIB:.0f} MiB: idle peak {idle / MIB:.0f} MiB, grown by {grown / MIB:.1f} MiB, "
        f"{size / MIB / seconds:.0f} MiB/s"
    )
    assert reply.verdict == "ok", reply.body
    assert reply.body["bytes"] == size
    assert grown < allowed


@pytest.mark.parametrize("kind", ["raw", "video"])
@pytest.mark.parametrize("size", [512 * MIB, pytest.param(2 * GIB, marks=pytest.mark.full)])
def test_a_large_upload_is_never_in_memory(server: Server, kind: str, size: int) -> None:
    check_large(server, kind, size)


@pytest.fixture
def on_bucket(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", env=fresh_bucket() | TWO_DECODERS) as started:
        yield started


@pytest.mark.parametrize("is_in_chunks", [False, True])
def test_nor_is_one_on_its_way_to_a_bucket(on_bucket: Server, is_in_chunks: bool) -> None:
    size = 256 * MIB
    uploading = upload_in_chunks(on_bucket, size) if is_in_chunks else upload(on_bucket, "raw", b"", size)
    check(on_bucket, "in chunks" if is_in_chunks else "in one request", uploading, size, ALLOWED_TO_A_BUCKET)


@pytest.fixture
def many_files() -> Iterator[None]:
    with open_file_limit(3 * STALLED):
        yield


@asynccontextmanager
async def stalled(server: Server) -> AsyncIterator[list[Connection]]:
    """Half of them stop inside the head, half of them, each with a good signature, inside the file."""
    async with AsyncExitStack() as stack:
        connections = []
        for number in range(STALLED):
            connection = await stack.enter_async_context(connected(server))
            fields = server.signed({"nonce": f"stalled-{number}"})
            request = form(server, fields, BLOCK[:4096])
            await connection.send(request[: 40 if number % 2 else len(request) // 2])
            connections.append(connection)
        yield connections


def milliseconds(times: list[float]) -> str:
    return f"{times[len(times) // 2] * 1000:.0f} ms (at most {times[-1] * 1000:.0f})"


async def idle_files(server: Server) -> int:
    """Return its descriptors when they stay the same: it may not have closed the last connection of its start yet."""
    files, before = open_files(server.pid), 0
    while files != before:
        await asyncio.sleep(1)
        files, before = open_files(server.pid), files
    return files


async def besiege(server: Server) -> None:
    idle, files = peak_memory(server.pid), await idle_files(server)
    before = await healthy(server, 50, "before")
    async with stalled(server) as connections:
        during = await healthy(server, 50, "during")
        held = open_files(server.pid) - files
        begun = time.monotonic()
        replies = await asyncio.gather(*(each.reply(seconds=PATIENCE_SECONDS) for each in connections))
        seconds = time.monotonic() - begun
    grown = peak_memory(server.pid) - idle
    print(
        f"{STALLED} stalled: {held} more descriptors, memory grown by {grown / MIB:.1f} MiB, all hung up "
        f"{seconds:.0f} s later; healthy uploads take {milliseconds(before)} before, {milliseconds(during)} amid them"
    )
    assert held >= STALLED, "they must all be held at one time"
    assert {reply.status for reply in replies} == {400, 408}
    assert {reply.verdict for reply in replies if reply.status == 400} == {"request_too_slow"}
    assert grown < ALLOWED
    assert seconds < IDLE_SECONDS + 30
    deadline = time.monotonic() + 60
    while (open_files(server.pid) - files >= 50 or staged_bytes(server)) and time.monotonic() < deadline:
        await asyncio.sleep(0.1)
    assert open_files(server.pid) - files < 50
    assert not list((server.data_dir / "media" / "spool").iterdir())
    assert count(server.data_dir, "assets") == count(server.data_dir, "grants") == 100


def test_two_thousand_stalled_connections(many_files: None, server: Server) -> None:
    """They cost little, a healthy client hardly notices, and all are hung up in time with nothing left or spent."""
    asyncio.run(besiege(server))


async def drag(server: Server, slow: int, almost: int, allowed: int) -> None:
    """Many uploads at once, each of which stops when most of it has arrived, and then ends."""
    idle = peak_memory(server.pid)
    async with AsyncExitStack() as stack:
        connections = []
        for number in range(slow):
            connection = await stack.enter_async_context(connected(server))
            request = form(server, server.signed({"nonce": f"slow-{number}"}), (BLOCK + BLOCK)[:almost])
            await connection.send(request[:-100])
            connections.append((connection, request[-100:]))
        await asyncio.sleep(3 * _GATHER_SECONDS)  # from then on, none is held in memory until it is whole
        async with asyncio.timeout(120):
            while staged_bytes(server) < slow * almost / 2:
                await asyncio.sleep(0.05)
        asking = (connection.ask(rest, seconds=PATIENCE_SECONDS) for connection, rest in connections)
        replies = await asyncio.gather(*asking)
    grown = peak_memory(server.pid) - idle
    print(f"{slow} uploads that stop after {almost // 1000} kB: memory grown by {grown / MIB:.1f} MiB")
    assert {reply.verdict for reply in replies} == {"ok"}
    assert grown < allowed


def staged_bytes(server: Server) -> int:
    return sum(file.stat().st_size for file in (server.data_dir / "media" / "spool").iterdir())


@pytest.fixture
def patient(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data", env=PATIENT | MANY_CONNECTIONS | TWO_DECODERS) as started:
        yield started


@pytest.mark.parametrize("almost", [ALMOST, LARGE_ALMOST])
def test_slow_uploads_share_their_buffers(patient: Server, almost: int) -> None:
    """Five hundred that stop cost far less than their bytes, also when each has the size of a large body."""
    asyncio.run(drag(patient, SLOW, almost, SLOW * almost // 2))


def test_slow_small_uploads_cost_less_than_their_bytes(patient: Server) -> None:
    """A thousand that stop are each held in memory for a second, and then wait in their files."""
    asyncio.run(drag(patient, SLOW_SMALL, SMALL_ALMOST, SLOW_SMALL * SMALL_ALMOST))
