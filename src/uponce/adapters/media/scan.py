"""The size of an ordinary JPEG or PNG, read from its header in this process: no decoder is asked.

`scan` answers only for headers that libvips is certain to accept, with the size that libvips would report. Anything
else gets None, which means "ask the decoder" and never "refuse". A fuzz compares the scan with libvips
(tests/adapters/media/scanning.py).

Why: most uploads are ordinary pictures. For those the hand-over to a decoder costs more than the rest of the upload,
and they do not wait while hostile files keep the decoders busy.
"""

from collections.abc import Iterator
from itertools import islice
from zlib import crc32

from uponce.app.ports import HEADER_BYTES

# A header that is longer, by a large preview or colour profile, goes to the decoder.
SCAN_BYTES = HEADER_BYTES

_MOST_SEGMENTS = 256
_LARGEST_JPEG_SIDE = 65_500  # of libjpeg
_LARGEST_VIPS_SIDE = 100_000_000


def scan(head: bytes, format_name: str) -> tuple[int, int] | None:
    """Return width and height by the file's first SCAN_BYTES, or None when only the decoder can tell."""
    read = _SCANNERS.get(format_name)
    return read(head) if read else None


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Huffman-coded baseline, extended or progressive, 8 bits, 1 or 3 components, whole up to the first scan.

    Source: ITU-T T.81, Annex B.
    """
    size, components = None, b""
    for marker, segment in islice(_jpeg_segments(data), _MOST_SEGMENTS):
        if marker == 0xDA:
            return size if _jpeg_scan_fits(segment, components) else None
        if 0xC0 <= marker <= 0xC2 and size is None:
            size, components = _jpeg_frame(segment), segment[6::3]
            if size is None:
                return None
        elif not _jpeg_segment_is_plain(marker, segment):
            return None
    return None


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Each marker with its content, in order, for as long as they are whole."""
    at = 2
    while data[:3] == b"\xff\xd8\xff" and data[at : at + 1] == b"\xff":
        stop = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if not at + 4 <= stop <= len(data):
            return
        yield data[at + 1], data[at + 4 : stop]
        at = stop


def _jpeg_frame(segment: bytes) -> tuple[int, int] | None:
    if len(segment) < 9 or segment[0] != 8:
        return None
    height, width, count = int.from_bytes(segment[1:3]), int.from_bytes(segment[3:5]), segment[5]
    if count not in (1, 3) or len(segment) != 6 + 3 * count or len(set(segment[6::3])) != count:
        return None
    samplings, tables = segment[7::3], segment[8::3]
    if any(not (1 <= sampling >> 4 <= 4 and 1 <= sampling & 15 <= 4) for sampling in samplings) or max(tables) > 3:
        return None
    return (width, height) if 0 < width <= _LARGEST_JPEG_SIDE and 0 < height <= _LARGEST_JPEG_SIDE else None


def _jpeg_scan_fits(segment: bytes, components: bytes) -> bool:
    """Whether the scan names components of the frame, in the frame's order: libjpeg stumbles over others."""
    count = segment[0] if segment else 0
    return 1 <= count <= 4 and len(segment) == 4 + 2 * count and segment[1 : 1 + 2 * count : 2] == components[:count]


def _jpeg_segment_is_plain(marker: int, segment: bytes) -> bool:
    if marker == 0xDB:
        return _quantisation_is_plain(segment)
    if marker == 0xC4:
        return _huffman_is_plain(segment)
    if marker == 0xDD:  # restart interval
        return len(segment) == 2
    return 0xE0 <= marker <= 0xEF or marker == 0xFE  # application data, comment


def _quantisation_is_plain(segment: bytes) -> bool:
    at = 0
    while at < len(segment):
        precision, number = segment[at] >> 4, segment[at] & 15
        at += 65 + 64 * precision
        if precision > 1 or number > 3:
            return False
    return at == len(segment)


def _huffman_is_plain(segment: bytes) -> bool:
    at = 0
    while at + 17 <= len(segment):
        count = sum(segment[at + 1 : at + 17])
        if segment[at] & 0xEC or count > 256:  # class 0 or 1, number 0 to 3
            return False
        at += 17 + count
    return at == len(segment)


_PNG_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_PNG_MOST = 1 << 31  # bytes of a chunk
_PNG_PLAIN = {b"gAMA": 4, b"sRGB": 1, b"pHYs": 9, b"tIME": 7}


def _png(data: bytes) -> tuple[int, int] | None:
    """IHDR with an allowed depth, plain chunks with good sums up to the first IDAT, a palette where one must be.

    Source: https://www.w3.org/TR/png-3/
    """
    if data[:16] != b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR":
        return None
    at, seen, colour, depth = 8, set[bytes](), 0, 0
    for _ in range(_MOST_SEGMENTS):
        length, kind = int.from_bytes(data[at : at + 4]), data[at + 4 : at + 8]
        stop = at + 12 + length
        if kind == b"IDAT":
            plain = at + 12 <= len(data) and length < _PNG_MOST and (colour != 3 or b"PLTE" in seen)
            return (int.from_bytes(data[16:20]), int.from_bytes(data[20:24])) if plain else None
        if kind in seen or stop > len(data) or crc32(data[at + 4 : stop - 4]) != int.from_bytes(data[stop - 4 : stop]):
            return None
        content = data[at + 8 : stop - 4]
        if at == 8:
            if not _png_start_is_plain(content):
                return None
            depth, colour = content[8], content[9]
        elif not (_PNG_PLAIN.get(kind) == length or (kind == b"PLTE" and _palette_fits(length, colour, depth))):
            return None
        seen.add(kind)
        at = stop
    return None


def _png_start_is_plain(content: bytes) -> bool:
    width, height = int.from_bytes(content[:4]), int.from_bytes(content[4:8])
    depth, colour, compression, filter_, interlace = content[8:13]
    sides = 0 < width <= _LARGEST_VIPS_SIDE and 0 < height <= _LARGEST_VIPS_SIDE
    return sides and depth in _PNG_DEPTHS.get(colour, ()) and not compression and not filter_ and interlace <= 1


def _palette_fits(length: int, colour: int, depth: int) -> bool:
    most = 3 << depth if colour == 3 else 768
    return colour in (2, 3, 6) and length % 3 == 0 and 0 < length <= min(most, 768)


_SCANNERS = {"jpg": _jpeg, "png": _png}
