"""Limits, and the judgement of a file against them."""

import dataclasses
from contextlib import nullcontext
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uponce.core.errors import ContentMismatch, EmptyFile, FileTooLarge, FormatNotAllowed, MediaTooLarge
from uponce.core.naming import Naming
from uponce.core.parameters import UploadSpec
from uponce.core.policy import (
    GIB,
    MIB,
    Limits,
    judge_content,
    judge_dimensions,
    judge_media,
    refuse_size,
)
from uponce.core.values import Digest, MediaFacts, ResourceType

IMAGE, VIDEO, RAW = ResourceType
LIMITS = Limits(
    max_image_bytes=100,
    max_video_bytes=200,
    max_raw_bytes=300,
    max_unverified_bytes=150,
    max_image_pixels=1000,
    max_video_pixels=500,
    max_frames=10,
    max_total_pixels=1500,
)
FIFTY = Limits(max_raw_bytes=50)
ANYTHING = UploadSpec()


def _digest(size: int = 10, sha256: str = "aa") -> Digest:
    return Digest(size, "md5", sha256)


@pytest.mark.parametrize(
    ("requested", "spec", "expected"),
    [
        (IMAGE, ANYTHING, 100),
        (VIDEO, ANYTHING, 200),
        (RAW, ANYTHING, 300),
        (None, ANYTHING, 300),
        (IMAGE, UploadSpec(max_bytes=50), 50),
        (IMAGE, UploadSpec(max_bytes=5000), 100),
        (None, UploadSpec(max_bytes=5000), 300),
        (IMAGE, None, 100),
        (VIDEO, None, 150),
        (None, None, 150),
    ],
)
def test_max_bytes(requested: ResourceType | None, spec: UploadSpec | None, expected: int) -> None:
    """The least of the kind's limit, the signed one, and the one for a file that comes before its signature."""
    assert LIMITS.max_bytes(requested, spec) == expected


@given(
    limits=st.builds(Limits, *[st.integers(1, 1000)] * 4),
    kind=st.sampled_from(ResourceType),
    signed=st.none() | st.integers(1, 1000),
)
def test_what_may_be_sent_as_auto_is_judged_by_its_kind(limits: Limits, kind: ResourceType, signed: int | None) -> None:
    """`auto` never allows less than the kind that it turns out to be, and the kind has the last word."""
    spec = UploadSpec(max_bytes=signed)
    assert limits.max_bytes(None, spec) >= limits.max_bytes(kind, spec)
    assert limits.max_bytes(kind, None) <= limits.max_bytes(kind, ANYTHING)


def test_default_limits_are_positive() -> None:
    assert all(value > 0 for value in dataclasses.astuple(Limits()))
    assert (MIB, GIB) == (2**20, 2**30)


def test_a_size_is_refused_with_both_numbers() -> None:
    refuse_size(10, 10)
    with pytest.raises(FileTooLarge, match=r"^File size too large\. Got 11\. Maximum is 10\.$"):
        refuse_size(11, 10)
    with pytest.raises(FileTooLarge, match=r"^File size too large\. Got at least 11\. Maximum is 10\.$"):
        refuse_size(11, 10, is_whole=False)


@pytest.mark.parametrize(
    ("digest", "spec", "error", "message"),
    [
        (_digest(0), ANYTHING, EmptyFile, "Empty file. Send at least one byte."),
        (_digest(51), ANYTHING, FileTooLarge, "File size too large. Got 51. Maximum is 50."),
        (
            _digest(),
            UploadSpec(sha256="bb"),
            ContentMismatch,
            (
                "The file's SHA-256 is aa, but the signature allows only bb. "
                "Send the file that was signed, or sign this one."
            ),
        ),
    ],
)
def test_content_is_refused(digest: Digest, spec: UploadSpec, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        judge_content(digest, ResourceType.RAW, spec, FIFTY)
    assert str(caught.value) == message


def test_content_passes() -> None:
    judge_content(_digest(50), ResourceType.RAW, UploadSpec(sha256="aa"), FIFTY)
    judge_content(_digest(1), ResourceType.RAW, ANYTHING, FIFTY)


def _facts(kind: ResourceType, **facts: Any) -> MediaFacts:
    return MediaFacts(kind, **facts)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (_facts(IMAGE, width=1001, height=1), "Maximum image size is 1000 pixels. Requested 1001 pixels."),
        (_facts(IMAGE, width=11, height=100, pages=2), "Maximum image size is 1000 pixels. Requested 1100 pixels."),
        (_facts(IMAGE, width=1, height=1, pages=11), "Maximum number of frames is 10 frames. Requested 11 frames."),
        (
            _facts(IMAGE, width=30, height=30, pages=2),
            "Maximum area of all frames together is 1500 pixels. Requested 1800 pixels.",
        ),
        (_facts(VIDEO, width=501, height=1), "Maximum video frame size is 500 pixels. Requested 501 pixels."),
    ],
)
def test_media_too_large_to_decode_is_refused(facts: MediaFacts, message: str) -> None:
    with pytest.raises(MediaTooLarge) as caught:
        judge_dimensions(facts, LIMITS)
    assert str(caught.value) == message
    with pytest.raises(MediaTooLarge):
        judge_media(facts, _digest(), None, ANYTHING, LIMITS)


