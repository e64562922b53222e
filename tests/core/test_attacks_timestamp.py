"""Attacks on the time of a signature, by the row of the attack list."""

import pytest

from uponce.core.errors import FutureTimestamp, InvalidParameter, StaleRequest
from uponce.core.parameters import parse_timestamp
from uponce.core.signature import check_fresh

NOW, WINDOW, SKEW = 1_700_000_000, 3600, 300


def _check(timestamp: int) -> None:
    check_fresh(timestamp, now=NOW, window=WINDOW, skew=SKEW, watermark=None)


@pytest.mark.parametrize("offset", [-WINDOW, -WINDOW + 1, -1, 0, 1, SKEW - 1, SKEW])
def test_t1_inside_window_and_skew_is_fresh(offset: int) -> None:
    _check(NOW + offset)


@pytest.mark.parametrize("offset", [-WINDOW - 1, -10 * WINDOW, -NOW])
def test_t1_before_the_window_is_stale(offset: int) -> None:
    with pytest.raises(StaleRequest, match=r"Stale request - reported time is .* which is more than 1 hour ago"):
        _check(NOW + offset)


@pytest.mark.parametrize("offset", [SKEW + 1, WINDOW, 10**9, 999_999_999_999 - NOW])
def test_t1_beyond_the_skew_is_refused(offset: int) -> None:
    """A far future timestamp would be a signature that never ends."""
    with pytest.raises(FutureTimestamp, match=r"reported time is .* The limit is 300 seconds\. Correct"):
        _check(NOW + offset)


def test_t1_boundaries_hold_within_a_second() -> None:
    """The clock has fractions, timestamps do not."""
    check_fresh(NOW - WINDOW, now=NOW + 0.0, window=WINDOW, skew=SKEW, watermark=None)
    with pytest.raises(StaleRequest):
        check_fresh(NOW - WINDOW, now=NOW + 0.001, window=WINDOW, skew=SKEW, watermark=None)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "-1",
        "-0",
        "1e9",
        "1700000000.5",
        "1700000000.",
        "+1700000000",
        " 1700000000",
        "1700000000 ",
        "1700000000\n",
        "\ufeff1700000000",
        "0x6553f100",
        "0b1",
        "１７００００００００",
        "١٧٠٠٠٠٠٠٠٠",
        "1_700_000_000",
        "1,700,000,000",
        "01700000000",
        "00",
        "17000000001234",
        "9" * 30,
        "9" * 10_000,
        "1700000000,1700000001",
        "[1700000000]",
        "null",
        "undefined",
        "NaN",
        "Infinity",
        "1700000000\x00",
    ],
)
def test_t2_anything_but_plain_digits_is_refused(text: str) -> None:
    """`int()` alone would take signs, spaces, underscores, full-width digits and numbers of any length."""
    with pytest.raises(InvalidParameter, match="Invalid timestamp"):
        parse_timestamp(text)


def test_t2_a_refusal_shows_so_much_of_it() -> None:
    with pytest.raises(InvalidParameter, match=f"Invalid timestamp '{'1' * 20}'"):
        parse_timestamp("1" * 21)


@pytest.mark.parametrize("text", ["0", "1", "1700000000", "999999999999"])
def test_t2_1_to_12_plain_digits_are_seconds(text: str) -> None:
    assert parse_timestamp(text) == int(text)


def test_t2_zero_is_a_time_and_stale() -> None:
    with pytest.raises(StaleRequest):
        _check(parse_timestamp("0"))


def test_t2_milliseconds_gain_no_time() -> None:
    """A timestamp of 13 digits is fresh as long as the same moment in seconds, and no longer."""
    _check(parse_timestamp(f"{NOW + SKEW}999"))
    with pytest.raises(FutureTimestamp):
        _check(parse_timestamp(f"{NOW + SKEW + 1}000"))
    with pytest.raises(StaleRequest):
        _check(parse_timestamp(f"{NOW - WINDOW - 1}999"))
