"""The kill campaigns, small."""

import random
from dataclasses import replace
from pathlib import Path

import pytest

from proof.faults.campaigns import kill, kill_s3, sleep_s3
from proof.faults.campaigns.kill import ANSWERS_FIRST
from proof.faults.fleet import POSTGRES_AND_S3
from proof.faults.sitting import Sitting
from proof.faults.tally import Tally
from tests.server import Server

pytestmark = pytest.mark.proof


def test_kills_lose_nothing_and_repeat_nothing() -> None:
    """SIGKILL to the server, a worker or a decoder at random moments; answers given too early are found out."""
    report = kill.run(10, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0


def test_kills_of_all_that_a_fleet_on_postgres_and_s3_consists_of() -> None:
    report = kill_s3.run(1, 20251125, times=1)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    for what in ("a server", "PostgreSQL", "the S3 server"):
        assert report.counts[f"kills of {what}"] > 0
    assert min(report.counts[act] for act in ("uploads", "overwrites", "deletions")) > 0


def test_a_server_on_postgres_and_s3_that_sleeps_past_every_timeout() -> None:
    report = sleep_s3.run(1, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["sleeps of a server"] > 0
    assert report.counts["reads meanwhile"] > 0


async def spare(sitting: Sitting, server: Server) -> bool:
    return True


def test_answers_before_the_commit_are_not_found_without_a_kill(tmp_path: Path) -> None:
    """Or the control would prove that its servers are broken, and not that a kill strikes them."""
    with POSTGRES_AND_S3.opened(tmp_path, kill_s3.SERVERS, program=ANSWERS_FIRST.program) as fleet:
        sitting = Sitting(fleet, random.Random(1), Tally())
        sitting.suffer(replace(ANSWERS_FIRST.fault, strike=spare))
    assert sitting.tally.counts["acknowledged uploads"] > 0
    assert ANSWERS_FIRST.found(sitting.tally) == 0, sitting.tally.notes
