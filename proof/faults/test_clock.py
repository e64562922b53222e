"""The clock campaign, small."""

import pytest

from proof.faults.campaigns.clock import run

pytestmark = pytest.mark.proof


def test_a_few_steps_of_the_clock() -> None:
    """Nothing spent is taken again, nothing valid is refused, versions rise; each broken server is found out."""
    report = run(10, 20251125)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["restores"] > 0
    assert report.counts["spent signatures whose row was purged"] > 0
