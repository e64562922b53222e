"""What the parts of one upload have to agree on."""

from dataclasses import replace

import pytest

from uponce.core.errors import (
    ChunkConflict,
    ChunkInProgress,
    ChunkTooSmall,
    FileTooLarge,
    StaleRequest,
    TooManyParts,
)
from uponce.core.policy import Limits
from uponce.core.series import (
    Chunk,
    Series,
    StoredPart,
    check_alive,
    check_chunk,
    check_parameters,
    check_parts,
    check_parts_left,
    check_size,
    freeze,
    grown,
    is_slow,
)
from uponce.core.spans import Span
from uponce.core.values import Algorithm, Grant, ResourceType

SERIES = Series(
    id="1",
    cloud="demo",
    api_key="111",
    grant=Grant(b"K", "demo", "111", 1, 1, 9000),
    upload_id="a",
    requested=ResourceType.RAW,
    parameters=freeze({"timestamp": "1", "folder": "cats", "public_id": "tom", "api_key": "111", "signature": "x"}),
    algorithm=Algorithm.SHA1,
    filename="tom.bin",
    blob_key="b",
    created_at=1000,
)
COMPLETE = replace(SERIES, total=5, spans=(Span(0, 5),))
LIMITS = Limits(min_chunk_bytes=100, series_seconds=3600)


def test_what_counts_is_all_that_was_signed() -> None:
    assert SERIES.parameters == (("folder", "cats"), ("public_id", "tom"), ("timestamp", "1"))
    assert SERIES.received == SERIES.end == 0


@pytest.mark.parametrize(
    "params",
    [
        {"folder": "cats", "timestamp": "2"},
        {"folder": "cats", "timestamp": "2", "public_id": "tom", "nonce": "3", "resource_type": "raw"},
    ],
)
def test_later_parts_may_differ_in_what_varies_by_itself(params: dict[str, str]) -> None:
    check_parameters(SERIES, params, ResourceType.RAW)


@pytest.mark.parametrize(
    ("params", "requested", "named"),
    [
        ({"timestamp": "2"}, ResourceType.RAW, "folder"),
        ({"folder": "dogs"}, ResourceType.RAW, "folder"),
        ({"folder": "cats", "tags": "x"}, ResourceType.RAW, "tags"),
        ({"folder": "cats", "public_id": "other"}, ResourceType.RAW, "public_id"),
        ({"folder": "cats"}, None, "resource_type"),
    ],
)
def test_and_in_nothing_else(params: dict[str, str], requested: ResourceType | None, named: str) -> None:
    with pytest.raises(ChunkConflict, match=f"^Parameter {named} differs .*another X-Unique-Upload-Id\\.$"):
        check_parameters(SERIES, params, requested)


def test_a_public_id_cannot_join_a_series_without_one() -> None:
    nameless = replace(SERIES, parameters=freeze({"timestamp": "1", "folder": "cats"}))
    with pytest.raises(ChunkConflict, match="Parameter public_id differs"):
        check_parameters(nameless, {"folder": "cats", "public_id": "tom"}, ResourceType.RAW)
    check_parameters(nameless, {"folder": "cats"}, ResourceType.RAW)


def test_complete_when_the_total_is_known_and_every_byte_is_there() -> None:
    assert not SERIES.complete
    assert not replace(SERIES, spans=(Span(0, 10),)).complete
    assert not replace(SERIES, spans=(Span(0, 4), Span(5, 10)), total=10).complete
    assert replace(SERIES, spans=(Span(0, 10),), total=10).complete


@pytest.mark.parametrize(
    ("total", "chunk", "told"),
    [
        (None, Chunk(Span(0, 5), 5), "has 5 bytes, but its chunks reach to byte 10"),  # below what is there
        (None, Chunk(Span(0, 5), 9), "has 9 bytes, but its chunks reach to byte 10"),
        (20, Chunk(Span(0, 5), 21), "gives the file 21 bytes, but an earlier chunk gave 20"),
        (20, Chunk(Span(15, 21), None), "has 20 bytes, but its chunks reach to byte 21"),
    ],
)
def test_totals_that_contradict(total: int | None, chunk: Chunk, told: str) -> None:
    with pytest.raises(ChunkConflict, match=told):
        check_chunk(replace(SERIES, spans=(Span(0, 2), Span(8, 10)), total=total), chunk)


