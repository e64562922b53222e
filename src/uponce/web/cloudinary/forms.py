"""Forms: the events of an upload while it arrives, or the fields of a small call. All that is buffered has a limit."""

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from urllib.parse import unquote

from multipart import MultipartError, MultipartSegment, ParserLimitReached, PushMultipartParser, parse_options_header

from uponce.app.uploading.intake import FORM_BYTES, Event, Field, FileStart, FormBytes
from uponce.core.errors import DuplicateParameter, InvalidParameter, MalformedRequest, UnsupportedParameter
from uponce.core.policy import Limits
from uponce.web.cloudinary.datauri import TextFile
from uponce.web.cloudinary.text_bodies import check_name, json_pairs
from uponce.web.request import Body, Fields, Head, Request, parse_query
from uponce.web.whole_bodies import in_time

URLENCODED = "application/x-www-form-urlencoded"
_MAX_BOUNDARY = 200
_MAX_FIELDS_BYTES = 256 * 1024
_MAX_PART_HEADERS = 8
_MAX_PART_HEADER_BYTES = 8 * 1024
_PLAIN_ENCODINGS = {"", "7bit", "8bit", "binary"}
# By the charset in a part: how its field is read. Of Latin-1, only the letters that are the same in UTF-8 are accepted.
_CHARSETS = {
    **dict.fromkeys(("utf-8", "utf8", "us-ascii"), "utf-8"),
    **dict.fromkeys(("iso-8859-1", "latin1", "windows-1252"), "ascii"),
}
_BOUNDARY = re.compile(r";\s*boundary\*?[0-9]*\*?\s*=", re.IGNORECASE)
_OPTION = re.compile(r';\s*([^=;"\s]+)\s*=\s*("[^"]*"|[^;"]*)')
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


async def multipart_events(body: Body, content_type: str, limits: Limits) -> AsyncGenerator[Event, None]:
    """Yield the events of a multipart form. Raise MalformedRequest if it is cut off, too large or ambiguous."""
    try:
        with _parser(content_type) as parser:
            parts = _Parts(limits, parser.boundary)
            async for chunk in body.chunks():
                parts.check_start(chunk)
                for item in parser.parse(chunk):
                    for event in parts.take(item):
                        yield event
                parts.count(len(chunk))
                del chunk
                item = event = b""  # see Body.chunks
                if parts.overhead > FORM_BYTES:
                    yield FormBytes(parts.overhead)
    except ParserLimitReached:
        raise MalformedRequest(
            f"A part has more than {_MAX_PART_HEADERS} lines of headers, or a header of more than "
            f"{_MAX_PART_HEADER_BYTES} bytes. Send Content-Disposition and Content-Type only."
        ) from None
    except MultipartError as error:
        raise MalformedRequest(
            f"The multipart body is malformed: {error.args[0]}. {_CURES.get(error.args[0], _CURE)}"
        ) from None
    except UnicodeError:
        raise MalformedRequest(f"A header of a part is not UTF-8. {_CURES[_NOT_UTF8]}") from None


_FILE_HEADER = re.compile(rb'(Content-Disposition: form-data; name="file"; filename=")(.*)(")', re.IGNORECASE)
_LINE_BREAK, _NOT_UTF8 = "Invalid line break in segment header", "Segment header failed to decode"  # from the library
_CURES = {
    _LINE_BREAK: "If the name of the file has letters that are not ASCII, rename the file.",
    _NOT_UTF8: "Send UTF-8.",
}
_CURE = "Let your HTTP library write the form."


class _Parser(PushMultipartParser):  # type: ignore[misc]
    """Refuses every line break in a header. The library alone refuses it only if a packet happens to end there.

    It bounds the lines of a part too: the library reads a header again for each line that continues it.

    npm's SDK cuts each letter of a file's name to one byte. So only this name may be Latin-1, and loses its control
    characters. It is a label.
    """

    _lines = 0  # of the headers of this part

    def _on_segment_headerline(self, line: bytes) -> None:
        if b"\n" in line or b"\r" in line:
            raise MultipartError(_LINE_BREAK)
        self._lines = self._lines + 1 if self._segment_headerlist else 1
        if self._lines > _MAX_PART_HEADERS:
            raise ParserLimitReached("too many lines")
        if file := _FILE_HEADER.fullmatch(line):
            line = file[1] + _CONTROL.sub("", _decoded(file[2])).encode() + file[3]
        super()._on_segment_headerline(line)


