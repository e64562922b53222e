"""Many uploads with one signature that complete in the same moment: one winner each, over one and four processes.

Rounds alternate between the two, each on a new server, or between fleets of servers on one PostgreSQL, with an S3 store
or without. In some rounds bodies are gathered, and uploads go through their steps in groups. In others each body is
read while it arrives. Then all racers may reach the commit, so that the database decides alone, or the usual two
attempts a process are allowed. With an S3 store, no body is gathered, and mostly two attempts are allowed, because each
attempt costs three trips to the store.
"""

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.faults.audit import Receipt, count, examine
from proof.faults.clients import LOST, Connection, Reply, connected, form, hold_back, release
from proof.faults.control import seeded, until_red
from proof.faults.fleet import ONE_BOX, UPONCE, Fleet, Ground
from proof.faults.place import Place
from proof.faults.processes import owners
from proof.faults.report import Report
from proof.faults.tally import Tally
from tests import samples
from tests.server import Server

RACERS = 50
LANES = 5  # signatures that are contested at the same time
WORKERS = (1, 4)
USUAL_ATTEMPTS = 2
GROUPED = None
ATTEMPTS = (GROUPED, USUAL_ATTEMPTS, RACERS)
LONGEST_ROUND, SHORTEST_ROUND = 60.0, 2.0
CONTROL_SIGNATURES = 5
SPREAD_SECONDS = 10.0
LOOK_SECONDS = 0.05  # the kernel's table has all connections of the machine: reading it takes long
DEFINITE = frozenset({"ok", "signature_used", "signature_in_use"})

MUTANT = str(Path(__file__).parents[1] / "mutants" / "select_then_insert.py")

Media = Callable[[int, int], bytes]
"""(signature, racer) → the bytes that this racer uploads."""

Going = Callable[[int], bool]
"""Whether the signature of this number is still to be contested."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one round: how many processes, how many attempts for a grant in each, what is uploaded, by how many.

    On PostgreSQL each process is a separate server. Attempts are limited while bodies are read as they arrive. GROUPED
    bodies are gathered, and any number of them completes.
    """

    workers: int
    attempts: int | None
    kind: str
    racers: int = RACERS
    program: tuple[str, ...] = UPONCE
    ground: Ground = ONE_BOX

    @property
    def size(self) -> str:
        return self.ground.size(self.workers)

    def media(self) -> Media:
        if self.kind == "raw":
            return lambda signature, racer: f"{signature}/{racer} ".encode() * 500
        album = [samples.jpeg(seed, 160, 120) for seed in range(self.racers)]
        return lambda signature, racer: album[racer]


@dataclass
class Seen:
    """What the clients saw. `served`: requests by the process that had accepted their connection."""

    receipts: list[Receipt] = field(default_factory=list)
    winners: Counter[int] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    served: Counter[int] = field(default_factory=Counter)
    spread: int = 0

    def add(self, signature: int, reply: Reply, data: bytes) -> None:
        self.verdicts[reply.verdict] += 1
        self.winners[signature] += reply.verdict == "ok"
        if reply.verdict == "ok":
            self.receipts.append(reply.receipt(data))

    def add_processes(self, pids: Sequence[int]) -> None:
        self.served.update(pids)
        self.spread += len(set(pids)) > 1


def run(
    seconds: float,
    seed: int,
    *,
    name: str = "race",
    sizes: Sequence[int] = WORKERS,
    ground: Ground = ONE_BOX,
    allowed: Sequence[int | None] = ATTEMPTS,
) -> Report:
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-race-") as folder:
        for attempts in [each for each in (GROUPED, RACERS) if each in allowed]:
            control(Path(folder), chance, tally, ground, attempts)
        for number in itertools.count():
            rounds_due = max(1, len(sizes) - number)
            share = (deadline - time.monotonic()) / rounds_due
            if number >= len(sizes) and share < SHORTEST_ROUND:
                break
            attempts, kind = chance.choice(allowed), chance.choice(("raw", "raw", "image"))
            rules = Rules(sizes[number % len(sizes)], attempts, kind, ground=ground)
            race(Path(folder) / f"round-{number}", rules, until(min(share, LONGEST_ROUND)), tally)
    return tally.report(name, seed)


def until(seconds: float) -> Going:
    """At least one signature in each lane, however late it is."""
    end = time.monotonic() + max(seconds, SHORTEST_ROUND)
    return lambda signature: signature < LANES or time.monotonic() < end


def race(folder: Path, rules: Rules, going: Going, tally: Tally) -> Seen:
    """Run one round on separate servers. Its violations and its counts are added to the tally."""
    folder.mkdir()
    with _fleet(folder, rules) as fleet:
        seen = asyncio.run(contests(fleet, rules, going))
        fleet.stop()
    _judge(fleet.place, rules, seen, tally)
    return seen


def control(
    folder: Path, chance: random.Random, tally: Tally, ground: Ground = ONE_BOX, attempts: int | None = GROUPED
) -> None:
    """Find a server that looks before it inserts, and does not rely on the database: the race makes double spends."""
    rules = Rules(workers=2, attempts=attempts, kind="raw", program=(MUTANT,), ground=ground)
    way = "in groups" if attempts is GROUPED else "one by one"

    def attempt(_: random.Random) -> int:
        with TemporaryDirectory(dir=folder) as place, _fleet(Path(place), rules) as fleet:
            seen = asyncio.run(contests(fleet, rules, lambda signature: signature < CONTROL_SIGNATURES))
            fleet.stop()
            found = len(examine(fleet.place, seen.receipts).double)
        return min(found, sum(winners > 1 for winners in seen.winners.values()))

    until_red(tally, f"signatures spent twice by select-then-insert, {way}", seeded(chance, attempt))


