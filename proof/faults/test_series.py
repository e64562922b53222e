"""The campaign of uploads in several requests, small."""

import pytest

from proof.faults.campaigns.series import run
from proof.faults.ways import PLACES

pytestmark = pytest.mark.proof


def test_uploads_in_parts_survive_kills_races_and_bad_networks() -> None:
    """Each becomes one asset of the right bytes. Records before bytes, late pieces and free signatures are found."""
    report = run(12, 20251125, parallel=16)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["uploads over a bad network"] > 0
    assert report.counts["races for the last piece"] > 0
    assert all(report.counts[f"parts broken off {place}"] for place in PLACES)
