"""Two servers on one PostgreSQL and one S3 store, under sixteen clients: SIGKILL to a server, to a decoder, to all of
PostgreSQL; and a server that sleeps past every time-out, or for a moment, while its uploads are swept, and wakes.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from functools import partial
from pathlib import Path

from tests.faults.campaigns.kill import ANSWERS_FIRST, DECODER, MUTANTS, SERVER, Control, sittings
from tests.faults.fleet import DATABASE_SECONDS, Fleet, fresh_bucket, on_postgres
from tests.faults.operator import recover
from tests.faults.report import Report
from tests.faults.sitting import RECOVERY_SECONDS, Fault, Sitting
from tests.postgres import Postgres
from tests.server import Server
from uponce.core.errors import Unavailable

SERVERS = 2
LONGEST_OUTAGE = 1.0
HELD_UP = "sweeps that a sleeping server held up"
# PostgreSQL ends a transaction in which nothing happens after four times the time of a statement.
SLEEP_SECONDS = 4 * DATABASE_SECONDS + 1

DAWDLING = ("-m", "tests.faults.dawdling")


async def sleep(seconds: float, sitting: Sitting, server: Server) -> bool:
    """Meanwhile an operator sweeps with no grace: whatever is not committed by then must never be."""
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        swept = await asyncio.to_thread(insist, sitting)
    finally:
        os.killpg(server.pid, signal.SIGCONT)
    sitting.tally.counts["blobs swept meanwhile"] += swept["blobs"]
    return True


def insist(sitting: Sitting) -> Counter[str]:
    """Whoever fell asleep with a lock keeps it until PostgreSQL ends its transaction: a sweep is refused until then."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        with suppress(Unavailable):
            swept = recover(sitting.fleet.place)
            sitting.tally.expect(True, HELD_UP, swept)
            return swept
    sitting.tally.expect(False, HELD_UP, f"for {RECOVERY_SECONDS} seconds")
    return Counter()


SWEPT = frozenset({"database_unavailable", "attempt_expired", "storage_unavailable"})
SLEEPS = Fault("sleeps of a server", partial(sleep, SLEEP_SECONDS), refusals=SWEPT, pace=0.5, sweeps=True)
NAPS = Fault("naps of a server", partial(sleep, 0), refusals=SWEPT, pace=0.1, sweeps=True)
IGNORES_CONDEMNED = Control("untrue answers for bytes that were swept", ("-m", f"{MUTANTS}.ignores_condemned"), NAPS)


async def crash(postgres: Postgres, sitting: Sitting, server: Server) -> bool:
    await asyncio.to_thread(postgres.kill)
    await asyncio.sleep(sitting.chance.uniform(0, LONGEST_OUTAGE))
    await asyncio.to_thread(postgres.start)
    await sitting.go_on()
    return True


def run(seconds: float, seed: int) -> Report:
    postgres = Postgres()
    postgres.start()

    def opened(folder: Path, *, program: Sequence[str] = DAWDLING) -> AbstractContextManager[Fleet]:
        return on_postgres(folder, postgres.fresh_schema(), SERVERS, fresh_bucket(), program=program)

    refusals = frozenset({"database_unavailable"})
    crashes = Fault("kills of PostgreSQL", partial(crash, postgres), refusals=refusals, is_everywhere=True, pace=0.05)
    faults, broken = (SERVER, DECODER, crashes, SLEEPS, NAPS), (ANSWERS_FIRST, IGNORES_CONDEMNED)
    try:
        return sittings("kill_s3", seconds, seed, opened, faults, broken)
    finally:
        postgres.stop()
