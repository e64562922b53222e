"""Byte ranges as RFC 9110 §14 has them, under a cap."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from uponce.core.errors import RangeNotSatisfiable
from uponce.core.ranges import MAX_RANGES, parse_ranges
from uponce.core.spans import Span

SIZE = 10_000
WHOLE: tuple[Span, ...] = ()


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # The RFC's own examples (§14.1.2), for a file of 10000 bytes.
        ("bytes=0-499", [(0, 499)]),
        ("bytes=500-999", [(500, 999)]),
        ("bytes=-500", [(9500, 9999)]),
        ("bytes=9500-", [(9500, 9999)]),
        ("bytes=0-0,-1", [(0, 0), (9999, 9999)]),
        ("bytes= 0-999, 4500-5499, -1000", [(0, 999), (4500, 5499), (9000, 9999)]),
        ("bytes=500-600,601-999", [(500, 600), (601, 999)]),
        # Ends beyond the file are cut.
        ("bytes=9999-", [(9999, 9999)]),
        ("bytes=0-10000", [(0, 9999)]),
        ("bytes=0-999999999999999999", [(0, 9999)]),
        ("bytes=-10001", [(0, 9999)]),
        ("bytes=-999999999999999999", [(0, 9999)]),
        # Of several, those outside are omitted.
        ("bytes=0-1,20000-", [(0, 1)]),
        ("bytes=20000-30000,-1", [(9999, 9999)]),
        ("bytes=-0,5-6", [(5, 6)]),
        # The order of the request is kept; the unit is case-insensitive.
        ("bytes=8-9,0-1", [(8, 9), (0, 1)]),
        ("Bytes=0-1", [(0, 1)]),
        ("bytes=0-0,2-2,4-4,6-6,8-8", [(0, 0), (2, 2), (4, 4), (6, 6), (8, 8)]),
    ],
)
def test_ranges_inside_the_file(header: str, expected: list[tuple[int, int]]) -> None:
    assert [(r.start, r.end - 1) for r in parse_ranges(header, SIZE)] == expected


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=abc",
        "bytes=1",
        "bytes=--1",
        "bytes=1-2-3",
        "bytes=5-2",
        "bytes=0-1,5-2",
        "bytes=20000-20000,5-2",
        "bytes=+1-2",
        "bytes=1.0-2",
        "bytes=0x1-0x2",
        "bytes=1_0-2_0",
        "bytes=１-２",
        "bytes=0-1;2-3",
        "bytes=0-1,",
        "bytes =0-1",
        "items=0-1",
        "bytes=" + "9" * 21 + "-",
        "bytes=0-0,2-2,4-4,6-6,8-8,10-10",
        "bytes=" + ",".join(["0-"] * 100_000),
        "bytes=0-5,5-9",
        "bytes=0-,-1",
        "bytes=0-0,0-0",
        "bytes=5-9,0-100",
    ],
)
def test_a_header_to_be_ignored_gives_the_whole_file(header: str | None) -> None:
    """Malformed, of another unit, too many or overlapping: a server may ignore the header, and does."""
    assert parse_ranges(header, SIZE) == WHOLE


@pytest.mark.parametrize("header", ["bytes=10000-", "bytes=10000-10001", "bytes=-0", "bytes=10000-,20000-30000,-0"])
def test_well_formed_and_outside_is_not_satisfiable(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable, match=f"No requested range is inside the file of {SIZE} bytes"):
        parse_ranges(header, SIZE)


@pytest.mark.parametrize("header", ["bytes=0-", "bytes=0-0", "bytes=-1"])
def test_an_empty_file_has_no_range(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable):
        parse_ranges(header, 0)


_numbers = st.one_of(st.just(""), st.integers(0, 60).map(str))
_specs = st.builds("{}-{}".format, _numbers, _numbers)
headers = st.one_of(
    st.lists(_specs, min_size=1, max_size=7).map(lambda specs: "bytes=" + ",".join(specs)),
    st.text("bytes=0123456789-, ", max_size=30).map("bytes={}".format),
    st.text(max_size=30),
)


@given(header=headers, size=st.integers(0, 50))
@example(header="bytes=0-0,-1", size=1)
def test_every_range_lies_inside_the_file(header: str, size: int) -> None:
    """At most five, none empty, no byte twice."""
    try:
        ranges = parse_ranges(header, size)
    except RangeNotSatisfiable:
        return
    assert len(ranges) <= MAX_RANGES == 5
    sent = [byte for r in ranges for byte in range(r.start, r.end)]
    assert all(r.size > 0 for r in ranges)
    assert len(sent) == len(set(sent))
    assert set(sent) <= set(range(size))


@given(start=st.integers(0, 99), length=st.integers(1, 100), size=st.integers(1, 100))
def test_one_range_is_what_was_asked_for(start: int, length: int, size: int) -> None:
    """Sending the range and slicing the file are the same."""
    data = bytes(range(size))
    header = f"bytes={start}-{start + length - 1}"
    if start >= size:
        with pytest.raises(RangeNotSatisfiable):
            parse_ranges(header, size)
        return
    (only,) = parse_ranges(header, size)
    assert data[only.start : only.end] == data[start : start + length]
