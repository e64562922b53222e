"""Spans: which bytes are there, compared with a plain set of numbers."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uponce.core.spans import Span, merged, split, total_size

SPAN = st.builds(lambda start, size: Span(start, start + size), st.integers(0, 40), st.integers(0, 12))


def numbers(*spans: Span) -> set[int]:
    return {number for span in spans for number in range(span.start, span.end)}


@given(st.lists(SPAN, max_size=8))
def test_merged_spans_hold_the_same_bytes_and_never_touch(spans: list[Span]) -> None:
    result = merged(spans)
    assert numbers(*result) == numbers(*spans)
    assert total_size(result) == len(numbers(*spans))
    assert all(a.end < b.start for a, b in pairwise(result))
    assert all(span.size for span in result)


@given(SPAN, st.lists(SPAN, max_size=8))
def test_split_covers_a_span_once_and_knows_what_is_there(span: Span, spans: list[Span]) -> None:
    parts = list(split(span, merged(spans)))
    assert [number for part, _ in parts for number in range(part.start, part.end)] == list(range(span.start, span.end))
    for part, present in parts:
        assert part.size
        assert (numbers(part) <= numbers(*spans)) if present else not (numbers(part) & numbers(*spans))


@given(SPAN, SPAN)
def test_spans_meet_if_they_have_a_byte_in_common(one: Span, other: Span) -> None:
    """An empty span counts as its first byte."""
    at_least_one = [Span(span.start, max(span.end, span.start + 1)) for span in (one, other)]
    assert one.meets(other) is bool(numbers(at_least_one[0]) & numbers(at_least_one[1]))


@pytest.mark.parametrize("at", range(-1, 3))
def test_an_empty_span_meets_its_first_byte_alone(at: int) -> None:
    empty, other = Span(0, 0), Span(at, at + 1)
    assert (empty.meets(other), other.meets(empty)) == (at == 0, at == 0)
