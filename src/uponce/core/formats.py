"""Every media format that uponce accepts, one row each: how uponce recognises, reads and delivers the format.

A new format is a row here. It needs code only where no library recognises or reads the format (`adapters/media`).
"""

from dataclasses import dataclass

from uponce.core.values import MediaFacts, ResourceType

BINARY = "application/octet-stream"

# The decoder of a format whose header uponce reads itself. No library interprets such a format.
HEADER = "header"


@dataclass(frozen=True, slots=True)
class Format:
    """`name` is the canonical extension. `decoder` is a libvips loader, an FFmpeg demuxer, or HEADER.

    `aliases` are other extensions of the format. `brands` are the names of the format in the type field of a container:
    brands of ISO media, DocTypes of Matroska. `magic` are first bytes that the `filetype` library does not know.

    `is_document`: uponce never draws a document, so no width is too large. A script can run in a document, so browsers
    must save it.
    """

    name: str
    kind: ResourceType
    media_type: str
    decoder: str
    aliases: tuple[str, ...] = ()
    brands: tuple[bytes, ...] = ()
    magic: tuple[bytes, ...] = ()
    is_document: bool = False


_IMAGE, _VIDEO = ResourceType.IMAGE, ResourceType.VIDEO

# Of ISO media: https://mp4ra.org/registered-types/brands
_MP4_BRANDS = (b"isom", b"iso2", b"iso4", b"iso5", b"iso6", b"mp41", b"mp42", b"avc1", b"M4V ", b"M4VP", b"M4VH")
_OTHER_MP4_BRANDS = (b"mmp4", b"MSNV", b"dash", b"msdh", b"f4v ", b"F4V ", b"cmfc")
_3GP_BRANDS = (b"3gp4", b"3gp5", b"3gp6", b"3gp7", b"3gg6", b"3g2a", b"3g2b", b"3g2c")
# Frames of MPEG audio, layer III, with a CRC and without, of MPEG 1, 2 and 2.5.
_MP3_MAGIC = (b"\xff\xfa", b"\xff\xfb", b"\xff\xf2", b"\xff\xf3", b"\xff\xe2", b"\xff\xe3")
# WAV for more than 4 GB: EBU Tech 3306, and ITU-R BS.2088, which follows it.
_WAV64_MAGIC = (b"RF64\xff\xff\xff\xffWAVEds64", b"BW64\xff\xff\xff\xffWAVEds64")

_TABLE = (
    Format("jpg", _IMAGE, "image/jpeg", "jpegload_source", aliases=("jpeg", "jpe", "jfif")),
    Format("png", _IMAGE, "image/png", "pngload_source"),
    Format("gif", _IMAGE, "image/gif", "gifload_source"),
    Format("webp", _IMAGE, "image/webp", "webpload_source"),
    Format("avif", _IMAGE, "image/avif", "heifload_source", brands=(b"avif", b"avis")),
    Format("tiff", _IMAGE, "image/tiff", "tiffload_source", aliases=("tif",), magic=(b"II+\0", b"MM\0+")),
    Format("bmp", _IMAGE, "image/bmp", HEADER),
    Format("ico", _IMAGE, "image/vnd.microsoft.icon", HEADER),
    Format("pdf", _IMAGE, "application/pdf", HEADER, is_document=True),
    Format("svg", _IMAGE, "image/svg+xml", HEADER, is_document=True),
    Format("mp4", _VIDEO, "video/mp4", "mov", aliases=("m4v", "f4v"), brands=_MP4_BRANDS + _OTHER_MP4_BRANDS),
    Format("mov", _VIDEO, "video/quicktime", "mov", brands=(b"qt  ",)),
    Format("3gp", _VIDEO, "video/3gpp", "mov", aliases=("3g2", "3gpp"), brands=_3GP_BRANDS),
    Format("webm", _VIDEO, "video/webm", "matroska", brands=(b"webm",)),
    Format("mkv", _VIDEO, "video/x-matroska", "matroska", aliases=("mka",), brands=(b"matroska",)),
    Format("avi", _VIDEO, "video/x-msvideo", "avi"),
    Format("flv", _VIDEO, "video/x-flv", "flv"),
    Format("wmv", _VIDEO, "video/x-ms-wmv", "asf", aliases=("asf",)),
    Format("mpg", _VIDEO, "video/mpeg", "mpeg", aliases=("mpeg", "mpe"), magic=(b"\0\0\1\xba",)),
    Format("ts", _VIDEO, "video/mp2t", "mpegts", aliases=("mts", "m2ts")),
    # Audio is video, as with Cloudinary.
    Format("m4a", _VIDEO, "audio/mp4", "mov", aliases=("m4b",), brands=(b"M4A ", b"M4B ", b"M4P ")),
    Format("mp3", _VIDEO, "audio/mpeg", "mp3", magic=_MP3_MAGIC),
    Format("wav", _VIDEO, "audio/wav", "wav", magic=_WAV64_MAGIC),
    Format("ogg", _VIDEO, "audio/ogg", "ogg", aliases=("ogv", "oga", "opus")),
    Format("flac", _VIDEO, "audio/flac", "flac"),
    Format("aac", _VIDEO, "audio/aac", "aac"),
    Format("aiff", _VIDEO, "audio/aiff", "aiff", aliases=("aif", "aifc")),
    Format("amr", _VIDEO, "audio/amr", "amr"),
)

FORMATS = {format_.name: format_ for format_ in _TABLE}
_ALIASES = {alias: format_.name for format_ in _TABLE for alias in format_.aliases}


def canonical_format(extension: str) -> str:
    """Return the canonical extension of a format, for answers and `allowed_formats`: `jpg` for `JPEG`."""
    lower = extension.lower()
    return _ALIASES.get(lower, lower)


def format_of(facts: MediaFacts) -> Format | None:
    """Return the format of an image, video or sound. Return None for a raw file, whatever its name says."""
    if facts.kind is ResourceType.RAW or facts.format is None:
        return None
    return FORMATS.get(facts.format)


def media_type(facts: MediaFacts) -> str:
    """Return the media type that uponce delivers."""
    format_ = format_of(facts)
    return format_.media_type if format_ else BINARY


def is_download(facts: MediaFacts) -> bool:
    """Return whether a browser must save the file instead of opening it. An <img> still shows an SVG."""
    format_ = format_of(facts)
    return format_ is None or format_.is_document


def stored_type(facts: MediaFacts) -> str:
    """Return the media type for a bucket. BINARY makes a browser save the file: a bucket sends no header for that."""
    return BINARY if is_download(facts) else media_type(facts)
