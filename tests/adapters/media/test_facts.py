"""Facts of real media, through the whole pool, and what bad files get instead."""

import io
import struct
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests import samples
from tests.adapters.media.hostile import gif, huge_film, noise, png, png_chunk, png_text_bomb, tag
from tests.adapters.media.pools import decoder_pids, inspect, run, status
from tests.hostile.bombs import mp4
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.videos import inspect_video
from uponce.core.errors import InvalidMedia, MediaTooLarge, Refused, StorageUnavailable
from uponce.core.formats import FORMATS
from uponce.core.policy import Limits
from uponce.core.values import AudioFacts, MediaFacts, ResourceType, TimedFacts, VideoFacts

IMAGE, VIDEO = ResourceType.IMAGE, ResourceType.VIDEO
MIB_IN_KIB = 1024


@pytest.mark.parametrize(
    ("content", "facts"),
    [
        (samples.jpeg(1, 123, 45), MediaFacts(IMAGE, "jpg", 123, 45, 1)),
        (samples.png(1), MediaFacts(IMAGE, "png", 320, 240, 1)),
        (samples.webp(1), MediaFacts(IMAGE, "webp", 320, 240, 1)),
        (samples.avif(1), MediaFacts(IMAGE, "avif", 160, 120, 1)),
        (samples.tiff(1), MediaFacts(IMAGE, "tiff", 160, 120, 1)),
        (samples.gif(1, frames=7), MediaFacts(IMAGE, "gif", 160, 120, 7)),
        (samples.gif(1, frames=1), MediaFacts(IMAGE, "gif", 160, 120, 1)),
        (gif(200, 100, 3), MediaFacts(IMAGE, "gif", 200, 100, 3)),
    ],
)
def test_images(tmp_path: Path, content: bytes, facts: MediaFacts) -> None:
    """Size of the canvas and number of frames; asked as image and as auto alike."""
    assert inspect(tmp_path, content, IMAGE) == inspect(tmp_path, content) == facts


def test_a_film(tmp_path: Path) -> None:
    """All that an MP4's header says, in the terms of the answer."""
    facts = inspect(tmp_path, samples.mp4(1, seconds=2), VIDEO)
    assert (facts.kind, facts.format, facts.width, facts.height, facts.pages) == (VIDEO, "mp4", 320, 240, 0)
    timed = facts.timed
    assert timed is not None
    assert timed.audio is not None
    assert timed.video is not None
    assert timed.duration == pytest.approx(2.0, abs=0.1)
    assert timed.bit_rate == pytest.approx(200_000, rel=0.5)
    assert (timed.frame_rate, timed.nb_frames, timed.rotation) == (25.0, 50, 0)
    assert timed.audio == AudioFacts("aac", timed.audio.bit_rate, 48_000, 2, "stereo")
    assert timed.video == VideoFacts("h264", "High", 13, "yuv420p", timed.video.bit_rate, None, "1/12800")


@pytest.mark.parametrize(("muxer", "subtitle"), [("mp4", "mov_text"), ("mov", "mov_text"), ("matroska", "srt")])
def test_a_film_with_subtitles(tmp_path: Path, muxer: str, subtitle: str) -> None:
    """The library loads code at the first subtitle, and a confined decoder opens no file but the film."""
    facts = inspect(tmp_path, samples.subtitled(muxer, subtitle), VIDEO)
    assert (facts.kind, facts.width, facts.height) == (VIDEO, 96, 64)


def test_a_sound_behind_a_tag(tmp_path: Path) -> None:
    """Some programs put the tag of MP3 before any sound."""
    for name, sound in (("flac", noise(1)), ("aac", samples.sound("adts", "aac", 1, 1.0))):
        plain, tagged = (inspect(tmp_path, head + sound, VIDEO) for head in (b"", tag(99)))
        assert (tagged.format, tagged.timed and tagged.timed.audio) == (name, plain.timed and plain.timed.audio)


def test_a_sound_that_begins_late() -> None:
    """FFmpeg looks at the first 1 MB of an AAC, and here 800 KB of them are empty."""
    empty = b"\xff\xf1\x50\x80\1\x1f\xfc\x21" * 100_000
    facts = inspect_video(io.BytesIO(empty + samples.sound("adts", "aac", 1, 1.0)), FORMATS["aac"], Limits())
    assert facts.timed is not None
    assert facts.timed.audio is not None
    assert (facts.timed.audio.codec, facts.timed.audio.frequency, facts.timed.audio.channels) == ("aac", 44_100, 2)


def test_noise_that_looks_like_a_sound_is_no_sound(tmp_path: Path) -> None:
    """A FLAC behind a large tag was an MP3 of 0 Hz."""
    with pytest.raises(InvalidMedia, match="sound cannot be read"):
        inspect(tmp_path, tag(16_383) + noise(1), VIDEO)


