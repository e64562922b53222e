"""Uploads in several requests, in chunks and by tus, sixty-four at a time.

They run under SIGKILLs, over a bad network, broken off at every byte, with a race for their last part, and replayed.
Every client goes on until its file is stored. In the end each file is exactly one asset of the right bytes, and all of
its signatures are spent. What clients have left behind is swept with its bytes.
"""

import asyncio
import hashlib
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol, TypeVar

from proof.faults.audit import Receipt, count
from proof.faults.clients import Reply, connected
from proof.faults.control import seeded, until_red
from proof.faults.fleet import UPONCE, Fleet, on_sqlite
from proof.faults.operator import recover
from proof.faults.processes import commands
from proof.faults.proxy import FaultProxy
from proof.faults.report import Report
from proof.faults.senders import Chunked, Keyed, Request, Resumable, Sender, Tus, Way, served, spread, straight
from proof.faults.tally import Tally
from proof.faults.ways import PLACES, WHICH, bad_network, broken_off
from tests.server import Server

PARALLEL, LANES = 64, 16
ON_BAD_NETWORK = 32
WORKERS = 2
SMALLEST, LARGEST = 2_000, 120_000
SETTINGS = {"UPONCE_MIN_CHUNK_BYTES": "1", "UPONCE_RECORD_BYTES": "10000", "UPONCE_TAKEOVER_SECONDS": "30"}
EARLIEST, LATEST = 0.1, 1.5  # seconds of load before a kill
LONGEST_WAIT = 10.0  # seconds until something is under way then
PATIENCE = 5.0  # seconds after which a client on a bad network gives a connection up
LEAVERS = 0.05
RACERS = 8
SHORTEST_ROUND, LONGEST_ROUND = 2.0, 60.0
NOT_SERVED, TAKEN_AGAIN = "not served as it was sent", "replays that were stored"
CONTROL_UPLOADS, CONTROL_SECONDS = 8, 15.0

_MUTANTS = Path(__file__).parents[1] / "mutants"
_DEFINITE = frozenset(
    "ok signature_used upload_complete offset_conflict chunk_conflict chunk_superseded chunk_in_progress".split()
)
"""What somebody may hear who races for the last piece of an upload."""

PROTOCOLS: tuple[type[Resumable], ...] = (Chunked, Tus)
Going = Callable[[], bool]
T = TypeVar("T", bound=Sender)


