"""What a look for a relay finds if the relay ends during the look."""

import pytest

from uponce.adapters.database import relays


def test_a_relay_that_ends_during_the_look_is_gone() -> None:
    """PostgreSQL reads its row and its grants with two statements outside of a transaction."""
    steps = relays.find.steps(0.0, "one")
    assert [name for name, _ in next(steps)] == ["find_relay", "find_relay_grants"]
    with pytest.raises(StopIteration) as end:
        steps.send([[{"relay_id": "one"}], []])
    assert end.value.value is None
