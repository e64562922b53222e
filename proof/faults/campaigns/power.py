"""Power cuts under load: what was acknowledged is there afterwards, and its signature stays spent.

A server works on a file system in an image, XFS or ext4, and eight clients upload and overwrite. Small blobs go into
packs, or become files. At a random moment the server is stopped, the file system is shut down without a log flush, and
the server is killed. The disk is mounted again, which recovers its journal. It is audited before any code of ours
changes it. Then a server starts on it, and every upload of the round is checked there. Then the disk is swept beside
that server and audited again. After a number of cuts the disk is made again. What was acknowledged is kept outside of
the disk.
"""

import asyncio
import random
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

import pytest

from proof.faults.audit import Receipt, examine
from proof.faults.clients import Connection, Reply, ask, connected, fetch, form
from proof.faults.control import seeded, until_red
from proof.faults.disks import Disk, disks, why_not
from proof.faults.operator import recover
from proof.faults.processes import freeze
from proof.faults.report import Report
from proof.faults.tally import Tally
from tests import samples
from tests.server import Server

CLIENTS = 8
CUTS_ON_ONE_DISK = 12
EARLIEST, LATEST = 0.0, 0.25  # seconds from the first upload to the cut
DRAIN = 0.003  # seconds for the replies that were on the wire
OVERWRITES, PICTURES, LARGE, PACKS = 0.25, 0.1, 0.05, 0.75
SMALL, LARGEST = 30_000, 2_500_000

PROGRAM = ("-m", "uponce")
MUTANTS = Path(__file__).parents[1] / "mutants"


@dataclass(frozen=True, slots=True)
class Rules:
    """Of the load: by which program, how many clients, for how long at least and at most, how long each one rests.

    `packs`: whether small blobs go into packs, or None for either, by chance.
    """

    program: tuple[str, ...] = PROGRAM
    clients: int = CLIENTS
    earliest: float = EARLIEST
    latest: float = LATEST
    rest: float = 0.0
    packs: bool | None = None


@dataclass(frozen=True, slots=True)
class Control:
    """A server with one thing left out. A cut on one of the disks must show it: in the figure `zero`.

    Without `zero` it must lose what it has acknowledged.
    """

    name: str
    rules: Rules
    zero: str = ""


CONTROLS = (
    Control(
        "acknowledged assets lost without fsync of the file",
        Rules((str(MUTANTS / "no_file_fsync.py"),), earliest=0.1, packs=False),
    ),
    Control(
        "acknowledged assets lost without fdatasync of the pack",
        Rules((str(MUTANTS / "no_pack_sync.py"),), earliest=0.1, packs=True),
    ),
    # The fsync of the next upload carries the rename of this one along.
    Control(
        "acknowledged assets lost without fsync of the folder",
        Rules((str(MUTANTS / "no_folder_fsync.py"),), 1, 0.4, 0.5, 0.03, packs=False),
    ),
    Control(
        "acknowledged assets lost with synchronous=NORMAL",
        Rules((str(MUTANTS / "synchronous_normal.py"),), earliest=0.1),
    ),
    # No upload is acknowledged before the sync, so nothing of that is lost: a row without bytes is what it leaves.
    Control(
        "rows without bytes by a commit before the sync of the pack",
        Rules((str(MUTANTS / "seals_after_commit.py"),), earliest=0.1, packs=True),
        zero="hollow",
    ),
)


@dataclass(eq=False)
class Upload:
    """One signature, and what became of it."""

    public_id: str
    fields: dict[str, str]
    kind: str
    data: bytes
    reply: Reply | None = None

    @property
    def acknowledged(self) -> bool:
        return self.reply is not None and self.reply.verdict == "ok"


