"""A fuzz of the header scan against the decoder: what the scan answers, the decoder must answer alike, field by field.

`python -m tests.adapters.media.scanning --seconds 600 --seed 1` runs for a while and prints a line of counts for each
format.
"""

import argparse
import os
import random
import struct
import time
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import pyvips

from tests import samples
from uponce.adapters.media import worker
from uponce.adapters.media.sniff import SCAN_BYTES, ordinary_facts
from uponce.core.errors import FileRefused, MediaTooLarge
from uponce.core.formats import FORMATS
from uponce.core.policy import Limits, judge_dimensions
from uponce.core.values import MediaFacts

_ODD_BYTES = bytes((0, 1, 2, 3, 4, 8, 16, 0x7F, 0x80, 0xFF, 0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE1, 0xFE))
_ODD_BYTES_OF_GIF = bytes((0x21, 0x2C, 0x3B, 0xF9, 11, 12, 13))
_MUTABLE_BYTES = 900  # of the beginning, where the headers are
_ODD_PARTS = {
    "gif": (
        b"\x21\xfe\x03abc\0",
        b"\x21\xfe\0",
        b"\x21\xf9\0",
        b"\x21\xff\x0bNETSCAPE2.0\x03\x01\0\0\0",
        b"\x21\xff\x01a\0",
        b"\x21\x01\x0c" + bytes(12) + b"\x02hi\0",
        b"\0",
        b"\x3b",
    ),
    "webp": (
        b"VP8X\x0a\0\0\0\x10\0\0\0\x13\0\0\x13\0\0",
        b"ALPH\x02\0\0\0\0\0",
        b"ANIM\x06\0\0\0" + bytes(6),
        b"EXIF\x02\0\0\0ab",
        b"XMP \x01\0\0\0a\0",
        b"ICCP\x02\0\0\0ab",
        b"XXXX\0\0\0\0",
    ),
}
LIMITS = Limits(max_image_pixels=1_000_000, max_frames=6, max_total_pixels=1_500_000)

Verdict = MediaFacts | str
Answer = Callable[[bytes, int, str], MediaFacts | None]


@dataclass(slots=True)
class Tally:
    """`accepted` counts the files that the scan answered, `opened` those that the decoder could open, by format."""

    files: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    opened: Counter[str] = field(default_factory=Counter)
    disagreements: list[tuple[str, bytes, Verdict, Verdict]] = field(default_factory=list)


def by_scan(data: bytes, size: int, name: str) -> MediaFacts | None:
    """Return what the server answers without a decoder."""
    return ordinary_facts(data, size, FORMATS[name], LIMITS)


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
    moving = animation(picture)
    gifs = (
        small.gifsave_buffer(keep="none"),
        small.bandjoin(128).gifsave_buffer(interlace=True, bitdepth=4),
        moving.gifsave_buffer(keep="none"),
        moving.gifsave_buffer(keep_duplicate_frames=True, bitdepth=2),
        gif_of_screen(640, 480),
        gif_of_screen(1000, 999) + b"behind the trailer",
    )
    webps = (
        small.webpsave_buffer(Q=60, keep="none"),
        small.webpsave_buffer(lossless=True, keep="none"),
        small.bandjoin(128).webpsave_buffer(Q=60, keep="none"),
        tagged.webpsave_buffer(Q=60, profile="srgb"),
        moving.webpsave_buffer(Q=60, keep="none"),
        moving.bandjoin(128).copy().webpsave_buffer(lossless=True, mixed=True),
    )
    named = {"jpg": jpegs, "png": pngs, "gif": gifs, "webp": webps}
    return [(name, bytes(file)) for name, files in named.items() for file in files]


def animation(picture: pyvips.Image) -> pyvips.Image:
    """Three frames of 20 × 20, the last ones alike."""
    frames = [picture.crop(left, left, 20, 20) for left in (0, 20, 20)]
    strip = pyvips.Image.arrayjoin(frames, across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", 20)
    strip.set_type(pyvips.GValue.array_int_type, "delay", [80] * 3)
    return strip


def gif_of_screen(width: int, height: int) -> bytes:
    """A GIF of one frame that fills the screen, without a palette, whose pixels are cut short."""
    screen = struct.pack("<HH", width, height)
    return b"GIF87a" + screen + b"\0\0\0\x2c\0\0\0\0" + screen + b"\0\x02\x02\x44\x01\0\x3b"


def fuzz(seed: int, going_on: Callable[[Tally], bool], names: Sequence[str], answer: Answer = by_scan) -> Tally:
    """Compare on mutated pictures for as long as `going_on` says."""
    chance, tally = random.Random(seed), Tally()
    pictures = [picture for picture in seeds() if picture[0] in names]
    while going_on(tally):
        name, picture = chance.choice(pictures)
        mutant = mutated(chance, name, picture)
        tally.files[name] += 1
        theirs = by_decoder(name, mutant)
        tally.opened[name] += isinstance(theirs, MediaFacts)
        # The whole of a small file, or the first bytes of a file.
        head = mutant[: SCAN_BYTES if chance.random() < 0.9 else chance.randrange(len(mutant) + 1)]
        mine = answer(head, len(mutant), name)
        if mine is not None:
            tally.accepted[name] += 1
            if theirs != _judged(mine):
                tally.disagreements.append((name, mutant, _judged(mine), theirs))
    return tally


def mutated(chance: random.Random, name: str, picture: bytes) -> bytes:
    """A few parts or bytes changed, cut out or put in, and often the sums or lengths made right again."""
    if name in _ODD_PARTS and chance.random() < 0.5:
        picture = with_odd_parts(chance, name, picture)
    mutant = with_odd_bytes(chance, name, picture)
    if chance.random() < 0.7:
        return with_right_sums(mutant) if name == "png" else with_right_length(mutant) if name == "webp" else mutant
    return mutant


def with_odd_bytes(chance: random.Random, name: str, picture: bytes) -> bytes:
    """A few bytes changed, cut out or put in, near the beginning; sometimes the picture as it is."""
    data, odd = bytearray(picture), _ODD_BYTES + (_ODD_BYTES_OF_GIF if name == "gif" else b"")
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3, 5))):
        at, length = chance.randrange(min(len(data), _MUTABLE_BYTES)), chance.randrange(1, 30)
        match chance.choices(("change", "cut", "insert", "end", "repeat"), (60, 20, 10, 10, 5))[0]:
            case "change":
                data[at] = chance.choice(odd) if chance.random() < 0.7 else chance.randrange(256)
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


