"""One store's life under load and faults: what sixteen clients were told, and whether it is true afterwards.

What was acknowledged is kept out here. After each fault everything of that round is asked for again, of any server:
what was acknowledged is served and spent, what was refused is free, what was not answered is wholly there or free.
"""

import asyncio
import hashlib
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from tests.faults.audit import Receipt, count
from tests.faults.clients import Connection, Reply, ask, connected, fetch, form
from tests.faults.fleet import Fleet
from tests.faults.operator import recover
from tests.faults.tally import Tally
from tests.server import Server
from uponce.adapters.media import samples

CLIENTS = 16
EARLIEST, LATEST = 0.02, 0.6  # seconds of load before a fault
AFTERMATH = 0.2  # seconds of load after it
LARGEST = 400_000
RECOVERY_SECONDS = 30
PAUSE = 0.02

UNKNOWN = frozenset({"lost", "outcome_unknown"})
"""What may be told of any upload that a fault strikes: it may have happened or not."""


@dataclass(frozen=True, slots=True)
class Fault:
    """`strike` breaks something of a server, or of all of them, and returns when it is mended; False when there was
    nothing to break.

    `kind`: the uploads that it may strike, or all. `refusals`: what others may be told, which spends nothing. After
    it each client waits `pace` seconds between two uploads. One that `sweeps` may delete what nobody needs.
    """

    name: str
    strike: Callable[["Sitting", Server], Awaitable[bool]]
    kind: str | None = None
    refusals: frozenset[str] = frozenset()
    is_everywhere: bool = False
    pace: float = 0
    sweeps: bool = False


@dataclass(eq=False)
class Upload:
    """One signature with its own public_id, and what became of it."""

    number: int
    public_id: str
    fields: dict[str, str]
    kind: str
    data: bytes
    reply: Reply = field(default_factory=lambda: Reply(0))