@dataclass
class Round:
    """The load between a start and a cut. `receipts`: what stands acknowledged on this disk, by public_id."""

    server: Server
    chance: random.Random
    rules: Rules
    receipts: dict[str, Receipt]
    number: int
    uploads: list[Upload] = field(default_factory=list)
    in_flight: int = 0
    happened: int = 0
    cut: bool = False

    async def until_cut(self, disk: Disk) -> None:
        clients = [asyncio.ensure_future(self._client(name)) for name in range(self.rules.clients)]
        while not self.uploads and not any(client.done() for client in clients):
            await asyncio.sleep(0.001)
        await asyncio.sleep(self.chance.uniform(self.rules.earliest, self.rules.latest))
        while not (self.in_flight or self.rules.rest or any(client.done() for client in clients)):
            await asyncio.sleep(0)
        # An fsync that is under way while the file system shuts down may claim success, on XFS and on ext4 alike.
        # In a real power failure no process sees that, so the server must not live to see it return.
        freeze(self.server.pid)
        disk.cut()
        self.cut, in_flight = True, self.in_flight
        await asyncio.sleep(DRAIN)
        self.server.kill()
        await asyncio.gather(*clients)
        self.in_flight = in_flight

    async def _client(self, name: int) -> None:
        """Upload as fast as the server answers, and sometimes over an earlier upload of this client."""
        chance = random.Random(self.chance.random())
        mine: list[Upload] = []
        async with connected(self.server) as connection:
            while await self._send(connection, upload := self._next(chance, f"{self.number}-{name}", mine)):
                mine.append(upload)
                self.receipts[upload.public_id] = _receipt(upload)
                await asyncio.sleep(self.rules.rest)

    async def _send(self, connection: Connection, upload: Upload) -> bool:
        """Return whether the upload was acknowledged. Only a power cut may be a reason for anything else."""
        self.uploads.append(upload)
        self.in_flight += 1
        upload.reply = await connection.ask(form(self.server, upload.fields, upload.data, upload.kind))
        self.in_flight -= 1
        assert upload.acknowledged or self.cut, upload.reply
        return upload.acknowledged

    def _next(self, chance: random.Random, client: str, mine: Sequence[Upload]) -> Upload:
        nonce = f"{client}-{len(mine)}"
        over = chance.choice(mine) if mine and chance.random() < OVERWRITES else None
        if over is not None:
            public_id, kind = over.public_id, over.kind
        else:
            public_id, kind = nonce, "image" if chance.random() < PICTURES else "raw"
        fields = self.server.signed({"public_id": public_id, "nonce": nonce})
        return Upload(public_id, fields, kind, _media(chance, kind))


def run(seconds: float, seed: int) -> Report:
    if reason := why_not():
        pytest.skip(f"NOT TESTED: power cuts: {reason}")
    tally, deadline = Tally(), time.monotonic() + seconds
    chance = random.Random(seed)
    with disks() as every:
        for control in CONTROLS:
            losses(every, control, chance, tally)
        grounds = [(disk, Rules(packs=packs)) for packs in (True, False) for disk in every]
        while True:
            for left, (disk, rules) in zip(range(len(grounds), 0, -1), grounds, strict=True):
                now = time.monotonic()
                cuts(disk, rules, chance, tally, now + (deadline - now) / left)
            if time.monotonic() > deadline:
                return tally.report("power", seed)


def losses(every: Sequence[Disk], control: Control, chance: random.Random, tally: Tally) -> None:
    """Find a broken server by a cut on one of the disks."""

    def attempt(chance: random.Random) -> int:
        for disk in chance.sample(every, len(every)):
            found = Tally()
            lost = cuts(disk, control.rules, chance, found, deadline=0)
            if shown := found.zeros[control.zero] if control.zero else lost:
                return shown
        return 0

    until_red(tally, control.name, seeded(chance, attempt))


def cuts(disk: Disk, rules: Rules, chance: random.Random, tally: Tally, deadline: float) -> int:
    """Cuts on one new disk until the deadline, at least one; how many acknowledged assets were lost."""
    receipts: dict[str, Receipt] = {}
    lost = 0
    packs = chance.random() < PACKS if rules.packs is None else rules.packs
    env = {"UPONCE_DECODERS": "1"} | ({} if packs else {"UPONCE_PACK_BYTES": "0"})
    tally.counts[f"disks of {disk.kind} with {'packs' if packs else 'files only'}"] += 1
    with disk.fresh(), Server(disk.path, env=env, program=rules.program) as server:
        for number in range(CUTS_ON_ONE_DISK):
            load = Round(server, chance, rules, receipts, number)
            asyncio.run(load.until_cut(disk))
            disk.power_on()
            lost += judge(disk, load, tally)
            if lost or time.monotonic() > deadline:
                break
            server.workers = chance.choice((1, 1, 1, 2))
    return lost


