"""Real media in all formats: those of the demo, and more made in the same way."""

import io

import av

from uponce.adapters.media.samples import RATE, film, gif, jpeg, mp4, play, still

__all__ = ["avif", "film", "gif", "jpeg", "mov", "mp3", "mp4", "png", "sound", "tiff", "wav", "webm", "webp"]


def png(seed: int, width: int = 320, height: int = 240) -> bytes:
    return bytes(still(seed, width, height).pngsave_buffer())


def webp(seed: int, width: int = 320, height: int = 240) -> bytes:
    return bytes(still(seed, width, height).webpsave_buffer(Q=80))


def avif(seed: int, width: int = 160, height: int = 120) -> bytes:
    return bytes(still(seed, width, height).heifsave_buffer(compression="av1", Q=60, effort=0))


def tiff(seed: int, width: int = 160, height: int = 120) -> bytes:
    return bytes(still(seed, width, height).tiffsave_buffer(compression="deflate"))


def mov(seed: int, seconds: float = 1.0, width: int = 320, height: int = 240) -> bytes:
    return film("mov", "libx264", "aac", seed, seconds, width, height)


def webm(seed: int, seconds: float = 1.0, width: int = 160, height: int = 120) -> bytes:
    return film("webm", "libvpx", "libopus", seed, seconds, width, height)


def mp3(seed: int, seconds: float = 1.0) -> bytes:
    return sound("mp3", "libmp3lame", seed, seconds)


def wav(seed: int, seconds: float = 1.0) -> bytes:
    return sound("wav", "pcm_s16le", seed, seconds)


def sound(muxer: str, codec: str, seed: int, seconds: float) -> bytes:
    """The same for a sound."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=muxer) as container:
        play(container, container.add_stream(codec, rate=RATE), seed, seconds)
    return buffer.getvalue()
