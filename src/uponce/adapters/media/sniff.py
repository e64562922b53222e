"""The type of a file, by its first bytes. Names, extensions and declared types do not count.

The `filetype` library knows the ordinary magic numbers. This module reads text, and containers whose type is in a field
(ISO media, Matroska): the library does not know them or gets them wrong.
"""

import re
from collections.abc import Callable, Sequence

import filetype
from filetype.types.archive import Pdf

from uponce.adapters.media.scan import scan
from uponce.core.errors import InvalidMedia
from uponce.core.formats import FORMATS, Format, canonical_format
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

HEAD_BYTES = 8192


def read_ordinary(file: bytes | memoryview, requested: ResourceType | None, limits: Limits) -> MediaFacts | None:
    """See `Services.read_ordinary`."""
    try:
        return scan(file, len(file), admit(bytes(file[:HEAD_BYTES]), requested), limits)
    except InvalidMedia:
        return None


def admit(head: bytes, requested: ResourceType | None) -> Format | None:
    """Return the format to decode, or None for raw. Raise InvalidMedia if the bytes are not what was requested.

    `head` is the file's first HEAD_BYTES. `requested` None is auto: a file of no supported format is raw.
    """
    if requested is ResourceType.RAW:
        return None
    format_ = FORMATS.get(sniff(head, MEDIA) or "")
    if requested is None or (format_ is not None and format_.kind is requested):
        return format_
    raise InvalidMedia(f"Invalid {requested} file. {_reason(sniff(head), format_, requested)}")


def _reason(name: str | None, format_: Format | None, requested: ResourceType) -> str:
    if name is None:
        return "Its bytes are in no known media format. Upload it as raw to store it unchanged."
    if format_ is None:
        return f"Its bytes look like {name.upper()}, which is not supported here as {requested}. Upload it as raw."
    return f"Its bytes look like {name.upper()}. Upload it as {format_.kind}."


# Without documents, fonts and archives, which take the longest to check: 11 µs instead of 56 for noise.
MEDIA = (*filetype.image_matchers, *filetype.video_matchers, *filetype.audio_matchers, Pdf())


def sniff(head: bytes, types: Sequence[filetype.Type] = filetype.TYPES) -> str | None:
    """Return the extension of the format that the bytes look like, also if FORMATS lacks it. Return None for no format.

    `types` are those of the library that count.
    """
    for check in _CHECKS:
        name = check(head)
        if name is not None:
            return name
    guess = filetype.match(head, types)
    name = _NAMES[guess.extension] if guess else None
    return name if name not in _SHORT_MAGIC or _SHORT_MAGIC[name](head) else None


# Their magic numbers also begin other files, such as a text about a BMW, so a second field must fit.
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_SHORT_MAGIC: dict[str | None, Callable[[bytes], bool]] = {
    "bmp": lambda head: int.from_bytes(head[14:18], "little") in _BMP_HEADERS,
    "ico": lambda head: head[4:6] > b"\0\0" and head[9:10] == b"\0" and len(head) >= 22,
}

# By the library's extension. An animated PNG is a PNG.
_NAMES = {type_.extension: canonical_format(type_.extension) for type_ in filetype.TYPES} | {"apng": "png"}

# The names of the formats in the type fields of containers. HEIC opens, but libvips' wheels have no decoder of its
# pixels. A refusal still names the format.
_BRANDS = {
    **{brand: format_.name for format_ in FORMATS.values() for brand in format_.brands},
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"hevx", b"heim", b"heis"), "heic"),
    b"crx ": "cr3",
}
# QuickTime files from before `ftyp` begin with one of these.
_OLD_MOV = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})


def _iso_media(head: bytes) -> str | None:
    """Return the format of the first known brand. The major brand comes first."""
    box = head[4:8]
    if box in _OLD_MOV and head[0] < 9:  # a size; printable text would be larger
        return "mov"
    if box != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4]), len(head))
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _matroska(head: bytes) -> str | None:
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    at = head.find(b"\x42\x82", 4, 64)
    if at < 0:
        return None
    doctype = head[at + 3 : at + 3 + (head[at + 2] & 0x7F)].rstrip(b"\0")
    return _BRANDS.get(doctype)


def _transport_stream(head: bytes) -> str | None:
    """Return `ts` for packets of 188 bytes, or of 192 with a time in front: each begins with the same byte, a `G`."""
    for at, packet in ((0, 188), (4, 192)):
        firsts = head[at::packet]
        if len(firsts) >= 3 and firsts == b"\x47" * len(firsts):
            return "ts"
    return None


_MAGIC = {magic: format_.name for format_ in FORMATS.values() for magic in format_.magic}
_ANY_MAGIC = tuple(_MAGIC)


def _magic(head: bytes) -> str | None:
    if not head.startswith(_ANY_MAGIC):
        return None
    return next(name for magic, name in _MAGIC.items() if head.startswith(magic))


# What may come before the root of XML. Quotes and comments may have any sign in them. Source: XML 1.0, 2.8.
_QUOTED = rb"\"[^\"]*\"|'[^']*'"
_ASIDE = rb"<!--.*?-->|<\?.*?\?>"
_SUBSET = rb"\[(?:%b|%b|[^\"'\]<]|<(?!!--|\?))*+\]\s*" % (_QUOTED, _ASIDE)
_DOCTYPE = rb"<!doctype(?:%b|[^\"'\[>])*+(?:%b)?>" % (_QUOTED, _SUBSET)
PROLOG = re.compile(rb"(?:\s+|%b|%b)*+" % (_ASIDE, _DOCTYPE), re.DOTALL | re.IGNORECASE)
SVG = re.compile(rb"<(?:\w{1,20}:)?svg[\s>/]", re.IGNORECASE)
BOM = b"\xef\xbb\xbf"
_TEXTS = {b"<html": "html", b"<!doctype html": "html", b"#extm3u": "m3u8", b"ffconcat": "ffconcat"}


def _text(head: bytes) -> str | None:
    start = head.removeprefix(BOM).lstrip()
    if not start.startswith((b"<", b"#", b"f", b"F")):
        return None
    start = start.lower()
    if SVG.match(PROLOG.sub(b"", start, count=1)):
        return "svg"
    if start.startswith((b"<?xml", b"<!doctype svg", b"<!--")):
        return "xml"
    return next((name for prefix, name in _TEXTS.items() if start.startswith(prefix)), None)


_CHECKS: tuple[Callable[[bytes], str | None], ...] = (_iso_media, _matroska, _transport_stream, _magic, _text)
