"""The `database` campaign, small: locked, read-only, gone, or without a reply, the database costs no signature."""

import pytest

from proof.faults.campaigns import database

pytestmark = pytest.mark.proof

SECONDS, SEED = 10, 20_261_125


def test_a_database_that_cannot_be_used_for_a_while() -> None:
    report = database.run(SECONDS, SEED)
    print(report)
    assert report.holds
    assert report.inside > 0
    if database.LEFT_OUT in report.counts:
        pytest.skip("NOT TESTED: read-only files and disks need root, and a file system with immutable files")
