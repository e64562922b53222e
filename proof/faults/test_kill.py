"""The kill campaigns, small. And their controls without a fault, which find nothing."""

import random
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from proof.faults.campaigns import kill, kill_s3, sleep_s3
from proof.faults.campaigns.kill import ANSWERS_FIRST, Control, control
from proof.faults.fleet import POSTGRES_AND_S3, UPONCE, Fleet
from proof.faults.sitting import Fault, Sitting
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


def opened(folder: Path, *, program: Sequence[str] = UPONCE) -> AbstractContextManager[Fleet]:
    return POSTGRES_AND_S3.opened(folder, kill_s3.SERVERS, program=program)


async def spare(sitting: Sitting, server: Server) -> bool:
    return True


ALL_IDLE = Fault("no kill", spare, is_everywhere=True, pace=kill_s3.PACE)


@pytest.mark.parametrize(
    "broken",
    [ANSWERS_FIRST, kill_s3.bytes_first(ALL_IDLE), sleep_s3.IGNORES_CONDEMNED],
    ids=lambda broken: broken.name,
)
def test_a_broken_server_that_nothing_strikes_is_not_found(tmp_path: Path, broken: Control) -> None:
    """Or a control would prove that its server is broken, and not that its fault strikes."""
    tally, spared = Tally(), replace(broken, fault=replace(broken.fault, strike=spare, times=1))
    control(tmp_path, random.Random(1), tally, opened, spared, red=0.99)
    assert tally.controls == {broken.name: 0}
