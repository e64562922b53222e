"""The files that are sent: a picture of about 100 KB and films as large as wanted, all readable by their decoders."""

import os
from pathlib import Path

import pyvips

from uponce.adapters.media.samples import mp4

_PICTURE_BYTES = 100_000
_BLOCK = 1_000_000


def picture(folder: Path) -> Path:
    """Return a JPEG of 640 × 480. It has noise, so that it is as large as a photograph."""
    path = folder / "picture.jpg"
    if not path.exists():
        grain = pyvips.Image.gaussnoise(640, 480, mean=128, sigma=40, seed=1).gaussblur(0.7)
        colours = grain.bandjoin([grain.rot180(), grain.fliphor()]).cast("uchar").copy(interpretation="srgb")
        sizes = ((quality, colours.jpegsave_buffer(Q=quality)) for quality in range(98, 20, -1))
        path.write_bytes(next(data for _, data in sizes if len(data) <= _PICTURE_BYTES))
    return path


def film(folder: Path, megabytes: int) -> Path:
    """Return an MP4 that ends in a `free` box of noise.

    It has as many bytes to move and to hash as a film of that size.
    """
    path = folder / f"film-{megabytes}.mp4"
    if not path.exists():
        whole, noise, start = megabytes * 1_000_000, os.urandom(_BLOCK), mp4(1)
        padding = whole - len(start)
        draft = path.with_suffix(".draft")
        with draft.open("wb") as file:
            file.write(start + padding.to_bytes(4, "big") + b"free")
            while (left := whole - file.tell()) > 0:
                file.write(noise[:left])
        draft.rename(path)
    return path


def noise(folder: Path, size: int) -> Path:
    """So many bytes of noise."""
    path = folder / f"noise-{size}.bin"
    if not path.exists():
        path.write_bytes(os.urandom(size))
    return path
