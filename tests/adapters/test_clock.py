"""The time and chance of the real world."""

import re
import time

import pytest

from uponce.adapters.clock import RandomIds, SystemClock


def test_the_clock_tells_unix_seconds() -> None:
    before = time.time()
    assert before <= SystemClock().now() <= time.time()


@pytest.mark.parametrize("length", [1, 2, 7, 32, 33])
def test_ids_have_the_length_and_alphabet_that_were_asked_for(length: int) -> None:
    ids = RandomIds()
    assert re.fullmatch(rf"[0-9a-f]{{{length}}}", ids.hex(length))
    assert re.fullmatch(rf"[0-9a-z]{{{length}}}", ids.base36(length))


def test_ids_do_not_repeat_and_use_their_whole_alphabet() -> None:
    ids = RandomIds()
    hexes, words = ([make(20) for _ in range(1000)] for make in (ids.hex, ids.base36))
    assert len(set(hexes)) == len(set(words)) == 1000
    assert len(set("".join(hexes))) == 16
    assert len(set("".join(words))) == 36
