"""The kill campaigns, small."""

from tests.faults.campaigns import kill, kill_s3


def test_kills_lose_nothing_and_repeat_nothing() -> None:
    """SIGKILL to the server, a worker or a decoder at random moments; answers given too early are found out."""
    report = kill.run(20, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0


def test_kills_and_sleeps_of_servers_on_postgres_and_s3() -> None:
    report = kill_s3.run(10, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["kills of PostgreSQL"] > 0
    assert report.counts["sleeps of a server"] > 0
    assert report.counts["reads meanwhile"] > 0
