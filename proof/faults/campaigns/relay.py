"""A relay and its upstream, two uponces, under racers: both are killed, and replies between them are lost.

Afterwards the outbox of the relay finds each outcome. Then a spent signature has made exactly one asset upstream, and
a free one none: it still works. The kills and the broken connections come at random moments, by the seed.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.faults.audit import Receipt
from proof.faults.clients import LOST, Reply, ask, form
from proof.faults.control import seeded, until_red
from proof.faults.fleet import UPONCE
from proof.faults.operator import hasten, recover
from proof.faults.place import Place
from proof.faults.proxy import Fault, FaultProxy, Kind
from proof.faults.report import Report
from proof.faults.tally import Tally
from tests.server import Server

RACERS = 8
LANES = 4  # signatures that are contested at the same time
TRIES = 4
RETRY_SECONDS = 0.25
SITTING_SECONDS, SHORTEST_SITTING = 15.0, 6.0
CONTROL_SECONDS = 3.0
RECOVERY_SECONDS = 60
LOOK_SECONDS = 0.5
BETWEEN_KILLS = (0.3, 1.5)
UNHURT = 0.4  # the share of connections to the upstream that no fault strikes
STRUCK_WITHIN = 120_000  # bytes

# Passed on from memory, while it arrives, and in chunks: these are the bounds, and files on each side.
BOUNDS = {"UPONCE_SMALL_BODY_BYTES": "10000", "UPONCE_RELAY_WHOLE_BYTES": "60000"}
SIZES = (2_000, 40_000, 100_000)
TIMES = {"UPONCE_SKEW": "1", "UPONCE_RELAY_FENCE": "3", "UPONCE_RELAY_PROCESSING": "4"}
ROOM = {"UPONCE_ATTEMPTS_PER_GRANT": str(RACERS + 1), "UPONCE_REFUSALS_PER_GRANT": str(RACERS * TRIES)}

# The relay sends the file before its signature.
ROOM_UPSTREAM = {"UPONCE_MAX_UNVERIFIED_PER_ADDRESS": "64", "UPONCE_MAX_UNVERIFIED_UPLOADS": "64"}

FINAL = frozenset({"ok", "signature_used"})
# Of an attempt that did not decide anything. A signature for the upstream may die while machines start again.
OPEN = frozenset({"lost", "outcome_unknown", "upstream_unavailable", "signature_in_use", "stale_request"})

MUTANTS = Path(__file__).parents[1] / "mutants"
CONTROLS = {
    "signatures that a relay spent twice which signs before the commit": "signs_before_commit.py",
    "signatures that a relay spent twice which frees an unknown outcome": "frees_when_unknown.py",
}


@dataclass
class Sitting:
    """Both servers, what lies between them, and what their clients saw."""

    relay: Server
    upstream: Server
    line: FaultProxy
    chance: random.Random
    signatures: dict[str, dict[str, str]] = field(default_factory=dict)
    winners: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    kills: Counter[str] = field(default_factory=Counter)
    receipts: list[Receipt] = field(default_factory=list)
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
        end = time.monotonic() + seconds
        await asyncio.gather(*(self._lane(end) for _ in range(LANES)))

    async def _lane(self, end: float) -> None:
        while time.monotonic() < end:
            await self._contest()

    async def _contest(self) -> None:
        """One signature, of which each racer uploads other bytes."""
        name = f"signature-{len(self.signatures)}"
        named = self.chance.choice(("public_id", "folder"))  # the name is signed, or uponce computes one
        fields = self.relay.signed({named: name})
        self.signatures[name] = fields
        size = self.chance.choice(SIZES)
        bodies = [f"{name}/{racer} ".encode() + self.chance.randbytes(size) for racer in range(RACERS)]
        await asyncio.gather(*(self._race(name, fields, body) for body in bodies))

    async def _race(self, name: str, fields: dict[str, str], body: bytes) -> None:
        for _ in range(TRIES):
            if await self.post(name, fields, body) in FINAL:
                return
            await asyncio.sleep(RETRY_SECONDS)

    async def post(self, name: str, fields: dict[str, str], body: bytes) -> str:
        self.under_way += 1
        try:
            reply = await ask(self.relay, form(self.relay, fields, body))
        except (OSError, TimeoutError):
            reply = Reply(LOST)
        finally:
            self.under_way -= 1
        self.verdicts[reply.verdict] += 1
        if reply.verdict == "ok":
            self.winners[name] += 1
            self.receipts.append(reply.receipt(body))
        return reply.verdict

    async def _kill(self) -> None:
        while self.is_racing:
            await asyncio.sleep(self.chance.uniform(*BETWEEN_KILLS))
            name, server = self.chance.choice((("the relay", self.relay), ("the upstream", self.upstream)))
            self.kills[name] += 1
            self.inside += self.under_way > 0
            server.kill()
            await asyncio.to_thread(server.start)

    def _fault(self, _: int) -> Fault:
        if self.chance.random() < UNHURT:
            return Fault()
        kind = self.chance.choice((Kind.SWALLOW, Kind.SWALLOW, Kind.CUT, Kind.RESET))
        return Fault(kind, after=self.chance.randrange(STRUCK_WITHIN))

    def recover(self) -> bool:
        """Let the outbox look all uploads up that are pending, and say whether it finds every outcome in time."""
        self.line.plan = lambda _: Fault()
        place, deadline = Place(self.relay.data_dir), time.monotonic() + RECOVERY_SECONDS
        while place.rows("SELECT relay_id FROM relays"):
            if time.monotonic() > deadline:
                return False
            hasten(place)
            time.sleep(LOOK_SECONDS)
        return True

    async def use_free_ones(self) -> int:
        """Upload with each signature that the ledger does not call spent; how many there were."""
        spent = set(self.spent())
        free = [name for name in self.signatures if name not in spent]
        for name in free:
            await self.post(name, self.signatures[name], name.encode())
        return len(free)

    def spent(self) -> Sequence[str]:
        """The signatures that the relay's ledger calls spent. Each has named its asset."""
        rows = Place(self.relay.data_dir).rows("SELECT public_id FROM audit WHERE event = 'spent'")
        return [_signature_of(public_id) for (public_id,) in rows]

    def completed(self) -> Counter[str]:
        """How often an upload was completed upstream, by signature."""
        rows = Place(self.upstream.data_dir).rows("SELECT public_id FROM audit WHERE event = 'spent'")
        return Counter(_signature_of(public_id) for (public_id,) in rows)

    def judge(self, tally: Tally) -> None:
        """Recover, and enter in the tally what was done and what is broken."""
        tally.expect(self.recover(), "signatures still pending after the recovery", self.relay.output[-2000:])
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
        tally.counts["signatures"] += len(self.signatures)
        tally.counts["signatures whose outcome was looked up"] += _looked_up(self.relay)
        tally.counts.update({f"kills of {name}": number for name, number in self.kills.items()})
        tally.counts.update({f"connections to the upstream: {kind}": n for kind, n in self.line.struck.items()})
        tally.counts.update({f"attempts answered {verdict}": number for verdict, number in self.verdicts.items()})
        tally.inside += self.inside
        for server, receipts in ((self.relay, ()), (self.upstream, self.receipts)):
            server.stop()
            recover(server.data_dir)
            tally.audit(server.data_dir, receipts)


