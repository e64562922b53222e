"""Two servers on one PostgreSQL and one S3 store, under sixteen clients: SIGKILL to a server, to a decoder, to all of
PostgreSQL; and a server that sleeps past every time-out while its uploads are swept, and wakes.
"""

import asyncio
import os
import signal
from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path

from tests.faults.campaigns.kill import DECODER, SERVER, sittings
from tests.faults.fleet import DATABASE_SECONDS, UPONCE, Fleet, fresh_bucket, on_postgres
from tests.faults.operator import recover
from tests.faults.report import Report
from tests.faults.sitting import Fault, Sitting
from tests.postgres import Postgres
from tests.server import Server

SERVERS = 2
LONGEST_OUTAGE = 1.0
# PostgreSQL ends a transaction in which nothing happens after four times the time of a statement.
SLEEP_SECONDS = 4 * DATABASE_SECONDS + 1

DEFINITE = frozenset({"database_unavailable"})
SWEPT = frozenset({"attempt_expired", "storage_unavailable"})


async def sleep(sitting: Sitting, server: Server) -> bool:
    """Meanwhile an operator sweeps with no grace: whatever is not committed by then must never be."""
    os.killpg(server.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(SLEEP_SECONDS)
        await asyncio.to_thread(recover, sitting.fleet.place)
    finally:
        os.killpg(server.pid, signal.SIGCONT)
    return True


async def crash(postgres: Postgres, sitting: Sitting, server: Server) -> bool:
    await asyncio.to_thread(postgres.kill)
    await asyncio.sleep(sitting.chance.uniform(0, LONGEST_OUTAGE))
    await asyncio.to_thread(postgres.start)
    await sitting.go_on()
    return True


def run(seconds: float, seed: int) -> Report:
    postgres = Postgres()
    postgres.start()

    def opened(folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]:
        return on_postgres(folder, postgres.fresh_schema(), SERVERS, fresh_bucket(), program=program)

    crashes = Fault("kills of PostgreSQL", partial(crash, postgres), refusals=DEFINITE, is_everywhere=True, pace=0.05)
    sleeps = Fault("sleeps of a server", sleep, refusals=DEFINITE | SWEPT, pace=0.5, sweeps=True)
    try:
        return sittings("kill_s3", seconds, seed, opened, (SERVER, DECODER, crashes, sleeps))
    finally:
        postgres.stop()