@dataclass
class Sitting:
    """Everything that the clients of a fleet were told, and the choices still to come."""

    fleet: Fleet
    chance: random.Random
    tally: Tally
    pictures: Sequence[bytes] = field(default_factory=lambda: [samples.jpeg(seed, 160, 120) for seed in range(4)])
    receipts: list[Receipt] = field(default_factory=list)
    acknowledged: list[Upload] = field(default_factory=list)
    begun: int = 0
    in_flight: Counter[tuple[int, str]] = field(default_factory=Counter)  # by port and kind
    pace: float = 0
    is_over: bool = False

    def suffer(self, fault: Fault) -> None:
        """A round of load with a fault in its midst, and the reckoning."""
        before = self._unnamed()
        uploads = asyncio.run(self._round(fault))
        left = self._unnamed() - before
        free = asyncio.run(self._check(uploads, fault))
        if not fault.sweeps:
            note = f"{left} left, {free} unknown, {fault.name}"
            self.tally.expect(left >= free, "bytes deleted while the outcome was unknown", note)

    async def _round(self, fault: Fault) -> list[Upload]:
        uploads: list[Upload] = []
        servers = self.fleet.servers
        struck = servers if fault.is_everywhere else [self.chance.choice(servers)]
        sound = [server for server in servers if server not in struck]
        self.is_over, self.pace, self.in_flight = False, 0, Counter()
        load = [self._client(self.fleet.dealt(number), uploads) for number in range(CLIENTS)]
        load += [self._read(server, fault) for server in sound]
        tasks = [asyncio.ensure_future(client) for client in load]
        await asyncio.sleep(self.chance.uniform(EARLIEST, LATEST))
        self.pace = fault.pace
        await self._strike(fault, struck)
        await asyncio.sleep(AFTERMATH)
        self.is_over = True
        await asyncio.gather(*tasks)
        return uploads

    async def _strike(self, fault: Fault, struck: Sequence[Server]) -> None:
        ports = {server.port for server in struck}
        in_flight = sum(
            uploads for (port, kind), uploads in self.in_flight.items() if port in ports and fault.kind in (None, kind)
        )
        if not await fault.strike(self, struck[0]):
            self.tally.counts[f"{fault.name}: there was none"] += 1
            return
        self.tally.counts[fault.name] += 1
        self.tally.counts["uploads in flight at a fault"] += in_flight
        self.tally.inside += in_flight > 0

    async def go_on(self) -> None:
        """Return when an upload that is begun from now on has been acknowledged."""
        begun, deadline = self.begun, time.monotonic() + RECOVERY_SECONDS
        while not any(upload.number > begun for upload in self.acknowledged[-CLIENTS:]):
            if time.monotonic() > deadline:
                self.tally.expect(False, "servers that did not recover", f"within {RECOVERY_SECONDS} s")
                return
            await asyncio.sleep(0.01)

    async def _client(self, server: Server, uploads: list[Upload]) -> None:
        """On a new connection after every failure, until the round is over."""
        while not self.is_over:
            with suppress(ConnectionError):
                async with connected(server) as connection:
                    while not self.is_over and await self._upload(server, connection, uploads):
                        await asyncio.sleep(self.pace)
            await asyncio.sleep(max(self.pace, PAUSE))

    async def _upload(self, server: Server, connection: Connection, uploads: list[Upload]) -> bool:
        upload = self._next()
        uploads.append(upload)
        self.in_flight[server.port, upload.kind] += 1
        upload.reply = await connection.ask(form(server, upload.fields, upload.data, upload.kind))
        self.in_flight[server.port, upload.kind] -= 1
        if upload.reply.verdict != "ok":
            return False
        self.receipts.append(upload.reply.receipt(upload.data))
        self.acknowledged.append(upload)
        return True

    async def _read(self, server: Server, fault: Fault) -> None:
        """Whatever befalls the others, this one goes on serving."""
        while not self.is_over:
            if self.acknowledged:
                self.tally.counts["reads meanwhile"] += 1
                await self._check_served(self.acknowledged[-1], server, "reads that failed meanwhile")
            await asyncio.sleep(max(self.pace, PAUSE))

    def _next(self) -> Upload:
        self.begun += 1
        public_id = f"upload-{self.begun}"
        if self.chance.random() < 0.2:
            kind, data = "image", self.chance.choice(self.pictures)
        else:
            kind, data = "raw", self.chance.randbytes(64) * self.chance.randrange(1, LARGEST // 64)
        return Upload(self.begun, public_id, self.fleet.first.signed({"public_id": public_id}), kind, data)

    async def _check(self, uploads: Sequence[Upload], fault: Fault) -> int:
        """How many uploads whose outcome was told to be unknown had not happened."""
        pending, free = iter(uploads), 0

        async def lane() -> None:
            nonlocal free
            for upload in pending:
                if upload.reply.verdict == "ok":
                    await self._check_acknowledged(upload)
                else:
                    free += await self._check_other(upload, fault) and upload.reply.verdict == "outcome_unknown"

        await asyncio.gather(*(lane() for _ in range(CLIENTS)))
        return free

    async def _check_acknowledged(self, upload: Upload) -> None:
        self.tally.counts["acknowledged"] += 1
        await self._check_served(upload, self.fleet.dealt(upload.number))
        again = await self._again(upload, b"something else")
        self.tally.expect(again.verdict == "signature_used", "acknowledged, but not spent", upload.public_id)

    async def _check_other(self, upload: Upload, fault: Fault) -> bool:
        """Whether it was free. Without an answer: used by exactly one asset, or still good. Refused: free.

        Used after this.
        """
        told = upload.reply.verdict
        expected = told in UNKNOWN | fault.refusals
        self.tally.expect(expected, "refused for another's death", f"{upload.public_id}: {told}, {fault.name}")
        other = upload.data + b"again"
        reply = await self._again(upload, other)
        name = "unanswered" if told == "lost" else f"told {told}"
        if reply.verdict == "ok":
            self.tally.counts[f"{name}, were free"] += 1
            self.receipts.append(reply.receipt(other))
            return True
        self.tally.counts[f"{name}, had happened"] += 1
        could_be = told in UNKNOWN and reply.verdict == "signature_used"
        self.tally.expect(could_be, "neither used nor free", f"{upload.public_id}: {told}, {reply.verdict}")
        await self._check_served(upload, self.fleet.dealt(upload.number))
        return False

    async def _again(self, upload: Upload, data: bytes) -> Reply:
        server = self.fleet.dealt(upload.number)
        return await ask(server, form(server, upload.fields, data, upload.kind))

    async def _check_served(self, upload: Upload, server: Server, zero: str = "not served as it was sent") -> None:
        served = await fetch(server, f"/{server.cloud}/{upload.kind}/upload/{upload.public_id}")
        same = served.status == 200 and hashlib.sha256(served.data).digest() == hashlib.sha256(upload.data).digest()
        self.tally.expect(same, zero, f"{upload.public_id}: {served.status}")

    def _unnamed(self) -> int:
        """How many blobs no asset names."""
        place = self.fleet.place
        return len(place.media.keys() - {key for (key,) in place.rows("SELECT blob_key FROM assets")})

    def end(self) -> None:
        """The books agree with the clients, and a sweep leaves nothing that belongs to nothing."""
        place, tally = self.fleet.place, self.tally
        self.fleet.stop()
        swept = recover(place)
        tally.counts["uploads"] += self.begun
        tally.counts["orphans swept"] += swept["blobs"]
        tally.counts["staged files swept"] += swept["stages"]
        tally.audit(place, self.receipts)
        for what in ("assets", "audit WHERE event = 'spent'"):
            kept = count(place, what)
            tally.expect(kept == self.begun, "books that disagree with the clients", f"{what}: {kept}/{self.begun}")
