"""Counts of what a file holds, made before a library reads it, so that counting alone is never long work.

Each library does work for every block, chunk or directory of a file, and some do it in quadratic time.
"""

import mmap
import os
from collections.abc import Callable
from functools import partial
from typing import BinaryIO, Literal

from uponce.adapters.media.scan import colour_table
from uponce.core.errors import MediaTooLarge
from uponce.core.policy import Limits

_MAX_CHUNKS = 10_000
_MAX_BLOCKS = 1_000_000
_BYTES_PER_BLOCK = 128
_MAX_TAGS = 4_000
_TAGS_PER_PAGE = 100


def screen(file: BinaryIO, format_name: str, limits: Limits) -> None:
    """Raise MediaTooLarge if the file has more parts than its format's library may get."""
    check = _SCREENS.get(format_name)
    if check is None or not os.fstat(file.fileno()).st_size:
        return
    with _mapped(file) as data:
        check(data, limits)


def gif_canvas(file: BinaryIO) -> tuple[int, int]:
    """Return width and height of the logical screen."""
    with _mapped(file) as data:
        return int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little")


def png_frames(file: BinaryIO) -> int:
    """Return the number of frames of an animated PNG, else 1. Source: https://www.w3.org/TR/png-3/#acTL-chunk"""
    with _mapped(file) as data:
        at = 8
        for _ in range(_MAX_CHUNKS):
            kind = data[at + 4 : at + 8]
            if kind == b"acTL":
                return int.from_bytes(data[at + 8 : at + 12]) or 1
            if kind in (b"IDAT", b""):  # it must come before the pixels
                break
            at += 12 + int.from_bytes(data[at : at + 4])
    return 1


def _mapped(file: BinaryIO) -> mmap.mmap:
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _refuse(what: str, limit: int) -> MediaTooLarge:
    return MediaTooLarge(f"Maximum number of {what} is {limit}. This file has more. Send fewer.")


def _gif(data: mmap.mmap, limits: Limits) -> None:
    """Count frames and blocks. Source: GIF89a specification, https://www.w3.org/Graphics/GIF/spec-gif89a.txt"""
    frames, blocks, most = 0, 0, _MAX_BLOCKS + len(data) // _BYTES_PER_BLOCK
    try:
        at = 13 + colour_table(data[10])
        while data[at] != 0x3B:  # trailer
            if data[at] == 0x2C:  # image descriptor: position, size, flags, colours, LZW code size
                frames += 1
                at += 10 + colour_table(data[at + 9]) + 1
            else:  # extension: introducer and label
                at += 2
            blocks += 1
            while size := data[at]:
                at += size + 1
                blocks += 1
                if blocks > most:
                    break
            at += 1
            if frames > limits.max_frames:
                raise _refuse("frames", limits.max_frames)
            if blocks > most:
                raise _refuse("blocks", most)
    except IndexError:
        pass  # cut off at the end: the part before counts, as in browsers


def _tiff(data: mmap.mmap, limits: Limits) -> None:
    """Count directories and tags. Sources: TIFF 6.0; https://www.awaresystems.be/imaging/tiff/bigtiff.html"""
    order: Literal["little", "big"] = "little" if data[:1] == b"I" else "big"
    is_big = data[2:4] in (b"+\0", b"\0+")
    count_size, entry_size, link_size = (8, 20, 8) if is_big else (2, 12, 4)
    at = int.from_bytes(data[8:16] if is_big else data[4:8], order)
    directories, tags = 0, 0
    while 0 < at < len(data):
        count = int.from_bytes(data[at : at + count_size], order)
        directories += 1
        tags += count
        if directories > limits.max_frames:
            raise _refuse("pages", limits.max_frames)
        if tags > _MAX_TAGS + _TAGS_PER_PAGE * directories:
            raise _refuse("tags", _MAX_TAGS + _TAGS_PER_PAGE * directories)
        link = at + count_size + entry_size * count
        at = int.from_bytes(data[link : link + link_size], order)


def _chunks(order: Literal["little", "big"], data: mmap.mmap, limits: Limits) -> None:
    """Count chunks of RIFF (https://developers.google.com/speed/webp/docs/riff_container) or AIFF."""
    at, chunks, frames = 12, 0, 0
    is_64_bit = data[:4] in (b"RF64", b"BW64")  # then the size of the data is in the first chunk: ITU-R BS.2088
    while at + 8 <= len(data):
        chunks += 1
        frames += data[at : at + 4] == b"ANMF"
        if frames > limits.max_frames:
            raise _refuse("frames", limits.max_frames)
        if chunks - frames > _MAX_CHUNKS:
            raise _refuse("chunks", _MAX_CHUNKS)
        size = int.from_bytes(data[at + 4 : at + 8], order)
        if not size and data[at : at + 4] == b"data" and data[8:12] == b"WAVE" and not is_64_bit:
            break  # the length was never written: all that follows is sound, also for FFmpeg
        if is_64_bit and data[at : at + 4] == b"data":
            size = int.from_bytes(data[28:36], order)
        at += 8 + size + (size & 1)


_SCREENS: dict[str, Callable[[mmap.mmap, Limits], None]] = {
    "gif": _gif,
    "tiff": _tiff,
    **dict.fromkeys(("webp", "wav", "avi"), partial(_chunks, "little")),
    "aiff": partial(_chunks, "big"),
}
