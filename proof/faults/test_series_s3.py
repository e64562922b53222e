"""The campaign of uploads in several requests on two servers, PostgreSQL and S3, small."""

import pytest

from proof.faults.campaigns.series_s3 import run

pytestmark = pytest.mark.proof


def test_uploads_in_parts_on_two_servers_survive_kills_races_and_bad_networks() -> None:
    """Each becomes one asset of the right bytes. Records before objects, and objects without a record, are found."""
    report = run(12, 20251125, parallel=16)
    print(report)
    assert report.holds, report
    assert report.inside > 0
    assert report.counts["kills of a server"] > 0
    assert report.counts["races for the last piece"] > 0