@dataclass
class Sitting:
    """Everything that happens to one store: the servers on it, and all clients.

    A request goes to any of the servers.
    """

    fleet: Fleet
    chance: random.Random
    tally: Tally
    parallel: int = PARALLEL
    begun: int = 0
    running: set[Sender] = field(default_factory=set)
    ended: list[Sender] = field(default_factory=list)
    checked: int = 0

    @property
    def server(self) -> Server:
        return self.fleet.first

    def _straight(self) -> Way:
        return spread([straight(server) for server in self.fleet.servers], self.chance)

    async def amid_kills(self, going: Going) -> None:
        """SIGKILLs of a server or one of its workers while many uploads are under way."""
        await self._amid_kills(self._straight(), going)

    async def amid_kills_on_a_bad_network(self, going: Going) -> None:
        with self._bad_network() as (way, _):
            await self._amid_kills(way, going)

    async def _amid_kills(self, way: Way, going: Going) -> None:
        is_over = asyncio.Event()
        clients = [asyncio.ensure_future(self._client(way, lambda: not is_over.is_set())) for _ in range(self.parallel)]
        while not is_over.is_set():
            await asyncio.sleep(self.chance.uniform(EARLIEST, LATEST))
            await self._until_under_way()
            await self._kill()
            if not going():
                is_over.set()
        await asyncio.gather(*clients)

    async def _until_under_way(self) -> None:
        """Wait until a part of some upload has been acknowledged. Before that a kill has little to break."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_WAIT):
                while not any(sender.is_under_way for sender in self.running):
                    await asyncio.sleep(0.01)

    @contextmanager
    def _bad_network(self) -> Iterator[tuple[Way, Sequence[FaultProxy]]]:
        with ExitStack() as stack:
            proxies = [
                stack.enter_context(
                    FaultProxy(server.port, bad_network(random.Random(self.chance.random()), LARGEST // 4))
                )
                for server in self.fleet.servers
            ]
            yield spread([straight(bad, PATIENCE) for bad in proxies], self.chance), proxies

    async def _kill(self) -> None:
        under_way = sum(sender.is_under_way for sender in self.running)
        server = self.chance.choice(self.fleet.servers)
        workers = [pid for pid, words in commands(server.pid).items() if b"multiprocessing.spawn" in words]
        victim = self.chance.choice(("server", "server", "worker" if workers else "server"))
        if victim == "server":
            server.kill()
        else:
            with suppress(ProcessLookupError):
                os.kill(self.chance.choice(sorted(workers)), signal.SIGKILL)
        self.tally.counts[f"kills of a {victim}"] += 1
        self.tally.counts["uploads under way at a kill"] += under_way
        self.tally.inside += under_way > 0
        if victim == "server":
            await asyncio.to_thread(server.start)

    async def _client(self, way: Way, going: Going, protocols: Sequence[type[Sender]] = PROTOCOLS) -> None:
        """Make one upload at least, as a machine may stall for as long as a round takes."""
        while True:
            sender = self._next(self.chance.choice(protocols), way)
            if isinstance(sender, Resumable):
                sender.leaves = self.chance.random() < LEAVERS
            await self._run(sender)
            if not going():
                return

    async def over_a_bad_network(self, going: Going) -> None:
        """Connections that are cut or reset, lose their reply, fall silent, or crawl."""
        before = len(self.ended)
        with self._bad_network() as (way, proxies):
            await asyncio.gather(
                *(self._client(way, going, (*PROTOCOLS, Keyed)) for _ in range(min(ON_BAD_NETWORK, self.parallel)))
            )
        self.tally.counts["uploads over a bad network"] += len(self.ended) - before
        for bad in proxies:
            self.tally.counts.update({f"connections with a fault: {kind}": many for kind, many in bad.struck.items()})
            self.tally.inside += bad.struck.total()

    async def broken_off(self, going: Going) -> None:
        """Parts that end at every kind of byte; each protocol has its turn at each place."""
        turns = [(protocol, place) for protocol in PROTOCOLS for place in PLACES]
        self.chance.shuffle(turns)
        pending = iter(turns)

        async def lane() -> None:
            while (turn := next(pending, None)) or going():
                protocol, place = turn or (self.chance.choice(PROTOCOLS), self.chance.choice(PLACES))
                sender = self._next(protocol, self._straight())
                which = self.chance.choice(("first", "last") if turn else sorted(WHICH))  # a middle may be missing
                server = self.chance.choice(self.fleet.servers)
                sender.way = broken_off(server, sender.way, sender.data, which, place, self.chance, self.tally)
                await self._run(sender)

        await asyncio.gather(*(lane() for _ in range(LANES // 2)))

    async def raced(self, going: Going) -> None:
        await self.race()
        while going():
            await self.race()

    async def race(self) -> None:
        """Many send the last missing piece at once: the same bytes, or each other ones."""
        sender = self._next(self.chance.choice(PROTOCOLS), self._straight())
        sender.leaves = True
        await sender.run()
        missing = sender.missing()
        is_equal = self.chance.random() < 0.5
        requests = [
            missing if is_equal else missing._replace(file=self.chance.randbytes(len(missing.file)))
            for _ in range(RACERS)
        ]
        replies = await self._at_once(requests)
        self.tally.counts["races for the last piece"] += 1
        self.tally.counts.update(f"racers answered {reply.verdict}" for reply in replies)
        self.tally.inside += RACERS - 1
        strange = {reply.verdict for reply in replies} - _DEFINITE
        self.tally.expect(not strange, "racers without a definite answer", f"{sender.public_id}: {strange}")
        won = [(reply, request.file) for reply, request in zip(replies, requests, strict=True) if reply.verdict == "ok"]
        self.tally.expect(bool(won), "races without a winner", f"{sender.public_id}: {replies}")
        if won:
            sender.asset, piece = won[0]
            sender.data = sender.data[: -len(piece)] + piece
            same = {(reply.body["asset_id"], piece) for reply, piece in won}
            self.tally.expect(len(same) == 1, "races with several winners", f"{sender.public_id}: {len(same)}")
        sender.leaves = False
        self.ended.append(sender)

    async def _at_once(self, requests: Sequence[Request]) -> list[Reply]:
        async with AsyncExitStack() as stack:
            connections = [
                await stack.enter_async_context(connected(self.fleet.dealt(number))) for number in range(len(requests))
            ]
            for connection, request in zip(connections, requests, strict=True):
                connection.send_now(request.whole)
            return await asyncio.gather(*(connection.reply() for connection in connections))

    def _next(self, protocol: type[T], way: Way) -> T:
        self.begun += 1
        data = self.chance.randbytes(self.chance.randrange(SMALLEST, LARGEST))
        return protocol(self.server, way, f"upload-{self.begun}", data, self.chance)

    async def _run(self, sender: Sender) -> None:
        self.running.add(sender)
        await sender.run()
        self.running.discard(sender)
        self.ended.append(sender)

    async def check(self) -> None:
        """Check all uploads that have ended since the last time: what is served, and how a replay is answered."""
        late, self.checked = iter(self.ended[self.checked :]), len(self.ended)

        async def lane() -> None:
            for sender in late:
                await self._check(sender)

        await asyncio.gather(*(lane() for _ in range(LANES)))

    async def _check(self, sender: Sender) -> None:
        tally, kind = self.tally, type(sender).__name__.lower()
        tally.counts["requests without a reply"] += sender.lost
        if isinstance(sender, Resumable) and sender.leaves:
            tally.counts["uploads that their clients left"] += 1
            tally.expect(not sender.refused, "uploads that were refused", f"{sender.public_id}: {sender.refused}")
            return
        tally.counts[f"uploads, {kind}"] += 1
        tally.counts["told that it had happened"] += sender.asset is None
        told = f"{kind} {sender.public_id}: {sender.refused or 'no asset'}"
        tally.expect(sender.is_stored, "uploads that did not end as an asset", told)
        tally.expect(not sender.is_stored or await served(sender), NOT_SERVED, told)
        replay, refusal = self.chance.choice(list(sender.replays()))
        reply = await self._straight()(replay)
        tally.counts["replays"] += 1
        tally.expect(reply.verdict != "ok", TAKEN_AGAIN, told)
        tally.expect(reply.verdict == refusal, "replays that were not refused", f"{told}: {reply.verdict}")

    def end(self) -> None:
        """Check that database and clients agree, and that a sweep deletes everything that was left behind."""
        place, tally = self.fleet.place, self.tally
        self.fleet.stop()
        stored = [sender for sender in self.ended if sender.is_stored]
        receipts = [_receipt(sender) for sender in stored if sender.asset is not None]
        tally.audit(place, receipts, ("lost", "double", "hollow"))
        signatures = sum(len(sender.signed) for sender in stored)
        self._expect("assets", len(stored))
        for what in ("grants WHERE uses = 1", "grants", "audit WHERE event = 'spent'"):
            self._expect(what, signatures)
        self._expect("series", sum(isinstance(sender, Resumable) and sender.leaves for sender in self.ended))
        time.sleep(2)  # until the last of them is older than a second
        later = replace(place, environment={**place.environment, "UPONCE_SERIES_SECONDS": "1"})
        recover(later)
        self._expect("series", 0)
        tally.audit(later, receipts)

    def _expect(self, what: str, expected: int) -> None:
        kept = count(self.fleet.place, what)
        self.tally.expect(kept == expected, "books that disagree with the clients", f"{what}: {kept}, not {expected}")


def _receipt(sender: Sender) -> Receipt:
    assert sender.asset is not None
    body = sender.asset.body
    return Receipt(body["public_id"], body["asset_id"], hashlib.sha256(sender.data).hexdigest())


class Opened(Protocol):
    """The fleet of one sitting, in this folder."""

    def __call__(self, folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]: ...


Control = Callable[[Path, random.Random, Tally], None]


def run(seconds: float, seed: int, parallel: int = PARALLEL) -> Report:
    return sittings("series", seconds, seed, parallel, _one_box, (control_kills, control_races, control_replays))


def sittings(
    name: str, seconds: float, seed: int, parallel: int, opened: Opened, controls: Sequence[Control]
) -> Report:
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix=f"uponce-{name}-") as folder:
        for number, control in enumerate(controls):
            control(Path(folder) / f"control-{number}", chance, tally)
        sit(Path(folder), chance, tally, deadline, parallel, opened)
        while time.monotonic() < deadline:
            sit(Path(folder), chance, tally, deadline, parallel, opened)
    return tally.report(name, seed)


def sit(folder: Path, chance: random.Random, tally: Tally, deadline: float, parallel: int, opened: Opened) -> None:
    """Run one round of each kind on separate servers."""
    with TemporaryDirectory(dir=folder) as place, opened(Path(place)) as fleet:
        sitting = Sitting(fleet, chance, tally, parallel)
        rounds = [
            chance.choice((sitting.amid_kills, sitting.amid_kills, sitting.amid_kills_on_a_bad_network)),
            sitting.over_a_bad_network,
            sitting.broken_off,
            sitting.raced,
        ]
        chance.shuffle(rounds)
        for number, play in enumerate(rounds):
            share = (deadline - time.monotonic()) / (len(rounds) - number)
            asyncio.run(_play(sitting, play, min(max(share, SHORTEST_ROUND), LONGEST_ROUND)))
        sitting.end()


async def _play(sitting: Sitting, play: Callable[[Going], Awaitable[None]], seconds: float) -> None:
    end = time.monotonic() + seconds
    await play(lambda: time.monotonic() < end)
    await sitting.check()


def control(
    name: str,
    chance: random.Random,
    tally: Tally,
    fleet: AbstractContextManager[Fleet],
    play: Callable[[Sitting], Awaitable[None]],
    zero: str,
) -> None:
    """Play on a broken fleet, with other choices each time, until the figure `zero` shows that it is broken."""
    with fleet as broken:

        def attempt(chance: random.Random) -> int:
            sitting = Sitting(broken, chance, Tally(), LANES, begun=chance.getrandbits(40))

            async def limited() -> None:
                async with asyncio.timeout(CONTROL_SECONDS):  # a broken server may never answer
                    await play(sitting)
                    await sitting.check()

            with suppress(TimeoutError, ConnectionError):  # a play that was cut may leave a server that still starts
                asyncio.run(limited())
            return sitting.tally.zeros[zero]

        until_red(tally, name, seeded(chance, attempt))


async def several_races(sitting: Sitting) -> None:
    """Run some races, each with its check: a broken server may answer the next one never."""
    for _ in range(CONTROL_UPLOADS):
        await sitting.race()
        await sitting.check()


async def amid_a_kill(sitting: Sitting) -> None:
    await sitting.amid_kills(lambda: False)


def control_kills(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Find a server that records what it has not written yet: after some kill, acknowledged bytes are missing."""
    broken = _one_box(folder, program=mutant("records_first.py"))
    control("uploads torn by a record before the bytes", chance, tally, broken, amid_a_kill, NOT_SERVED)


def control_races(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Find a server that does not look again when it may write: a late client writes into what is published."""
    broken = _one_box(folder, program=mutant("no_look_after_hold.py"))
    control("assets that a late piece has changed", chance, tally, broken, several_races, NOT_SERVED)


def control_replays(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Find a server that spends only the last signature of an upload: the others work for another file."""

    async def play(sitting: Sitting) -> None:
        for _ in range(CONTROL_UPLOADS):
            await sitting._run(sitting._next(Chunked, sitting._straight()))

    broken = _one_box(folder, program=mutant("spends_last.py"))
    control("replays taken when only the last signature is spent", chance, tally, broken, play, TAKEN_AGAIN)


def mutant(name: str) -> Sequence[str]:
    """Return the program of that name."""
    return (str(_MUTANTS / name),)


def _one_box(folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]:
    folder.mkdir(exist_ok=True)
    return on_sqlite(folder, WORKERS, program=program, **SETTINGS)
