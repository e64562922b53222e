"""The boxes of an MP4 or MOV file, read before FFmpeg: what the file claims, and how it is rotated.

Sources: ISO/IEC 14496-12; QuickTime File Format. FFmpeg's work grows with the boxes and the samples that a file claims,
not with its size: 795 bytes can claim millions of samples. PyAV does not show the display matrix of a stream.
"""

import math
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from uponce.core.errors import MediaTooLarge
from uponce.core.policy import Limits

_MAX_MOOV = 128 * 1024 * 1024
_MAX_BOXES = 200_000
_MAX_TRACKS = 64
_CONTAINERS = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"udta", b"meta", b"ilst", b"mvex"})
_DEEPEST = 8


@dataclass(slots=True)
class _Track:
    kind: bytes = b""
    rotation: int = 0
    samples: int = 0
    shifts: int = 0
    edits: int = 0
    is_pcm: bool = False


@dataclass(slots=True)
class _Movie:
    tracks: list[_Track] = field(default_factory=list)
    boxes: int = 0
    edit_lists: int = 0
    is_hidden: bool = False


@dataclass(frozen=True, slots=True)
class Mp4Claims:
    """The rotation of the first video track, in degrees clockwise (0 to 359), and whether its edits are cheap."""

    rotation: int = 0
    has_cheap_edits: bool = True


def scan_mp4(file: BinaryIO, limits: Limits) -> Mp4Claims:
    """Return what the file claims. Raise MediaTooLarge for more boxes, tracks or samples than FFmpeg may get.

    FFmpeg applies an edit list by a copy of the samples for each edit. That is cheap for few edits or few samples, if
    this scan has seen all edit lists.
    """
    movie = _Movie()
    for kind, body in _top_level(file, movie):
        _take(kind, memoryview(body), movie, 0)
        movie.is_hidden |= b"cmov" in body  # a compressed `moov`
        movie.edit_lists -= body.count(b"elst")
    timed = [track for track in movie.tracks if not track.is_pcm]
    samples = sum(max(track.samples, track.shifts) for track in timed)
    if samples > limits.max_samples:
        raise MediaTooLarge(
            f"Maximum number of samples is {limits.max_samples}. This file claims {samples}. Send a shorter film."
        )
    copies = sum(max(track.samples, track.shifts) * track.edits for track in movie.tracks)
    is_cheap = copies <= limits.max_samples and not movie.is_hidden and movie.edit_lists == 0
    return Mp4Claims(next((track.rotation for track in movie.tracks if track.kind == b"vide"), 0), is_cheap)


def _top_level(file: BinaryIO, movie: _Movie) -> Iterator[tuple[bytes, bytes]]:
    """Yield kind and body of the boxes that hold others. All boxes count. The bodies of other boxes are skipped."""
    at, left = 0, _MAX_MOOV
    while True:
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            return
        size, kind, start = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1:
            size, start = int.from_bytes(head[8:16]), 16
        _count(movie)
        if kind in _CONTAINERS and size > start:
            file.seek(at + start)
            body = file.read(min(size - start, left))
            left -= len(body)
            movie.is_hidden |= left == 0
            yield kind, body
        at += size
        if size < start or at >= 2**63:
            return


def _count(movie: _Movie) -> None:
    movie.boxes += 1
    if movie.boxes > _MAX_BOXES:
        raise MediaTooLarge(f"Maximum number of boxes is {_MAX_BOXES}. This file has more. Write the file again.")


def _take(kind: bytes, body: memoryview, movie: _Movie, depth: int) -> None:
    if kind == b"trak":
        _begin_track(movie)
    if kind in _CONTAINERS and depth < _DEEPEST:
        for inner, data in _boxes(body[4:] if kind == b"meta" else body):
            _count(movie)
            _take(inner, data, movie, depth + 1)
    elif kind in _READERS and movie.tracks:
        _READERS[kind](movie.tracks[-1], body)
        movie.edit_lists += kind == b"elst"


def _begin_track(movie: _Movie) -> None:
    movie.tracks.append(_Track())
    if len(movie.tracks) > _MAX_TRACKS:
        raise MediaTooLarge(f"Maximum number of tracks is {_MAX_TRACKS}. This file has more. Send fewer.")


def _boxes(data: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if size < 8:
            return
        yield bytes(data[at + 4 : at + 8]), data[at + 8 : at + size]
        at += size


def _read_handler(track: _Track, body: memoryview) -> None:
    track.kind = track.kind or bytes(body[8:12])


def _read_header(track: _Track, body: memoryview) -> None:
    """Read the angle of the matrix's first row. It is behind times of 32 bits (version 0) or 64 bits (version 1)."""
    start = 52 if body[:1].tobytes() == b"\x01" else 40
    if len(body) >= start + 8:
        a, b = struct.unpack_from(">ii", body, start)
        track.rotation = round(math.degrees(math.atan2(b, a))) % 360


def _read_sizes(track: _Track, body: memoryview) -> None:
    track.samples = max(track.samples, int.from_bytes(body[8:12]))


def _read_durations(track: _Track, body: memoryview) -> None:
    """Read the durations. FFmpeg indexes sound of one tick a sample, which is PCM, by chunks and not by samples."""
    runs = _runs(body)
    track.is_pcm = track.kind == b"soun" and len(runs) == 2 and runs[1] == 1
    track.shifts = max(track.shifts, sum(runs[::2]))


def _read_edits(track: _Track, body: memoryview) -> None:
    track.edits += int.from_bytes(body[4:8])


def _read_shifts(track: _Track, body: memoryview) -> None:
    track.shifts = max(track.shifts, sum(_runs(body)[::2]))


def _runs(body: memoryview) -> "array[int]":
    """Return pairs: a count of samples, and their value."""
    count = min(int.from_bytes(body[4:8]), (len(body) - 8) // 8)
    runs = array("I", bytes(body[8 : 8 + 8 * max(count, 0)]))
    runs.byteswap()
    return runs


_READERS = {
    b"hdlr": _read_handler,
    b"tkhd": _read_header,
    b"stsz": _read_sizes,
    b"stz2": _read_sizes,
    b"stts": _read_durations,
    b"ctts": _read_shifts,
    b"elst": _read_edits,
}
