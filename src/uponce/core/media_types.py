"""Media types of the formats that a browser may show: none of them runs script. Everything else is bytes."""

from uponce.core.values import MediaFacts, ResourceType

BINARY = "application/octet-stream"

MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
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


def media_type(facts: MediaFacts) -> str:
    """What a file is served as."""
    if facts.kind is ResourceType.RAW:
        return BINARY
    return MEDIA_TYPES.get(facts.format or "", BINARY)
