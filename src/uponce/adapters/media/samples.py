"""Real media made on the spot: a disc that moves over a gradient, and a chord. For the demo.

Every seed gives other colours, another path and another chord. The picture also shows the seed itself as a row of
squares, so that no two seeds give the same bytes.
"""

import colorsys
import io
import math
from array import array
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import pyvips

_GOLDEN = 0.618034
RATE = 44_100
_FPS = 25
_SEED_BITS = 32


def jpeg(seed: int, width: int = 640, height: int = 480) -> bytes:
    return bytes(still(seed, width, height).jpegsave_buffer(Q=88))


def gif(seed: int, frames: int = 12, width: int = 160, height: int = 120) -> bytes:
    strip = pyvips.Image.arrayjoin(list(_pictures(seed, width, height, frames)), across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", [80] * frames)
    return bytes(strip.gifsave_buffer())


def mp4(seed: int, seconds: float = 1.0, width: int = 320, height: int = 240) -> bytes:
    return film("mp4", "libx264", "aac", seed, seconds, width, height)


def still(seed: int, width: int, height: int) -> Any:
    return next(_pictures(seed, width, height, 1))


def _pictures(seed: int, width: int, height: int, count: int) -> Iterator[Any]:
    """Yield so many pictures of a disc that moves once round."""
    background = _background(seed, width, height)
    ink = _colour(seed, 0.6, 0.9)
    for index in range(count):
        angle = 2 * math.pi * (index / count + seed * _GOLDEN)
        x = round(width / 2 + width / 4 * math.cos(angle))
        y = round(height * 0.45 + height / 4 * math.sin(angle))
        yield background.draw_circle(ink, x, y, min(width, height) // 6, fill=True)


def _background(seed: int, width: int, height: int) -> Any:
    light, dark = _colour(seed, 0.0, 0.95), _colour(seed, 0.35, 0.45)
    ramp = pyvips.Image.xyz(width, height)
    slope = (ramp[0] / width + ramp[1] / height) / 2
    picture = slope * [b - a for a, b in zip(light, dark, strict=True)] + light
    picture = picture.cast("uchar").copy(interpretation="srgb")
    side = max(2, width // (_SEED_BITS + 2))
    for bit in range(_SEED_BITS):
        ink = [255.0] * 3 if seed >> bit & 1 else [0.0] * 3
        picture = picture.draw_rect(ink, side * (bit + 1), height - 2 * side, side - 1, side - 1, fill=True)
    return picture


def _colour(seed: int, turn: float, value: float) -> list[float]:
    return [255 * part for part in colorsys.hsv_to_rgb((seed * _GOLDEN + turn) % 1, 0.55, value)]


def film(muxer: str, video: str, audio: str, seed: int, seconds: float, width: int, height: int) -> bytes:
    """Return a film in any container and codecs that FFmpeg can write."""
    buffer = io.BytesIO()
    container: Any
    with av.open(buffer, "w", format=muxer) as container:
        pictures = container.add_stream(video, rate=_FPS, width=width, height=height, pix_fmt="yuv420p")
        pictures.codec_context.thread_count = 1
        chord = container.add_stream(audio, rate=48_000)
        for index, picture in enumerate(_pictures(seed, width, height, max(1, round(seconds * _FPS)))):
            pixels = bytes(picture.bandjoin(255).write_to_memory())
            frame = av.VideoFrame.from_bytes(pixels, width, height, format="rgba")
            frame.pts, frame.time_base = index, Fraction(1, _FPS)
            container.mux(pictures.encode(frame))
        container.mux(pictures.encode(None))
        play(container, chord, seed, seconds)
    return buffer.getvalue()


def play(container: Any, stream: Any, seed: int, seconds: float) -> None:
    """Add a major chord. The seed chooses its root."""
    root = 220 * 2 ** ((seed * _GOLDEN) % 1)
    steps = [2 * math.pi * root * ratio / RATE for ratio in (1, 5 / 4, 3 / 2)]
    total = max(1, round(seconds * RATE))
    wave = array("h", (round(6000 * sum(math.sin(step * at) for step in steps)) for at in range(total)))
    frame = av.AudioFrame(format="s16", layout="mono", samples=total)
    frame.planes[0].update(wave.tobytes())
    frame.sample_rate, frame.pts = RATE, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode(None))
