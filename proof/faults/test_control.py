"""The helper of all controls: it tries again until the broken server is found, and gives up in the end."""

import random

import pytest

from proof.faults.control import EVEN, FALSE_ALARM, seeded, tries, until_red
from proof.faults.report import CONTROLS
from proof.faults.tally import Tally


def outcomes(*found: int) -> Tally:
    """Return the tally after attempts that find so much. A negative number is an attempt that waited too long."""
    tally, coming = Tally(), iter(found)

    def attempt() -> int:
        if (number := next(coming)) < 0:
            raise TimeoutError
        return number

    until_red(tally, "broken", [attempt] * len(found))
    assert next(coming, None) is None or tally.controls["broken"]
    return tally


@pytest.mark.parametrize("red", [0.1, 0.25, EVEN, 0.9, 0.999, 1.0])
def test_so_many_tries_make_a_false_alarm_rarer_than_one_in_ten_thousand(red: float) -> None:
    assert (1 - red) ** tries(red) <= FALSE_ALARM
    assert tries(red) == 1 or (1 - red) ** (tries(red) - 1) > FALSE_ALARM


def test_the_first_try_that_is_red_ends_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert outcomes(0, 3, 5).controls == {"broken": 3}
    assert capsys.readouterr().out == "control: broken: red at try 2 of at most 3\n"


def test_a_try_that_waits_for_ever_is_a_miss(capsys: pytest.CaptureFixture[str]) -> None:
    """A broken server may never answer: the end of the wait must not end the campaign."""
    assert outcomes(-1, -1, 2).controls == {"broken": 2}
    assert capsys.readouterr().out == "control: broken: red at try 3 of at most 3\n"


def test_a_server_that_is_not_broken_is_not_found(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CONTROLS, "any", ("broken",))
    assert outcomes(3).report("any", 1).holds
    tally = outcomes(0, -1, 0)
    assert tally.controls == {"broken": 0}
    assert not tally.report("any", 1).holds
    assert "NOT RED in 3 tries" in capsys.readouterr().out


def test_each_try_has_another_seed_and_a_campaign_repeats_them() -> None:
    drawn: list[list[float]] = [[], []]
    for draws in drawn:

        def draw(chance: random.Random, draws: list[float] = draws) -> int:
            draws.append(chance.random())
            return 0

        for attempt in seeded(random.Random(1), draw):
            attempt()
    assert drawn[0] == drawn[1]
    assert len(set(drawn[0])) == tries(EVEN) == len(drawn[0])
