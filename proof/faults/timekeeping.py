"""One data folder, the servers on it with their wrong clocks, and a client that knows the true time and its spends."""

import asyncio
import hashlib
import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from proof.faults.audit import Receipt
from proof.faults.clients import Reply, ask, connected, form
from proof.faults.faketime import FakeClock
from proof.faults.tally import Tally
from tests.server import Key, Server

WINDOW, SKEW, KEPT = 3600, 300, 3600 + 300 + 3600
MARGIN = 30
"""Seconds by which no demand comes closer to a limit than this."""

REFUSALS = frozenset({"signature_used", "stale_request", "future_timestamp"})
SETTINGS = {"UPONCE_SWEEP_SECONDS": "1", "UPONCE_DECODERS": "1", "UPONCE_AUDIT_DAYS": "36500"}
# Time that passes without waiting would make every new file look abandoned.
ENDLESS_GRACE = {"UPONCE_GRACE_SECONDS": "315360000"}
COVER = "cover"
_LANES = 8
_PATIENCE = 120
_TORN_BLOCKS = 2**16  # of 32 bytes: more than the server keeps back before it writes

Fields = dict[str, str]


class Timekeeping:
    """`truth`: seconds by which the true time is ahead of this machine's; moving it lets time pass without waiting.

    `errors`: by how much each server's clock is wrong now. `forgotten`: the newest timestamp whose spent signatures
    a purge may have dropped by now; what is not newer may be refused as stale, used or not. `sweeping`: files are
    swept after the usual grace time, and then the true time has to stay that of the machine.
    """

    def __init__(
        self, folder: Path, tally: Tally, *, servers: int = 1, sweeping: bool = False, mutant: str = ""
    ) -> None:
        folder.mkdir()
        self.tally = tally
        self.sweeping = sweeping
        self.truth = 0.0
        self.errors = [0.0] * servers
        self.forgotten = 0
        self.version = 0
        self._signed = 0
        self.spent: list[Fields] = []
        self.failed: list[Fields] = []
        self.receipts: dict[str, Receipt] = {}
        self.clocks = [FakeClock(folder / f"clock-{number}") for number in range(servers)]
        self.data_dir = folder / "data-0"
        self.servers = [
            Server(
                folder / f"data-{number}",
                env=SETTINGS | ({} if sweeping else ENDLESS_GRACE) | dict(clock.env),
                program=(mutant,) if mutant else ("-m", "uponce"),
            )
            for number, clock in enumerate(self.clocks)
        ]

    def start(self) -> None:
        """Start all servers. The others reach the first one's folder by a link, so that each writes a separate log."""
        first, *others = self.servers
        first.start()
        for server in others:
            server.data_dir.symlink_to(first.data_dir.name)
            server.start()
            server.cloud, server.browser, server.server = first.cloud, first.browser, first.server

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def kill(self) -> None:
        for server in self.servers:
            server.__exit__()

    # --- time

    @property
    def now(self) -> float:
        """Return the true time."""
        return time.time() + self.truth

    def step(self, errors: Sequence[float]) -> None:
        """From now on the servers' clocks are wrong by so much."""
        self._note_purges()
        self.errors = list(errors)
        for clock, error in zip(self.clocks, errors, strict=True):
            clock.step(self.truth + error)
        self._note_purges()

    def advance(self, seconds: float) -> None:
        """Time passes, for everybody."""
        self.truth += seconds
        self.step(self.errors)

    def is_right(self, number: int) -> bool:
        """Within the skew."""
        return abs(self.errors[number]) <= SKEW - MARGIN

    def _note_purges(self) -> None:
        latest = self.now + max(self.errors) + 1
        for fields in self.spent:
            stamp = int(fields["timestamp"])
            if stamp + KEPT < latest:
                self.forgotten = max(self.forgotten, stamp)

    async def purged(self) -> None:
        """Return when the servers have dropped what is over by their clocks."""
        latest = self.now + max(self.errors) - 1
        await self._until(lambda: not self.query(f"SELECT count(*) FROM grants WHERE keep_until < {latest:.0f}"))

    async def emptied(self) -> None:
        """Return when the ledger is empty."""
        await self._until(lambda: not self.query("SELECT count(*) FROM grants"))

    async def _until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(_PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)

    def query(self, sql: str) -> int:
        with closing(sqlite3.connect(f"file:{self.data_dir}/uponce.db?mode=ro", uri=True)) as database:
            number: int = database.execute(sql).fetchone()[0]
            return number

    # --- uploads

    def signed(self, stamp: float, key: Key | None = None, **params: str) -> Fields:
        self._signed += 1
        return self.servers[0].signed({"nonce": str(self._signed), **params}, key, timestamp=int(stamp))

    async def upload(self, fields: Fields, number: int = 0) -> Reply:
        data = json.dumps(fields).encode()
        return self.learn(fields, data, await ask(self.servers[number], form(self.servers[number], fields, data)))

    async def overwrite(self, stamp: float, number: int = 0) -> Reply:
        """Upload the same asset again. Its version must rise."""
        reply = await self.upload(self.signed(stamp, public_id=COVER), number)
        if reply.verdict == "ok":
            version = int(reply.body["version"])
            self.tally.counts["overwrites"] += 1
            self.tally.expect(version > self.version, "versions that did not rise", f"{version} after {self.version}")
            self.version = version
        return reply

    async def torn_by(self, fields: Fields, number: int, errors: Sequence[float], purge: bool) -> Reply:
        """Make an upload. In its middle, step the clocks, and perhaps purge the ledger."""
        data = hashlib.sha256(fields["nonce"].encode()).digest() * _TORN_BLOCKS
        request = form(self.servers[number], fields, data)
        async with connected(self.servers[number]) as connection:
            await connection.send(request[: -len(data) // 2])
            await self._staged()
            self.step(errors)
            if purge:
                await self.purged()
            await connection.send(request[-len(data) // 2 :])
            return self.learn(fields, data, await connection.reply())

    async def _staged(self) -> None:
        spool = self.data_dir / "media/spool"
        await self._until(lambda: any(spool.iterdir()))
        self.tally.inside += 1

    def learn(self, fields: Fields, data: bytes, reply: Reply) -> Reply:
        self.tally.counts[f"uploads answered {reply.verdict}"] += 1
        if reply.verdict == "ok":
            self.spent.append(fields)
            receipt = reply.receipt(data)
            self.receipts[receipt.asset_id] = receipt
        return reply

    async def replay_all(self) -> int:
        """Every spent signature on every server; how many were taken."""
        lanes, taken = asyncio.Semaphore(_LANES), 0

        async def replay(fields: Fields, server: Server) -> int:
            async with lanes:
                verdict = (await ask(server, form(server, fields, b"a replay"))).verdict
            self.tally.counts["replays"] += 1
            self.tally.counts[f"replays answered {verdict}"] += 1
            if verdict != "ok":
                self.tally.expect(verdict in REFUSALS, "replays without a definite refusal", verdict)
            return int(verdict == "ok")

        for accepted in await asyncio.gather(*(replay(f, s) for f in list(self.spent) for s in self.servers)):
            taken += accepted
        return taken