@pytest.mark.parametrize(
    "facts",
    [
        _facts(IMAGE, width=1000, height=1, pages=1),
        _facts(IMAGE, width=10, height=15, pages=10),
        _facts(IMAGE, width=15, height=50, pages=2),
        _facts(VIDEO, width=25, height=20),
        _facts(IMAGE, width=1001),
        _facts(IMAGE, height=1001),
        _facts(VIDEO),
        _facts(RAW),
    ],
)
def test_media_at_the_limits_passes(facts: MediaFacts) -> None:
    """A sound has no pixels, a raw file none that anyone counts."""
    judge_dimensions(facts, LIMITS)
    judge_media(facts, _digest(), None, ANYTHING, LIMITS)


def test_a_still_picture_has_no_area_of_all_frames() -> None:
    """Known to be still, or not known to be anything else."""
    limits = Limits(max_image_pixels=1000, max_total_pixels=500, max_frames=1)
    for pages in (1, None):
        judge_dimensions(_facts(IMAGE, width=1000, height=1, pages=pages), limits)


@pytest.mark.parametrize(("kind", "limit"), [(IMAGE, 100), (VIDEO, 200), (RAW, 300)])
def test_the_size_is_judged_again_by_what_the_file_is(kind: ResourceType, limit: int) -> None:
    """An upload to `auto` was received under the largest limit."""
    judge_media(_facts(kind), _digest(limit), None, ANYTHING, LIMITS)
    with pytest.raises(FileTooLarge, match=f"Got {limit + 1}. Maximum is {limit}"):
        judge_media(_facts(kind), _digest(limit + 1), None, ANYTHING, LIMITS)


@pytest.mark.parametrize(
    ("facts", "filename", "allowed"),
    [
        (_facts(IMAGE, format="jpg"), "x.gif", {"jpg"}),
        (_facts(VIDEO, format="mp4"), None, {"jpg", "mp4"}),
        (_facts(RAW), "x.ZIP", {"zip"}),
        (_facts(RAW), "a.b.docx", {"pdf", "docx"}),
    ],
)
def test_allowed_formats_pass(facts: MediaFacts, filename: str | None, allowed: set[str]) -> None:
    """Media by their bytes, raw files by their name."""
    judge_media(facts, _digest(), filename, UploadSpec(allowed_formats=frozenset(allowed)), LIMITS)


@pytest.mark.parametrize(
    ("filename", "signed", "is_allowed"),
    [(None, "x.csv", True), ("blob", "x.csv", True), ("x.csv", "x", True), ("x.csv", "x.exe", False)],
)
def test_a_signed_filename_counts_more_than_that_of_the_client(
    filename: str | None, signed: str, is_allowed: bool
) -> None:
    spec = UploadSpec(naming=Naming(filename_override=signed), allowed_formats=frozenset({"csv"}))
    with nullcontext() if is_allowed else pytest.raises(FormatNotAllowed, match="Raw file format exe"):
        judge_media(_facts(RAW), _digest(), filename, spec, LIMITS)


@pytest.mark.parametrize(
    ("facts", "filename", "allowed", "message"),
    [
        (_facts(IMAGE, format="gif"), "x.jpg", {"png", "jpg"}, "Image file format gif not allowed. Allowed: jpg, png."),
        (_facts(VIDEO, format="mov"), "x.mp4", {"mp4"}, "Video file format mov not allowed. Allowed: mp4."),
        (_facts(RAW), "x.exe", {"pdf"}, "Raw file format exe not allowed. Allowed: pdf."),
        (_facts(RAW), "pdf", {"pdf"}, "Raw file format unknown not allowed. Allowed: pdf."),
        (_facts(RAW), None, {"pdf"}, "Raw file format unknown not allowed. Allowed: pdf."),
        (_facts(RAW), "x.jpeg", {"jpg"}, "Raw file format unknown not allowed. Allowed: jpg."),
        (_facts(RAW), "x.m4v", {"mp4", "m4v"}, "Raw file format unknown not allowed. Allowed: m4v, mp4."),
        (_facts(IMAGE, format="png"), None, set(), "Image file format png not allowed. Allowed: ."),
    ],
)
def test_other_formats_are_refused(facts: MediaFacts, filename: str | None, allowed: set[str], message: str) -> None:
    with pytest.raises(FormatNotAllowed) as caught:
        judge_media(facts, _digest(), filename, UploadSpec(allowed_formats=frozenset(allowed)), LIMITS)
    assert str(caught.value) == message
