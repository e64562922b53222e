"""The state machine, small: what the server does is what a page of model says, and broken servers are found."""

import pytest

from proof.faults.campaigns.model import run

pytestmark = pytest.mark.proof

BATCHES = 3  # the same examples on every machine; other seeds are for `make campaign`


def test_the_server_does_what_the_model_says() -> None:
    report = run(0, 1, batches=BATCHES)
    print(report)
    assert report.holds
    assert report.inside > 0
