"""The race over fleets of two and of four servers on one PostgreSQL."""

from tests.faults.campaigns import race
from tests.faults.fleet import POSTGRES
from tests.faults.report import Report

SERVERS = (2, 4)


def run(seconds: float, seed: int) -> Report:
    return race.run(seconds, seed, name="race_postgres", sizes=SERVERS, ground=POSTGRES)
