"""Recorded histories, small: what clients see of a signature is what one moment explains."""

import pytest

from proof.faults.campaigns.history import run

pytestmark = pytest.mark.proof


def test_every_history_is_explained_by_one_moment() -> None:
    report = run(12, 1)
    print(report)
    assert report.holds
    assert report.inside > 0
