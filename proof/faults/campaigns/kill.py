"""SIGKILL at random moments, under sixteen clients: to the whole server, to one of its workers, or to a decoder."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Protocol

from proof.faults.control import seeded, until_red
from proof.faults.fleet import UPONCE, Fleet, on_sqlite
from proof.faults.processes import commands
from proof.faults.report import Report
from proof.faults.sitting import NOT_SPENT, PAUSE, Fault, Sitting
from proof.faults.tally import Tally
from tests.server import Server

FAULTS_A_SITTING = 25  # then the store is audited and thrown away: it grows by 30 MB with each
DECODER_SECONDS = 2

MUTANTS = "proof.faults.mutants"


class Opened(Protocol):
    """The fleet of one sitting, in this folder."""

    def __call__(self, folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]: ...


@dataclass(frozen=True, slots=True)
class Control:
    """A broken server, `program`, that this fault has to show in the figure `zero`."""

    name: str
    program: Sequence[str]
    fault: Fault
    zero: str

    def found(self, tally: Tally) -> int:
        return tally.zeros[self.zero]


async def kill_server(sitting: Sitting, server: Server) -> bool:
    """And start it again, while the others go on."""
    server.kill()
    await asyncio.to_thread(server.start)
    return True


async def kill_worker(sitting: Sitting, server: Server) -> bool:
    return _kill_one(sitting, server, b"multiprocessing.spawn")


async def kill_decoder(sitting: Sitting, server: Server) -> bool:
    """Kill a decoder. One that was killed before is there again with the next picture."""
    deadline = time.monotonic() + DECODER_SECONDS
    while not _kill_one(sitting, server, b"uponce.adapters.media.worker"):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(PAUSE)
    return True


SERVER = Fault("kills of a server", kill_server, pace=0.1)
WORKER = Fault("kills of a worker", kill_worker)
DECODER = Fault("kills of a decoder", kill_decoder, kind="image")


# On a sound server of a fleet, reads of such answers fail without a kill too. So only this figure counts.
ANSWERS_FIRST = Control("untrue answers given before the commit", ("-m", f"{MUTANTS}.answers_first"), SERVER, NOT_SPENT)


def run(seconds: float, seed: int) -> Report:
    two_workers = (SERVER, SERVER, WORKER, DECODER)
    return sittings(
        "kill", seconds, seed, _two_workers, two_workers, (ANSWERS_FIRST,), (_one_worker, (SERVER, DECODER))
    )


def sittings(
    name: str,
    seconds: float,
    seed: int,
    opened: Opened,
    faults: Sequence[Fault],
    broken: Sequence[Control],
    *others: tuple[Opened, Sequence[Fault]],
) -> Report:
    """Run sittings until the time is up, each kind in turn and at least once. `others` are further kinds of them."""
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    kinds = ((opened, faults), *others)
    with TemporaryDirectory(prefix=f"uponce-{name}-") as folder:
        for variant in broken:
            control(Path(folder), chance, tally, opened, variant)
        while True:
            for left, kind in zip(range(len(kinds), 0, -1), kinds, strict=True):
                now = time.monotonic()
                sit(Path(folder), chance, tally, now + (deadline - now) / left, *kind)
            if time.monotonic() >= deadline:
                return tally.report(name, seed)


def sit(
    folder: Path, chance: random.Random, tally: Tally, deadline: float, opened: Opened, faults: Sequence[Fault]
) -> None:
    """So many faults, or as many as there is time for, but each one at least."""
    with TemporaryDirectory(dir=folder) as place, opened(Path(place)) as fleet:
        sitting = Sitting(fleet, chance, tally)
        coming: list[Fault] = []
        for number in range(FAULTS_A_SITTING):
            coming = coming or chance.sample(faults, len(faults))
            sitting.suffer(coming.pop())
            if time.monotonic() >= deadline and number + 1 >= len(faults):
                break
        sitting.end()


def control(folder: Path, chance: random.Random, tally: Tally, opened: Opened, variant: Control) -> None:
    """Some strike has to show that what such a server said was not true."""
    with TemporaryDirectory(dir=folder) as place, opened(Path(place), program=variant.program) as fleet:
        sitting = Sitting(fleet, chance, Tally())

        def attempt(chance: random.Random) -> int:
            sitting.chance = chance
            sitting.suffer(variant.fault)
            return variant.found(sitting.tally)

        until_red(tally, variant.name, seeded(chance, attempt))


def _two_workers(folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]:
    return on_sqlite(folder, 2, program=program)


def _one_worker(folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]:
    """Yield the default: one process, which syncs a pack inside of the transaction."""
    return on_sqlite(folder, 1, program=program)


def _kill_one(sitting: Sitting, server: Server, command: bytes) -> bool:
    found = [pid for pid, line in commands(server.pid).items() if command in line]
    with suppress(ProcessLookupError):
        if found:
            os.kill(sitting.chance.choice(sorted(found)), signal.SIGKILL)
            return True
    return False
