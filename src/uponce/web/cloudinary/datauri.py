"""`file` as text: decode a data URI while it arrives, and refuse remote URLs."""

import base64
import binascii
import re
from collections.abc import Iterator

from uponce.app.uploading.intake import Event, FileStart
from uponce.core.errors import InvalidParameter, UnsupportedParameter, shown

# The SDKs' own pattern: an optional media type, any parameters, then `;base64,`.
_HEAD = re.compile(rb"data:([\w.+-]+/[\w.+-]+)?(;[\w.-]+=[\w.-]+)*;base64,")
_MAX_HEAD = 1024
_REMOTE = (b"http://", b"https://", b"ftp://", b"s3://", b"gs://")
_STARTS = (b"data:", *_REMOTE)
_WHITESPACE = b"\r\n\t "


class TextFile:
    """Decodes the text of a `file` field, which may be cut at any place when it arrives."""

    def __init__(self) -> None:
        self._is_begun = False
        self._head: bytes | None = b""
        self._rest = b""
        self._padded = False

    def _begin(self) -> Iterator[Event]:
        if not self._is_begun:
            self._is_begun = True
            yield FileStart(None)

    def feed(self, text: bytes) -> Iterator[Event]:
        """Yield the bytes that can be decoded so far. Raise InvalidParameter or UnsupportedParameter for other text."""
        yield from self._begin()
        if self._head is not None:
            self._head += text
            match = _HEAD.match(self._head[:_MAX_HEAD])
            if match is None:
                self._refuse_unless_incomplete(self._head)
                return
            text, self._head = self._head[match.end() :], None
        digits = self._rest + text.translate(None, _WHITESPACE)
        whole = len(digits) - len(digits) % 4
        self._rest = digits[whole:]
        if whole:
            yield self._decoded(digits[:whole])

    def finish(self) -> Iterator[Event]:
        """Yield the rest at the end of the field."""
        yield from self._begin()
        if self._head is not None:
            raise _unsupported(self._head)
        if self._rest:
            yield self._decoded(self._rest + b"=" * (-len(self._rest) % 4))

    def _refuse_unless_incomplete(self, head: bytes) -> None:
        if head.startswith(_REMOTE):
            raise UnsupportedParameter(
                "Remote URLs as file are not supported by this server yet. Send the bytes of the file."
            )
        if len(head) >= _MAX_HEAD or not any(start.startswith(head[: len(start)]) for start in _STARTS):
            raise _unsupported(head)

    def _decoded(self, digits: bytes) -> bytes:
        """Return the bytes of whole quads. Nothing may follow a padded quad."""
        try:
            if self._padded:
                raise binascii.Error
            self._padded = digits.endswith(b"=")
            return base64.b64decode(digits, validate=True)
        except binascii.Error:
            raise InvalidParameter(
                "The data URI in parameter file is not valid base64. Encode the bytes with the standard alphabet."
            ) from None


def _unsupported(head: bytes) -> InvalidParameter:
    source = shown(head[:80].decode("ascii", "replace"))
    return InvalidParameter(f"Unsupported source URL: {source}. Send the bytes with a filename, or a data URI.")
