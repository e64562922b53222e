"""Two servers on one PostgreSQL and one S3 store, under sixteen clients that upload, overwrite and delete.

SIGKILL hits a server, a decoder, all of PostgreSQL, or the store.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from proof.faults.campaigns.kill import ANSWERS_FIRST, DECODER, MUTANTS, SERVER, Control, sittings
from proof.faults.fleet import STORAGE_SECONDS, UPONCE, Fleet, bucket_of, on_postgres
from proof.faults.report import Report
from proof.faults.sitting import NOT_SERVED, Fault, Sitting
from tests.postgres import Postgres
from tests.server import Server
from tests.stores.seaweedfs import SeaweedFS

SERVERS = 2
LONGEST_OUTAGE = 1.0
PACE = 0.3
TIMES = 6  # in a round; a third of it where it takes three seconds to come back

DAWDLING = ("-m", "proof.faults.dawdling")


async def crash(kill: Callable[[], None], start: Callable[[], None], sitting: Sitting, server: Server) -> bool:
    """Kill and start what all servers share. It starts with the same data."""
    await asyncio.to_thread(kill)
    await asyncio.sleep(sitting.chance.uniform(0, LONGEST_OUTAGE))
    await asyncio.to_thread(start)
    await sitting.go_on()
    return True


def run(seconds: float, seed: int, *, times: int = TIMES) -> Report:
    postgres, store = Postgres(), SeaweedFS()
    postgres.start()
    store.run()
    programs = itertools.cycle((DAWDLING, UPONCE))

    def opened(folder: Path, *, program: Sequence[str] = ()) -> AbstractContextManager[Fleet]:
        """Every other fleet takes its time between the bytes and the commit, so that more is caught there."""
        chosen = program or next(programs)
        return on_postgres(folder, postgres.fresh_schema(), SERVERS, bucket_of(store, STORAGE_SECONDS), program=chosen)

    def crashes(name: str, kill: Callable[[], None], start: Callable[[], None], refusal: str) -> Fault:
        strike, refusals = partial(crash, kill, start), frozenset({refusal})
        return Fault(f"kills of {name}", strike, refusals=refusals, is_everywhere=True, pace=PACE, times=times)

    of_postgres = crashes("PostgreSQL", postgres.kill, postgres.start, "database_unavailable")
    of_store = crashes("the S3 server", store.kill, store.run, "storage_unavailable")
    of_servers = [replace(fault, times=times) for fault in (SERVER, DECODER)]
    faults = (*of_servers, of_postgres, replace(of_store, times=max(1, times // 3)))
    bytes_first = ("-m", f"{MUTANTS}.deletes_bytes_first")
    twice = replace(of_postgres, times=2)
    broken = (ANSWERS_FIRST, Control("assets without bytes, which were deleted first", bytes_first, twice, NOT_SERVED))
    try:
        return sittings("kill_s3", seconds, seed, opened, faults, broken)
    finally:
        store.stop()
        postgres.stop()
