"""Fields and a data URI as urlencoded text, or as one flat JSON object.

Uploads stream: the text of `file` is decoded while it arrives, and only the other fields are kept in memory.
"""

import json
import re
from collections.abc import AsyncGenerator, Iterable, Iterator
from typing import Any

from uponce.app.uploading.intake import FORM_BYTES, Event, Field, FormBytes
from uponce.core.errors import InvalidParameter, MalformedRequest
from uponce.core.policy import Limits
from uponce.web.cloudinary.datauri import TextFile
from uponce.web.request import Body, Fields, percent_decoded

# For a body without the value of `file`. It bounds the time that a body holds the event loop, so it is no setting.
MAX_TEXT_BYTES = 256 * 1024
# Bounds the time of the parser. Pairs are counted after it: 256 KiB of pairs took 40 ms, with this limit 5 ms.
_MAX_COMMAS = 4096
_NOT_IN_NAMES = re.compile(rb'[\n"{]')


async def text_events(body: Body, is_json: bool, limits: Limits) -> AsyncGenerator[Event, None]:
    """Yield the events of an upload as application/json, or as application/x-www-form-urlencoded."""
    decoder = _Json(limits) if is_json else _Urlencoded(limits)
    async for chunk in body.chunks():
        for event in decoder.feed(bytes(chunk)):
            yield event
        del chunk
        event = b""  # see Body.chunks
        if decoder.held > FORM_BYTES:  # bytes that have arrived and are not the file's
            yield FormBytes(decoder.held)
    for event in decoder.finish():
        yield event


def _text_file(value: bytes) -> Iterator[Event]:
    file = TextFile()
    yield from file.feed(value)
    yield from file.finish()


def _check_size(size: int) -> None:
    if size > MAX_TEXT_BYTES:
        raise MalformedRequest(
            f"The fields of the body have more than {MAX_TEXT_BYTES} bytes, not counting file. Send fewer or shorter "
            "fields."
        )


def check_name(name: bytes) -> None:
    """Raise MalformedRequest for an encoded name that begins a form or JSON, which was sent with a wrong type."""
    if _NOT_IN_NAMES.search(name):
        raise MalformedRequest(
            "The body is not urlencoded: a name has a line break, a quote or a brace. Send header Content-Type: "
            "multipart/form-data and its boundary with a form, or application/json with JSON."
        )


def _field(name: str, value: str) -> Field:
    if name == "file[]":
        raise InvalidParameter("Invalid file parameter. Make sure your file parameter does not include '[]'")
    return Field(name, value)


class _Urlencoded:
    _half_an_escape = re.compile(rb"%[0-9A-Fa-f]?\Z")

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_fields
        self._rest = bytearray()
        self._pairs = self._size = 0
        self._file: TextFile | None = None
        self._in_field = False  # the name of the unfinished pair is not `file`

    @property
    def held(self) -> int:
        return self._size + len(self._rest)

    def feed(self, data: bytes) -> Iterator[Event]:
        *ended, last = data.split(b"&")
        for text in ended:
            yield from self._end(text)
        self._rest += last
        yield from self._go_on()

    def finish(self) -> Iterator[Event]:
        yield from self._end(b"")

    def _go_on(self) -> Iterator[Event]:
        """Take the beginning of a pair whose end has not arrived. Each packet comes here, but reads a name once."""
        if self._file is None and not self._in_field and b"=" in self._rest:
            name, _, value = self._rest.partition(b"=")
            self._in_field = _name(bytes(name)) != "file"
            if not self._in_field:
                self._file, self._rest = TextFile(), value
        if self._file is None:
            _check_size(self._size + len(self._rest))
            return
        half = self._half_an_escape.search(self._rest)
        at = half.start() if half else len(self._rest)
        whole = bytes(self._rest[:at])
        del self._rest[:at]
        yield from self._file.feed(_unquoted(whole))

    def _end(self, last: bytes) -> Iterator[Event]:
        """Take the last bytes of a pair."""
        text, self._rest = bytes(self._rest + last), bytearray()
        file, self._file, self._in_field = self._file, None, False
        if file is not None:
            yield from file.feed(_unquoted(text))
            yield from file.finish()
            return
        self._count(text)
        name, equals, value = text.partition(b"=")
        if not equals and text:
            raise MalformedRequest("The body is not urlencoded: a field has no `=`. Send name=value&name=value.")
        if equals and _name(name) == "file":
            yield from _text_file(_unquoted(value))  # a `+` is a base64 digit here, not a space
        elif equals:
            yield _field(_name(name), _decoded(value))

    def _count(self, text: bytes) -> None:
        self._pairs += 1
        self._size += len(text)
        _check_size(self._size)
        if self._pairs > self._most:
            raise MalformedRequest(f"The body has more than {self._most} fields, the limit. Send fewer fields.")


def _name(text: bytes) -> str:
    check_name(text)
    return _decoded(text)


def _decoded(text: bytes) -> str:
    try:
        return _unquoted(text.replace(b"+", b" ")).decode()
    except UnicodeDecodeError:
        raise _not_percent_encoded() from None


