"""Tiny limits on two servers, PostgreSQL and S3."""

from proof.faults.campaigns import limits
from proof.faults.fleet import POSTGRES_AND_S3
from proof.faults.report import Report

SERVERS = 2


def run(seconds: float, seed: int) -> Report:
    controls = limits.BROKEN_S3
    return limits.run(
        seconds, seed, name="limits_s3", opened=POSTGRES_AND_S3.opened, servers=SERVERS, controls=controls
    )
