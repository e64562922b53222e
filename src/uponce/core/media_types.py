"""The media type of each format, and which formats a browser may open: those in which no script can run."""

from uponce.core.values import MediaFacts, ResourceType

BINARY = "application/octet-stream"

MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "ico": "image/vnd.microsoft.icon",
    "svg": "image/svg+xml",
    "pdf": "application/pdf",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "3gp": "video/3gpp",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
    "wmv": "video/x-ms-wmv",
    "mpg": "video/mpeg",
    "ts": "video/mp2t",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "amr": "audio/amr",
}


# An SVG can contain script, and a PDF can too. As downloads they are inert, and an <img> still shows an SVG.
_DOWNLOADS = frozenset({"svg", "pdf"})


def media_type(facts: MediaFacts) -> str:
    """Return the media type that uponce delivers."""
    if facts.kind is ResourceType.RAW:
        return BINARY
    return MEDIA_TYPES.get(facts.format or "", BINARY)


def is_download(facts: MediaFacts) -> bool:
    """Return whether a browser must save the file instead of opening it."""
    return facts.format in _DOWNLOADS or media_type(facts) == BINARY


def stored_type(facts: MediaFacts) -> str:
    """Return the media type for a bucket, which delivers without the headers that make a download of the file."""
    return BINARY if is_download(facts) else media_type(facts)