def _decoded(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")


def _parser(content_type: str) -> PushMultipartParser:
    if len(_BOUNDARY.findall(content_type)) > 1:
        raise MalformedRequest("Header Content-Type has more than one boundary. Send one.")
    media_type, options = parse_options_header(content_type)
    boundary = options.get("boundary", "")
    if media_type != "multipart/form-data" or not 0 < len(boundary) <= _MAX_BOUNDARY:
        raise MalformedRequest(
            "Send the upload as multipart/form-data with a boundary, application/x-www-form-urlencoded or "
            "application/json, or PUT the bytes of the file."
        )
    # strict=True would refuse a body whose last "--" and CRLF arrive in different packets.
    return _Parser(boundary, max_header_size=_MAX_PART_HEADER_BYTES, max_header_count=_MAX_PART_HEADERS, strict=False)


class _Parts:
    """Turns items of the parser into events: collects fields, and passes the file on."""

    def __init__(self, limits: Limits, boundary: bytes) -> None:
        self._limits = limits
        self._delimiter = b"\r\n--" + boundary
        self._start = b""
        self.overhead = self._parts = 0
        self._name, self._charset = "", "utf-8"
        self._value = bytearray()
        self._size = 0
        self._in_file = False
        self._text: TextFile | None = None  # for a part named file that has no filename

    def check_start(self, chunk: bytes) -> None:
        """Refuse text before the first boundary: no client sends it, and the parser judges it by packets."""
        missing = len(self._delimiter) - len(self._start)
        if missing > 0:
            self._start += chunk[:missing]
            allowed = (self._delimiter, self._delimiter[2:])
            if not any(start.startswith(self._start[: len(start)]) for start in allowed):
                raise MalformedRequest(
                    "The multipart body does not begin with the boundary of its Content-Type. Let your HTTP library "
                    "write that header."
                )

    def take(self, item: "MultipartSegment | bytearray | bytes | None") -> Iterator[Event]:
        if isinstance(item, MultipartSegment):
            yield from self._begin(item)
        elif item is None:
            yield from self._end()
        elif self._text is not None:
            yield from self._take_text(self._text, bytes(item))
        elif self._in_file:
            self.overhead -= len(item)
            yield item
        else:
            self._collect(bytes(item))

    def count(self, size: int) -> None:
        """Count bytes of the body. All bytes outside the file are overhead."""
        self.overhead += size
        if self.overhead > self._limits.max_form_bytes:
            raise MalformedRequest(
                f"The form has more than {self._limits.max_form_bytes} bytes besides the file. Send fewer fields."
            )

    def _begin(self, segment: MultipartSegment) -> Iterator[Event]:
        self._parts += 1
        if self._parts > self._limits.max_fields + 1:  # one part is the file
            raise MalformedRequest(
                f"The form has more than {self._limits.max_fields} fields besides the file. Send fewer fields."
            )
        self._name, filename = _checked_names(segment)
        self._value, self._size = bytearray(), 0
        is_file = self._name == "file"
        self._in_file = is_file and filename is not None
        self._text = TextFile() if is_file and filename is None else None
        if self._in_file:  # its charset describes its content
            yield FileStart(filename)
        else:
            self._charset = _checked_charset(segment)

    def _take_text(self, text: TextFile, data: bytes) -> Iterator[Event]:
        """Take a data URI as the file. A JSON object is the metadata that FilePond sends before the file."""
        if not self._in_file and not self._size:
            data = data.lstrip()
        if not data:
            return
        if not self._in_file and (self._size or data.startswith(b"{")):
            self._collect(data)
            return
        self._in_file = True
        self.overhead -= len(data)
        yield from text.feed(data)

    def _collect(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self._limits.max_field_bytes:
            raise InvalidParameter(
                f"Parameter {self._name[:100]} has more than {self._limits.max_field_bytes} bytes. Shorten it."
            )
        self._value += data

    def _end(self) -> Iterator[Event]:
        if self._text is not None:
            yield from self._end_text(self._text)
            return
        if self._in_file:
            self._in_file = False
            return
        try:
            yield Field(self._name, self._value.decode(self._charset))
        except UnicodeDecodeError:
            raise MalformedRequest(
                f"Parameter {self._name[:100]} is not UTF-8. Send UTF-8, and name no other charset."
            ) from None

    def _end_text(self, text: TextFile) -> Iterator[Event]:
        if not self._size:
            yield from text.finish()
        elif b"".join(self._value.split()) != b"{}":
            raise UnsupportedParameter(
                "Metadata of FilePond is not supported by this server yet. Remove the plugins that set it, or send "
                "parameter file once, with the bytes."
            )
        self._in_file, self._text = False, None


def _checked_names(segment: MultipartSegment) -> tuple[str, str | None]:
    """Return the name of the part, and the name of its file. That is None if the part is a field."""
    headers = [name for name, _ in segment.headerlist]
    if len(set(headers)) != len(headers):
        raise MalformedRequest("A part has the same header twice. Send each header once.")
    if any(_CONTROL.search(value) for _, value in segment.headerlist):
        raise MalformedRequest("A header of a part contains a control character. Remove it.")
    if segment.disposition != "form-data" or not segment.name:
        raise MalformedRequest("A part has no name. Every part needs Content-Disposition: form-data with a name.")
    if segment.header("Content-Transfer-Encoding", "").lower() not in _PLAIN_ENCODINGS:
        raise MalformedRequest("A part has a Content-Transfer-Encoding. Send its bytes as they are.")
    if segment.name == "file[]":
        raise InvalidParameter("Invalid file parameter. Make sure your file parameter does not include '[]'")
    filename = _filename(segment)
    if segment.name != "file" and filename is not None:
        raise DuplicateParameter(f"Part {segment.name[:100]} is a file. Send one file, in the part named file.")
    return segment.name, filename


def _filename(segment: MultipartSegment) -> str | None:
    """Return `filename*` (RFC 8187) if it can be read, else `filename`. Return None without both."""
    options = {name.lower(): value for name, value in _OPTION.findall(segment.header("Content-Disposition"))}
    charset, _, rest = options.get("filename*", "").strip('" ').partition("'")
    escaped = rest.partition("'")[2]
    try:
        filename = unquote(escaped, errors="strict") if charset.lower() == "utf-8" else ""
    except UnicodeDecodeError:
        filename = ""
    return filename if filename and not _CONTROL.search(filename) else segment.filename


def _checked_charset(segment: MultipartSegment) -> str:
    charset = segment.charset or "utf-8"
    if charset.lower() not in _CHARSETS:
        raise MalformedRequest(f"A part is in charset {charset[:40]}. Send UTF-8.")
    return _CHARSETS[charset.lower()]


async def body_fields(request: Request, limits: Limits) -> Fields:
    """Return the fields of a small form of either kind, or of flat JSON, without a file. Raise as `in_time` does."""
    return await in_time(request, _body_fields(request.head, request.body, limits))


async def small_body(request: Request) -> bytes:
    """Return the body of a small request unchanged. `body_fields` may follow. Raise errors as it does."""
    return await in_time(request, request.body.keep(_MAX_FIELDS_BYTES))


async def _body_fields(head: Head, body: Body, limits: Limits) -> Fields:
    content_type = head.get("content-type")
    media_type = media_type_of(content_type)
    if media_type == "multipart/form-data":
        return await _form_fields(body, content_type, limits) if await body.first() else ()
    data = await body.read(_MAX_FIELDS_BYTES)
    if not data:
        return ()
    if media_type == URLENCODED:
        check_name(data.partition(b"=")[0])
        return parse_query(data, limits)
    if media_type != "application/json":
        raise MalformedRequest(
            "Send the fields as multipart/form-data, application/x-www-form-urlencoded or application/json."
        )
    return json_pairs(data, limits)


async def _form_fields(body: Body, content_type: str, limits: Limits) -> Fields:
    fields: list[tuple[str, str]] = []
    async with aclosing(multipart_events(body, content_type, limits)) as events:
        async for event in events:
            match event:
                case Field(name, value):
                    fields.append((name, value))
                case FormBytes(size):
                    body.hold(size)
                case _:
                    raise InvalidParameter("Parameter file is for uploads only. Send this request without it.")
    return tuple(fields)


def media_type_of(content_type: str) -> str:
    """Return the media type. A body without a type is urlencoded: SDKs of PHP and Go send such bodies."""
    return content_type.partition(";")[0].strip().lower() if content_type else URLENCODED
