"""Clients that hang up in any place, send a byte a second, stop within the head, or never read what they asked for.

A client that hangs up before the end has spent nothing. A client that hangs up at the end has made at most one asset.
All other clients hardly notice that so many connections hang.
"""

import asyncio
import random
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest

from proof.faults.audit import Receipt, count
from proof.faults.clients import FORM_TAIL, Connection, ask, connected, form
from proof.faults.control import seeded, until_red
from proof.faults.processes import open_files
from proof.faults.report import Report
from proof.faults.tally import Tally
from tests.server import Server

MANY, FEW = 2_000, 200
MANY_FROM_SECONDS = 60.0
# All stalled connections stay until the last round of healthy uploads has ended.
ROOM = {
    "UPONCE_MAX_CONNECTIONS_PER_ADDRESS": str(4 * MANY),
    **{f"UPONCE_{name}_SECONDS": "300" for name in ("HEAD", "IDLE", "WRITE")},
}
UPLOADS, SIEGE_SECONDS = 100, 5.0
# At most: other work on the machine only adds time, and a fault adds it in every round.
ROUNDS, BURSTS = 10, 3
SLOWEST = 1.0  # seconds of a healthy upload's 99th percentile amid stalled ones
SHARE = 0.5  # of the time of a healthy upload: what each connection of a burst may cost the next one, beyond that
TIDY_SECONDS = 60.0
LANES = 8
RETRIED = 60

SMALL, LARGE = 5_000, 1_500_000  # the larger one does not fit in an upload's buffer
BIG_FILE = 8 * 1024 * 1024

BURNED = "signatures that an abort has burned"
MUTANT = str(Path(__file__).parents[1] / "mutants" / "claims_first.py")


