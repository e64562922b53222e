"""Many uploads with one signature that complete in the same moment, over two server processes: one winner."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.faults.audit import Findings, Receipt, count, examine
from tests.faults.clients import Reply, connected, form, hold_back, release
from tests.faults.processes import owners
from tests.server import Server
from uponce.adapters.media import samples

SIGNATURES = 200
RACERS = 20
LANES = 5  # signatures that are contested at the same time

MUTANT = str(Path(__file__).with_name("mutants") / "select_then_insert.py")

Media = Callable[[int, int], bytes]
"""(signature, racer) → the bytes that this racer uploads."""


@dataclass
class Tally:
    """What the clients saw. `served`: requests by the process that had accepted their connection."""

    receipts: list[Receipt] = field(default_factory=list)
    winners: Counter[int] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    served: Counter[int] = field(default_factory=Counter)

    def add(self, signature: int, reply: Reply, data: bytes) -> None:
        self.verdicts[reply.verdict] += 1
        if reply.verdict == "ok":
            self.winners[signature] += 1
            self.receipts.append(reply.receipt(data))


def raw_media(signature: int, racer: int) -> bytes:
    return f"{signature}/{racer} ".encode() * 500


def pictures() -> Media:
    """A JPEG for each racer; the same twenty for every signature."""
    album = [samples.jpeg(seed, 160, 120) for seed in range(RACERS)]
    return lambda signature, racer: album[racer]


async def contest(server: Server, signature: int, kind: str, media: Media, tally: Tally) -> None:
    """One signature, RACERS connections of its own, all complete together."""
    fields = server.signed({"nonce": f"signature-{signature}"})
    bodies = [media(signature, racer) for racer in range(RACERS)]
    async with AsyncExitStack() as stack:
        connections = [await stack.enter_async_context(connected(server)) for _ in bodies]
        requests = [form(server, fields, body, kind) for body in bodies]
        await hold_back(connections, requests)
        tally.served.update(await accepted(server, [connection.port for connection in connections]))
        replies = await release(connections, requests)
    for reply, body in zip(replies, bodies, strict=True):
        tally.add(signature, reply, body)


async def accepted(server: Server, ports: Sequence[int]) -> Iterable[int]:
    """Wait until the server holds all connections; the process of each."""
    async with asyncio.timeout(30):
        while len(held := owners(server.pid, server.port, ports)) < len(ports):
            await asyncio.sleep(0.002)
    return held.values()


async def campaign(server: Server, signatures: int, kind: str, media: Media) -> Tally:
    tally, pending = Tally(), iter(range(signatures))

    async def lane() -> None:
        for signature in pending:
            await contest(server, signature, kind, media, tally)

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return tally


@contextmanager
def two_workers(folder: Path, attempts: int, program: tuple[str, ...] = ("-m", "uponce")) -> Iterator[Server]:
    limits: Mapping[str, str] = {"UPONCE_ATTEMPTS_PER_GRANT": str(attempts)}
    with Server(folder / "data", workers=2, env=limits, program=program) as server:
        yield server


def report(name: str, tally: Tally, findings: Findings) -> None:
    workers = ", ".join(f"pid {pid}: {served}" for pid, served in tally.served.most_common())
    print(f"{name}: {dict(tally.verdicts)}; requests by worker: {workers}; double: {len(findings.double)}")


@pytest.mark.parametrize(
    ("attempts", "kind"),
    [
        pytest.param(2, "image", id="the usual two attempts a process, JPEG"),
        pytest.param(RACERS, "raw", id="all reach the commit, raw"),
    ],
)
def test_one_of_twenty_wins(tmp_path: Path, attempts: int, kind: str) -> None:
    """Exactly one asset for each of 200 signatures; every loser is told why, and the books agree with the clients."""
    with two_workers(tmp_path, attempts) as server:
        tally = asyncio.run(campaign(server, SIGNATURES, kind, raw_media if kind == "raw" else pictures()))
        findings = examine(server.data_dir, tally.receipts)
        report(f"{attempts} attempts", tally, findings)
        assert not findings
        assert tally.winners == dict.fromkeys(range(SIGNATURES), 1)
        assert tally.verdicts.keys() <= {"ok", "signature_used", "signature_in_use"}
        assert tally.verdicts.total() == SIGNATURES * RACERS
        assert count(server.data_dir, "assets") == SIGNATURES
        assert count(server.data_dir, "audit WHERE event = 'spent'") == SIGNATURES
        assert count(server.data_dir, "audit WHERE event = 'refused'") == tally.verdicts["signature_used"]
        assert len(tally.served) == 2, "both workers must take part"
        assert tally.served.total() == SIGNATURES * RACERS
        assert min(tally.served.values()) > SIGNATURES * RACERS // 10
        if attempts == RACERS:
            assert tally.verdicts["signature_used"] == SIGNATURES * (RACERS - 1)


def test_the_race_finds_a_ledger_that_looks_before_it_inserts(tmp_path: Path) -> None:
    """The same campaign, on a server whose commit is select-then-insert, counts double spends."""
    signatures = 20
    with two_workers(tmp_path, RACERS, (MUTANT,)) as server:
        tally = asyncio.run(campaign(server, signatures, "raw", raw_media))
        findings = examine(server.data_dir, tally.receipts)
        report("select-then-insert", tally, findings)
        assert findings.double
        assert sum(tally.winners.values()) > signatures
