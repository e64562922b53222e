"""A Matroska or WebM file as FFmpeg gets it: with its streams and pictures, and without index, tags and chapters.

At its start FFmpeg makes a structure of each element. 13 bytes of an index become 150 bytes, in half a microsecond. The
facts need none of that. Source: RFC 9559; RFC 8794 for the form of the elements.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

from uponce.adapters.media.overlay import overlaid
from uponce.core.errors import MediaTooLarge

_SEGMENT, _CLUSTER, _VOID = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75", b"\xec"
_CONTENTS, _ENTRY, _PLACE = b"\x11\x4d\x9b\x74", b"\x4d\xbb", b"\x53\xac"
_OF_STREAMS = (b"\x15\x49\xa9\x66", b"\x16\x54\xae\x6b")  # Info, Tracks
_MAX_ELEMENTS = 10_000
_MAX_TABLES = 2  # of contents, as RFC 9559 allows: each entry is followed
_MAX_ENTRIES = 100  # of a table: files have about six
_LONGEST_HEAD = 12  # four bytes of an id, eight of a size


@dataclass(frozen=True, slots=True)
class _Element:
    """Where it begins, its id, and the bytes of its head and body. A size of None: the file does not say."""

    at: int
    kind: bytes
    head: int
    size: int | None

    @property
    def body(self) -> int:
        return self.at + self.head

    def padding(self) -> bytes:
        """Return the head of a padding that takes as many bytes."""
        assert self.size is not None
        length = min(self.head - 1, 8)
        return _VOID + (self.size + self.head - 1 - length | 1 << 7 * length).to_bytes(length)


def hide_unneeded(file: BinaryIO) -> BinaryIO:
    """Return the file, in which what stands before the first picture and says nothing of streams is padding.

    Nothing moves. A table of contents keeps what leads to streams: they may stand at the end. Any other entry can lead
    FFmpeg to tags that stand inside of another element. Raise MediaTooLarge for more elements than FFmpeg may get.
    """
    hidden: list[_Element] = []
    start = tables = 0
    for element in _before_pictures(file):
        if element.kind == _SEGMENT:
            start = element.body
        elif element.kind == _CONTENTS and tables < _MAX_TABLES:
            tables += 1
            hidden += _misleading(file, element, start)
        elif element.kind not in (*_OF_STREAMS, _VOID):
            hidden.append(element)
    return overlaid(file, {element.at: element.padding() for element in hidden})


def _before_pictures(file: BinaryIO) -> Iterator[_Element]:
    """Yield the segment, and then the elements in it."""
    at = count = 0
    is_inside = False
    while (element := _read(file, at)) and element.kind != _CLUSTER:
        is_segment = element.kind == _SEGMENT and not is_inside
        is_inside |= is_segment
        if is_inside and (is_segment or element.size is not None):
            yield element
        if element.size is None and not is_segment:
            return
        at = element.body + (0 if is_segment else element.size or 0)
        count += 1
        if count > _MAX_ELEMENTS:
            raise MediaTooLarge(
                f"Maximum number of elements before the first picture is {_MAX_ELEMENTS}. This file has more. Write "
                "the file again."
            )


def _misleading(file: BinaryIO, contents: _Element, start: int) -> list[_Element]:
    """Return the entries that lead to no streams, or the whole table if it has too many."""
    entries = list(islice(_inside(file, contents), _MAX_ENTRIES + 1))
    if len(entries) > _MAX_ENTRIES:
        return [contents]
    return [entry for entry in entries if not _leads_to_streams(file, entry, start)]


def _leads_to_streams(file: BinaryIO, entry: _Element, start: int) -> bool:
    places = [each for each in islice(_inside(file, entry), _MAX_ENTRIES) if each.kind == _PLACE]
    if entry.kind != _ENTRY or len(places) != 1:
        return False
    file.seek(places[0].body)
    target = _read(file, start + int.from_bytes(file.read(min(places[0].size or 0, 8))))
    return target is not None and target.kind in _OF_STREAMS


def _inside(file: BinaryIO, parent: _Element) -> Iterator[_Element]:
    at, end = parent.body, parent.body + (parent.size or 0)
    while at < end and (element := _read(file, at)) and element.size is not None:
        yield element
        at = element.body + element.size


def _read(file: BinaryIO, at: int) -> _Element | None:
    """Return the element at this place, or None if no element begins there."""
    if at >= 2**63:
        return None
    file.seek(at)
    data = file.read(_LONGEST_HEAD)
    id_length = 9 - data[0].bit_length() if data else 9
    if id_length > 4 or len(data) <= id_length or not data[id_length]:
        return None
    length = 9 - data[id_length].bit_length()
    coded = data[id_length : id_length + length]
    if len(coded) < length:
        return None
    most = (1 << 7 * length) - 1  # stands for a size that the file does not say
    size = int.from_bytes(coded) & most
    return _Element(at, data[:id_length], id_length + length, None if size == most else size)