def test_a_sound_whose_length_was_never_written(tmp_path: Path) -> None:
    """A recorder that lost power leaves it. The silence in it is no chain of empty chunks."""
    whole = samples.wav(1)
    start = whole.index(b"data") + 4
    for length in (bytes(4), b"\xff" * 4):
        facts = inspect(tmp_path, whole[:start] + length + bytes(176_400), VIDEO)
        assert facts.timed is not None and facts.timed.duration == pytest.approx(1.0, abs=0.01)


def test_a_sound(tmp_path: Path) -> None:
    """Audio is of kind video, without a picture's facts."""
    facts = inspect(tmp_path, samples.wav(1), VIDEO)
    timed = TimedFacts(1.0, 1_411_824, None, None, 0, AudioFacts("pcm_s16le", 1_411_200, 44_100, 2, "stereo"), None)
    assert facts == MediaFacts(VIDEO, "wav", pages=0, timed=timed)


@pytest.mark.parametrize("form", [b"RF64", b"BW64"])
def test_a_sound_that_may_be_larger_than_4_gb(tmp_path: Path, form: bytes) -> None:
    """Its sizes are in a separate chunk. Source: ITU-R BS.2088."""
    facts = inspect(tmp_path, samples.wav64(samples.wav(1), form), VIDEO)
    assert facts.format == "wav"
    assert facts.timed is not None
    assert (facts.timed.duration, facts.timed.audio and facts.timed.audio.codec) == (1.0, "pcm_s16le")


@pytest.mark.parametrize("name", [name for name, format_ in FORMATS.items() if format_.kind is VIDEO])
def test_every_video_and_audio_format_can_be_read(tmp_path: Path, name: str) -> None:
    """A format in the table has a demuxer that works inside the sandbox."""
    facts = inspect(tmp_path, samples.BY_FORMAT[name](1), VIDEO)
    assert (facts.kind, facts.format) == (VIDEO, name)
    assert facts.timed is not None
    assert facts.timed.video or facts.timed.audio


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "avif", "tiff", "gif", "mp4", "mov", "webm", "mp3", "wav"])
def test_samples_differ_by_seed(name: str) -> None:
    """Equal seeds give the same picture or chord, different ones never the same bytes."""
    make = getattr(samples, name)
    assert len({make(seed) for seed in range(4)}) == 4


def test_a_phone_film_is_turned(tmp_path: Path) -> None:
    """The matrix of the track header is reported in degrees clockwise."""
    film = samples.mp4(1)
    at = film.index(b"tkhd") + 4 + 40
    turned = film[:at] + struct.pack(">9i", 0, 1 << 16, 0, -1 << 16, 0, 0, 0, 0, 1 << 30) + film[at + 36 :]
    facts = inspect(tmp_path, turned, VIDEO)
    assert facts.timed is not None
    assert facts.timed.rotation == 90
    assert (facts.width, facts.height) == (320, 240)


@pytest.mark.parametrize(
    ("content", "requested", "sentence"),
    [
        (samples.mp4(1, 0.2), IMAGE, "Invalid image file. Its bytes look like MP4. Upload it as video."),
        (samples.mp3(1, 0.2), IMAGE, "Invalid image file. Its bytes look like MP3. Upload it as video."),
        (samples.gif(1), VIDEO, "Invalid video file. Its bytes look like GIF. Upload it as image."),
        (samples.jpeg(1)[:30], IMAGE, "Invalid image file. It begins like JPG, but its header cannot be read."),
        (samples.mp4(1, 0.2)[:100], None, "Invalid video file. It begins like MP4, but its header cannot be read."),
        (
            samples.avif(1).replace(b"av01", b"hvc1").replace(b"av1C", b"hvcC"),
            IMAGE,
            "Invalid image file. ",
        ),
    ],
)
def test_refusals_say_why(tmp_path: Path, content: bytes, requested: ResourceType | None, sentence: str) -> None:
    """The sentence that clients know, then the reason, and no word of the driver's."""
    with pytest.raises(InvalidMedia) as refusal:
        inspect(tmp_path, content, requested)
    assert refusal.value.message.startswith(sentence)
    assert "vips" not in refusal.value.message
    assert str(tmp_path) not in refusal.value.message


def test_raw_is_not_looked_at(tmp_path: Path) -> None:
    """Also a bomb may be stored as it is."""
    assert inspect(tmp_path, gif(65535, 65535), ResourceType.RAW) == MediaFacts(ResourceType.RAW)


def test_a_file_that_is_gone_is_the_servers_doing(tmp_path: Path) -> None:
    with pytest.raises(StorageUnavailable):
        run(tmp_path, lambda pool: pool.inspect(str(tmp_path / "gone"), None), workers=1)


