"""The `io` campaign, small: whatever the operating system refuses, the answer is definite and nothing is lost."""

import pytest

from proof.faults.campaigns import io

pytestmark = pytest.mark.proof

SECONDS, SEED = 10, 20_261_125


def test_refused_system_calls_and_full_disks() -> None:
    report = io.run(SECONDS, SEED)
    print(report)
    assert report.holds
    assert report.inside > 0
    if io.LEFT_OUT in report.counts:
        pytest.skip("NOT TESTED: full disks need root; run the tests as root where a tmpfs may be mounted")
