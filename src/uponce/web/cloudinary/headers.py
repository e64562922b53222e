"""The headers that describe an upload: one chunk of a file, a name for repeats, HTTP Basic credentials.

Cloudinary's chunked protocol has two headers. `X-Unique-Upload-Id` is the client's name for the upload, equal on all
chunks. `Content-Range: bytes a-b/total` names the bytes of this chunk. While the client does not know the total, the
total is `-1`, `*` or missing.

`Idempotency-Key` (IETF draft of that name) lets a client ask for a lost answer again.
"""

import base64
import re

from uponce.app.uploading.chunks import NamedChunk
from uponce.core.errors import BadCredentials, EmptyFile, InvalidParameter, MalformedRequest, shown
from uponce.core.series import Chunk
from uponce.core.spans import Span
from uponce.web.request import Head

MAX_KEY_LENGTH = 255

_VISIBLE = re.compile(r"[!-~]+")
# A structured field's string (RFC 9651 §3.3.3), where only two characters are escaped. Or, as many clients send it, a
# text without quotes and without any character of a string, a list or a parameter.
_FORMS = re.compile(r'"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<bare>[^",;\\]+)')
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})(?:/(-1|\*|[0-9]{1,18}))?", re.ASCII)
_EMPTY = re.compile(r"bytes 0--1/.*", re.ASCII)  # what Node sends for a file without bytes
_UPLOAD_ID = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


def read_chunk(head: Head) -> NamedChunk | int | None:
    """Return the chunk. For a request with a whole file, return its size if Content-Range gives one."""
    upload_id, content_range = head.get("x-unique-upload-id"), head.get("content-range")
    if not content_range:
        return None
    chunk = _parse(content_range)
    if chunk.span == Span(0, chunk.total or 0):
        return chunk.total
    if not upload_id:
        raise MalformedRequest(
            "Header Content-Range makes this request a chunk of a file, but header X-Unique-Upload-Id, which names the "
            "upload, is missing. Send both headers with each chunk, or none with a whole file."
        )
    if not _UPLOAD_ID.fullmatch(upload_id):
        raise InvalidParameter(
            f"Header X-Unique-Upload-Id has {len(upload_id)} characters. Send 1 to 255 printable ASCII characters "
            "without spaces."
        )
    return NamedChunk(upload_id, chunk)


def _parse(content_range: str) -> Chunk:
    if _EMPTY.fullmatch(content_range):
        raise EmptyFile("Empty file. Send at least one byte.")
    match = _RANGE.fullmatch(content_range)
    if match is None:
        raise _malformed(content_range, "write `bytes 0-19999999/50000000`, with `-1` for an unknown total")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] in (None, "-1", "*") else int(match[3])
    if last < first:
        raise _malformed(content_range, "the last byte precedes the first one")
    if total is not None and last >= total:
        raise _malformed(content_range, "the last byte is beyond the total")
    return Chunk(Span(first, last + 1), total)


def _malformed(content_range: str, why: str) -> MalformedRequest:
    return MalformedRequest(f"Header Content-Range '{shown(content_range)}' is not valid: {why}.")


def read_idempotency_key(header: str | None) -> str | None:
    """Return the key, 1 to 255 visible ASCII characters. `"abc"` and `abc` are one key. None without the header."""
    if header is None:
        return None
    form = _FORMS.fullmatch(header)
    key = re.sub(r"\\(.)", r"\1", form["quoted"] or form["bare"] or "") if form else ""
    if not _VISIBLE.fullmatch(key) or len(key) > MAX_KEY_LENGTH:
        raise MalformedRequest(
            f"Header Idempotency-Key must be 1 to {MAX_KEY_LENGTH} visible ASCII characters, in double quotes or "
            f'without any of , ; " \\, and this one has {len(header)} characters. Send a UUID.'
        )
    return key


def basic_credentials(authorization: str) -> tuple[str, str]:
    """Return API key and secret. Raise BadCredentials if the header has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).decode().partition(":")
    except ValueError:  # not base64, not ASCII, not UTF-8
        user = colon = password = ""
    if scheme.lower() != "basic" or not colon:
        raise BadCredentials("Send the API key and its secret of this cloud as HTTP Basic credentials.")
    return user, password


def added_credentials(head: Head) -> tuple[str, str] | None:
    """Return API key and secret, or None without them. Raise BadCredentials for credentials of another form.

    Credentials from a web page do not count: a browser adds credentials that it remembers to the forms of any site.
    """
    authorization = head.get("authorization")
    return basic_credentials(authorization) if authorization and head.origin is None else None


def server_credentials(head: Head) -> tuple[str, str]:
    """Return API key and secret of a request from a server. Raise BadCredentials for a request from a web page."""
    if head.origin is not None:  # a browser adds credentials that it remembers to the forms of any site
        raise BadCredentials(
            "This request comes from a web page, which must not know the secret. Let your server call this address."
        )
    return basic_credentials(head.get("authorization"))
