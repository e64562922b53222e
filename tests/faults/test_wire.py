"""The `wire` campaign, small: whichever message to or from PostgreSQL is lost, what clients are told is true."""

from tests.faults.campaigns import wire


def test_a_connection_cut_at_any_message_costs_nobody_a_signature() -> None:
    report = wire.run(8, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