TRIES = 5
BOMBS: dict[str, tuple[Callable[[], bytes], type[Refused] | None]] = {
    "png 30000² of one bit": (lambda: png(30_000, 30_000), MediaTooLarge),
    "png 20000² of colour": (lambda: png(20_000, 20_000, depth=8, colour=2, rows=2000), MediaTooLarge),
    "png 2³¹ without pixels": (lambda: png(2**31 - 1, 2**31 - 1, rows=0), InvalidMedia),
    "png comment of 50 MB": (lambda: png_text_bomb(50_000_000), None),
    "apng of 5000 frames": (lambda: png(90, 90, extra=png_chunk(b"acTL", struct.pack(">II", 5000, 0))), MediaTooLarge),
    "apng of 10 frames of 9000²": (
        lambda: png(9000, 9000, extra=png_chunk(b"acTL", struct.pack(">II", 10, 0)), rows=9),
        MediaTooLarge,
    ),
    "gif screen 65535²": (lambda: gif(65_535, 65_535), MediaTooLarge),
    "gif of 1000 frames of 2000²": (lambda: gif(2000, 2000, 1000), MediaTooLarge),
    "gif of 5000 frames": (lambda: gif(2000, 2000, 5000), MediaTooLarge),
    "gif of 300000 frames": (lambda: gif(1, 1, 300_000), MediaTooLarge),
    "mp4 of 41 megapixels": (lambda: huge_film("mp4", "libx264"), MediaTooLarge),
    "ts of 41 megapixels": (lambda: huge_film("mpegts", "libx264"), MediaTooLarge),
    "mkv whose second film has 41 megapixels": (lambda: huge_film("matroska", "libx264", behind=True), MediaTooLarge),
    "avi of 41 megapixels": (lambda: huge_film("avi", "mpeg4"), InvalidMedia),
}


def processor_seconds(decoder: int) -> float:
    """That this process and its decoder have used. The clock would also count other work on the machine."""
    used = psutil.Process(decoder).cpu_times()
    return time.process_time() + used.user + used.system


@pytest.mark.proof
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_by_their_header(tmp_path: Path, name: str) -> None:
    """Quickly, in little memory, by a decoder that lives on."""
    make, error = BOMBS[name]
    bomb, good = tmp_path / "bomb", tmp_path / "good"
    bomb.write_bytes(make())
    good.write_bytes(samples.jpeg(1))

    async def scenario(pool: DecoderPool) -> tuple[type[Refused] | None, float, int]:
        before = decoder_pids()
        took: list[float] = []
        while not took or (min(took) >= 2 and len(took) < TRIES):  # other threads of this process only add to it
            began = processor_seconds(before[0])
            caught = None
            try:
                await pool.inspect(str(bomb), None)
            except Refused as refusal:
                caught = type(refusal)
            took.append(processor_seconds(before[0]) - began)
        assert (await pool.inspect(str(good), None)).format == "jpg"
        assert decoder_pids() == before
        return caught, min(took), status(before[0], "VmHWM")

    caught, took, peak = run(tmp_path, scenario, workers=1)
    assert caught is error
    assert took < 2
    assert peak < 256 * MIB_IN_KIB


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_a_film_above_the_limit_is_refused_with_the_limit(codec: str) -> None:
    """FFmpeg reports the size of some codecs as 0 then."""
    film = io.BytesIO(huge_film("mp4", codec, 160, 120))
    with pytest.raises(Refused, match="10000 pixels"):
        inspect_video(film, FORMATS["mp4"], Limits(max_video_pixels=10_000))


def test_a_codec_that_is_not_listed_never_runs(tmp_path: Path) -> None:
    """The wheel of PyAV has 539 decoders. A film in a codec that few people use is refused by its name."""
    with pytest.raises(InvalidMedia, match=r"^Invalid video file\. The codec ffv1 is not supported here\. Convert"):
        inspect(tmp_path, samples.film("matroska", "ffv1", "aac", 1, 0.2, 160, 120), VIDEO)


def test_the_edits_of_an_ordinary_film_count(tmp_path: Path) -> None:
    """Its sound begins with samples that an edit cuts off: the film is as long as it plays."""
    facts = inspect(tmp_path, samples.mp4(1, seconds=2), VIDEO)
    assert facts.timed is not None
    assert facts.timed.duration == 2.0


def test_a_film_of_many_edits_is_read_without_them(tmp_path: Path) -> None:
    """It is stored all the same; with its edits it would take 11 seconds."""
    facts = inspect(tmp_path, mp4(5_000_000, edits=5000, offsets=5_000_000), VIDEO)
    assert (facts.width, facts.height) == (64, 64)
