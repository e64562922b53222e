"""How long a signature lives, and how that is said."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uponce.core.errors import StaleRequest
from uponce.core.freshness import check_fresh, duration, keep_until, parse_timestamp, utc

seconds = st.integers(0, 10**10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("1700000000", 1700000000),
        ("999999999999", 999999999999),
        ("1000000000000", 1000000000),
        ("1700000000123", 1700000000),
        ("9999999999999", 9999999999),
    ],
)
def test_parse_timestamp(text: str, expected: int) -> None:
    """Seconds up to 12 digits, milliseconds with 13, as Directus sends them."""
    assert parse_timestamp(text) == expected


@given(timestamp=st.integers(10**9, 10**10 - 1), milliseconds=st.integers(0, 999))
def test_seconds_and_milliseconds_of_one_moment_are_one(timestamp: int, milliseconds: int) -> None:
    assert parse_timestamp(str(timestamp)) == parse_timestamp(f"{timestamp}{milliseconds:03}") == timestamp


def test_the_watermark_beats_the_window() -> None:
    """What may have been purged is stale, however long the window is now."""
    watermark = 1_700_000_000
    with pytest.raises(StaleRequest, match=r"not after 2023-11-14 22:13:20.*refuses all signatures"):
        check_fresh(watermark, now=watermark + 1, window=10**6, skew=300, watermark=watermark)
    check_fresh(watermark + 1, now=watermark + 1, window=10**6, skew=300, watermark=watermark)


@pytest.mark.parametrize(("window", "valid_for", "lifetime"), [(3600, None, 3600), (3600, 60, 60), (60, 3600, 60)])
def test_valid_for_shortens_and_never_prolongs(window: int, valid_for: int | None, lifetime: int) -> None:
    def check(age: float) -> None:
        check_fresh(1000, now=1000 + age, window=window, skew=0, watermark=None, valid_for=valid_for)

    check(lifetime)
    with pytest.raises(StaleRequest, match=rf"more than {duration(lifetime)} ago"):
        check(lifetime + 0.01)


def test_stale_request_reads_like_cloudinarys() -> None:
    with pytest.raises(StaleRequest) as caught:
        check_fresh(1712841818, now=1712841818 + 3601, window=3600, skew=300, watermark=None)
    assert str(caught.value) == (
        "Stale request - reported time is 2024-04-11 13:23:38 +0000 which is more than 1 hour ago"
    )


@given(timestamp=seconds, window=seconds, skew=seconds, upload=seconds, late=seconds)
def test_a_grant_is_remembered_for_as_long_as_it_could_be_used(
    timestamp: int, window: int, skew: int, upload: int, late: int
) -> None:
    """Were it accepted at the last moment and its upload as slow as allowed, its row would still be there."""
    kept = keep_until(timestamp, window=window, skew=skew, max_upload_seconds=upload)
    last_start = min(timestamp + window, kept)
    assert last_start + upload <= kept
    with pytest.raises(StaleRequest):
        check_fresh(timestamp, now=kept + 1 + late, window=window, skew=skew, watermark=None)


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01 00:00:00 +0000"),
        (1712841818.9, "2024-04-11 13:23:38 +0000"),
        (253402300799, "9999-12-31 23:59:59 +0000"),
        (253402300800, "253402300800 seconds after 1970"),
        (10**20, f"{10**20} seconds after 1970"),
    ],
)
def test_utc(timestamp: float, text: str) -> None:
    """Also a moment that no calendar here can hold has a text: clients choose the timestamp."""
    assert utc(timestamp) == text


def test_the_time_zone_of_the_machine_makes_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        assert utc(1712841818) == "2024-04-11 13:23:38 +0000"
    time.tzset()


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (90, "90 seconds"),
        (120, "2 minutes"),
        (3600, "1 hour"),
        (5400, "90 minutes"),
        (7200, "2 hours"),
    ],
)
def test_span(length: int, text: str) -> None:
    assert duration(length) == text
