"""Size and pages of BMP, ICO, PDF and SVG files, read from their first bytes.

No library interprets these files: PDF and SVG are programs. A fact that needs much work to read becomes None.
"""

import mmap
import re
import struct
from collections.abc import Callable
from typing import BinaryIO

from uponce.adapters.media.sniff import BOM, PROLOG, SVG
from uponce.core.errors import InvalidMedia
from uponce.core.formats import Format
from uponce.core.values import MediaFacts, ResourceType

_Size = tuple[int | None, int | None]
_HEAD_BYTES = 64 * 1024


def read_header(file: BinaryIO, format_: Format) -> MediaFacts:
    """Return the facts of a BMP, ICO, PDF or SVG. Raise InvalidMedia or struct.error for a broken header."""
    if format_.name == "pdf":
        (width, height), pages = _pdf(file)
        return MediaFacts(ResourceType.IMAGE, "pdf", width, height, pages)
    width, height = _SIZES[format_.name](file.read(_HEAD_BYTES))
    return MediaFacts(ResourceType.IMAGE, format_.name, width, height, 1)


def _bmp(head: bytes) -> _Size:
    """Return the size. Source: https://learn.microsoft.com/windows/win32/api/wingdi/ns-wingdi-bitmapinfoheader"""
    (size,) = struct.unpack_from("<I", head, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", head, 18)  # 12: OS/2 1.x
    return _positive(width), _positive(abs(height))  # a negative height: rows from top to bottom


def _ico(head: bytes) -> _Size:
    """Return the size of the largest picture. Source: https://learn.microsoft.com/previous-versions/ms997538"""
    (count,) = struct.unpack_from("<H", head, 4)
    entries = [struct.unpack_from("<BB", head, 6 + 16 * at) for at in range(min(count, len(head) // 16))]
    if not entries:
        raise InvalidMedia("Invalid image file. This ICO has no picture.")
    return max((width or 256, height or 256) for width, height in entries)  # 0 means 256


def _positive(value: int) -> int:
    if value <= 0:
        raise InvalidMedia(f"Invalid image file. A width or height of {value} is not possible.")
    return value


_ATTRIBUTE = rb"([^\s=<>\"'/]+)\s*=\s*(?:\"([^\"<]*)\"|'([^'<]*)')"
_ATTRIBUTES = re.compile(_ATTRIBUTE)
_ROOT = re.compile(rb"<[\w:]+((?:\s+%b)*+)\s*/?>" % _ATTRIBUTE)
_LENGTH = re.compile(rb"\s*(\d{1,9}(?:\.\d{0,9})?)(?:px)?\s*")
_NUMBER = rb"[-+]?\d{1,9}(?:\.\d{0,9})?"
_VIEW = re.compile(rb"\s*%b[\s,]+%b[\s,]+(%b)[\s,]+(%b)\s*" % ((_NUMBER,) * 4))


def _svg(head: bytes) -> _Size:
    """Return width and height of the root element, or of its viewBox. Source: SVG 2, 5.1 and 8.6.

    Return None if the element is not well-formed, or if one of the three has an entity, which may be anything.
    """
    start = PROLOG.sub(b"", head.removeprefix(BOM), count=1)
    if not SVG.match(start) or b">" not in start:
        raise InvalidMedia("Invalid image file. It begins like SVG, but has no <svg> element at its beginning.")
    root = _ROOT.match(start)
    found = {name: one or other for name, one, other in _ATTRIBUTES.findall(root[1])} if root else {}
    texts = [found.get(name, b"") for name in (b"width", b"height", b"viewBox")]
    width, height, view = _LENGTH.fullmatch(texts[0]), _LENGTH.fullmatch(texts[1]), _VIEW.fullmatch(texts[2])
    if any(b"&" in text for text in texts):
        return None, None
    if width and height:
        return _rounded(width[1]), _rounded(height[1])
    return (_rounded(view[1]), _rounded(view[2])) if view else (None, None)


def _rounded(text: bytes) -> int | None:
    number = round(float(text))
    return number if number > 0 else None


_SIZES: dict[str, Callable[[bytes], _Size]] = {"bmp": _bmp, "ico": _ico, "svg": _svg}

_PAGE = re.compile(
    rb"/MediaBox\s{0,9}\[\s{0,9}%b\s{1,9}%b\s{1,9}%b\s{1,9}%b\s{0,9}\]" % ((rb"(" + _NUMBER + rb")",) * 4)
)
_PAGES = re.compile(rb"/Type\s{0,9}/Pages(?![A-Za-z])")
_COUNT = re.compile(rb"/Count\s{1,9}(\d{1,9})(?!\d)")
_REACH = 2048


def _pdf(file: BinaryIO) -> tuple[_Size, int | None]:
    """Return the first page's size in points, and the number of pages. A value is None if the PDF packs its objects.

    The root of the page tree counts all pages, so it has the largest count. Source: ISO 32000-1, 7.7.3.
    """
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        box = _PAGE.search(data)
        counts = []
        for pages in _PAGES.finditer(data):
            near = data[max(pages.start() - _REACH, 0) : pages.end() + _REACH]
            at = min(pages.start(), _REACH)
            begin, end = near.rfind(b"obj", 0, at), near.find(b"endobj", at)
            counts += [int(count[1]) for count in _COUNT.finditer(near, max(begin, 0), end if end >= 0 else len(near))]
            if len(counts) > _REACH:
                break
        if box is None:
            return (None, None), max(counts, default=None)
        left, bottom, right, top = (float(data[slice(*box.span(at))]) for at in (1, 2, 3, 4))
    return (_size(right - left), _size(top - bottom)), max(counts, default=None)


def _size(points: float) -> int | None:
    return round(abs(points)) or None
