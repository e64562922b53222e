"""SIGKILL to all of a server's processes at random moments, under load: nothing acknowledged is lost or repeated.

CAMPAIGN_SEED repeats a run's choices, CAMPAIGN_KILLS sets their number. What was acknowledged is kept out here.
"""

import asyncio
import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.audit import Receipt, count, examine
from tests.faults.clients import Reply, ask, connected, fetch, form
from tests.server import Server
from uponce.adapters.media import samples

CLIENTS = 16
WORKERS = 2
EARLIEST, LATEST = 0.02, 0.6  # seconds of load before a kill
LARGEST = 400_000

MUTANT = str(Path(__file__).with_name("mutants") / "answers_first.py")

SEED = int(os.environ.get("CAMPAIGN_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
KILLS = int(os.environ.get("CAMPAIGN_KILLS", "25"))


@dataclass(eq=False)
class Upload:
    """One signature with its own public_id, and what became of it."""

    public_id: str
    fields: dict[str, str]
    kind: str
    data: bytes
    reply: Reply | None = None


@dataclass
class Witness:
    """Everything that clients did and were told."""

    receipts: list[Receipt] = field(default_factory=list)
    begun: int = 0
    kills: int = 0
    kills_in_flight: int = 0
    in_flight: int = 0
    cut: Counter[str] = field(default_factory=Counter)


class Load:
    """Sixteen clients that upload as fast as they can until the server is gone. One round, one load."""

    def __init__(self, server: Server, witness: Witness, chance: random.Random, pictures: Sequence[bytes]) -> None:
        self._server = server
        self._witness = witness
        self._chance = chance
        self._pictures = pictures
        self._in_flight = 0
        self.uploads: list[Upload] = []

    async def run_and_kill(self) -> None:
        clients = [asyncio.ensure_future(self._client()) for _ in range(CLIENTS)]
        await asyncio.sleep(self._chance.uniform(EARLIEST, LATEST))
        witness = self._witness
        witness.kills += 1
        witness.kills_in_flight += self._in_flight > 0
        witness.in_flight += self._in_flight
        self._server.kill()
        await asyncio.gather(*clients)

    async def _client(self) -> None:
        async with connected(self._server) as connection:
            while True:
                upload = self._next()
                self._in_flight += 1
                upload.reply = await connection.ask(form(self._server, upload.fields, upload.data, upload.kind))
                self._in_flight -= 1
                if upload.reply.verdict == "lost":
                    return
                assert upload.reply.verdict == "ok", upload.reply.body
                self._witness.receipts.append(upload.reply.receipt(upload.data))

    def _next(self) -> Upload:
        witness, chance = self._witness, self._chance
        witness.begun += 1
        public_id = f"upload-{witness.begun}"
        if chance.random() < 0.2:
            kind, data = "image", chance.choice(self._pictures)
        else:
            kind, data = "raw", chance.randbytes(64) * chance.randrange(1, LARGEST // 64)
        upload = Upload(public_id, self._server.signed({"public_id": public_id}), kind, data)
        self.uploads.append(upload)
        return upload


async def check_round(server: Server, witness: Witness, uploads: Sequence[Upload]) -> None:
    """After a restart: what was acknowledged is served and spent, what was not is wholly there or wholly free."""
    pending = iter(uploads)

    async def lane() -> None:
        for upload in pending:
            assert upload.reply is not None
            check = check_unanswered if upload.reply.verdict == "lost" else check_acknowledged
            await check(server, witness, upload)

    await asyncio.gather(*(lane() for _ in range(CLIENTS)))


async def check_acknowledged(server: Server, witness: Witness, upload: Upload) -> None:
    await check_served(server, upload)
    again = await ask(server, form(server, upload.fields, b"something else", upload.kind))
    assert again.verdict == "signature_used", (upload.public_id, again.body)


async def check_unanswered(server: Server, witness: Witness, upload: Upload) -> None:
    """Used by exactly one asset, or still good; after this it is used in either case."""
    other = upload.data + b"again"
    reply = await ask(server, form(server, upload.fields, other, upload.kind))
    witness.cut[reply.verdict] += 1
    if reply.verdict == "ok":
        witness.receipts.append(reply.receipt(other))
        return
    assert reply.verdict == "signature_used", (upload.public_id, reply.body)
    await check_served(server, upload)


async def check_served(server: Server, upload: Upload) -> None:
    served = await fetch(server, f"/{server.cloud}/{upload.kind}/upload/{upload.public_id}")
    assert served.status == 200, upload.public_id
    assert hashlib.sha256(served.data).digest() == hashlib.sha256(upload.data).digest(), upload.public_id


def sweep(data_dir: Path) -> dict[str, int]:
    """`uponce sweep --grace 0`"""
    command = [sys.executable, "-m", "uponce", "sweep", "--data", str(data_dir), "--grace", "0", "--json"]
    swept: dict[str, int] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    return swept


def campaign(folder: Path, kills: int, program: Sequence[str] = ("-m", "uponce")) -> None:
    chance = random.Random(SEED)
    witness = Witness()
    pictures = [samples.jpeg(seed, 160, 120) for seed in range(4)]
    with Server(folder / "data", workers=WORKERS, program=program) as server:
        for _ in range(kills):
            load = Load(server, witness, chance, pictures)
            asyncio.run(load.run_and_kill())
            server.start()
            asyncio.run(check_round(server, witness, load.uploads))
        server.stop()
    swept = sweep(folder / "data")
    findings = examine(folder / "data", witness.receipts)
    print(
        f"seed {SEED}: {witness.kills} kills, {witness.kills_in_flight} of them with uploads in flight "
        f"({witness.in_flight}); {witness.begun} uploads, {len(witness.receipts)} acknowledged; "
        f"unanswered: {witness.cut['signature_used']} had happened, {witness.cut['ok']} were free; swept {swept}"
    )
    assert not findings
    assert count(folder / "data", "assets") == witness.begun
    assert count(folder / "data", "audit WHERE event = 'spent'") == witness.begun
    assert witness.kills_in_flight > kills // 2, "most kills must hit uploads, or nothing was tried"
    assert witness.cut["signature_used"] + swept["blobs"] > 0, "some must hit just before or after a commit"


def test_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    campaign(tmp_path, KILLS)


def test_kills_find_answers_that_are_given_before_the_commit(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="upload-"):
        campaign(tmp_path, 3, (MUTANT,))


@pytest.mark.full
def test_a_hundred_kills(tmp_path: Path) -> None:
    campaign(tmp_path, 100)
