"""The race over fleets of two and of four servers on one PostgreSQL."""

from proof.faults.campaigns import race
from proof.faults.fleet import POSTGRES
from proof.faults.report import Report

SERVERS = (2, 4)


def run(seconds: float, seed: int) -> Report:
    return race.run(seconds, seed, name="race_postgres", sizes=SERVERS, ground=POSTGRES)
