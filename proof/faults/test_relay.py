"""The `relay` campaign, small, in `make full`: no asset too many upstream, and none pending."""

import pytest

from proof.faults.campaigns import relay

pytestmark = [pytest.mark.proof, pytest.mark.full]

SECONDS, SEED = 20, 20_261_127


def test_a_relay_and_its_upstream_that_die() -> None:
    report = relay.run(SECONDS, SEED)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["signatures whose outcome was looked up"] > 0
