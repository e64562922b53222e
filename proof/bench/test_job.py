"""What the load generator counts."""

import pytest

from proof.bench.job import Tally


def test_the_longest_time_without_an_answer_is_found_and_dated() -> None:
    tally = Tally()
    for moment in (10.05, 10.1, 10.8, 10.85, 11.05):
        tally.count(200, moment - 0.05, moment)
    tally.count(None, 11.05, 11.06)
    outcome = tally.outcome(10.0, 11.1)
    assert (outcome.pause, outcome.paused_at) == pytest.approx((0.7, 0.8))
    assert outcome.pauses == 2
    assert (outcome.answers, outcome.broken) == ({200: 5}, 1)
