"""One store under load and faults: the answers that sixteen clients got, and whether they are true afterwards.

What was acknowledged is kept outside of the store. After each fault, everything of that round is checked on any of the
servers. What was acknowledged is served and spent, what was refused is free, what was not answered is wholly there or
free.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from proof.faults.acts import Act, Actor, Upload
from proof.faults.audit import Receipt, count
from proof.faults.clients import Connection, Reply, ask, connected, fetch
from proof.faults.fleet import Fleet
from proof.faults.operator import add_deleting_key, recover
from proof.faults.tally import Tally
from tests.server import Server

CLIENTS = 16
EARLIEST, LATEST = 0.02, 0.6  # seconds of load before a fault
AFTERMATH = 0.2  # seconds of load after it
RECOVERY_SECONDS = 60
LIMIT_SECONDS = 4  # the shortest time that a server here has for a statement, or for a request to the store
PAUSE = 0.02

NOT_SERVED, NOT_SPENT = "not served as it was sent", "acknowledged, but not spent"
DELETED_UNKNOWN = "bytes deleted while the outcome was unknown"

UNKNOWN = frozenset({"lost", "outcome_unknown"})
"""What may be told of any act that a fault strikes: it may have happened or not."""

NOTHING_HAPPENED = frozenset({"database_unavailable", "storage_unavailable"})


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault. `strike` breaks something of a server, or of all of them, and returns when it is repaired.

    It returns False when there was nothing to break. `kind`: the uploads that it may strike, or all. `refusals`: the
    answers that others may get, which spend nothing. After it each client waits `pace` seconds between two acts. If it
    `sweeps`, it may delete bytes that no asset names. It strikes so many `times` in a round.
    """

    name: str
    strike: Callable[["Sitting", Server], Awaitable[bool]]
    kind: str | None = None
    refusals: frozenset[str] = frozenset()
    is_everywhere: bool = False
    pace: float = 0
    sweeps: bool = False
    times: int = 1


