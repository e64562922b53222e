"""SIGKILL at random moments, under sixteen clients: to the whole server, to one of its workers, or to a decoder.

What was acknowledged is kept out here. After each kill everything of that round is asked for again: what was
acknowledged is served and spent, what was not is wholly there or wholly free.
"""

import asyncio
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.faults.audit import Receipt, count
from tests.faults.clients import Reply, ask, connected, fetch, form
from tests.faults.processes import commands
from tests.faults.report import Report
from tests.faults.tally import Tally
from tests.server import Server
from uponce.adapters.media import samples

CLIENTS = 16
WORKERS = 2
EARLIEST, LATEST = 0.02, 0.6  # seconds of load before a kill
AFTERMATH = 0.2  # seconds of load after a kill that the server survives
LARGEST = 400_000
KILLS_A_SITTING = 25  # then the folder is audited and thrown away: it grows by 30 MB with each kill
MOST_CONTROL_KILLS = 8

VICTIMS = ("server", "server", "worker", "decoder")
_COMMAND_OF = {"worker": b"multiprocessing.spawn", "decoder": b"uponce.adapters.media.worker"}

MUTANT = str(Path(__file__).parents[1] / "mutants" / "answers_first.py")


@dataclass(eq=False)
class Upload:
    """One signature with its own public_id, and what became of it."""

    public_id: str
    fields: dict[str, str]
    kind: str
    data: bytes
    reply: Reply = field(default_factory=lambda: Reply(0))


