"""What the first bytes of a file say: its format, and the size of an ordinary JPEG or PNG.

Names, extensions and declared types do not count. The `filetype` library knows the ordinary magic numbers. This module
reads text, and containers whose type is in a field (ISO media, Matroska): the library does not know them or gets them
wrong.

The size of an ordinary picture is read in this process, without a decoder. `ordinary_facts` answers only for headers
that libvips is certain to accept, with the values that libvips would report. Anything else gets None, which means "use
the decoder" and never "refuse". A fuzz test compares the answers with the decoder's (tests/adapters/media/scanning.py).

Why: most uploads are ordinary pictures. For them, a trip to a decoder costs more than the rest of the upload. Without
it, they do not wait while hostile files keep the decoders busy.
"""

import re
from collections.abc import Callable, Sequence
from zlib import crc32

import filetype
from filetype.types.archive import Pdf

from uponce.adapters.media.id3 import tag_bytes
from uponce.adapters.media.scan import Data, Shape, gif, webp
from uponce.core.errors import InvalidMedia
from uponce.core.formats import FORMATS, Format, canonical_format
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType

HEAD_BYTES = 8192  # for the format
_JPEG = b"\xff\xd8\xff"
# A JPEG or PNG with a longer header, such as with a large preview or colour profile, goes to the decoder.
SCAN_BYTES = 64 * 1024
_MOSTLY_ENOUGH = 4 * 1024


def read_ordinary(file: Data, requested: ResourceType | None, limits: Limits) -> MediaFacts | None:
    """See `Services.read_ordinary`."""
    try:
        return ordinary_facts(file, len(file), admit(bytes(file[:HEAD_BYTES]), requested), limits)
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
    if head.startswith(_JPEG) and head[4:5] == b"\0":  # a short first segment, as nearly each has: no check below fits
        return "jpg"
    for check in _CHECKS:
        name = check(head)
        if name is not None:
            return name
    # Of ISO media the library knows no brand that _BRANDS lacks. It would read all brands of a short box four times.
    guess = filetype.match(head[:_LIBRARY_BYTES] if head[4:8] == b"ftyp" else head, types)
    name = _NAMES[guess.extension] if guess else None
    return name if name not in _SHORT_MAGIC or _SHORT_MAGIC[name](head) else None


# Their magic numbers also begin other files, such as a text about a BMW, so a second field must fit.
_BMP_HEADERS = frozenset({12, 40, 52, 56, 64, 108, 124})
_SHORT_MAGIC: dict[str | None, Callable[[bytes], bool]] = {
    "bmp": lambda head: int.from_bytes(head[14:18], "little") in _BMP_HEADERS,
    # The reserved byte must be 0, but .NET's Icon.Save writes 255.
    "ico": lambda head: head[4:6] > b"\0\0" and head[9:10] in (b"\0", b"\xff") and len(head) >= 22,
    "mpg": lambda head: head[3:4] == b"\xba",  # a stream of packs; others of this prefix have one bare film
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
_LAST_BRAND = 16 + 4 * 64  # files have up to a dozen brands
_LIBRARY_BYTES = 32  # for `M4A` and `M4V` with another fourth letter
# QuickTime files from before `ftyp` begin with one of these.
_OLD_MOV = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})


def _iso_media(head: bytes) -> str | None:
    """Return the format of the first known brand. The major brand comes first."""
    box = head[4:8]
    # A size: printable text would be larger. So is `mdat` of 144 MiB, but no text has a NUL.
    if box in _OLD_MOV and (head[0] < 9 or (box == b"mdat" and b"\0" in head[8:])):
        return "mov"
    if box != b"ftyp":
        return None
    end = min(int.from_bytes(head[:4]), len(head), _LAST_BRAND)
    brands = [head[8:12], *(head[at : at + 4] for at in range(16, end - 3, 4))]
    return next((_BRANDS[brand] for brand in brands if brand in _BRANDS), None)