def _unquoted(text: bytes) -> bytes:
    try:
        return percent_decoded(text)
    except UnicodeError:
        raise _not_percent_encoded() from None


def _not_percent_encoded() -> MalformedRequest:
    return MalformedRequest("The body is not percent-encoded UTF-8. Encode it so.")


class _Json:
    """Cuts the value of `file` out of the object, and parses the text before and after that value as two objects."""

    # Outside of strings only a key can follow `{` or `,`, and inside of strings there is no unescaped quote.
    _key_of_file = re.compile(rb'([{,])\s{0,100}"file"\s{0,100}:\s{0,100}"')
    _key_room = 320
    _text = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)
    _longest_escape = 6

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._size = 0
        self._head = b""
        self._file: TextFile | None = None
        self._tail: bytearray | None = None

    @property
    def held(self) -> int:
        return self._size + len(self._head) + len(self._tail or b"")

    def feed(self, data: bytes) -> Iterator[Event]:
        if self._tail is not None:
            self._tail += data
            _check_size(len(self._tail))
        elif self._file is not None:
            yield from self._take_text(self._file, data)
        else:
            yield from self._search(data)

    def finish(self) -> Iterator[Event]:
        if self._file is None:
            yield from self._fields(self._head)
            return
        tail = bytes(self._tail or b"").lstrip()
        if tail[:1] == b"}":
            yield from self._fields(b"{" + tail)
        elif tail[:1] == b",":
            yield from self._fields(b"{" + tail[1:])
        else:
            raise _not_flat()

    def _search(self, data: bytes) -> Iterator[Event]:
        """Keep the text before the value of `file`."""
        searched = max(0, len(self._head) - self._key_room)
        self._head += data
        match = self._key_of_file.search(self._head, searched)
        _check_size(match.start() if match else len(self._head))
        if match is None:
            return
        before, behind = self._head[: match.start()], self._head[match.end() :]
        self._size = len(before)
        yield from self._fields(before + (b"{}" if match[1] == b"{" else b"}"))
        self._head, self._file = b"", TextFile()
        yield from self._take_text(self._file, behind)

    def _take_text(self, file: TextFile, data: bytes) -> Iterator[Event]:
        data = self._head + data
        end = self._text.match(data).end()  # type: ignore[union-attr]  # it matches no text, too
        ended = data[end : end + 1] == b'"'
        if not ended:  # an escape at the end may be half there
            escape = data.rfind(b"\\", max(0, len(data) - self._longest_escape))
            end = len(data) if escape < 0 else escape
        yield from file.feed(_unescaped(data[:end]))
        self._head = data[end:]
        if ended:
            yield from file.finish()
            self._tail = bytearray(data[end + 1 :])
            _check_size(len(self._tail))

    def _fields(self, data: bytes) -> Iterator[Event]:
        for name, value in json_pairs(data, self._limits):
            if name == "file":
                yield from _text_file(_encoded(value))
            else:
                yield _field(name, value)


def _unescaped(text: bytes) -> bytes:
    if b"\\" not in text:
        return text
    try:
        return _encoded(json.loads(b'"' + text + b'"'))
    except ValueError:
        raise _not_flat() from None


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:  # JSON can escape half of a character
        raise _not_flat() from None


class _Object(tuple[tuple[str, Any], ...]):
    """The pairs of a JSON object, in order and with repeated names."""


def json_pairs(data: bytes, limits: Limits) -> Fields:
    """Return the fields of one flat JSON object, as SDKs sign them: true and false as these words, numbers as written.

    A null counts as not sent. An array becomes repeated fields `name[]`. Raise MalformedRequest for anything else.
    """
    commas = data.count(b",")
    if commas > _MAX_COMMAS:
        raise MalformedRequest(f"The body has {commas} commas, the limit is {_MAX_COMMAS}. Send fewer fields.")
    try:
        parsed = json.loads(
            data.decode(), object_pairs_hook=_Object, parse_int=str, parse_float=str, parse_constant=_refuse
        )
    except (ValueError, RecursionError):
        raise _not_flat() from None
    if not isinstance(parsed, _Object):
        raise _not_flat()
    pairs = tuple(pair for name, value in parsed for pair in _texts(name, value))
    if len(pairs) > limits.max_fields:
        raise MalformedRequest(
            f"The body has {len(pairs)} fields and list items, the limit is {limits.max_fields}. Send fewer of them."
        )
    return pairs


def _texts(name: str, value: object) -> Iterable[tuple[str, str]]:
    if value is None:
        return
    if isinstance(value, list):
        for item in value or [""]:  # an empty list is an empty parameter: then its name is checked too
            yield f"{name}[]", _text(item)
    else:
        yield name, _text(value)


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return value
    raise _not_flat()


def _refuse(constant: str) -> Any:
    raise _not_flat()


def _not_flat() -> MalformedRequest:
    return MalformedRequest(
        "The body is not one flat JSON object of texts, numbers, true, false, null and lists of these."
    )
