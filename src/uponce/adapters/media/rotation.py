"""How far a phone turned its film: the matrix in the track header of MP4 and MOV.

Source: ISO/IEC 14496-12, 8.3.2 (`tkhd`). PyAV does not hand out the display matrix of a stream.
"""

import math
import struct
from collections.abc import Iterator
from typing import BinaryIO

_MAX_MOOV = 64 * 1024 * 1024
_MAX_BOXES = 10_000


def rotation_of(file: BinaryIO) -> int:
    """Degrees clockwise, 0 to 359, of the first video track; 0 when the file does not say."""
    moov = _read_moov(file)
    for kind, track in _boxes(moov):
        if kind != b"trak":
            continue
        parts = dict(_boxes(track))
        media = dict(_boxes(parts.get(b"mdia", b"")))
        if media.get(b"hdlr", b"")[8:12] == b"vide":
            return _angle(parts.get(b"tkhd", b""))
    return 0


def _read_moov(file: BinaryIO) -> bytes:
    """The body of the `moov` box: the only one read, the others are stepped over."""
    at = 0
    for _ in range(_MAX_BOXES):
        file.seek(at)
        head = file.read(16)
        if len(head) < 8:
            break
        size, kind, start = int.from_bytes(head[:4]), head[4:8], 8
        if size == 1:
            size, start = int.from_bytes(head[8:16]), 16
        if kind == b"moov":
            file.seek(at + start)
            return file.read(min(size - start, _MAX_MOOV) if size > start else 0)
        if size < start:
            break
        at += size
        if at >= 2**63:
            break
    return b""


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4])
        if size < 8:
            return
        yield data[at + 4 : at + 8], data[at + 8 : at + size]
        at += size


def _angle(header: bytes) -> int:
    """The angle of the matrix's first row, which stands behind times of 32 bits (version 0) or 64 (version 1)."""
    start = 52 if header[:1] == b"\x01" else 40
    if len(header) < start + 8:
        return 0
    a, b = struct.unpack_from(">ii", header, start)
    return round(math.degrees(math.atan2(b, a))) % 360
