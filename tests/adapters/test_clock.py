"""The time and chance of the real world."""

import re
import time
import uuid

import pytest

from uponce.adapters.system import RandomIds, SystemClock


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


def test_dated_ids_are_uuids_that_begin_with_the_time_and_do_not_repeat() -> None:
    ids = RandomIds()
    before = time.time_ns() // 1_000_000
    found = [uuid.UUID(hex=ids.dated_hex()) for _ in range(1000)]
    after = time.time_ns() // 1_000_000
    assert {(one.version, one.variant) for one in found} == {(7, uuid.RFC_4122)}
    assert all(before <= one.int >> 80 <= after for one in found)
    assert len({one.int & (1 << 62) - 1 for one in found}) == 1000
    assert len({one.int >> 64 & 0xFFF for one in found}) > 500
