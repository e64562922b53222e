"""A fuzz of the header scan against libvips: what the scan answers, libvips must answer alike.

`python -m tests.adapters.media.scanning --seconds 600 --seed 1` runs for a while and prints a line of counts.
"""

import argparse
import random
import struct
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyvips

from uponce.adapters.media import samples
from uponce.adapters.media.scan import SCAN_BYTES, scan
from uponce.core.formats import FORMATS

_ODD_BYTES = bytes((0, 1, 2, 3, 4, 8, 16, 0x7F, 0x80, 0xFF, 0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE1, 0xFE))
_MUTABLE_BYTES = 900  # of the beginning, where the headers are

Size = tuple[int, int]


@dataclass(slots=True)
class Tally:
    """`accepted` counts the files that the scan answered, `opened` those that libvips could open."""

    files: int = 0
    accepted: int = 0
    opened: int = 0
    disagreements: list[tuple[str, bytes, Size, Size | None]] = field(default_factory=list)


def seeds() -> Sequence[tuple[str, bytes]]:
    """Ordinary pictures of several kinds, with and without metadata."""
    picture = pyvips.Image.new_from_buffer(samples.jpeg(1, 96, 64), "")
    small = picture.crop(0, 0, 20, 20)
    tagged = small.copy()
    tagged.set_type(pyvips.GValue.gint_type, "orientation", 6)
    tagged.set_type(pyvips.GValue.blob_type, "xmp-data", b"<x:xmpmeta/>")
    jpegs = (
        picture.jpegsave_buffer(Q=60, keep="none"),
        picture.jpegsave_buffer(Q=60, interlace=True, keep="none"),
        picture.colourspace("b-w").jpegsave_buffer(Q=80, keep="none"),
        small.jpegsave_buffer(Q=60, restart_interval=1, subsample_mode="off"),
        tagged.jpegsave_buffer(Q=60, profile="srgb"),
        b"\xff\xd8\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01" + small.jpegsave_buffer(Q=60, keep="none")[2:],
    )
    pngs = (
        small.pngsave_buffer(keep="none"),
        small.pngsave_buffer(palette=True, keep="none"),
        small.colourspace("b-w").pngsave_buffer(bitdepth=1, keep="none"),
        small.bandjoin(128).pngsave_buffer(interlace=True, keep="none"),
        tagged.pngsave_buffer(profile="srgb"),
        samples.png(3, 16, 16),
    )
    return [*(("jpg", bytes(file)) for file in jpegs), *(("png", bytes(file)) for file in pngs)]


def fuzz(seed: int, going_on: Callable[[int], bool], answer: Callable[[bytes, str], Size | None] = scan) -> Tally:
    """Compare on mutated pictures for as long as `going_on` says of the number of files."""
    chance, pictures, tally = random.Random(seed), seeds(), Tally()
    while going_on(tally.files):
        name, picture = chance.choice(pictures)
        mutant = mutated(chance, picture)
        if name == "png" and chance.random() < 0.7:
            mutant = with_right_sums(mutant)
        tally.files += 1
        theirs = by_libvips(name, mutant)
        tally.opened += theirs is not None
        mine = answer(mutant[:SCAN_BYTES], name)
        if mine is not None:
            tally.accepted += 1
            if theirs != mine:
                tally.disagreements.append((name, mutant, mine, theirs))
    return tally


def mutated(chance: random.Random, picture: bytes) -> bytes:
    """A few bytes changed, cut out or put in, near the beginning; sometimes the picture as it is."""
    data = bytearray(picture)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5))):
        at, length = chance.randrange(min(len(data), _MUTABLE_BYTES)), chance.randrange(1, 30)
        match chance.choices(("change", "cut", "insert", "end", "repeat"), (60, 20, 10, 10, 5))[0]:
            case "change":
                data[at] = chance.choice(_ODD_BYTES) if chance.random() < 0.7 else chance.randrange(256)
            case "cut":
                del data[at : at + length]
            case "insert":
                data[at:at] = chance.randbytes(length)
            case "repeat":
                data[at:at] = data[max(0, at - length) : at]
            case "end":
                del data[chance.randrange(1, len(data) + 1) :]
        if len(data) < 5:
            break
    return bytes(data)


def with_right_sums(data: bytes) -> bytes:
    """A PNG whose chunks have right sums, so that a mutation inside one is more than a wrong sum."""
    at, out = 8, [data[:8]]
    while at + 12 <= len(data):
        length = struct.unpack(">I", data[at : at + 4])[0]
        stop = at + 12 + length
        if stop > len(data):
            break
        out.append(data[at : stop - 4] + struct.pack(">I", zlib.crc32(data[at + 4 : stop - 4])))
        at = stop
    return b"".join(out) + data[at:]


def by_libvips(name: str, data: bytes) -> Size | None:
    try:
        source = pyvips.Source.new_from_memory(data)
        image = pyvips.Operation.call(FORMATS[name].decoder, source, access="sequential")
    except pyvips.Error:
        return None
    pages = image.get("n-pages") if image.get_typeof("n-pages") else 1
    return (image.width, image.height) if pages == 1 else None


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=1)
    chosen = arguments.parse_args()
    deadline = time.monotonic() + chosen.seconds
    tally = fuzz(chosen.seed, lambda _: time.monotonic() < deadline)
    print(
        f"seed {chosen.seed}: {tally.files:,} files, libvips opens {tally.opened:,}, the scan answers "
        f"{tally.accepted:,}, disagreements {len(tally.disagreements)}"
    )
    for name, data, mine, theirs in tally.disagreements[:5]:
        print(f"{name}: scan {mine}, libvips {theirs}: {data[:400].hex()}")
    raise SystemExit(bool(tally.disagreements))


if __name__ == "__main__":
    main()