async def contests(fleet: Fleet, rules: Rules, going: Going) -> Seen:
    seen, media = Seen(), rules.media()
    pending = itertools.takewhile(going, itertools.count())

    async def lane() -> None:
        async with AsyncExitStack() as stack:
            racers = [Racer(fleet.dealt(number), stack) for number in range(rules.racers)]
            for signature in pending:
                await contest(fleet, signature, rules, media, racers, seen)

    await asyncio.gather(*(lane() for _ in range(LANES)))
    return seen


@dataclass
class Racer:
    """Keeps its connection from contest to contest, unless the server closes it."""

    server: Server
    stack: AsyncExitStack
    connection: Connection | None = None
    process: int = 0

    async def connect(self) -> Connection:
        if self.connection is None:
            self.connection = await self.stack.enter_async_context(connected(self.server))
            self.process = await _owner(self.server, self.connection)
        return self.connection

    def hear(self, reply: Reply) -> None:
        if reply.status == LOST or reply.headers.get("connection") == "close":
            self.leave()

    def leave(self) -> None:
        if self.connection:
            self.connection.hang_up(reset=True)  # one that ends by FIN stays in the kernel's table for a minute
            self.connection = None


async def _spread(racers: Sequence[Racer]) -> list[Connection]:
    """Connect all, until each process of the server has a fair part: on a busy machine one may accept nearly all."""
    workers, deadline = racers[0].server.workers, time.monotonic() + SPREAD_SECONDS
    fair = len(racers) // (3 * workers)
    for racer in racers:
        # One by one: of connections that come together one process takes all, if it is idle.
        await racer.connect()
    while workers > 1 and time.monotonic() < deadline:
        held = Counter(racer.process for racer in racers)
        if len(held) == workers and min(held.values()) >= fair:
            break
        ((busiest, many),) = held.most_common(1)
        for racer in [each for each in racers if each.process == busiest][: many // 2]:
            racer.leave()
            await racer.connect()
    return [await racer.connect() for racer in racers]


async def contest(
    fleet: Fleet, signature: int, rules: Rules, media: Media, racers: Sequence[Racer], seen: Seen
) -> None:
    """Let all racers complete with one signature at the same time."""
    fields = fleet.first.signed({"nonce": f"signature-{signature}"})
    bodies = [media(signature, racer) for racer in range(rules.racers)]
    requests = [form(racer.server, fields, body, rules.kind) for racer, body in zip(racers, bodies, strict=True)]
    connections = await _spread(racers)
    await hold_back(connections, requests)
    seen.add_processes([racer.process for racer in racers])
    replies = await release(connections, requests)
    for racer, reply, body in zip(racers, replies, bodies, strict=True):
        racer.hear(reply)
        seen.add(signature, reply, body)


async def _owner(server: Server, connection: Connection) -> int:
    """Return the process that has accepted the connection."""
    if server.workers == 1:
        return server.pid
    async with asyncio.timeout(60):
        while not (found := owners(server.pid, server.port, [connection.port])):
            await asyncio.sleep(LOOK_SECONDS)
    return found[connection.port]


def _fleet(folder: Path, rules: Rules) -> AbstractContextManager[Fleet]:
    settings = {
        # A row each, to be compared with what the racers saw.
        "UPONCE_REFUSALS_PER_GRANT": str(rules.racers),
        # They connect one by one and then wait for one another, which takes long on a busy machine.
        "UPONCE_HEAD_SECONDS": "300",
        "UPONCE_IDLE_SECONDS": "300",
    }
    if rules.attempts is not GROUPED:
        settings["UPONCE_SMALL_BODY_BYTES"] = "0"
        # All racers have one address, which has all places but one.
        settings["UPONCE_ATTEMPTS_PER_GRANT"] = str(rules.attempts + 1)
    return rules.ground.opened(folder, rules.workers, program=rules.program, **settings)


def _judge(place: Place, rules: Rules, seen: Seen, tally: Tally) -> None:
    signatures, used = len(seen.winners), seen.verdicts["signature_used"]
    tally.counts[f"signatures, {rules.size}"] += signatures
    tally.counts["signatures contested over several processes"] += seen.spread
    tally.counts.update({f"completions answered {verdict}": number for verdict, number in seen.verdicts.items()})
    tally.inside += used
    tally.audit(place, seen.receipts)
    for signature, winners in seen.winners.items():
        tally.expect(winners == 1, "signatures without exactly one winner", f"{signature} has {winners}, {rules}")
    strange = {verdict: number for verdict, number in seen.verdicts.items() if verdict not in DEFINITE}
    tally.expect(not strange, "losers without a definite refusal", f"{strange}, {rules}")
    everyone = seen.verdicts.total() == signatures * rules.racers
    tally.expect(everyone, "racers without an answer", f"{seen.verdicts}, {rules}")
    books = {
        "assets": signatures,
        "audit WHERE event = 'spent'": signatures,
        "audit WHERE event = 'refused'": used,
    }
    for what, expected in books.items():
        kept = count(place, what)
        tally.expect(kept == expected, "books that disagree with the clients", f"{what}: {kept}, not {expected}")
    if rules.attempts == USUAL_ATTEMPTS:
        tally.expect(seen.verdicts["signature_in_use"] > 0, "rounds without a refused attempt", f"{rules}")
    else:
        alone = used == signatures * (rules.racers - 1)
        tally.expect(alone, "losers that the database did not refuse", f"{seen.verdicts}, {rules}")
