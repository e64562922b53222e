"""What a walk through the whole file says: the size and the number of frames of an ordinary GIF or WebP.

As for a JPEG or PNG (sniff.py), the answer is None unless libvips is certain to accept the file.
"""

import re
from collections.abc import Iterator, Sequence

Data = bytes | memoryview
Shape = tuple[int, int, int]  # width, height, frames

_MOST_BLOCKS = 4096  # in a GIF: 64 KiB of pixels have 257
_GIF_EXTENSIONS = {0xF9: 4, 0xFF: 11}  # control and application: the length of their first block
_MOST_CODE_BITS = 11


def gif(data: Data, _: int) -> Shape | None:
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
_MOST_CHUNKS = 256
_WEBP_FLAGS = 0x3E
_WEBP_ANIMATED = 0x02
_LARGEST_WEBP_SIDE = 16_383


def webp(data: Data, size: int) -> Shape | None:
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
    while at < end and at + 8 <= len(data) and len(chunks) < _MOST_CHUNKS:
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
