"""The formats that can be read here, each with the one decoder that may read it."""

from dataclasses import dataclass

from uponce.core.values import ResourceType

# Formats of which uponce reads the header itself: no library interprets them.
HEADER = "header"


@dataclass(frozen=True, slots=True)
class Format:
    """`name` is the canonical extension. `decoder` is a libvips loader, an FFmpeg demuxer, or HEADER."""

    name: str
    kind: ResourceType
    decoder: str


_DECODERS = {
    ResourceType.IMAGE: {
        "jpg": "jpegload_source",
        "png": "pngload_source",
        "gif": "gifload_source",
        "webp": "webpload_source",
        "avif": "heifload_source",
        "tiff": "tiffload_source",
        "bmp": HEADER,
        "ico": HEADER,
        "pdf": HEADER,
        "svg": HEADER,
    },
    # Audio is video, as with Cloudinary.
    ResourceType.VIDEO: {
        "mp4": "mov",
        "mov": "mov",
        "3gp": "mov",
        "m4a": "mov",
        "webm": "matroska",
        "mkv": "matroska",
        "avi": "avi",
        "flv": "flv",
        "wmv": "asf",
        "mpg": "mpeg",
        "ts": "mpegts",
        "mp3": "mp3",
        "wav": "wav",
        "ogg": "ogg",
        "flac": "flac",
        "aac": "aac",
        "aiff": "aiff",
        "amr": "amr",
    },
}

FORMATS = {
    name: Format(name, kind, decoder) for kind, decoders in _DECODERS.items() for name, decoder in decoders.items()
}
