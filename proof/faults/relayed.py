"""A relay and its upstream, both uponce, their clients, and what the two servers may suffer."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType

from proof.faults.audit import Receipt
from proof.faults.clients import LOST, Reply, ask, fetch, form
from proof.faults.fleet import ONE_BOX, UPONCE, Fleet, Ground
from proof.faults.operator import hasten, recover
from proof.faults.place import Place
from proof.faults.processes import is_stopped
from proof.faults.proxy import Fault, FaultProxy, Kind
from proof.faults.stopping import STOP
from proof.faults.strace import attached, highest_by_call
from proof.faults.tally import Tally
from tests.server import Server

RACERS = 50
RACERS_UNDER_KILLS = 8
LANES = 4  # signatures that are contested at the same time
TRIES = 4
RETRY_SECONDS = 0.25
RECOVERY_SECONDS = 60
LOOK_SECONDS = 0.5
BETWEEN_KILLS = (0.3, 1.5)
UNHURT = 0.4  # the share of connections to the upstream that no fault strikes
STRUCK_WITHIN = 120_000  # bytes

# Passed on from memory, while it arrives, and in chunks: these are the bounds, and files on each side.
BOUNDS = {
    "UPONCE_SMALL_BODY_BYTES": "10000",
    "UPONCE_RELAY_WHOLE_BYTES": "60000",
    "UPONCE_RELAY_CHUNK_BYTES": "5242880",
    "UPONCE_MAX_FORM_BYTES": "65536",  # so a file of two chunks is certain to have the first one, which leaves at once
}
SIZES = (2_000, 40_000, 100_000)
IN_CHUNKS = 6_000_000  # more than one
IN_THE_SIGNATURE = 150  # so many bytes before the end of a form

# What an exchange consists of, on connections and on the disk; `write` also wakes threads.
CALLS = (
    "connect read write writev sendto recvfrom sendmsg recvmsg shutdown close openat pwrite64 pwritev fsync fdatasync "
    "ftruncate fallocate rename unlink"
).split()

# On a busy machine an upstream needs longer than this: then a signature dies before it arrives, or worse.
TIMES = {
    "UPONCE_SKEW": "1",
    "UPONCE_RELAY_FENCE": "3",
    "UPONCE_RELAY_ANSWER": "3",
    "UPONCE_RELAY_PROCESSING": "4",
}
PATIENT = {
    "UPONCE_SKEW": "1",
    "UPONCE_RELAY_FENCE": "10",
    "UPONCE_RELAY_ANSWER": "10",
    "UPONCE_RELAY_PROCESSING": "10",
}

# The relay sends the file before its signature, and is one client.
ROOM_UPSTREAM = {
    "UPONCE_MAX_UNVERIFIED_PER_ADDRESS": "256",
    "UPONCE_MAX_UNVERIFIED_UPLOADS": "256",
    "UPONCE_LEAST_RATE": "1",
    "UPONCE_IDLE_SECONDS": "120",
}

FINAL = frozenset({"ok", "signature_used"})
# Of an attempt that did not decide anything. A signature for the upstream may die while machines start again.
OPEN = frozenset({"lost", "outcome_unknown", "upstream_unavailable", "signature_in_use", "stale_request"})


@dataclass(frozen=True, slots=True)
class Rules:
    """Of one sitting: how many processes relay, or servers on PostgreSQL, and how many racers a signature has."""

    workers: int = 2
    racers: int = RACERS_UNDER_KILLS
    ground: Ground = ONE_BOX
    program: Sequence[str] = UPONCE
    sizes: Sequence[int] = SIZES
    times: Mapping[str, str] = field(default_factory=lambda: TIMES)


@dataclass
class Sitting:
    """The relay's servers, their upstream, what lies between them, and what their clients saw."""

    relay: Fleet
    upstream: Server
    line: FaultProxy
    chance: random.Random
    rules: Rules
    signatures: dict[str, dict[str, str]] = field(default_factory=dict)
    winners: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    receipts: list[Receipt] = field(default_factory=list)
    unhelped: int = 0
    under_way: int = 0
    inside: int = 0
    is_racing: bool = True

    async def suffer(self, seconds: float) -> None:
        """Race for so many seconds, while servers die."""
        self.is_racing, self.line.plan = True, self._fault
        killing = asyncio.ensure_future(self._kill())
        await self.race(seconds)
        self.is_racing = False
        await killing

    async def race(self, seconds: float) -> None:
        """At least one signature in each lane."""
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._lane(end) for _ in range(LANES)))

    async def _lane(self, end: float) -> None:
        await self._contest()
        while time.monotonic() < end:
            await self._contest()

    async def _contest(self) -> None:
        """Let each racer upload other bytes with one signature."""
        name = self.sign()
        size = self.chance.choice(self.rules.sizes)
        bodies = [f"{name}/{racer} ".encode() + self.chance.randbytes(size) for racer in range(self.rules.racers)]
        await asyncio.gather(*(self._race(name, racer, body) for racer, body in enumerate(bodies)))

    def sign(self, params: Mapping[str, object] = MappingProxyType({})) -> str:
        name = f"signature-{len(self.signatures)}"
        named = self.chance.choice(("public_id", "folder"))  # the name is signed, or uponce computes one
        self.signatures[name] = self.relay.first.signed({named: name, **params})
        return name

    async def _race(self, name: str, racer: int, body: bytes) -> None:
        for _ in range(TRIES):
            if await self.post(name, body, racer) in FINAL:
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def post(self, name: str, body: bytes, racer: int = 0) -> str:
        server = self.relay.dealt(racer)
        self.under_way += 1
        try:
            reply = await ask(server, form(server, self.signatures[name], body))
        except (OSError, TimeoutError):
            reply = Reply(LOST)
        finally:
            self.under_way -= 1
        self.verdicts[reply.verdict] += 1
        self.unhelped += reply.verdict == "outcome_unknown" and "retry-after" not in reply.headers
        if reply.verdict == "ok":
            self.winners[name] += 1
            self.receipts.append(reply.receipt(body))
        return reply.verdict

    async def die_at(self, size: int, kind: Kind, share: float, victim: Server, called: str) -> None:
        """Make one upload, and kill the victim when so much of the exchange has passed, or before its answer."""
        self.line.plan = lambda _: Fault()
        self.line.hang_up()
        await self.post(self.sign(), b"a" * size)
        after = max(1, int(self.line.sent * share) - IN_THE_SIGNATURE)
        plan = iter([Fault(kind, after, call=lambda: os.killpg(victim.pid, signal.SIGKILL))])
        self.line.hang_up()
        self.line.plan = lambda _: next(plan, Fault())
        await self.post(self.sign(), b"b" * size)
        self.kills[called] += 1
        self.inside += not next(plan, None)
        victim.kill()
        await asyncio.to_thread(victim.start)

    async def calls(self, size: int, victim: Server, log: Path) -> Counter[str]:
        """Return how often a server makes each system call in one upload, when it has had one before."""
        await self.post(self.sign(), b"b" * size)
        with attached(victim.pid, "-e", f"trace={','.join(CALLS)}", "-o", str(log)):
            await self.post(self.sign(), b"c" * size)
        return highest_by_call(log.read_text())

    async def die_at_call(self, size: int, victim: Server, call: str, number: int) -> bool:
        """Make one upload, and kill a server at this call, counted by `number`. Return whether it was killed."""
        inject = f"inject={call}:signal=KILL:when={number}"
        with attached(victim.pid, "-e", f"trace={call}", "-e", inject, "-o", "/dev/null"):
            await self.post(self.sign(), b"d" * size)
        died = not await _answers(victim)
        self.inside += died
        if died:
            victim.kill()
            await asyncio.to_thread(victim.start)
            await self.post(self.sign(), b"e" * size)  # the first upload loads modules
        return died

    async def _kill(self) -> None:
        while self.is_racing:
            await asyncio.sleep(self.chance.uniform(*BETWEEN_KILLS))
            relay = self.chance.choice(self.relay.servers)
            name, server = self.chance.choice((("the relay", relay), ("the upstream", self.upstream)))
            self.kills[name] += 1
            self.inside += self.under_way > 0
            server.kill()
            await asyncio.to_thread(server.start)

    async def wake_late(self) -> tuple[bool, str]:
        """Return whether the stopped attempt's grant was released, and the answer to another one that then spends it.

        The stopped attempt wakes afterwards. If the other one was not stored, the wake shows nothing.
        """
        # Sent while it arrives: a small file would be lost to the time-out of a connection that is not there yet.
        sleeper, name = self.relay.dealt(0), self.sign({"overwrite": "true", **STOP})
        stopped = asyncio.ensure_future(self.post(name, b"late" * 10_000, 0))
        released = await asyncio.to_thread(self._release, sleeper)
        # Other parameters would be another grant: the server that is awake stops too, and is woken.
        awake = self.relay.dealt(1)
        other = asyncio.ensure_future(self.post(name, b"in time", 1))
        await asyncio.to_thread(_until, lambda: is_stopped(awake.pid))
        os.killpg(awake.pid, signal.SIGCONT)
        rival = await other
        os.killpg(sleeper.pid, signal.SIGCONT)
        await stopped
        return released, rival

    def _release(self, sleeper: Server) -> bool:
        return _until(lambda: is_stopped(sleeper.pid)) and self.recover()

    def _fault(self, _: int) -> Fault:
        if self.chance.random() < UNHURT:
            return Fault()
        kind = self.chance.choice((Kind.SWALLOW, Kind.SWALLOW, Kind.CUT, Kind.RESET))
        return Fault(kind, after=self.chance.randrange(STRUCK_WITHIN))

    def recover(self) -> bool:
        """Let the outbox look all uploads up that are pending, and say whether it finds every outcome in time."""
        self.line.plan = lambda _: Fault()
        place, deadline = self.relay.place, time.monotonic() + RECOVERY_SECONDS
        while place.rows("SELECT relay_id FROM relays"):
            if time.monotonic() > deadline:
                return False
            hasten(place)
            time.sleep(LOOK_SECONDS)
        return True

    async def use_free_ones(self) -> int:
        """Upload with each signature that the ledger does not call spent; how many there were.

        On a machine that stalls some upload may have no known outcome. Then the outbox looks it up, and it is repeated.
        """
        spent, deadline = set(self.spent()), time.monotonic() + RECOVERY_SECONDS
        free = [name for name in self.signatures if name not in spent]
        for name in free:
            while await self.post(name, name.encode()) in OPEN and time.monotonic() < deadline:
                await asyncio.to_thread(self.recover)
        return len(free)

    def spent(self) -> Sequence[str]:
        """Return the signatures that are spent in the relay's ledger. Each has named its asset."""
        rows = self.relay.place.rows("SELECT public_id FROM audit WHERE event = 'spent'")
        return [_signature_of(public_id) for (public_id,) in rows]

    def completed(self) -> Counter[str]:
        """Return how often an upload was completed upstream, by signature.

        Each chunk has its own signature there, and the request that completes the upload spends them all.
        """
        rows = Place(self.upstream.data_dir).rows(
            "SELECT DISTINCT public_id, request_id FROM audit WHERE event = 'spent'"
        )
        return Counter(_signature_of(public_id) for public_id, _ in rows)

    def judge(self, tally: Tally) -> None:
        """Recover, and enter in the tally what was done and what is broken."""
        tally.expect(self.recover(), "signatures still pending after the recovery", self.relay.first.output[-2000:])
        spent, completed = Counter(self.spent()), self.completed()
        for name in self.signatures:
            once = completed[name] == spent[name] <= 1
            what = f"{name} is {spent[name]} times spent, and {completed[name]} times complete upstream"
            tally.expect(once, "signatures whose uploads upstream are not their uses", what)
        for name, winners in self.winners.items():
            tally.expect(winners <= 1, "signatures with several winners", f"{name} has {winners}")
        tally.counts["signatures that were free after the recovery"] += asyncio.run(self.use_free_ones())
        again = self.completed()
        for name in self.signatures:
            tally.expect(again[name] == 1, "free signatures that did not work", f"{name}: {again[name]} uploads")
        strange = {verdict: number for verdict, number in self.verdicts.items() if verdict not in FINAL | OPEN}
        tally.expect(not strange, "answers that a fault does not explain", strange)
        tally.expect(not self.unhelped, "unknown outcomes without Retry-After", self.unhelped)
        tally.counts["signatures"] += len(self.signatures)
        tally.counts["signatures whose outcome was looked up"] += _looked_up(self.relay.place)
        tally.counts.update({f"kills of {name}": number for name, number in self.kills.items()})
        tally.counts.update({f"connections to the upstream: {kind}": n for kind, n in self.line.struck.items()})
        tally.counts.update({f"attempts answered {verdict}": number for verdict, number in self.verdicts.items()})
        tally.inside += self.inside
        self.relay.stop()
        self.upstream.stop()
        for place, receipts in ((self.relay.place, ()), (Place(self.upstream.data_dir), self.receipts)):
            recover(place)
            tally.audit(place, receipts)