def _matroska(head: bytes) -> str | None:
    if not head.startswith(b"\x1a\x45\xdf\xa3"):
        return None
    at = head.find(b"\x42\x82", 4, 64)
    if at < 0:
        return None
    size = int.from_bytes(head[at + 2 : at + 3]) & 0x7F
    return _BRANDS.get(head[at + 3 : at + 3 + size].rstrip(b"\0"))


def _transport_stream(head: bytes) -> str | None:
    """Return `ts` for packets of 188 bytes, or of 192 with a time in front: each begins with the same byte, a `G`."""
    for at, packet in ((0, 188), (4, 192)):
        firsts = head[at::packet]
        if len(firsts) >= 3 and firsts == b"\x47" * len(firsts):
            return "ts"
    return None


def _tagged(head: bytes) -> str | None:
    """Return the format behind an ID3 tag, if it is FLAC or AAC. The library takes each tag for MP3.

    The tag must end within the head.
    """
    if not (length := tag_bytes(head)):
        return None
    start = head[length:]
    if start.startswith(b"fLaC"):
        return "flac"
    is_adts = len(start) > 1 and start[0] == 0xFF and start[1] & 0xF6 == 0xF0  # ISO 14496-3, 1.A.2: layer 0
    return "aac" if is_adts else None


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


_CHECKS: tuple[Callable[[bytes], str | None], ...] = (
    _iso_media,
    _matroska,
    _transport_stream,
    _tagged,
    _magic,
    _text,
)


def ordinary_facts(data: Data, size: int, format_: Format | None, limits: Limits) -> MediaFacts | None:
    """Return the facts of a file, or None if only the decoder can find out. `format_` None is raw.

    `data` is the beginning of a file of `size` bytes: at least SCAN_BYTES, or all of it. A GIF needs all.
    """
    if format_ is None:
        return MediaFacts(ResourceType.RAW)
    read = _READERS.get(format_.name)
    shape = read(data, size) if read else None
    if shape is None or shape[2] > limits.max_frames:  # a decoder refuses too many frames
        return None
    return MediaFacts(format_.kind, format_.name, *shape)


def _still(read: Callable[[bytes], tuple[int, int] | None]) -> Callable[[Data, int], Shape | None]:
    """Return a reader of pictures with one frame, which needs the first SCAN_BYTES at most."""

    def read_head(data: Data, _: int) -> Shape | None:
        sides = read(bytes(data[:_MOSTLY_ENOUGH])) or read(bytes(data[:SCAN_BYTES]))
        return sides and (*sides, 1)

    return read_head


_MOST_SEGMENTS = 256
_LARGEST_JPEG_SIDE = 65_500  # libjpeg's limit
_LARGEST_VIPS_SIDE = 100_000_000


def _jpeg(data: bytes) -> tuple[int, int] | None:
    """Return the size if the JPEG is Huffman-coded, baseline, extended or progressive, 8 bits, with 1 or 3 components.

    It must be whole up to the first scan. Source: ITU-T T.81, Annex B.
    """
    size, components, stop, end = None, b"", 2, len(data) if data.startswith(_JPEG) else 0
    for _ in range(_MOST_SEGMENTS):
        start = stop + 4
        if start > end or data[stop] != 0xFF:
            return None
        marker, stop = data[stop + 1], stop + 2 + (data[stop + 2] << 8 | data[stop + 3])
        if not start <= stop <= end:
            return None
        segment = data[start:stop]
        if marker == 0xDA:
            return size if _jpeg_scan_fits(segment, components) else None
        if 0xC0 <= marker <= 0xC2 and size is None:
            size, components = _jpeg_frame(segment), segment[6::3]
            if size is None:
                return None
        elif not _jpeg_segment_is_plain(marker, segment):
            return None
    return None


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


_READERS = {"jpg": _still(_jpeg), "png": _still(_png), "gif": gif, "webp": webp}
