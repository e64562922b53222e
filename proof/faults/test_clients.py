"""The campaign of clients that hang up and stall, small."""

import pytest

from proof.faults.campaigns.clients import PLACES, run

pytestmark = pytest.mark.proof


def test_clients_that_hang_up_or_stall() -> None:
    """They spend nothing, leave nothing, and disturb no other client. A claim before the upload is found."""
    report = run(18, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert all(report.counts[f"hung up: {place}"] for place in PLACES)
