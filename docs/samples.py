"""Draw the sample media of the playground again: `python -m docs.samples`. Landscapes, made of sines and gradients."""

import math
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import pyvips

FOLDER = Path(__file__).parents[1] / "src/uponce/web/pages/samples"
# Sky from top to horizon, the sun, and the ridges from far to near.
DUSK = (("#1b1f4b", "#7a3f78", "#f28f6b", "#ffd39a"), "#fff1c9", ("#8a5a83", "#5b3f73", "#36305c", "#1a1c3c"))
SEA = (("#0b4f6c", "#2a8a9a", "#8fd0bd", "#f4efcf"), "#fffbe6", ("#5aa6a0", "#2f7f86", "#17586b", "#0b3448"))
NIGHT = (("#070b1f", "#141b3f", "#27305f", "#4a4a7c"), "#f2f0dc", ("#3a3f6b", "#272c52", "#171b38", "#0b0e20"))


def landscape(look: Any, seed: int, width: int, height: int, *, sun: tuple[float, float], drift: float = 0) -> str:
    """An SVG: a sky, a sun with its glow, and four ridges; `drift` moves the ridges, the near ones most."""
    sky, light, ridges = look
    chance = random.Random(seed)  # noqa: S311 a picture
    stops = "".join(f'<stop offset="{i / 3}" stop-color="{colour}"/>' for i, colour in enumerate(sky))
    x, y = sun[0] * width, sun[1] * height
    stars = "".join(
        f'<circle cx="{chance.random() * width:.0f}" cy="{chance.random() * height * 0.45:.0f}" '
        f'r="{0.4 + chance.random() * height / 500:.1f}" fill="#fff" opacity="{chance.random() * 0.7:.2f}"/>'
        for _ in range(70 if look is not SEA else 0)
    )
    hills = "".join(
        f'<path d="{_ridge(chance, width, height, index, drift)}" fill="{colour}"/>'
        for index, colour in enumerate(ridges)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}">'
        f'<defs><linearGradient id="s" x2="0" y2="1">{stops}</linearGradient>'
        f'<radialGradient id="g"><stop offset="0" stop-color="{light}" stop-opacity=".75"/>'
        f'<stop offset="1" stop-color="{light}" stop-opacity="0"/></radialGradient></defs>'
        f'<rect width="100%" height="100%" fill="url(#s)"/>{stars}'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{height * 0.45:.1f}" fill="url(#g)"/>'
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{height * 0.085:.1f}" fill="{light}"/>{hills}</svg>'
    )


def _ridge(chance: random.Random, width: int, height: int, index: int, drift: float) -> str:
    base, rough = height * (0.60 + 0.11 * index), height * (0.085 - 0.008 * index)
    waves = [(chance.random() * 2 + 1.2 * 2**octave, chance.random() * 6.3, 0.55**octave) for octave in range(6)]
    points = []
    for column in range(0, width + 8, 4):
        at = column / width + drift * (index + 1)
        points.append(f"{column},{base - rough * sum(s * math.sin(at * f * 2 + p) for f, p, s in waves):.1f}")
    return f"M0,{height} L{' '.join(points)} L{width},{height} Z"


def picture(svg: str) -> Any:
    return pyvips.Image.svgload_buffer(svg.encode()).flatten().copy(interpretation="srgb")


def moon(part: float) -> tuple[float, float]:
    """Where the moon is on its way from left to right."""
    return 0.1 + 0.8 * part, 0.2 + 0.9 * (part - 0.5) ** 2


def gif(frames: int = 20, width: int = 300, height: int = 200) -> bytes:
    pictures = [picture(landscape(NIGHT, 5, width, height, sun=moon(i / frames))) for i in range(frames)]
    strip = pyvips.Image.arrayjoin(pictures, across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", [80] * frames)
    return bytes(strip.gifsave_buffer(dither=0, interframe_maxerror=8, effort=8, bitdepth=6))


def mp4(path: Path, seconds: int = 4, width: int = 720, height: int = 480) -> None:
    rate = 25
    container: Any
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        film = container.add_stream(
            "libx264", rate=rate, width=width, height=height, pix_fmt="yuv420p", options={"crf": "27", "preset": "slow"}
        )
        for index in range(seconds * rate):
            part = index / (seconds * rate)
            svg = landscape(DUSK, 9, width, height, sun=(0.62, 0.86 - 0.5 * part), drift=part * 0.06)
            frame = av.VideoFrame.from_bytes(
                bytes(picture(svg).bandjoin(255).write_to_memory()), width, height, format="rgba"
            )
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(film.encode(frame))
        container.mux(film.encode(None))


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    still = {"interlace": True, "strip": True, "Q": 82}
    dusk = picture(landscape(DUSK, 3, 1600, 1067, sun=(0.66, 0.44))).jpegsave_buffer(**still)
    sea = picture(landscape(SEA, 8, 1600, 1067, sun=(0.3, 0.36))).jpegsave_buffer(**still)
    made = {"dusk.jpg": dusk, "morning.jpg": sea, "moon.gif": gif()}
    for name, data in made.items():
        (FOLDER / name).write_bytes(data)
    mp4(FOLDER / "sunrise.mp4")
    middle = landscape(DUSK, 9, 360, 240, sun=(0.62, 0.6), drift=0.03)
    (FOLDER / "sunrise.jpg").write_bytes(picture(middle).jpegsave_buffer(**still))


if __name__ == "__main__":
    main()
