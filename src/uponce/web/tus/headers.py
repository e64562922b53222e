"""Read and write the headers of tus."""

import base64
import re
from email.utils import formatdate

from uponce.app.uploading.resumable import Part
from uponce.core.checksum import ALGORITHMS, Checksum
from uponce.core.errors import (
    DuplicateParameter,
    InvalidParameter,
    MalformedRequest,
    MissingParameter,
    UnsupportedContentType,
    UnsupportedParameter,
    UnsupportedVersion,
    shown,
)
from uponce.core.parameters import UploadSpec
from uponce.core.policy import Limits
from uponce.core.series import Series, expires_at
from uponce.web.request import Head, Header, check_encoding

VERSION = "1.0.0"
CONTENT_TYPE = "application/offset+octet-stream"
EXTENSIONS = ("creation", "creation-with-upload", "creation-defer-length", "expiration", "checksum", "termination")
RESUMABLE: Header = (b"tus-resumable", VERSION.encode())
VERSIONS: Header = (b"tus-version", VERSION.encode())

_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)
_KEY = re.compile(r"[\x21-\x7e]+", re.ASCII)
# Facts of the file that tus clients send beside the parameters. A `type` with a slash is a MIME type.
_FILE_FACTS = frozenset({"filename", "name", "filetype", "contentType", "relativePath"})


def check_version(head: Head) -> None:
    if head.get("tus-resumable") != VERSION:
        raise UnsupportedVersion(
            f"Header Tus-Resumable is '{shown(head.get('tus-resumable'))}', but this server speaks {VERSION}. Send "
            f"Tus-Resumable: {VERSION}."
        )


def has_body(head: Head) -> bool:
    """Return whether bytes follow. In HTTP/2, only the type of the bytes shows it."""
    if length := head.get("content-length"):
        return length != "0"
    return bool(head.get("content-type") or head.get("transfer-encoding"))


def check_content_type(head: Head) -> None:
    check_encoding(head)
    if head.get("content-type").partition(";")[0].strip().lower() != CONTENT_TYPE:
        raise UnsupportedContentType(
            f"Header Content-Type is '{shown(head.get('content-type'))}'. Send the bytes as {CONTENT_TYPE}."
        )


def check_concat(head: Head) -> None:
    """Raise UnsupportedParameter for a partial upload, which would otherwise count as a whole one."""
    if head.get("upload-concat"):
        raise UnsupportedParameter("Header Upload-Concat is not supported by uponce yet. Send the file in one upload.")


def read_number(head: Head, name: str) -> int | None:
    text = head.headers.get(name.lower())
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise MalformedRequest(f"Header {name} is '{shown(text)}'. Send a whole number of bytes.")
    return int(text)


def read_offset(head: Head) -> int:
    offset = read_number(head, "Upload-Offset")
    if offset is None:
        raise MissingParameter("Header Upload-Offset is missing. Send the number of bytes that have arrived.")
    return offset


def read_total(head: Head) -> int | None:
    """Return the file's size, or None if the client will send the size later."""
    total, deferred = read_number(head, "Upload-Length"), head.headers.get("upload-defer-length")
    if deferred not in (None, "1") or (total is None) == (deferred is None):
        raise MalformedRequest("Send either Upload-Length with the file's size, or Upload-Defer-Length: 1.")
    return total


def read_part(head: Head, offset: int) -> Part:
    """Return what a request says about the bytes in its body."""
    size, total = read_number(head, "Content-Length"), read_number(head, "Upload-Length")
    return Part(offset, size, total, read_checksum(head))


def read_checksum(head: Head) -> Checksum | None:
    header = head.headers.get("upload-checksum")
    if header is None:
        return None
    algorithm, _, digest = header.partition(" ")
    if algorithm not in ALGORITHMS:
        raise InvalidParameter(f"Checksum algorithm '{shown(algorithm)}' is unknown. Use {', '.join(ALGORITHMS)}.")
    try:
        return Checksum(algorithm, base64.b64decode(digest.strip(), validate=True))
    except ValueError:  # not base64, not ASCII
        raise MalformedRequest("Header Upload-Checksum is not valid. Write `sha1 <base64>`.") from None


def read_metadata(head: Head, limits: Limits) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """Return the parameters of Upload-Metadata, in order, and the file's name."""
    header = head.get("upload-metadata")
    if (count := header.count(",") + 1) > limits.max_fields:  # before any item is decoded
        raise MalformedRequest(
            f"Header Upload-Metadata has {count} items, the limit is {limits.max_fields}. Send fewer items."
        )
    pairs = [_pair(item.strip()) for item in header.split(",")] if header.strip() else []
    facts = dict(pairs)
    if len(facts) != len(pairs):
        raise DuplicateParameter("Header Upload-Metadata has the same key twice. Send each key once.")
    if "file" in facts:
        raise InvalidParameter("Parameter file must be in the body, not in Upload-Metadata.")
    return tuple(pair for pair in pairs if not _is_file_fact(*pair)), facts.get("filename") or facts.get("name") or None


def _is_file_fact(name: str, value: str) -> bool:
    return name in _FILE_FACTS or (name == "type" and "/" in value)


def _pair(item: str) -> tuple[str, str]:
    key, _, encoded = item.partition(" ")
    try:
        if _KEY.fullmatch(key):
            return key, base64.b64decode(encoded, validate=True).decode()
    except ValueError:  # not base64, not ASCII, not UTF-8
        pass
    raise MalformedRequest(
        f"'{shown(item)}' in header Upload-Metadata is not a key and base64 of UTF-8. Write `key base64,key base64`."
    )


def metadata(series: Series) -> str:
    """Return the parameters of the upload without the signature: uponce does not store signatures."""
    pairs = [*series.parameters, *([("filename", series.filename)] if series.filename else [])]
    return ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs)


def abilities(limits: Limits) -> tuple[Header, ...]:
    """Return the headers of OPTIONS."""
    values = {
        "tus-version": VERSION,
        "tus-extension": ",".join(EXTENSIONS),
        "tus-max-size": str(limits.max_bytes(None, UploadSpec())),
        "tus-checksum-algorithm": ",".join(ALGORITHMS),
    }
    return tuple((name.encode(), value.encode()) for name, value in values.items())


def progress(series: Series, limits: Limits) -> tuple[Header, ...]:
    """Return how many bytes have arrived, and when the upload expires."""
    expires = formatdate(expires_at(series, limits), usegmt=True)
    return ((b"upload-offset", str(series.received).encode()), (b"upload-expires", expires.encode()))


def description(series: Series) -> tuple[Header, ...]:
    """Return the file's size and the parameters."""
    length = (b"upload-length", str(series.total).encode())
    size = (b"upload-defer-length", b"1") if series.total is None else length
    return (size, (b"upload-metadata", metadata(series).encode()))


def finished(size: int, url: str) -> tuple[Header, ...]:
    """Return the headers of a complete upload, with the address of its asset."""
    number = str(size).encode()
    return ((b"upload-offset", number), (b"upload-length", number), (b"upload-asset", url.encode()))
