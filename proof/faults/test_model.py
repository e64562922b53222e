"""The state machine, small: what the server does is what a page of model says, and broken servers are found."""

import pytest

from proof.faults.campaigns.model import run

pytestmark = pytest.mark.proof


def test_the_server_does_what_the_model_says() -> None:
    report = run(24, 1)
    print(report)
    assert report.holds
    assert report.inside > 0
