"""The size of an ordinary JPEG, PNG, GIF or WebP, read from its headers in this process, without a decoder.

`scan` answers only for headers that libvips is certain to accept, with the values that libvips would report. Anything
else gets None, which means "use the decoder" and never "refuse". A fuzz test compares the scan with the decoder
(tests/adapters/media/scanning.py).

Why: most uploads are ordinary pictures. For them, a trip to a decoder costs more than the rest of the upload. Without
it, they do not wait while hostile files keep the decoders busy.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from zlib import crc32

from uponce.core.formats import Format
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

# A JPEG or PNG with a longer header, such as with a large preview or colour profile, goes to the decoder.
SCAN_BYTES = 64 * 1024
_MOSTLY_ENOUGH = 4 * 1024

_MOST_SEGMENTS = 256
_LARGEST_JPEG_SIDE = 65_500  # libjpeg's limit
_LARGEST_VIPS_SIDE = 100_000_000

Data = bytes | memoryview
Shape = tuple[int, int, int]


def scan(data: Data, size: int, format_: Format | None, limits: Limits) -> MediaFacts | None:
    """Return the facts of a file, or None if only the decoder can find out. `format_` None is raw.

    `data` is the beginning of a file of `size` bytes: at least SCAN_BYTES, or all of it. The scan of a GIF needs all.
    """
    if format_ is None:
        return MediaFacts(ResourceType.RAW)
    read = _SCANNERS.get(format_.name)
    shape = read(data, size) if read else None
    if shape is None or shape[2] > limits.max_frames:  # a decoder refuses too many frames
        return None
    return MediaFacts(format_.kind, format_.name, *shape)


def _still(read: Callable[[bytes], tuple[int, int] | None]) -> Callable[[Data, int], Shape | None]:
    """Return a scanner of pictures with one frame, which needs the first SCAN_BYTES at most."""

    def scan_head(data: Data, _: int) -> Shape | None:
        sides = read(bytes(data[:_MOSTLY_ENOUGH])) or read(bytes(data[:SCAN_BYTES]))
        return sides and (*sides, 1)

    return scan_head


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Return the size if the JPEG is Huffman-coded, baseline, extended or progressive, 8 bits, with 1 or 3 components.

    It must be whole up to the first scan. Source: ITU-T T.81, Annex B.
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
    """Yield each marker with its content, in order, as long as they are whole."""
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
    """Return whether the scan names components of the frame, in the frame's order: libjpeg may fail on others."""
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
    """Return the size if IHDR has an allowed depth, and only plain chunks with good sums come before the first IDAT.

    A palette must be there if the colours need it. Source: https://www.w3.org/TR/png-3/
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


_MOST_BLOCKS = 4096  # in a GIF: 64 KiB of pixels have 257
_GIF_EXTENSIONS = {0xF9: 4, 0xFF: 11}  # control and application: the length of their first block
_MOST_CODE_BITS = 11


def _gif(data: Data, _: int) -> Shape | None:
    """Return size and frames of a GIF that is whole up to the trailer, with a first frame that fills the screen.

    libvips ignores some screen sizes, and then takes the size of the first frame. Source:
    https://www.w3.org/Graphics/GIF/spec-gif89a.txt
    """
    if data[:6] not in (b"GIF87a", b"GIF89a"):
        return None
    width, height = _little(data, 6, 2), _little(data, 8, 2)
    try:
        frames = _gif_frames(data)
    except IndexError:  # the data ends before the trailer
        return None
    return (width, height, frames) if frames and width and height else None


def _gif_frames(data: Data) -> int | None:
    """Return the number of frames. Raise IndexError if the data ends before the trailer."""
    at, frames, budget = 13 + colour_table(data[10]), 0, iter(range(_MOST_BLOCKS))
    for _ in budget:
        if data[at] == 0x3B:  # trailer
            return frames
        if data[at] == 0x2C:  # image descriptor
            if not frames and not _gif_frame_fills_screen(data, at):
                return None
            frames += 1
            at += 10 + colour_table(data[at + 9])
            if data[at] > _MOST_CODE_BITS:
                return None
            at += 1
        elif data[at] == 0x21 and _gif_extension_is_plain(data, at):
            at += 2
        else:
            return None
        at = _gif_blocks_end(data, at, budget)
    return None


def _gif_frame_fills_screen(data: Data, at: int) -> bool:
    return data[at + 1 : at + 5] == b"\0\0\0\0" and data[at + 5 : at + 9] == data[6:10]


def _gif_extension_is_plain(data: Data, at: int) -> bool:
    return data[at + 1] == 0xFE or _GIF_EXTENSIONS.get(data[at + 1]) == data[at + 2]


def _gif_blocks_end(data: Data, at: int, budget: Iterator[int]) -> int:
    """Return where the blocks that begin at `at` end. Each takes one of the budget."""
    for _ in budget:
        length = data[at]
        at += 1 + length
        if not length:
            break
    return at


def colour_table(flags: int) -> int:
    return 6 << (flags & 7) if flags & 0x80 else 0


_Chunk = tuple[bytes, int, int]  # name, where its content begins, and the content's length

_WEBP_PICTURE = rb"(?:(?:ALPH)?VP8 |VP8L)"
_WEBP_FRAME = re.compile(_WEBP_PICTURE)
_WEBP_STILL = re.compile(rb"VP8X(?:ICCP)?" + _WEBP_PICTURE + rb"(?:EXIF|XMP )*")
_WEBP_ANIMATION = re.compile(rb"VP8X(?:ICCP)?ANIM(?:ANMF)+(?:EXIF|XMP )*")
_WEBP_FLAGS = 0x3E
_WEBP_ANIMATED = 0x02
_LARGEST_WEBP_SIDE = 16_383


def _webp(data: Data, size: int) -> Shape | None:
    """Return size and frames of one picture, or of VP8X and the chunks of a still picture or an animation.

    The chunks must be in the order in which encoders write them. Nothing may follow: the decoder also counts chunks
    after the end. Source: https://developers.google.com/speed/webp/docs/riff_container
    """
    end = 8 + _little(data, 4, 4)
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or end != size:
        return None
    chunks = _webp_chunks(data, 12, end)
    if chunks and chunks[0][0] == b"VP8X":
        return _webp_extended(data, chunks)
    sides = _webp_sides(data, chunks[0]) if len(chunks) == 1 else None
    return sides and (*sides, 1)


def _webp_extended(data: Data, chunks: Sequence[_Chunk]) -> Shape | None:
    flags, canvas = _little(data, 20, 1), (1 + _little(data, 24, 3), 1 + _little(data, 27, 3))
    kinds, lengths = _webp_kinds(chunks), {kind: length for kind, _, length in chunks}
    if flags & ~_WEBP_FLAGS or max(canvas) > _LARGEST_WEBP_SIDE or lengths[b"VP8X"] != 10:
        return None
    if flags & _WEBP_ANIMATED:
        frames = [chunk for chunk in chunks if chunk[0] == b"ANMF"]
        is_plain = _WEBP_ANIMATION.fullmatch(kinds) and lengths[b"ANIM"] == 6
        fits = is_plain and all(_webp_frame_fits(data, frame, canvas) for frame in frames)
        return (*canvas, len(frames)) if fits else None
    pictures = [chunk for chunk in chunks if chunk[0] in _WEBP_PICTURES]
    return (*canvas, 1) if _WEBP_STILL.fullmatch(kinds) and _webp_sides(data, pictures[0]) == canvas else None


def _webp_chunks(data: Data, at: int, end: int) -> Sequence[_Chunk]:
    """Return the chunks from `at` to `end`. Return no chunk unless they fill that range."""
    chunks = list[_Chunk]()
    while at < end and at + 8 <= len(data) and len(chunks) < _MOST_SEGMENTS:
        length = _little(data, at + 4, 4)
        chunks.append((bytes(data[at : at + 4]), at + 8, length))
        at += 8 + length + (length & 1)
    return chunks if at == end else ()


def _webp_kinds(chunks: Sequence[_Chunk]) -> bytes:
    return b"".join(kind for kind, _, _ in chunks)


def _webp_frame_fits(data: Data, frame: _Chunk, canvas: tuple[int, int]) -> bool:
    """Return whether an animation's frame is one picture, of the size in the frame's header, inside the canvas."""
    _, at, length = frame
    left, top, width, height = (_little(data, at + place, 3) for place in (0, 3, 6, 9))
    parts = _webp_chunks(data, at + 16, at + length)
    is_picture = _WEBP_FRAME.fullmatch(_webp_kinds(parts))
    inside = 2 * left + width < canvas[0] and 2 * top + height < canvas[1]
    return bool(is_picture) and inside and _webp_sides(data, parts[-1]) == (width + 1, height + 1)


def _webp_sides(data: Data, chunk: _Chunk) -> tuple[int, int] | None:
    """Return width and height of the picture in this chunk, or None if it has no picture."""
    kind, at, length = chunk
    read = _WEBP_PICTURES.get(kind)
    return read(bytes(data[at : at + min(length, 10)]), length) if read else None


def _vp8(head: bytes, length: int) -> tuple[int, int] | None:
    """Return the size of a shown key frame of a known profile, whose first partition fits in. Source: RFC 6386, 9.1."""
    start, width, height = _little(head, 0, 3), _little(head, 6, 2) & 0x3FFF, _little(head, 8, 2) & 0x3FFF
    plain = not start & 1 and start >> 1 & 7 <= 3 and start >> 4 & 1 and start >> 5 < length
    return (width, height) if plain and len(head) == 10 and head[3:6] == b"\x9d\x01\x2a" and width and height else None


def _vp8l(head: bytes, _: int) -> tuple[int, int] | None:
    """Return the size. Source: RFC 9649, 3.4."""
    sides = _little(head, 1, 4)
    plain = len(head) >= 5 and head[0] == 0x2F and not sides >> 29
    return (1 + (sides & 0x3FFF), 1 + (sides >> 14 & 0x3FFF)) if plain else None


def _little(data: Data, at: int, length: int) -> int:
    return int.from_bytes(data[at : at + length], "little")


_WEBP_PICTURES = {b"VP8 ": _vp8, b"VP8L": _vp8l}
_SCANNERS = {"jpg": _still(_jpeg), "png": _still(_png), "gif": _gif, "webp": _webp}
