"""The kill campaigns, small."""

import pytest

from proof.faults.campaigns import kill, kill_s3, sleep_s3

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
