"""The history checker: forged histories that cannot have happened are rejected, all that can are let pass."""

import pytest

from proof.faults.checker import Operation, anomalies, anomaly
from proof.faults.forgeries import BAD, GOOD, forged


@pytest.mark.parametrize("text", BAD.values(), ids=BAD.keys())
def test_what_cannot_happen_is_rejected(text: str) -> None:
    assert anomaly(forged(text))


@pytest.mark.parametrize("text", GOOD.values(), ids=GOOD.keys())
def test_what_can_happen_is_let_pass(text: str) -> None:
    assert not anomaly(forged(text))


def test_signatures_are_judged_each_on_its_own() -> None:
    """An upload with one signature proves nothing about another. The wrong one is named."""
    history = [Operation("upload", "ok", 0, 1, grant=1), Operation("upload", "ok", 2, 3, grant=2)]
    assert not anomalies(history)
    assert anomalies([*history, Operation("upload", "ok", 4, 5, grant=2)])[0].startswith("signature 2:")