def judge(disk: Disk, load: Round, tally: Tally) -> int:
    """Everything that must hold after a cut; how many acknowledged assets of the round were lost."""
    acknowledged = {upload.public_id for upload in load.uploads if upload.acknowledged}
    unanswered = {upload.public_id for upload in load.uploads if not upload.acknowledged}
    certain = [receipt for public_id, receipt in load.receipts.items() if public_id not in unanswered]
    failure: Exception | None = None
    try:
        tally.audit(disk.path, certain, ("lost", "double", "hollow"))
        half_done = len(examine(disk.path).orphans)
        load.server.start()
    except (AssertionError, sqlite3.Error) as error:
        failure = error
    tally.expect(failure is None, "disks that no server starts on", failure)
    if failure is not None:
        return len(acknowledged)
    lost = asyncio.run(_question(load, tally))
    recover(disk.path)
    tally.audit(disk.path, load.receipts.values())
    _count(disk, load, half_done, tally)
    return lost


def _count(disk: Disk, load: Round, half_done: int, tally: Tally) -> None:
    tally.inside += load.in_flight > 0
    tally.counts[f"cuts on {disk.kind}"] += 1
    tally.counts[f"cuts on {disk.kind} with uploads in flight"] += load.in_flight > 0
    tally.counts["cuts that left bytes without a row or a commit without an answer"] += half_done + load.happened > 0
    tally.counts["uploads"] += len(load.uploads)
    tally.counts["acknowledged"] += sum(upload.acknowledged for upload in load.uploads)
    tally.counts["in flight at a cut"] += load.in_flight
    tally.counts["unanswered that had happened"] += load.happened
    tally.counts["bytes without a row swept"] += half_done


async def _question(load: Round, tally: Tally) -> int:
    """Ask the restarted server about every upload of the round; how many assets have lost what was acknowledged."""
    assets: dict[str, list[Upload]] = {}
    for upload in load.uploads:
        assets.setdefault(upload.public_id, []).append(upload)
    pending, lost = iter(assets.values()), 0

    async def lane() -> None:
        nonlocal lost
        for uploads in pending:
            stands = await _stands(load, uploads, tally)
            lost += not stands

    await asyncio.gather(*(lane() for _ in range(CLIENTS)))
    return lost


async def _stands(load: Round, uploads: Sequence[Upload], tally: Tally) -> bool:
    """Return whether one asset is as its uploads were answered, and all their signatures are spent.

    Only the last upload may be unanswered. Then it has happened, or its signature is free.
    """
    first, last = uploads[0], uploads[-1]
    served = await fetch(load.server, f"/{load.server.cloud}/{first.kind}/upload/{first.public_id}")
    told = [upload for upload in uploads if upload.acknowledged]
    replays = [(await _send_again(load.server, upload)).verdict for upload in told]
    refused = set(replays) <= {"signature_used"}
    tally.counts["acknowledged signatures tried again"] += len(replays)
    tally.expect(refused, "acknowledged signatures that work again", f"{first.public_id}: {replays}")
    happened = last.acknowledged or await _has_happened(load, last, tally)
    expected = last if happened else told[-1] if told else None
    same = served.status == 404 if expected is None else served.data == expected.data and served.status == 200
    tally.expect(same, "assets served other than answered", f"{first.public_id}: {served.status}")
    return not told or (refused and same)


async def _has_happened(load: Round, upload: Upload, tally: Tally) -> bool:
    """Return whether an unanswered upload has happened. If not, its signature makes the asset now."""
    again = await _send_again(load.server, upload)
    definite = again.verdict in ("ok", "signature_used")
    tally.expect(definite, "signatures neither free nor spent", f"{upload.public_id}: {again}")
    if again.verdict == "ok":
        tally.counts["unanswered that were free"] += 1
        load.receipts[upload.public_id] = again.receipt(_other(upload))
        return False
    load.happened += 1
    if (before := load.receipts.get(upload.public_id)) is not None:
        load.receipts[upload.public_id] = replace(before, sha256=sha256(upload.data).hexdigest())
    return True


async def _send_again(server: Server, upload: Upload) -> Reply:
    return await ask(server, form(server, upload.fields, _other(upload), upload.kind))


def _other(upload: Upload) -> bytes:
    """Return the bytes of a repeated request. With the additional bytes at its end, a picture is still a picture."""
    return upload.data + b"again"


def _receipt(upload: Upload) -> Receipt:
    assert upload.reply is not None
    return upload.reply.receipt(upload.data)


def _media(chance: random.Random, kind: str) -> bytes:
    if kind == "image":
        return chance.choice(_PICTURES) + chance.randbytes(16)
    largest = LARGEST if chance.random() < LARGE else SMALL
    return chance.randbytes(64) * chance.randrange(1, largest // 64)


_PICTURES = [samples.jpeg(seed, 160, 120) for seed in range(4)]