def _until(condition: Callable[[], bool], seconds: float = RECOVERY_SECONDS) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS / 10)
    return True


async def _answers(server: Server) -> bool:
    """Return whether a server still answers: after a SIGKILL its process may need a moment to its end."""
    try:
        return (await fetch(server, "/healthz")).status == 200
    except OSError:
        return False


def _signature_of(public_id: str) -> str:
    return public_id.partition("/")[0]


def _looked_up(relay: Place) -> int:
    (number,) = relay.rows("SELECT count(*) FROM audit WHERE code = 'looked_up'")[0]
    return int(number)


@contextmanager
def sitting(folder: Path, chance: random.Random, rules: Rules) -> Iterator[Sitting]:
    """Yield a relay, and its upstream behind a line without faults."""
    with (
        TemporaryDirectory(dir=folder) as place,
        Server(Path(place) / "upstream", env=ROOM_UPSTREAM) as upstream,
        FaultProxy(upstream.port, lambda _: Fault()) as line,
    ):
        key, secret = upstream.server
        url = f"cloudinary://{key}:{secret}@{upstream.cloud}?upload_prefix={line.base}"
        room = {
            "UPONCE_ATTEMPTS_PER_GRANT": str(rules.racers + 1),
            "UPONCE_REFUSALS_PER_GRANT": str(rules.racers * TRIES),
        }
        settings = {"UPONCE_RELAY": url, **BOUNDS, **rules.times, **room}
        with rules.ground.opened(Path(place), rules.workers, program=rules.program, **settings) as relay:
            yield Sitting(relay, upstream, line, chance, rules)