@pytest.mark.parametrize(
    ("total", "chunk"),
    [
        (None, Chunk(Span(0, 5), 10)),
        (None, Chunk(Span(10**6, 10**7), None)),
        (20, Chunk(Span(0, 5), None)),
        (20, Chunk(Span(15, 20), 20)),
    ],
)
def test_totals_that_fit(total: int | None, chunk: Chunk) -> None:
    check_chunk(replace(SERIES, spans=(Span(8, 10),), total=total), chunk)


def test_a_total_that_was_declared_once_stays() -> None:
    series = grown(grown(SERIES, Chunk(Span(0, 5), 20)), Chunk(Span(5, 10), None))
    assert (series.total, series.spans) == (20, (Span(0, 10),))


def test_the_last_chunk_alone_may_be_small() -> None:
    check_size(Chunk(Span(0, 100), None), 1000, LIMITS)
    check_size(Chunk(Span(950, 1000), 1000), 1000, LIMITS)
    for small in (Chunk(Span(0, 99), None), Chunk(Span(0, 99), 1000)):
        with pytest.raises(ChunkTooSmall, match=r"at least 100 bytes\. This part has 99"):
            check_size(small, 1000, LIMITS)


@pytest.mark.parametrize(
    ("chunk", "got"), [(Chunk(Span(900, 1001), None), "at least 1001"), (Chunk(Span(0, 100), 1001), "1001")]
)
def test_too_large_is_told_as_soon_as_it_is_certain(chunk: Chunk, got: str) -> None:
    with pytest.raises(FileTooLarge, match=rf"Got {got}\. Maximum is 1000"):
        check_size(chunk, 1000, LIMITS)


def test_the_time_to_complete_ends() -> None:
    check_alive(SERIES, 4600, LIMITS)
    with pytest.raises(StaleRequest, match="more than 1 hour ago"):
        check_alive(SERIES, 4601, LIMITS)


@pytest.mark.parametrize(
    ("spans", "shared", "fits"),
    [
        ([(0, 10), (20, 30)], True, True),
        ([(20, 30)], True, False),
        ([(0, 10), (20, 29)], True, False),
        ([(0, 10), (15, 30)], True, False),
        ([], True, False),
        ([], False, True),
        ([(0, 10), (20, 30)], False, False),
    ],
)
def test_the_parts_of_a_shared_series_are_what_is_missing(
    spans: list[tuple[int, int]], shared: bool, fits: bool
) -> None:
    """Of the span from 0 to 30, the bytes 10 to 20 are there. A series that is not shared has no such parts."""
    series = replace(SERIES, shared=shared, spans=(Span(10, 20),))
    parts = [StoredPart(Span(*span), "name", "0" * 64) for span in spans]
    if fits:
        check_parts(series, Span(0, 30), parts)
        return
    with pytest.raises(ChunkInProgress, match="Another server has received bytes") as caught:
        check_parts(series, Span(0, 30), parts)
    assert caught.value.retry_after


def test_the_default_limit_has_the_words_that_sdks_compare() -> None:
    with pytest.raises(ChunkTooSmall) as caught:
        check_size(Chunk(Span(0, 1000), None), 10**9, Limits())
    assert str(caught.value) == "All parts except EOF-chunk must be larger than 5mb"


@pytest.mark.parametrize(
    ("arrived", "age", "slow"),
    [
        (999, 10, True),
        (1000, 10, False),
        (1000, 3, False),
        (999, 3, True),  # a new series is judged as one of rate_seconds
        (1999, 20, True),
        (2000, 20, False),
    ],
)
def test_a_series_is_slow_by_the_bytes_of_its_whole_life(arrived: int, age: int, slow: bool) -> None:
    limits = replace(LIMITS, least_rate=100, rate_seconds=10)
    assert is_slow(replace(SERIES, arrived=arrived), SERIES.created_at + age, limits) is slow
    assert not is_slow(replace(COMPLETE, arrived=arrived), SERIES.created_at + age, limits)


def test_an_incomplete_series_has_parts_left_up_to_the_limit() -> None:
    limits = replace(LIMITS, parts_per_series=3)
    check_parts_left(replace(SERIES, parts=2), limits)
    check_parts_left(replace(COMPLETE, parts=3), limits)
    with pytest.raises(TooManyParts, match="came in 3 parts, and 3 are allowed"):
        check_parts_left(replace(SERIES, parts=3), limits)