def with_odd_parts(chance: random.Random, name: str, picture: bytes) -> bytes:
    """Some frames, blocks or chunks left out, repeated, exchanged, put in, or with an odd byte in their header."""
    head, *parts = gif_parts(picture) if name == "gif" else webp_parts(picture)
    for _ in range(chance.choice((1, 1, 2, 3))):
        at, other = chance.randrange(len(parts)), chance.randrange(len(parts))
        match chance.choices(("leave", "repeat", "exchange", "insert", "change"), (15, 25, 15, 25, 40))[0]:
            case "leave" if len(parts) > 1:
                del parts[at]
            case "repeat":
                parts[at:at] = [parts[at]] * chance.choice((1, 2, 8))
            case "exchange":
                parts[at], parts[other] = parts[other], parts[at]
            case "insert":
                parts.insert(at, chance.choice(_ODD_PARTS[name]))
            case "change":
                part = bytearray(parts[at])
                part[chance.randrange(min(len(part), 40))] = chance.choice((chance.randrange(256), 0, 1, 255))
                parts[at] = bytes(part)
    return b"".join((head, *parts))


def gif_parts(data: bytes) -> Sequence[bytes]:
    """The screen with its palette, each extension, each frame, and the trailer with what follows."""
    at, parts = 13 + (6 << (data[10] & 7) if data[10] & 0x80 else 0), [0]
    while data[at] != 0x3B:
        parts.append(at)
        palette = data[at + 9] if data[at] == 0x2C else 0
        at += 11 + (6 << (palette & 7) if palette & 0x80 else 0) if data[at] == 0x2C else 2
        while data[at]:
            at += 1 + data[at]
        at += 1
    parts.append(at)
    return [data[start:stop] for start, stop in zip(parts, [*parts[1:], len(data)], strict=True)]


def webp_parts(data: bytes) -> Sequence[bytes]:
    """The twelve bytes of RIFF, and each chunk."""
    at, parts = 12, [data[:12]]
    while at < len(data):
        length = 8 + int.from_bytes(data[at + 4 : at + 8], "little")
        parts.append(data[at : at + length + (length & 1)])
        at += length + (length & 1)
    return parts


def with_right_length(data: bytes) -> bytes:
    """A WebP whose first length is that of the file, so that its other lengths count."""
    return data[:4] + struct.pack("<I", max(0, len(data) - 8)) + data[8:]


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


def by_decoder(name: str, data: bytes) -> Verdict:
    """Return what a decoder process answers: facts, or the words of its refusal."""
    with os.fdopen(os.memfd_create("picture"), "w+b", buffering=0) as file:
        file.write(data)
        file.seek(0)
        try:
            return worker._inspect(file, FORMATS[name], LIMITS)
        except FileRefused as error:
            return error.message


def _judged(facts: MediaFacts) -> Verdict:
    try:
        judge_dimensions(facts, LIMITS)
    except MediaTooLarge as error:
        return error.message
    return facts


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=60)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--formats", nargs="+", default=["jpg", "png", "gif", "webp"])
    chosen = arguments.parse_args()
    deadline = time.monotonic() + chosen.seconds
    tally = fuzz(chosen.seed, lambda _: time.monotonic() < deadline, chosen.formats)
    for name in chosen.formats:
        print(
            f"seed {chosen.seed}, {name}: {tally.files[name]:,} files, the decoder opens {tally.opened[name]:,}, "
            f"the scan answers {tally.accepted[name]:,}"
        )
    print(f"disagreements {len(tally.disagreements)}")
    for name, data, mine, theirs in tally.disagreements[:5]:
        print(f"{name}: scan {mine}, decoder {theirs}: {data[:400].hex()}")
    raise SystemExit(bool(tally.disagreements))


if __name__ == "__main__":
    main()
