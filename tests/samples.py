"""Real media in all formats: those of the demo, and more made in the same way."""

import io
import struct
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import av

from uponce.adapters.media.samples import RATE, film, gif, jpeg, mp4, play, still

__all__ = [
    "BY_FORMAT",
    "avif",
    "bmp",
    "film",
    "gif",
    "ico",
    "jpeg",
    "mov",
    "mp3",
    "mp4",
    "png",
    "sound",
    "subtitled",
    "tiff",
    "wav",
    "wav64",
    "webm",
    "webp",
]


def png(seed: int, width: int = 320, height: int = 240) -> bytes:
    return bytes(still(seed, width, height).pngsave_buffer())


def webp(seed: int, width: int = 320, height: int = 240) -> bytes:
    return bytes(still(seed, width, height).webpsave_buffer(Q=80))


def avif(seed: int, width: int = 160, height: int = 120) -> bytes:
    return bytes(still(seed, width, height).heifsave_buffer(compression="av1", Q=60, effort=0))


def tiff(seed: int, width: int = 160, height: int = 120) -> bytes:
    return bytes(still(seed, width, height).tiffsave_buffer(compression="deflate"))


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 58, 0, 0, 54, 40, width, height, 1, 24, 0, 4, 0, 0, 0, 0) + bytes(4)


def ico(*sizes: tuple[int, int]) -> bytes:
    entries = b"".join(struct.pack("<BBBBHHII", *size, 0, 0, 1, 32, 64, 22) for size in sizes)
    return struct.pack("<HHH", 0, 1, len(sizes)) + entries + bytes(64)


def mov(seed: int, seconds: float = 1.0, width: int = 320, height: int = 240) -> bytes:
    return film("mov", "libx264", "aac", seed, seconds, width, height)


def webm(seed: int, seconds: float = 1.0, width: int = 160, height: int = 120) -> bytes:
    return film("webm", "libvpx", "libopus", seed, seconds, width, height)


def mp3(seed: int, seconds: float = 1.0) -> bytes:
    return sound("mp3", "libmp3lame", seed, seconds)


def wav(seed: int, seconds: float = 1.0) -> bytes:
    return sound("wav", "pcm_s16le", seed, seconds)


def wav64(sound: bytes, form: bytes = b"RF64") -> bytes:
    """A WAV with the sizes of one that is larger than 4 GB."""
    at = sound.index(b"data") + 4
    size = int.from_bytes(sound[at : at + 4], "little")
    sizes = b"ds64" + struct.pack("<IQQQI", 28, len(sound) + 28, size, 0, 0)
    return form + b"\xff" * 4 + b"WAVE" + sizes + sound[12:at] + b"\xff" * 4 + sound[at + 4 :]


def sound(muxer: str, codec: str, seed: int, seconds: float) -> bytes:
    """The same for a sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as container:
        play(container, container.add_stream(codec, rate=RATE), seed, seconds)
    return buffer.getvalue()


def subtitled(muxer: str, codec: str) -> bytes:
    """A film without sound that says Hello."""
    buffer = io.BytesIO()
    container: Any
    with av.open(buffer, "w", format=muxer) as container:
        pictures = container.add_stream("libx264", rate=25, width=96, height=64, pix_fmt="yuv420p")
        words = container.add_stream(codec)
        words.time_base = words.codec_context.time_base = Fraction(1, 1000)
        words.codec_context.subtitle_header = b"[Script Info]\n\n[V4+ Styles]\n\n[Events]\n"
        pixels = bytes(still(1, 96, 64).bandjoin(255).write_to_memory())
        frame = av.VideoFrame.from_bytes(pixels, 96, 64, format="rgba")
        frame.pts, frame.time_base = 0, Fraction(1, 25)
        container.mux([*pictures.encode(frame), *pictures.encode(None)])
        packet = av.Packet(b"\0\5Hello" if codec == "mov_text" else b"Hello")
        packet.stream, packet.pts, packet.dts, packet.duration = words, 0, 0, 300
        packet.time_base = Fraction(1, 1000)
        container.mux(packet)
    return buffer.getvalue()


# Every format of `core/formats.py`, except the documents. Each function takes a seed.
BY_FORMAT: dict[str, Callable[[int], bytes]] = {
    "jpg": jpeg,
    "png": png,
    "gif": gif,
    "webp": webp,
    "avif": avif,
    "tiff": tiff,
    "bmp": lambda seed: bmp(seed, 1),
    "ico": lambda seed: ico((seed, 1)),
    "mp4": mp4,
    "mov": mov,
    "webm": webm,
    "mp3": mp3,
    "wav": wav,
    "mkv": lambda seed: film("matroska", "libx264", "aac", seed, 0.5, 160, 120),
    "avi": lambda seed: film("avi", "mpeg4", "libmp3lame", seed, 0.5, 160, 120),
    "flv": lambda seed: film("flv", "libx264", "aac", seed, 0.5, 160, 120),
    "wmv": lambda seed: film("asf", "wmv2", "libmp3lame", seed, 0.5, 160, 120),
    "mpg": lambda seed: film("mpeg", "mpeg2video", "mp2", seed, 0.5, 160, 120),
    "ts": lambda seed: film("mpegts", "libx264", "aac", seed, 0.5, 160, 120),
    "3gp": lambda seed: film("3gp", "libx264", "aac", seed, 0.5, 160, 120),
    "m4a": lambda seed: sound("ipod", "aac", seed, 0.5),
    "ogg": lambda seed: sound("ogg", "flac", seed, 0.5),
    "flac": lambda seed: sound("flac", "flac", seed, 0.5),
    "aac": lambda seed: sound("adts", "aac", seed, 0.5),
    "aiff": lambda seed: sound("aiff", "pcm_s16be", seed, 0.5),
    "amr": lambda seed: b"#!AMR\n" + (b"\x3c" + bytes(31)) * 25,
}
