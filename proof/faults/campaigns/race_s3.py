"""The race over fleets of two and of four servers on one PostgreSQL and one S3 store."""

from proof.faults.campaigns import race
from proof.faults.campaigns.race_postgres import SERVERS
from proof.faults.fleet import POSTGRES_AND_S3
from proof.faults.report import Report

ALLOWED = (race.USUAL_ATTEMPTS,) * 4 + (race.RACERS,)


def run(seconds: float, seed: int) -> Report:
    return race.run(seconds, seed, name="race_s3", sizes=SERVERS, ground=POSTGRES_AND_S3, allowed=ALLOWED)