@dataclass
class Sitting:
    """One data folder's life: a server on it, everything that its clients were told, the choices still to come."""

    server: Server
    chance: random.Random
    tally: Tally
    pictures: Sequence[bytes]
    receipts: list[Receipt] = field(default_factory=list)
    begun: int = 0
    in_flight: Counter[str] = field(default_factory=Counter)  # by kind
    is_over: bool = False

    async def round(self, victim: str) -> list[Upload]:
        """Load, a kill in its midst, and what was being uploaded."""
        uploads: list[Upload] = []
        self.is_over, self.in_flight = False, Counter()
        clients = [asyncio.ensure_future(self._client(uploads)) for _ in range(CLIENTS)]
        await asyncio.sleep(self.chance.uniform(EARLIEST, LATEST))
        self._kill(victim)
        if victim != "server":
            await asyncio.sleep(AFTERMATH)
        self.is_over = True
        await asyncio.gather(*clients)
        return uploads

    def _kill(self, victim: str) -> None:
        # A decoder has to do with pictures only.
        in_flight = self.in_flight["image"] if victim == "decoder" else self.in_flight.total()
        if victim == "server":
            self.server.kill()
        elif not self._kill_one(victim):
            self.tally.counts[f"kills without a {victim} to kill"] += 1
            return
        self.tally.counts[f"kills of a {victim}"] += 1
        self.tally.counts["uploads in flight at a kill"] += in_flight
        self.tally.inside += in_flight > 0

    def _kill_one(self, victim: str) -> bool:
        found = [pid for pid, command in commands(self.server.pid).items() if _COMMAND_OF[victim] in command]
        with suppress(ProcessLookupError):
            if found:
                os.kill(self.chance.choice(sorted(found)), signal.SIGKILL)
                return True
        return False

    async def _client(self, uploads: list[Upload]) -> None:
        """Until the server is gone or the round is over."""
        async with connected(self.server) as connection:
            while not self.is_over:
                upload = self._next()
                uploads.append(upload)
                self.in_flight[upload.kind] += 1
                upload.reply = await connection.ask(form(self.server, upload.fields, upload.data, upload.kind))
                self.in_flight[upload.kind] -= 1
                if upload.reply.verdict == "lost":
                    return
                if upload.reply.verdict == "ok":
                    self.receipts.append(upload.reply.receipt(upload.data))

    def _next(self) -> Upload:
        self.begun += 1
        public_id = f"upload-{self.begun}"
        if self.chance.random() < 0.2:
            kind, data = "image", self.chance.choice(self.pictures)
        else:
            kind, data = "raw", self.chance.randbytes(64) * self.chance.randrange(1, LARGEST // 64)
        return Upload(public_id, self.server.signed({"public_id": public_id}), kind, data)

    async def check(self, uploads: Sequence[Upload]) -> None:
        pending = iter(uploads)

        async def lane() -> None:
            for upload in pending:
                await (self._check_acknowledged if upload.reply.verdict == "ok" else self._check_other)(upload)

        await asyncio.gather(*(lane() for _ in range(CLIENTS)))

    async def _check_acknowledged(self, upload: Upload) -> None:
        self.tally.counts["acknowledged"] += 1
        await self._check_served(upload)
        again = await ask(self.server, form(self.server, upload.fields, b"something else", upload.kind))
        self.tally.expect(again.verdict == "signature_used", "acknowledged, but not spent", upload.public_id)

    async def _check_other(self, upload: Upload) -> None:
        """Without an answer: used by exactly one asset, or still good. Refused: free. Used after this."""
        verdict = upload.reply.verdict
        self.tally.expect(verdict == "lost", "refused for another's death", f"{upload.public_id}: {verdict}")
        other = upload.data + b"again"
        reply = await ask(self.server, form(self.server, upload.fields, other, upload.kind))
        if reply.verdict == "ok":
            self.tally.counts["unanswered, were free"] += 1
            self.receipts.append(reply.receipt(other))
            return
        self.tally.counts["unanswered, had happened"] += 1
        could_be = verdict == "lost" and reply.verdict == "signature_used"
        self.tally.expect(could_be, "neither used nor free", f"{upload.public_id}: {verdict}, {reply.verdict}")
        await self._check_served(upload)

    async def _check_served(self, upload: Upload) -> None:
        served = await fetch(self.server, f"/{self.server.cloud}/{upload.kind}/upload/{upload.public_id}")
        same = served.status == 200 and hashlib.sha256(served.data).digest() == hashlib.sha256(upload.data).digest()
        self.tally.expect(same, "not served as it was sent", f"{upload.public_id}: {served.status}")

    def end(self) -> None:
        """The books agree with the clients, and a sweep leaves nothing that belongs to nothing."""
        data_dir, tally = self.server.data_dir, self.tally
        self.server.stop()
        swept = sweep(data_dir)
        tally.counts["uploads"] += self.begun
        tally.counts["orphans swept"] += swept["blobs"]
        tally.counts["staged files swept"] += swept["stages"]
        tally.audit(data_dir, self.receipts)
        for what in ("assets", "audit WHERE event = 'spent'"):
            kept = count(data_dir, what)
            tally.expect(kept == self.begun, "books that disagree with the clients", f"{what}: {kept}/{self.begun}")


def run(seconds: float, seed: int) -> Report:
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-kill-") as folder:
        control(Path(folder), chance, tally)
        sit(Path(folder), chance, tally, deadline)
        while time.monotonic() < deadline:
            sit(Path(folder), chance, tally, deadline)
    return tally.report("kill", seed)


def sit(folder: Path, chance: random.Random, tally: Tally, deadline: float) -> None:
    """So many kills of one server, or as many as there is time for, but one at least."""
    with TemporaryDirectory(dir=folder) as place, _server(Path(place)) as server:
        sitting = Sitting(server, chance, tally, _pictures())
        for _ in range(KILLS_A_SITTING):
            _strike(sitting, chance.choice(VICTIMS))
            if time.monotonic() >= deadline:
                break
        sitting.end()


def control(folder: Path, chance: random.Random, tally: Tally) -> None:
    """A server that answers before it commits: some kill has to show that what it said was not true."""
    with TemporaryDirectory(dir=folder) as place, _server(Path(place), MUTANT) as server:
        sitting = Sitting(server, chance, Tally(), _pictures())
        for _ in range(MOST_CONTROL_KILLS):
            _strike(sitting, "server")
            if sitting.tally.violations:
                break
        tally.controls["untrue answers given before the commit"] += sitting.tally.violations


def sweep(data_dir: Path) -> dict[str, int]:
    """`uponce sweep --grace 0`"""
    command = [sys.executable, "-m", "uponce", "sweep", "--data", str(data_dir), "--grace", "0", "--json"]
    swept: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return swept


def _strike(sitting: Sitting, victim: str) -> None:
    uploads = asyncio.run(sitting.round(victim))
    if victim == "server":
        sitting.server.start()
    asyncio.run(sitting.check(uploads))


def _server(folder: Path, *program: str) -> Server:
    return Server(folder / "data", workers=WORKERS, program=program or ("-m", "uponce"))


def _pictures() -> list[bytes]:
    return [samples.jpeg(seed, 160, 120) for seed in range(4)]
