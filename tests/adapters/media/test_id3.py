"""ID3 tags before a sound: FFmpeg skips them, and finds the same facts."""

import io

import pytest

from tests import samples
from tests.adapters.media.counted import facts_of
from tests.adapters.media.hostile import tag
from tests.hostile.bombs import id3
from uponce.adapters.media import videos
from uponce.adapters.media.id3 import hide_tags
from uponce.core.errors import MediaTooLarge

COMMENTS = id3(100_000).partition(b"\xff\xfb")[0]
PICTURE = b"APIC" + (len(samples.png(1)) + 13).to_bytes(4) + b"\0\0\0image/png\0\3\0" + samples.png(1)
COVER = tag(len(PICTURE))[:10] + PICTURE


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("tags", [[COMMENTS], [COVER], [COVER, COMMENTS], [tag(10), COMMENTS, tag(0)]])
def test_no_frame_of_a_tag_is_read(monkeypatch: pytest.MonkeyPatch, tags: list[bytes], version: int) -> None:
    """The facts are those that FFmpeg finds in the whole file."""
    sound = samples.mp3(1)
    data = b"".join(b"ID3" + bytes([version]) + each[4:] for each in tags) + sound[sound.index(b"\xff\xfb") :]
    found, read = facts_of(data, "mp3")
    monkeypatch.setattr(videos, "hide_tags", lambda file: file)
    of_all, read_by_ffmpeg = facts_of(data, "mp3")
    assert found == of_all
    assert found.timed and found.timed.audio and found.timed.audio.codec == "mp3"
    if COMMENTS in tags and version != 2:
        assert read < 200_000 < len(COMMENTS) < read_by_ffmpeg


def test_a_file_of_too_many_tags_is_refused() -> None:
    with pytest.raises(MediaTooLarge, match="Maximum number of ID3 tags is 100"):
        hide_tags(io.BytesIO(tag(0) * 101))
    file = hide_tags(io.BytesIO(tag(0) * 100))
    file.seek(0)
    assert file.read(4) == b"ID3\x7f"


def test_a_file_without_a_tag_stays_as_it_is() -> None:
    file = io.BytesIO(samples.wav(1))
    assert hide_tags(file) is file
