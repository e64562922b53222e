"""The `wire` campaigns, small: any message to or from PostgreSQL or the store may be lost, and every answer is true."""

from types import ModuleType

import pytest

from proof.faults.campaigns import wire, wire_s3

pytestmark = pytest.mark.proof


@pytest.mark.parametrize("campaign", [wire, wire_s3], ids=["PostgreSQL", "S3"])
def test_a_connection_cut_at_any_message_costs_nobody_a_signature(campaign: ModuleType) -> None:
    report = campaign.run(5, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
