"""Two servers on one PostgreSQL and one S3 store, under sixteen clients that upload, overwrite and delete.

SIGSTOP stops one of them, past every time-out or for a moment, while everything that is not committed is swept. Then
SIGCONT wakes it.
"""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

from proof.faults.campaigns.kill import MUTANTS, Control, sittings
from proof.faults.campaigns.kill_s3 import DAWDLING, SERVERS
from proof.faults.fleet import Fleet, fresh_bucket, on_postgres
from proof.faults.operator import recover
from proof.faults.report import Report
from proof.faults.sitting import LIMIT_SECONDS, NOT_SERVED, RECOVERY_SECONDS, Fault, Sitting
from tests import postgres
from tests.server import Server
from uponce.core.errors import Unavailable

HELD_UP = "sweeps that a sleeping server held up"
DATABASE_SECONDS = LIMIT_SECONDS
# PostgreSQL ends a transaction in which nothing happens after four times the time of a statement.
SLEEP_SECONDS = 4 * DATABASE_SECONDS + 1
STORAGE_SECONDS = 5
IDLE_SECONDS = 15  # less than a sleep, and longer than a client stalls
STARTS = 3


async def sleep(seconds: float, sitting: Sitting, server: Server) -> bool:
    """Stop the server, and sweep with no grace while it sleeps.

    What is not committed by then must never be committed.
    """
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
        swept = await asyncio.to_thread(insist, sitting)
    finally:
        os.killpg(server.pid, signal.SIGCONT)
    sitting.tally.counts["blobs swept meanwhile"] += swept["blobs"]
    return True


def insist(sitting: Sitting) -> Counter[str]:
    """Sweep until it succeeds. A server that fell asleep with a lock keeps it until PostgreSQL ends its transaction."""
    deadline = time.monotonic() + RECOVERY_SECONDS
    while time.monotonic() < deadline:
        with suppress(Unavailable):
            swept = recover(sitting.fleet.place)
            sitting.tally.expect(True, HELD_UP, swept)
            return swept
    sitting.tally.expect(False, HELD_UP, f"for {RECOVERY_SECONDS} seconds")
    return Counter()


SWEPT = frozenset({"database_unavailable", "attempt_expired", "storage_unavailable", "request_too_slow"})
SLEEPS = Fault("sleeps of a server", partial(sleep, SLEEP_SECONDS), refusals=SWEPT, pace=0.5, sweeps=True)
NAPS = Fault("naps of a server", partial(sleep, 0), refusals=SWEPT, pace=0.1, sweeps=True, times=4)
IGNORES_CONDEMNED = Control(
    "untrue answers for bytes that were swept", ("-m", f"{MUTANTS}.ignores_condemned"), NAPS, NOT_SERVED
)


def run(seconds: float, seed: int) -> Report:
    return sittings("sleep_s3", seconds, seed, opened, (SLEEPS, NAPS), (IGNORES_CONDEMNED,))


@contextmanager
def opened(folder: Path, *, program: Sequence[str] = DAWDLING) -> Iterator[Fleet]:
    """Yield servers that wait a few seconds only, also when they start: a machine that stalls may need new ones."""
    with ExitStack() as stack:
        for starts_left in reversed(range(STARTS)):
            (place := folder / f"fleet-{starts_left}").mkdir()
            try:
                fleet = stack.enter_context(_fleet(place, program))
                break
            except AssertionError:
                if not starts_left:
                    raise
        yield fleet


def _fleet(folder: Path, program: Sequence[str]) -> AbstractContextManager[Fleet]:
    url, bucket = postgres.shared().fresh_schema(), fresh_bucket()
    limits = {"DATABASE": DATABASE_SECONDS, "STORAGE": STORAGE_SECONDS, "IDLE": IDLE_SECONDS}  # not the operator's
    settings = {f"UPONCE_{name}_SECONDS": str(seconds) for name, seconds in limits.items()}
    return on_postgres(folder, url, SERVERS, bucket, program=program, **settings)
