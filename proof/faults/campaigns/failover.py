"""PostgreSQL dies under two servers, and its standby becomes the primary.

A synchronous standby forgets nothing, under load. An asynchronous one forgets what it has not received, and the servers
fence it before a client can use that.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.faults.audit import Receipt
from proof.faults.campaigns.kill import MUTANTS, Control, control, sit
from proof.faults.clients import Reply, ask, form
from proof.faults.fleet import UPONCE, Fleet, fresh_bucket, on_postgres
from proof.faults.operator import recover
from proof.faults.pair import Pair
from proof.faults.report import Report
from proof.faults.sitting import DELETED_UNKNOWN, Fault, Sitting
from proof.faults.tally import Tally
from tests.server import Server

SERVERS = 2
SETTINGS = {"UPONCE_SKEW": "2"}
TRUST = {"UPONCE_DATABASE_FAILOVER": "trust"}
FENCE_SECONDS = 3  # a little more than that
UPLOADS = 12  # that the standby receives, and as many that it does not
LAG_SECONDS = 0.3
PATIENCE_SECONDS = 60
DISCARDING = ("-m", f"{MUTANTS}.discards_when_unknown")


@dataclass(frozen=True, slots=True)
class Use:
    """A signature that was acknowledged as used."""

    fields: dict[str, str]
    receipt: Receipt


def run(seconds: float, seed: int) -> Report:
    """Both kinds in turn, each once at least."""
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-failover-") as folder:
        while True:
            with paired(is_synchronous=False) as pair:
                forget(Path(folder), pair, tally)
            with paired(is_synchronous=True) as pair:
                discard(Path(folder), chance, pair, tally)
                sit(Path(folder), chance, tally, deadline, partial(opened, pair), failovers(pair))
            if time.monotonic() > deadline:
                return tally.report("failover", seed)


@contextmanager
def paired(*, is_synchronous: bool) -> Iterator[Pair]:
    pair = Pair(is_synchronous=is_synchronous)
    try:
        yield pair
    finally:
        pair.stop()


def opened(
    pair: Pair, folder: Path, *, program: Sequence[str] = UPONCE, settings: Mapping[str, str] = TRUST
) -> AbstractContextManager[Fleet]:
    return on_postgres(folder, pair.fresh_schema(), SERVERS, fresh_bucket(), program=program, **SETTINGS, **settings)


def failovers(pair: Pair) -> list[Fault]:
    """From a primary that waits for its standby when it dies, and from one that does not."""

    async def strike(lag: float, sitting: Sitting, server: Server) -> bool:
        if lag:
            pair.hold_back()
        await asyncio.sleep(lag)
        await asyncio.to_thread(pair.fail_over)
        await sitting.go_on()
        await asyncio.to_thread(server.get, "/readyz")  # as a balancer does: the storage gets its new owner
        await asyncio.to_thread(pair.mend)
        return True

    names = {"failovers to a synchronous standby": 0, "failovers to one that commits were waiting for": LAG_SECONDS}
    refusals = frozenset({"database_unavailable"})
    return [
        Fault(name, partial(strike, lag), refusals=refusals, is_everywhere=True, pace=0.1)
        for name, lag in names.items()
    ]


def discard(folder: Path, chance: random.Random, pair: Pair, tally: Tally) -> None:
    """Run the control: servers that count a commit as failed when it waits for a standby and the primary dies."""
    _, waited_for = failovers(pair)
    careless = Control("losses of bytes that an unknown outcome might name", DISCARDING, waited_for, DELETED_UNKNOWN)
    control(folder, chance, tally, partial(opened, pair), careless)


def forget(folder: Path, pair: Pair, tally: Tally) -> None:
    """Fail over to an asynchronous standby that lacks the last uploads.

    Some servers fence it. Others, the control, trust it.
    """
    with (
        TemporaryDirectory(dir=folder) as own,
        TemporaryDirectory(dir=folder) as others,
        opened(pair, Path(own), settings={}) as fleet,
        opened(pair, Path(others)) as trusting,
    ):
        kept = asyncio.run(use(fleet, "kept"))
        pair.catch_up()
        pair.hold_back()
        forgotten, taken = (asyncio.run(use(each, "forgotten")) for each in (fleet, trusting))
        pair.fail_over()
        tally.counts["failovers to an asynchronous standby"] += 1
        tally.counts["uses that it had not heard of"] += len(forgotten)
        tally.inside += 1
        told = asyncio.run(again(trusting, taken))
        tally.controls["forgotten uses taken again without a fence"] += told.count("ok")
        told = asyncio.run(again(fleet, [*forgotten, *kept]))
        tally.expect(set(told) == {"stale_request"}, "forgotten uses taken again", told)
        time.sleep(FENCE_SECONDS)
        kept += asyncio.run(use(fleet, "fresh"))
        tally.expect(len(kept) == 2 * UPLOADS, "fresh signatures refused after the fence", len(kept))
        fleet.stop()
        recover(fleet.place)
        tally.audit(fleet.place, [used.receipt for used in kept])


async def use(fleet: Fleet, name: str) -> list[Use]:
    """So many uploads, dealt out to the servers; those that were acknowledged."""
    uses = []
    for number in range(UPLOADS):
        fields = fleet.first.signed({"public_id": f"{name}-{number}"})
        data = f"{name} {number} ".encode() * 100
        reply = await insist(fleet.dealt(number), fields, data)
        if reply.status == 200:
            uses.append(Use(fields, reply.receipt(data)))
    return uses


async def again(fleet: Fleet, uses: Sequence[Use]) -> list[str]:
    """Send other bytes with these signatures, and return the answers."""
    replies = [await insist(fleet.dealt(number), used.fields, b"another") for number, used in enumerate(uses)]
    return [reply.verdict for reply in replies]


async def insist(server: Server, fields: Mapping[str, str], data: bytes) -> Reply:
    """Send it until the database is there."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        reply = await ask(server, form(server, fields, data))
        if reply.verdict != "database_unavailable" or time.monotonic() > deadline:
            return reply
        await asyncio.sleep(0.05)
