"""The campaign of uploads in several requests on two servers, PostgreSQL and S3: each request goes to either of them.

The death of a server loses no part of an upload. Bytes that a server has put into the bucket and not recorded are never
used in place of those of the other server.
"""

import asyncio
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from proof.faults.campaigns.series import (
    NOT_SERVED,
    PARALLEL,
    PATIENCE,
    SETTINGS,
    Sitting,
    amid_a_kill,
    control,
    mutant,
    several_races,
    sittings,
)
from proof.faults.fleet import UPONCE, Fleet, fresh_bucket, on_postgres
from proof.faults.report import Report
from proof.faults.tally import Tally
from tests import postgres

SERVERS = 2


def run(seconds: float, seed: int, parallel: int = PARALLEL) -> Report:
    return sittings("series_s3", seconds, seed, parallel, _fleet, (control_kills, control_races))


def control_kills(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Servers that record what they have not put yet: some kill has to show that what they promised is not there."""

    async def play(sitting: Sitting) -> None:
        with suppress(TimeoutError):  # clients wait for what will never be complete
            async with asyncio.timeout(PATIENCE):
                await amid_a_kill(sitting)
        sitting.tally.audit(sitting.fleet.place, only=("hollow",))

    broken = _fleet(folder, program=mutant("records_before_put.py"))
    control("uploads torn by a record before the object", chance, tally, broken, play, "hollow")


def control_races(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Find servers that list the bucket for the bytes of an upload: other bytes are in the bucket as well."""
    broken = _fleet(folder, program=mutant("finds_by_listing.py"))
    control("uploads mixed with what nobody recorded", chance, tally, broken, several_races, NOT_SERVED)


def _fleet(folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]:
    folder.mkdir(exist_ok=True)
    url = postgres.shared().fresh_schema()
    return on_postgres(folder, url, SERVERS, fresh_bucket(), program=program, **SETTINGS)
