"""The kill campaign, small."""

from tests.faults.campaigns.kill import run


def test_kills_lose_nothing_and_repeat_nothing() -> None:
    """SIGKILL to the server, a worker or a decoder at random moments; answers given too early are found out."""
    report = run(20, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