class Campaign:
    """One server, and what its clients did to it."""

    def __init__(self, server: Server, chance: random.Random, tally: Tally) -> None:
        self.server = server
        self.chance = chance
        self.tally = tally
        self.receipts: list[Receipt] = []
        self.begun = 0
        self.expected = 0  # assets in the end

    def signed(self) -> dict[str, str]:
        self.begun += 1
        return self.server.signed({"public_id": f"upload-{self.begun}"})

    def next_fields(self) -> dict[str, str]:
        """Return the fields of an upload that is tried until it has made its asset."""
        self.expected += 1
        return self.signed()

    async def abort(self, only: str = "") -> None:
        """Break off one upload somewhere, and then send the same signature to its end."""
        fields, place = self.next_fields(), only or self.chance.choice(PLACES)
        data = self.chance.randbytes(LARGE if place == "after a flush" else SMALL)
        request = form(self.server, fields, data)
        low, high = places(request, len(data))[place]
        cut = self.chance.randint(low, high)
        async with connected(self.server) as connection:
            await connection.send(request[:cut])
            await asyncio.sleep(self.chance.choice((0, 0, 0.002, 0.02)))
            await self._end(connection, has_more=cut < len(request))
        self.tally.counts[f"hung up: {place}"] += 1
        self.tally.inside += place not in PLACES[:2]  # before the server knows what it is about
        await self.finish(fields, data, spent_is_fine=place == "nothing missing")

    async def _end(self, connection: Connection, has_more: bool) -> None:
        """FIN, RST, or a half-closed connection whose answer is still awaited."""
        way = self.chance.choice(("closed", "reset", "half-closed"))
        self.tally.counts[f"hung up: {way}"] += 1
        if way != "half-closed":
            connection.hang_up(reset=way == "reset")
            return
        connection.end()
        reply = await connection.reply()
        self.tally.expect(not (has_more and reply.verdict == "ok"), "torn uploads that were accepted", reply.body)

    async def finish(self, fields: dict[str, str], data: bytes, spent_is_fine: bool = False) -> None:
        reply = await ask(self.server, form(self.server, fields, data))
        self.tally.counts[f"then answered {reply.verdict}"] += 1
        note, is_stored = f"{fields['public_id']}: {reply.body}", reply.verdict == "ok"
        is_spent = reply.verdict == "signature_used"
        self.tally.expect(spent_is_fine or not is_spent, BURNED, note)
        self.tally.expect(is_stored or is_spent, "uploads that were refused", note)
        if is_stored:
            self.receipts.append(reply.receipt(data))

    async def besiege(self, stalled: int) -> None:
        """Measure healthy uploads alone and amid stalled connections, then let those go."""
        server, tally = self.server, self.tally
        big = self.next_fields()
        await self.finish(big, self.chance.randbytes(BIG_FILE))
        quiet, idle = await healthy(server, UPLOADS, "before"), open_files(server.pid)
        each = SHARE * quiet[len(quiet) // 2]
        async with AsyncExitStack() as stack:
            await self._stall(stack, stalled // 4, each, lambda: _get(server, big["public_id"]))
            unfinished = [self.signed() for _ in range(BURSTS * (stalled // 2))]
            halves = iter([_half(form(server, fields, b"x" * SMALL)) for fields in unfinished])
            arrived = await self._stall(stack, stalled // 2, each, lambda: next(halves))
            del unfinished[len(arrived) :]
            trickling = asyncio.create_task(_trickle(arrived[::2]))
            await self._stall(stack, stalled // 4, each, lambda: b"POST /v1_1/media/raw/upload HTTP/1.1\r\nHost: ")
            amid = await self._amid()
            held = min(stalled, open_files(server.pid) - idle)
            trickling.cancel()
        tally.counts["stalled connections"] += stalled
        tally.counts["healthy uploads"] += len(quiet)
        tally.counts["worst 99th percentile of a healthy upload alone, ms"] = _percentile(quiet)
        tally.counts["worst 99th percentile amid the stalled, ms"] = _percentile(amid)
        tally.expect(_percentile(amid) < SLOWEST * 1000, "healthy uploads slowed down", _percentile(amid))
        tally.expect(held > stalled * 0.9, "stalled connections that were not held", f"{held} of {stalled}")
        tally.inside += held
        self.expected += len(quiet)
        # The others were never tried again, and must have left no trace.
        for fields in self.chance.sample(unfinished, min(RETRIED, len(unfinished))):
            self.expected += 1
            await self.finish(fields, b"the whole of it")

    async def _amid(self) -> list[float]:
        """Seconds of healthy uploads amid the stalled connections: of the first round that is quick, else the last."""
        times: list[float] = []
        for _ in range(ROUNDS):
            times = await healthy(self.server, UPLOADS, f"amid-{self.expected}", SIEGE_SECONDS)
            self.expected += len(times)
            self.tally.counts["healthy uploads"] += len(times)
            if _percentile(times) < SLOWEST * 1000:
                break
        return times

    async def _stall(
        self, stack: AsyncExitStack, many: int, each: float, opening: Callable[[], bytes]
    ) -> list[Connection]:
        """Open so many and go no further. Return when the server has taken in all of that burst.

        The next healthy upload may wait for SLOWEST seconds, and `each` for every connection. If it waits longer,
        another burst follows, and the quickest one counts.
        """
        connections: list[Connection] = []
        waits: list[float] = []
        allowed = SLOWEST + many * each
        while not waits or (min(waits) >= allowed and len(waits) < BURSTS):
            for _ in range(many):
                connections.append(await stack.enter_async_context(connected(self.server)))
                await connections[-1].send(opening())
            waits += await healthy(self.server, 1, f"burst-{self.expected}")
            self.expected += 1
        waited = min(waits)
        name = "worst wait of a healthy upload behind a burst of connections, ms"
        self.tally.counts[name] = max(self.tally.counts[name], round(waited * 1000))
        note = f"{waited:.2f} s behind {many} connections, {allowed:.2f} s allowed"
        self.tally.expect(waited < allowed, "healthy uploads that waited for a burst", note)
        return connections

    async def end(self) -> None:
        """Nothing stays spooled; every signature that was tried to the end made one asset, and no other did."""
        spool = self.server.data_dir / "media" / "spool"
        with suppress(TimeoutError):
            async with asyncio.timeout(TIDY_SECONDS):
                while any(spool.iterdir()):
                    await asyncio.sleep(0.05)
        self.server.stop()
        await asyncio.to_thread(self.tally.audit, self.server.data_dir, self.receipts)
        for what in ("assets", "grants", "audit WHERE event = 'spent'"):
            kept = count(self.server.data_dir, what)
            self.tally.expect(
                kept == self.expected, "books that disagree with the clients", f"{what}: {kept}/{self.expected}"
            )


PLACES = (
    "in the request line",
    "in the headers",
    "before the body",
    "in the fields",
    "before the file",
    "in the file",
    "after a flush",
    "before the file's last byte",
    "in the last boundary",
    "before the last byte",
    "nothing missing",
)


def places(request: bytes, size: int) -> dict[str, tuple[int, int]]:
    """Return the least and the greatest number of bytes to send, by the place where the upload breaks off."""
    line, body, end = request.index(b"\r\n"), request.index(b"\r\n\r\n") + 4, len(request)
    file_end = end - len(FORM_TAIL)
    file = file_end - size
    limits = (
        (0, line),
        (line + 1, body - 1),
        (body, body),
        (body + 1, file - 1),
        (file, file),
        (file + 1, file_end - 2),
        (min(file + 1_100_000, file_end - 2), file_end - 2),
        (file_end - 1, file_end - 1),
        (file_end, end - 2),
        (end - 1, end - 1),
        (end, end),
    )
    return dict(zip(PLACES, limits, strict=True))


def run(seconds: float, seed: int) -> Report:
    chance, tally, begun = random.Random(seed), Tally(), time.monotonic()
    stalled = MANY if seconds >= MANY_FROM_SECONDS else FEW
    with TemporaryDirectory(prefix="uponce-clients-") as folder, open_file_limit(3 * stalled + 200):
        with Server(Path(folder) / "control", program=(MUTANT,)) as server:
            control(server, chance, tally)
        with Server(Path(folder) / "data", env=ROOM) as server:
            campaign = Campaign(server, chance, tally)
            asyncio.run(play(campaign, stalled, begun + seconds))
    return tally.report("clients", seed)


async def play(campaign: Campaign, stalled: int, deadline: float) -> None:
    await campaign.besiege(stalled)
    for place in PLACES:
        await campaign.abort(place)

    async def lane() -> None:
        while time.monotonic() < deadline:
            await campaign.abort()

    await asyncio.gather(*(lane() for _ in range(LANES)))
    await campaign.end()


def control(server: Server, chance: random.Random, tally: Tally) -> None:
    """Find a server that claims a signature at the beginning: a client that hangs up loses its signature."""

    def attempt(chance: random.Random) -> int:
        campaign = Campaign(server, chance, Tally())
        campaign.begun = chance.getrandbits(40)
        asyncio.run(campaign.abort("in the file"))
        return campaign.tally.zeros[BURNED]

    until_red(tally, "signatures burned by a claim before the upload", seeded(chance, attempt))


async def healthy(server: Server, uploads: int, label: str, seconds: float = 0) -> list[float]:
    """Seconds of each of so many uploads in a row, or of more if there is time; sorted."""
    times: list[float] = []
    end = time.monotonic() + seconds
    while len(times) < uploads or time.monotonic() < end:
        request = form(server, server.signed({"nonce": f"{label}-{len(times)}"}), b"healthy " * 1250)
        begun = time.monotonic()
        reply = await ask(server, request)
        times.append(time.monotonic() - begun)
        assert reply.verdict == "ok", reply.body
    return sorted(times)


@contextmanager
def open_file_limit(wanted: int) -> Iterator[None]:
    """Allow enough descriptors for both ends of all connections. A server that starts inside inherits the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"NOT TESTED: {wanted} open files are needed, the hard limit is {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _get(server: Server, public_id: str) -> bytes:
    host = urlsplit(server.base).netloc
    return f"GET /{server.cloud}/raw/upload/{public_id} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


def _half(request: bytes) -> bytes:
    return request[: len(request) // 2]


async def _trickle(connections: list[Connection]) -> None:
    """Send a byte a second on each."""
    while True:
        await asyncio.sleep(1)
        for connection in connections:
            connection.send_now(b"x")


def _percentile(times: list[float]) -> int:
    """Return the 99th percentile, in whole milliseconds."""
    return round(times[int(len(times) * 0.99)] * 1000)