@dataclass
class Sitting:
    """All answers that the clients of a fleet got, and the random choices to come.

    `alive` are the public_ids of assets that must be there, each with the receipt of the last acknowledged upload.
    """

    fleet: Fleet
    chance: random.Random
    tally: Tally
    alive: dict[str, Receipt | None] = field(default_factory=dict)
    acknowledged: list[Act] = field(default_factory=list)  # in this round
    done: Counter[str] = field(default_factory=Counter)
    in_flight: Counter[tuple[int, str]] = field(default_factory=Counter)  # by port and kind
    pace: float = 0
    is_over: bool = False

    def __post_init__(self) -> None:
        first = self.fleet.first
        self.actor = Actor(first, add_deleting_key(self.fleet.place, first.cloud), self.chance)

    def suffer(self, fault: Fault) -> None:
        """Run a round of load with a fault in it, and check the result."""
        before = self._unnamed()
        acts = asyncio.run(self._round(fault))
        left = self._unnamed() - before
        free = asyncio.run(self._check(acts, fault))
        if not fault.sweeps:
            note = f"{left} left, {free} unknown, {fault.name}"
            self.tally.expect(left >= free, DELETED_UNKNOWN, note)

    async def _round(self, fault: Fault) -> list[Act]:
        acts: list[Act] = []
        servers = self.fleet.servers
        struck = servers if fault.is_everywhere else [self.chance.choice(servers)]
        sound = [server for server in servers if server not in struck]
        self.is_over, self.pace, self.in_flight, self.acknowledged = False, 0, Counter(), []
        load = [self._client(self.fleet.dealt(number), acts) for number in range(CLIENTS)]
        load += [self._read(server) for server in sound]
        tasks = [asyncio.ensure_future(client) for client in load]
        for _ in range(fault.times):
            await asyncio.sleep(self.chance.uniform(EARLIEST, LATEST))
            self.pace = fault.pace
            await self._strike(fault, struck)
            await asyncio.sleep(AFTERMATH)
        self.is_over = True
        await asyncio.gather(*tasks)
        return acts

    async def _strike(self, fault: Fault, struck: Sequence[Server]) -> None:
        ports = {server.port for server in struck}
        in_flight = sum(
            acts for (port, kind), acts in self.in_flight.items() if port in ports and fault.kind in (None, kind)
        )
        if not await fault.strike(self, struck[0]):
            self.tally.counts[f"{fault.name}: there was none"] += 1
            return
        self.tally.counts[fault.name] += 1
        self.tally.counts["acts in flight at a fault"] += in_flight
        self.tally.inside += in_flight > 0

    async def go_on(self) -> None:
        """Return when an act that is begun from now on has been acknowledged."""
        begun, deadline = self.actor.begun, time.monotonic() + RECOVERY_SECONDS
        while not any(act.number > begun for act in self.acknowledged[-CLIENTS:]):
            if time.monotonic() > deadline:
                self.tally.expect(False, "servers that did not recover", f"within {RECOVERY_SECONDS} s")
                return
            await asyncio.sleep(0.01)

    async def _client(self, server: Server, acts: list[Act]) -> None:
        """On a new connection after every failure, until the round is over."""
        while not self.is_over:
            with suppress(ConnectionError):
                async with connected(server) as connection:
                    while not self.is_over and await self._act(server, connection, acts):
                        await asyncio.sleep(self.pace)
            await asyncio.sleep(max(self.pace, PAUSE))

    async def _act(self, server: Server, connection: Connection, acts: list[Act]) -> bool:
        act = self.actor.next()
        acts.append(act)
        self.in_flight[server.port, act.kind] += 1
        act.reply = await connection.ask(act.request(server))
        self.in_flight[server.port, act.kind] -= 1
        if act.verdict != "ok":
            return False
        self.acknowledged.append(act)
        return True

    async def _read(self, server: Server) -> None:
        """Whatever befalls the others, this one goes on serving what any of them has acknowledged."""
        while not self.is_over:
            if self.acknowledged:
                self.tally.counts["reads meanwhile"] += 1
                act = self.acknowledged[-1]
                same = await self._served(act, server, LIMIT_SECONDS) == act.after
                self.tally.expect(same, "reads that failed meanwhile", f"{act.name} {act.public_id}")
            await asyncio.sleep(max(self.pace, PAUSE))

    async def _check(self, acts: Sequence[Act], fault: Fault) -> int:
        """Return how many acts with bytes and with an unknown outcome had not happened."""
        pending, free = iter(acts), 0

        async def lane() -> None:
            nonlocal free
            for act in pending:
                if act.verdict == "ok":
                    await self._check_acknowledged(act)
                else:
                    is_free = await self._check_other(act, fault)
                    free += is_free and act.verdict == "outcome_unknown" and isinstance(act, Upload)

        await asyncio.gather(*(lane() for _ in range(CLIENTS)))
        return free

    async def _check_acknowledged(self, act: Act) -> None:
        self.tally.counts[f"acknowledged {act.name}"] += 1
        served = await self._served(act, self._dealt(act))
        self.tally.expect(served == act.after, NOT_SERVED, f"{act.name} {act.public_id}")
        again = await self._again(act)
        note = f"{act.name} {act.public_id}, {again.verdict}"
        self.tally.expect(again.verdict == "signature_used", NOT_SPENT, note)
        await self._settle(act)

    async def _check_other(self, act: Act, fault: Fault) -> bool:
        """Return whether the act was free.

        Without an answer, it has happened once, or its signature still works. If it was refused, it is free. It is used
        after this.
        """
        told = act.verdict
        note = f"{act.name} {act.public_id}: {told}, {fault.name}"
        self.tally.expect(told in UNKNOWN | fault.refusals, "refused for another's death", note)
        served = await self._served(act, self._dealt(act))
        again = await self._again(act)
        is_free = again.verdict == "ok"
        name = "unanswered" if told == "lost" else f"told {told}"
        self.tally.counts[f"{name}, {'were free' if is_free else 'had happened'}"] += 1
        could_be = is_free or (told in UNKNOWN and again.verdict == "signature_used")
        self.tally.expect(could_be, "neither used nor free", f"{note}, {again.verdict}")
        same = served == (act.before if is_free else act.after)
        self.tally.expect(same, NOT_SERVED, f"{note}, {again.verdict}")
        await self._settle(again if is_free else act)
        return is_free

    async def _again(self, act: Act) -> Act:
        changed, server = act.changed(), self._dealt(act)
        changed.reply = await patient(self.tally, lambda: ask(server, changed.request(server)))
        return changed

    async def _served(self, act: Act, server: Server, seconds: float = RECOVERY_SECONDS) -> bytes | None:
        """Return what is there under the name of that act."""
        reply = await patient(self.tally, lambda: fetch(server, f"/{server.cloud}/{act.path}"), seconds)
        return reply.data if reply.status == 200 else None if reply.status == 404 else str(reply.status).encode()

    async def _settle(self, act: Act) -> None:
        """Check an act that has happened.

        What a deletion deleted is not there, and the signature of its upload works no more.
        """
        self.done[act.name] += 1
        if isinstance(act, Upload):
            self.alive[act.public_id] = act.reply.receipt(act.data) if act.verdict == "ok" else None
            self.actor.keep(act)
            return
        self.alive.pop(act.public_id, None)
        gone = await self._served(act, self._dealt(act)) is None
        self.tally.expect(gone, "deleted, but there", act.public_id)
        again = await self._again(act.old)
        self.tally.expect(again.verdict == "signature_used", "deleted, and stored again", act.public_id)

    def _dealt(self, act: Act) -> Server:
        return self.fleet.dealt(act.number)

    def _unnamed(self) -> int:
        """Return how many blobs no asset names."""
        place = self.fleet.place
        return len(place.media.keys() - {key for (key,) in place.rows("SELECT blob_key FROM assets")})

    def end(self) -> None:
        """Check that database and clients agree, and that a sweep deletes everything that no row names."""
        place, tally = self.fleet.place, self.tally
        self.fleet.stop()
        swept = recover(place)
        tally.counts.update(self.done)
        tally.counts["orphans swept"] += swept["blobs"]
        tally.counts["spooled files swept"] += swept["unfinished"]
        tally.audit(place, filter(None, self.alive.values()))
        uploads = self.done["uploads"] + self.done["overwrites"]
        books = {
            "assets": len(self.alive),
            "audit WHERE event = 'spent'": uploads,
            "audit WHERE event = 'deleted'": self.done["deletions"],
        }
        for what, expected in books.items():
            kept = count(place, what)
            tally.expect(kept == expected, "books that disagree with the clients", f"{what}: {kept}, not {expected}")


async def patient(tally: Tally, ask: Callable[[], Awaitable[Reply]], seconds: float = RECOVERY_SECONDS) -> Reply:
    """Return the reply. If a server used up its time and says that nothing happened, ask for so many seconds again.

    Such a reply shows a machine that was slow or stood still. A server that refuses sooner is not asked again. An
    unknown outcome is never asked for again.
    """
    begun = time.monotonic()
    reply = await ask()
    end = time.monotonic()
    is_late = end - begun >= LIMIT_SECONDS
    while is_late and reply.verdict in NOTHING_HAPPENED and time.monotonic() < end + seconds:
        tally.counts["asked again after a time limit"] += 1
        await asyncio.sleep(PAUSE)
        reply = await ask()
    return reply
