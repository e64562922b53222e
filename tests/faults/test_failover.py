"""The `failover` campaign, small: what standbys of PostgreSQL remember, and what the fence makes of the rest."""

from tests.faults.campaigns import failover


def test_a_standby_that_takes_over_lets_nobody_use_a_signature_again() -> None:
    report = failover.run(1, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
