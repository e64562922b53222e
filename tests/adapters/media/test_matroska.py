"""What FFmpeg gets of a Matroska file: its streams, and nothing whose work grows with the file."""

import io
import random
import re

import pytest

from tests import samples
from tests.adapters.media.counted import facts_of
from tests.hostile.bombs import ebml, tiny, webm, webm_behind
from uponce.adapters.media import videos
from uponce.adapters.media.matroska import hide_unneeded
from uponce.core.errors import MediaTooLarge

CUES = ebml(b"\x1c\x53\xbb\x6b", tiny(b"\xbb", tiny(b"\xb3", b"\1") + tiny(b"\xb7", b"\xf7\x81\1\xf1\x81\1")) * 200_000)
TAGS = ebml(b"\x12\x54\xc3\x67", tiny(b"\x73\x73", tiny(b"\x67\xc8", b"\x45\xa3\x81a\x44\x87\x81b")) * 200_000)
CHAPTERS = ebml(b"\x10\x43\xa7\x70", tiny(b"\x45\xb9", tiny(b"\xb6", tiny(b"\x73\xc4", b"\1"))) * 200_000)
FONT = ebml(b"\x61\xa7", tiny(b"\x46\x6e", b"a.ttf") + tiny(b"\x46\x60", b"font/ttf") + ebml(b"\x46\x5c", bytes(10**6)))
RICH = {"index": CUES, "tags": TAGS, "chapters": CHAPTERS, "fonts": ebml(b"\x19\x41\xa4\x69", FONT * 3)}
LITTLE = 200_000


def film(*before: bytes) -> bytes:
    """A film with these elements before its streams."""
    data = samples.webm(1, 0.3)
    *_, streams = re.finditer(b"\x15\x49\xa9\x66", data)  # the first one is in the table of contents
    return webm(*before, data[streams.start() :])


@pytest.mark.parametrize("name", RICH)
def test_nothing_is_read_that_says_nothing_of_streams(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The facts are those that FFmpeg finds in the whole file. It reads all of it, which is the control."""
    data = film(RICH[name])
    found, read = facts_of(data, "webm")
    monkeypatch.setattr(videos, "hide_unneeded", lambda file: file)
    of_all, read_by_ffmpeg = facts_of(data, "webm")
    assert found == of_all
    assert read < LITTLE < len(RICH[name]) < read_by_ffmpeg


@pytest.mark.parametrize("tracks_first", [True, False])
def test_a_table_of_contents_leads_only_to_streams(monkeypatch: pytest.MonkeyPatch, tracks_first: bool) -> None:
    """Programs that change a file may move its tracks to its end."""
    data = webm_behind(200_000, tracks_first=tracks_first)
    found, read = facts_of(data, "webm")
    assert (found.width, found.height, found.timed and found.timed.video and found.timed.video.codec) == (16, 16, "vp8")
    monkeypatch.setattr(videos, "hide_unneeded", lambda file: file)
    of_all, read_by_ffmpeg = facts_of(data, "webm")
    assert found == of_all
    assert read < LITTLE < read_by_ffmpeg


def test_a_table_of_contents_with_many_entries_is_hidden() -> None:
    entry = tiny(b"\x4d\xbb", tiny(b"\x53\xab", b"\x16\x54\xae\x6b") + tiny(b"\x53\xac", b"\0"))
    data = film(ebml(b"\x11\x4d\x9b\x74", entry * 101))
    assert hide_unneeded(io.BytesIO(data)).read(len(data)).count(b"\x11\x4d\x9b\x74") == 0
    assert facts_of(data, "webm")[0].width == 160


def test_a_file_of_too_many_elements_is_refused() -> None:
    with pytest.raises(MediaTooLarge, match="Maximum number of elements before the first picture is 10000"):
        facts_of(film(tiny(b"\xec") * 10_001), "webm")
    assert facts_of(film(tiny(b"\xec") * 9_000), "webm")[0].width == 160


@pytest.mark.parametrize("step", [1, 2, 3, 7, 4096])
def test_all_pieces_are_those_of_the_whole(step: int) -> None:
    data = film(*(tiny(b"\x12\x54\xc3\x67", bytes(size)) for size in range(20)))
    whole = hide_unneeded(io.BytesIO(data))
    view = hide_unneeded(io.BytesIO(data))
    whole.seek(0)
    view.seek(0)
    pieces = []
    while piece := view.read(step):
        pieces.append(piece)
    assert b"".join(pieces) == whole.read(len(data)) != data
    view.seek(-5, io.SEEK_END)
    assert view.tell() == len(data) - 5
    assert view.read(9) == data[-5:]


def test_a_damaged_file_keeps_its_length_and_its_other_bytes() -> None:
    """Whatever the heads of its elements say."""
    chance = random.Random(7)
    contents = ebml(b"\x11\x4d\x9b\x74", tiny(b"\x4d\xbb", tiny(b"\x53\xac", b"\1")))
    data = film(contents, tiny(b"\x12\x54\xc3\x67", b"ab"))
    for _ in range(2000):
        damaged = bytearray(data[: chance.randrange(1, len(data))] if chance.random() < 0.3 else data)
        for _ in range(chance.randrange(4)):
            damaged[chance.randrange(min(len(damaged), 400))] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, 0xEC))
        view = hide_unneeded(io.BytesIO(bytes(damaged)))
        view.seek(0)
        seen = view.read(len(damaged))
        assert len(seen) == len(damaged)
        assert sum(a != b for a, b in zip(seen, damaged, strict=True)) <= 9 * 8
