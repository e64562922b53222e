"""The records of packs: a header on a page boundary, the bytes of a blob, zeros up to the next page.

A deletion of several pages writes a mark into the header, and erases the header last. So a deletion that broke off can
be completed.
"""

import errno
import os
import struct
import zlib
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple

from uponce.adapters.files import DAMAGED, SAFE, is_packed, read_at
from uponce.adapters.system import closing_file

PAGE = 4096

# magic, blob key, Unix seconds, size, SHA-256; CRC-32 of these
FACTS = struct.Struct(">8s32sQQ32s")
CRC = struct.Struct(">I")
MAGIC = b"uponce1\n"
DELETED = b"deleted\n"  # takes the place of the magic. No flipped bit makes one of the other
HEADER_BYTES = FACTS.size + CRC.size


class Record(NamedTuple):
    """A blob in a pack. Its bytes are `size` from `start`. `header` is the bytes before them.

    `is_deleted` if a deletion of it has begun: its bytes may be zeros.
    """

    key: str
    start: int
    size: int
    stored_at: int
    sha256: str
    header: bytes
    is_deleted: bool


def record_at(descriptor: int, name: str, at: int, flags: int = 0) -> Record | None:
    """Return the record that begins at this offset in the pack of that name, or None."""
    header = read_at(descriptor, at, HEADER_BYTES, flags)
    if len(header) < HEADER_BYTES:
        return None
    magic, key, stored_at, size, sha256 = FACTS.unpack_from(header)
    crc = zlib.crc32(MAGIC + header[len(MAGIC) : FACTS.size])  # as it was before a deletion began
    if magic not in (MAGIC, DELETED) or CRC.unpack_from(header, FACTS.size)[0] != crc:
        return None
    start, is_deleted = at + HEADER_BYTES, magic == DELETED
    record = Record(key.decode("ascii", "replace"), start, size, stored_at, sha256.hex(), header, is_deleted)
    return record if is_packed(record.key) and record.key.startswith(f"p{name}{at // PAGE:05x}") else None


def walk(path: Path) -> Generator[Record | None, None, None]:
    """Yield the records of a pack, in order, and None for each page whose header is damaged or cannot be read.

    A deleted record is among them while a part of it is left. Skip everything else: holes, and the incomplete end of a
    failed group.
    """
    with closing_file(os.open(path, os.O_RDONLY | SAFE)) as descriptor:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_RANDOM)  # only the headers are read
        at: int | None = 0
        while at is not None:
            record, is_damaged = None, False
            try:
                record = record_at(descriptor, path.name, at)
                is_damaged = record is None and was_header(descriptor, path.name, at)
            except OSError as error:
                if error.errno not in DAMAGED:
                    raise
                is_damaged = True
            if is_damaged:
                yield None
            if record is not None:
                yield record
                at += room_of(record.size)
            else:
                at = _next_page(descriptor, at)


def was_header(descriptor: int, name: str, at: int) -> bool:
    """Return whether a header was here, of which a part has changed. The bytes behind it may be all that is left."""
    header = read_at(descriptor, at, HEADER_BYTES)
    key = f"p{name}{at // PAGE:05x}".encode()
    return header.startswith((MAGIC, DELETED)) or header[len(MAGIC) :].startswith(key)


def _next_page(descriptor: int, at: int) -> int | None:
    """Return the offset of the first page with data behind this page, or None after the last."""
    try:
        data = os.lseek(descriptor, at, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:  # no data from here to the end
            return None
        raise
    return data - data % PAGE if data >= at + PAGE else at + PAGE


def page_of(key: str) -> int:
    return int(key[11:16], 16)


def room_of(size: int) -> int:
    """Return how many bytes of a pack a blob of this size takes."""
    return -(-(HEADER_BYTES + size) // PAGE) * PAGE
