"""Readers over HTTP, while what they read is overwritten and deleted, or while their store dies."""

import asyncio
import itertools
import re
import time
from collections import Counter
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from proof.faults.clients import LOST, Reply, ask, connected, fetch, form
from proof.faults.processes import open_files
from tests.server import Server
from tests.stores import seaweedfs
from tests.stores.sick import Illness, Rule, healthy, sick

pytestmark = pytest.mark.proof

WRITES, READERS = 60, 4
SIZES = (1_000, 20_000, 400_000)
DELETED_EVERY = 7
READS_OF_ONE, READS_OF_NONE = 2, 8  # after each write and each deletion: more than WRITES of both
TORN_READS, LOST_READS, LARGE = 30, 8, 2_500_000
SPARE = 4  # connections to the store that wait for the next read: more of them if reads and a sweep met
SETTLE_SECONDS = 60.0
BLOB = re.compile(r"/blobs/[^?]+$")


class Shelf:
    """One name. `held` is what it had after each write, and None after a deletion."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.held: list[bytes | None] = [None]
        self.acknowledged = 0
        self.counts: Counter[int] = Counter()  # reads by their status

    async def write(self) -> None:
        for number in range(1, WRITES):
            is_deletion = number % DELETED_EVERY == 0
            self.held.append(None if is_deletion else f"{number} ".encode() * (SIZES[number % 3] // 4))
            reply = await (self._delete(number) if is_deletion else self._upload(number))
            assert reply.status == 200, reply
            self.acknowledged = number
            if number < WRITES - 1:  # the readers end with the last write
                await self._until_read(*((404, READS_OF_NONE) if is_deletion else (200, READS_OF_ONE)))

    async def _until_read(self, status: int, times: int) -> None:
        enough = self.counts[status] + times
        async with asyncio.timeout(60):
            while self.counts[status] < enough:
                await asyncio.sleep(0.001)

    async def _upload(self, number: int) -> Reply:
        fields = self.server.signed({"public_id": "shelf", "nonce": str(number)})
        return await ask(self.server, form(self.server, fields, self.held[number] or b""))

    async def _delete(self, number: int) -> Reply:
        fields = self.server.signed({"public_id": "shelf", "nonce": str(number)}, self.server.server)
        body, host = urlencode(fields).encode(), urlsplit(self.server.base).netloc
        head = f"POST /v1_1/{self.server.cloud}/raw/destroy HTTP/1.1\r\nHost: {host}\r\n"
        kind = f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        return await ask(self.server, (head + kind).encode() + body)

    async def read(self) -> None:
        """Each whole reply is what the name had at some moment of the request.

        A reply may end early if the bytes are deleted under its reader. The client notices that.
        """
        host = urlsplit(self.server.base).netloc
        request = f"GET /{self.server.cloud}/raw/upload/shelf HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        while self.acknowledged < WRITES - 1:
            async with connected(self.server) as connection:
                while self.acknowledged < WRITES - 1:
                    before = self.acknowledged
                    reply = await connection.ask(request)
                    self.counts[reply.status] += 1
                    if reply.status == LOST:
                        break
                    assert reply.status in (200, 404), reply
                    seen = reply.data if reply.status == 200 else None
                    note = f"{(seen or b'none')[:20]!r}, {len(seen or b'')} bytes, after write {before}"
                    assert seen in self.held[before:], note


def test_a_reader_sees_the_old_bytes_or_the_new_ones_whole(tmp_path: Path) -> None:
    with Server(tmp_path / "data", workers=2) as server:
        shelf = Shelf(server)

        async def play() -> None:
            await asyncio.gather(shelf.write(), *(shelf.read() for _ in range(READERS)))

        asyncio.run(play())
    print(shelf.counts)
    assert min(shelf.counts[200], shelf.counts[404]) > WRITES
    assert shelf.counts[LOST] < shelf.counts[200] / 20


def cutting(film: str, whole_blocks: int) -> Rule:
    """Cut all reads of the film after so many. Sweeps and checks read other objects, which do not count."""
    reads = itertools.count()

    def rule(method: str, path: str) -> Illness:
        return Illness.CUT if f"{method} {path}" == film and next(reads) >= whole_blocks else Illness.NONE

    return rule


def test_a_store_that_dies_within_deliveries_leaves_nothing_open(tmp_path: Path) -> None:
    """Each reader gets a connection that is closed early, or 503. The next ones get the bytes."""
    store = seaweedfs.shared()
    with sick(store.endpoint) as proxy:
        settings = store.environment | {"AWS_ENDPOINT_URL": proxy.endpoint, "UPONCE_STORAGE": store.fresh_url()}
        with Server(tmp_path / "data", env=settings) as server:
            data = b"large" * (LARGE // 5)
            stored = server.post(server.signed({"public_id": "film"}), data, resource_type="raw")
            path = urlsplit(stored.json()["secure_url"]).path

            async def read(times: int) -> list[Reply]:
                return await asyncio.gather(*(fetch(server, path) for _ in range(times)))

            proxy.seen.clear()
            assert asyncio.run(read(1))[0].data == data
            (film,) = {seen for seen in proxy.seen if seen.startswith("GET ") and BLOB.search(seen)}
            before = open_files(server.pid)
            for readers, whole_blocks, told in (
                (TORN_READS, 0, 503),
                *[(1, 1, LOST)] * LOST_READS,
                *[(1, 2, LOST)] * LOST_READS,
            ):
                proxy.rule = cutting(film, whole_blocks)
                assert {reply.status for reply in asyncio.run(read(readers))} == {told}
            proxy.rule = healthy
            settled = time.monotonic() + SETTLE_SECONDS
            while open_files(server.pid) > before + SPARE and time.monotonic() < settled:
                time.sleep(0.05)
            assert open_files(server.pid) <= before + SPARE
            assert asyncio.run(read(1))[0].data == data
