"""Files with more parts than a library should be given: refused by a count, and ordinary files pass."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from tests import samples
from tests.hostile import bombs
from uponce.adapters.media.mp4 import Mp4Claims, scan_mp4
from uponce.adapters.media.screens import screen
from uponce.core.errors import MediaTooLarge
from uponce.core.policy import Limits

FEW = replace(Limits(), max_frames=20, max_samples=1000)

TOO_MANY: dict[str, tuple[str, Callable[[], bytes], str]] = {
    "frames of a gif": ("gif", lambda: bombs.gif(b"", 21), "frames is 20"),
    "blocks of a gif": ("gif", lambda: bombs.gif(b"\x21\xfe" + b"\1a" * 1_100_000 + b"\0"), "blocks is"),
    "extensions of a gif": ("gif", lambda: bombs.gif(b"\x21\xfe\0" * 1_100_000), "blocks is"),
    "directories of a tiff": ("tiff", lambda: bombs.tiff_directories(21), "pages is 20"),
    "a tiff without end": ("tiff", lambda: bombs.tiff_directories(3, loop=True), "pages is 20"),
    "tags of a tiff": ("tiff", lambda: bombs.tiff_tags(60_000), "tags is 4100"),
    "tags that directories share": ("tiff", lambda: bombs.tiff_overlapping(10, 2000), "tags is 4300"),
    "frames of a webp": ("webp", lambda: bombs.webp_frames(21), "frames is 20"),
    "chunks of a webp": ("webp", lambda: bombs.webp_chunks(10_001), "chunks is 10000"),
    "chunks of a wav": ("wav", lambda: bombs.wav((b"junk" + bytes(4)) * 10_001), "chunks is 10000"),
    "chunks behind the data of a wav for more than 4 GB": (
        "wav",
        lambda: samples.wav64(bombs.wav()) + (b"junk" + bytes(4)) * 10_001,
        "chunks is 10000",
    ),
    "chunks of an aiff": ("aiff", lambda: b"FORM\0\0\0\4AIFF" + (b"ANNO" + bytes(4)) * 10_001, "chunks is 10000"),
}

MP4_TOO_MANY: dict[str, tuple[Callable[[], bytes], str]] = {
    "samples": (lambda: bombs.mp4(1001), r"samples is 1000\. This file claims 1001"),
    "samples of all tracks": (lambda: bombs.mp4(300, tracks=4), "This file claims 1200"),
    "shifts": (lambda: bombs.mp4(1, offsets=1001), "This file claims 1001"),
    "tracks": (lambda: bombs.mp4(1, tracks=65), "tracks is 64"),
    "empty tracks": (lambda: bombs.FTYP + bombs.box(b"moov", bombs.box(b"trak") * 65), "tracks is 64"),
    "boxes": (lambda: bombs.FTYP + bombs.box(b"free") * 200_000, "boxes is 200000"),
    "boxes in boxes": (
        lambda: bombs.FTYP + bombs.box(b"moov", bombs.box(b"udta", bombs.box(b"free") * 200_000)),
        "boxes is 200000",
    ),
}


@pytest.mark.parametrize("name", TOO_MANY)
def test_too_many_parts(tmp_path: Path, name: str) -> None:
    """The refusal names the limit."""
    format_name, make, message = TOO_MANY[name]
    path = tmp_path / "spooled"
    path.write_bytes(make())
    with path.open("rb") as file, pytest.raises(MediaTooLarge, match=f"^Maximum number of {message}"):
        screen(file, format_name, FEW)


@pytest.mark.parametrize("name", MP4_TOO_MANY)
def test_too_many_parts_of_an_mp4(tmp_path: Path, name: str) -> None:
    make, message = MP4_TOO_MANY[name]
    path = tmp_path / "spooled"
    path.write_bytes(make())
    with path.open("rb") as file, pytest.raises(MediaTooLarge, match=f"^Maximum number of .*{message}"):
        scan_mp4(file, FEW)


def test_sound_in_pcm_may_have_any_number_of_samples(tmp_path: Path) -> None:
    """FFmpeg indexes it by chunks: an hour of it has 170 million samples."""
    path = tmp_path / "spooled"
    path.write_bytes(bombs.mp4(170_000_000).replace(b"vide", b"soun"))
    with path.open("rb") as file:
        assert scan_mp4(file, FEW) == Mp4Claims()


@pytest.mark.parametrize(
    ("content", "is_cheap"),
    [
        (bombs.mp4(500, edits=2), True),
        (bombs.mp4(500, edits=3), False),
        (bombs.mp4(5, edits=1) + bombs.box(b"moov", bombs.box(b"cmov")), False),
        (bombs.mp4(5, edits=1) + bombs.box(b"moov", bombs.box(b"wave", bombs.full(b"elst", bytes(4)))), False),
        (
            bombs.FTYP + bombs.box(b"trak", bombs.full(b"elst", bombs._be(2000)), bombs.full(b"stsz", b"\0\0\0\1" * 2)),
            False,
        ),
    ],
)
def test_edits_that_are_dear_or_hidden_are_not_applied(tmp_path: Path, content: bytes, is_cheap: bool) -> None:
    """FFmpeg copies the samples for each edit: 5,000 edits of a film take 11 seconds."""
    path = tmp_path / "spooled"
    path.write_bytes(content)
    with path.open("rb") as file:
        assert scan_mp4(file, FEW).has_cheap_edits is is_cheap


@pytest.mark.parametrize(
    ("format_name", "content"),
    [
        ("gif", samples.gif(1)),
        ("tiff", samples.tiff(1)),
        ("webp", samples.webp(1)),
        ("wav", samples.wav(1)),
        ("jpg", samples.jpeg(1)),
        ("gif", b"GIF89a\1"),
        ("tiff", b"MM\0*\0\0\0\x08\0"),
        ("tiff", b"MM\0+\0\x08\0\0\0\0\0\0\0\0\0\x10"),
        ("webp", b"RIFF"),
    ],
)
def test_other_files_pass(tmp_path: Path, format_name: str, content: bytes) -> None:
    """Whole ones, and torn ones: those are their library's to refuse."""
    path = tmp_path / "spooled"
    path.write_bytes(content)
    with path.open("rb") as file:
        screen(file, format_name, Limits())