def _signature_of(public_id: str) -> str:
    return public_id.partition("/")[0]


def _looked_up(relay: Server) -> int:
    (number,) = Place(relay.data_dir).rows("SELECT count(*) FROM audit WHERE code = 'looked_up'")[0]
    return int(number)


@contextmanager
def sitting(folder: Path, chance: random.Random, program: Sequence[str] = UPONCE) -> Iterator[Sitting]:
    """A relay that runs this program, and its upstream behind a line without faults."""
    with (
        Server(folder / "upstream", env=ROOM_UPSTREAM) as upstream,
        FaultProxy(upstream.port, lambda _: Fault()) as line,
    ):
        key, secret = upstream.server
        url = f"cloudinary://{key}:{secret}@{upstream.cloud}?upload_prefix={line.base}"
        settings = {"UPONCE_RELAY": url, **BOUNDS, **TIMES, **ROOM}
        with Server(folder / "relay", workers=2, env=settings, program=program) as relay:
            yield Sitting(relay, upstream, line, chance)


def run(seconds: float, seed: int) -> Report:
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-relay-") as folder:
        for name, program in CONTROLS.items():
            control(Path(folder), chance, tally, name, program)
        while True:
            left = deadline - time.monotonic()
            sit(Path(folder), chance, tally, min(SITTING_SECONDS, max(left, SHORTEST_SITTING)))
            if time.monotonic() > deadline:
                return tally.report("relay", seed)


def sit(folder: Path, chance: random.Random, tally: Tally, seconds: float) -> None:
    with TemporaryDirectory(dir=folder) as place, sitting(Path(place), chance) as both:
        asyncio.run(both.suffer(seconds))
        both.judge(tally)


def control(folder: Path, chance: random.Random, tally: Tally, name: str, program: str) -> None:
    """Without kills: the relay itself makes what has to be found."""

    def attempt(chance: random.Random) -> int:
        launcher = (str(MUTANTS / program),)
        with TemporaryDirectory(dir=folder) as place, sitting(Path(place), chance, launcher) as both:
            both.line.plan = lambda _: Fault(Kind.SWALLOW, after=chance.randrange(STRUCK_WITHIN))
            asyncio.run(both.race(CONTROL_SECONDS))
            return sum(number > 1 for number in both.completed().values())

    until_red(tally, name, seeded(chance, attempt))
