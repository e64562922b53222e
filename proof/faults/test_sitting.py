"""Which replies the campaigns ask for again: none that a sound machine can give."""

import asyncio
from collections.abc import Iterator
from itertools import repeat

import pytest

from proof.faults import sitting
from proof.faults.clients import Reply
from proof.faults.tally import Tally

LONG = 3600.0
DOWN, UNKNOWN = (Reply(503, {"error": {"code": code}}) for code in ("database_unavailable", "outcome_unknown"))
FINE = Reply(200)


@pytest.fixture
def all_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let each reply count as one that took a whole time limit."""
    monkeypatch.setattr(sitting, "LIMIT_SECONDS", 0.0)


def judged(coming: Iterator[Reply], seconds: float = LONG) -> str:
    """Return the verdict of the reply that counts."""

    async def ask() -> Reply:
        return next(coming)

    return asyncio.run(sitting.patient(Tally(), ask, seconds)).verdict


@pytest.mark.usefixtures("all_late")
def test_a_refusal_after_a_whole_time_limit_is_asked_for_again() -> None:
    assert judged(iter([DOWN, FINE])) == "ok"


@pytest.mark.usefixtures("all_late")
def test_a_refusal_that_stays_counts() -> None:
    assert judged(repeat(DOWN), seconds=0.2) == DOWN.verdict


@pytest.mark.usefixtures("all_late")
@pytest.mark.parametrize("before", [[], [DOWN]])
def test_an_unknown_outcome_is_never_asked_for_again(before: list[Reply]) -> None:
    assert judged(iter([*before, UNKNOWN, FINE])) == UNKNOWN.verdict


def test_a_refusal_before_the_time_limit_counts_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sitting, "LIMIT_SECONDS", LONG)
    assert judged(iter([DOWN, FINE])) == DOWN.verdict
