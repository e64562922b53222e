"""One upload, as a form, as JSON, or as the bytes of the file. The same for one chunk of a file.

An ordinary form of a small file is read in one step once all of it has arrived. Any other body is read as it arrives.

Cloudinary's chunked protocol has two headers. `X-Unique-Upload-Id` is the client's name for the upload, equal on all
chunks. `Content-Range: bytes a-b/total` names the bytes of this chunk. While the client does not know the total, the
total is `-1`, `*` or missing.

`Idempotency-Key` (IETF draft of that name) lets a client ask for a lost answer again.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from uponce.app.authorise import UploadRequest
from uponce.app.services import Services
from uponce.app.uploading.chunks import upload_chunk
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.app.uploading.pipeline import Arrival, MustStream, Pipeline, Uploaded
from uponce.app.uploading.streamed import upload as upload_events
from uponce.app.uploading.streamed import upload_whole
from uponce.core.errors import (
    BadCredentials,
    EmptyFile,
    InvalidParameter,
    MalformedRequest,
    StaleRequest,
    UnsupportedParameter,
    shown,
)
from uponce.core.policy import Limits
from uponce.core.relaying import Forwarded
from uponce.core.series import Chunk
from uponce.core.spans import Span
from uponce.core.values import ResourceType
from uponce.web.cloudinary.answers import Bases, bases_of, chunk_answer, note_outcome, upload_answer
from uponce.web.cloudinary.calls import missing
from uponce.web.cloudinary.forms import URLENCODED, media_type_of, multipart_events
from uponce.web.cloudinary.text_bodies import text_events
from uponce.web.request import Body, Fields, Head, Request, check_encoding
from uponce.web.response import REPLAYED, Response, forwarded_response, json_response

MAX_KEY_LENGTH = 255

_VISIBLE = re.compile(r"[!-~]+")
# A structured field's string (RFC 9651 §3.3.3), where only two characters are escaped. Or, as many clients send it, a
# text without quotes and without any character of a string, a list or a parameter.
_FORMS = re.compile(r'"(?P<quoted>(?:[^"\\]|\\["\\])*)"|(?P<bare>[^",;\\]+)')
_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})(?:/(-1|\*|[0-9]{1,18}))?", re.ASCII)
_EMPTY = re.compile(r"bytes 0--1/.*", re.ASCII)  # what Node sends for a file without bytes
# What .NET's SDK sends in place of Content-Range for chunks of uneven sizes.
_PART_NUMBERS = ("x-upload-part-number", "x-upload-total-parts")
_UPLOAD_ID = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)


async def upload(services: Services, pipeline: Pipeline, request: Request) -> Response:
    """Store the upload of `…/upload` or `…/upload_chunked`, and return its answer."""
    head, limits = request.head, services.limits
    chunk = read_chunk(head)
    check_encoding(head)
    bases = bases_of(request)
    frame = _frame(request, limits)
    request.note_fields(frame.fields)
    whole = chunk is None and pipeline.is_for(frame.cloud)
    arrival = await _arrival(services, request, frame) if whole else None
    uploaded = None if arrival is None else await _upload_arrival(services, pipeline, arrival)
    if uploaded is not None:
        return _response(request, uploaded, bases)
    del arrival  # its bytes would stay in memory while they are streamed
    size = chunk if isinstance(chunk, int) else None
    async with aclosing(_watched(request, _events(request, limits), size)) as events:
        if isinstance(chunk, tuple):
            outcome = await upload_chunk(services, frame, *chunk, events)
            note_outcome(request, outcome)
            return json_response(chunk_answer(outcome, bases))
        stored = await upload_events(services, frame, events)
        pipeline.learn(frame.cloud, stored)
        return _response(request, stored, bases, is_chunk=chunk is not None and bool(head.get("x-unique-upload-id")))


def _frame(request: Request, limits: Limits) -> UploadRequest:
    """Return everything that the request says before its body."""
    head, fields = request.head, request.query(limits)
    if any(name == "file" for name, _ in fields):
        raise InvalidParameter("Parameter file must be in the body, not in the query.")
    return UploadRequest(
        cloud=request.params["cloud"],
        requested=_requested(request),
        fields=fields,
        origin=head.origin,
        caller=request.caller,
        idempotency_key=read_idempotency_key(head.headers.get("idempotency-key")),
        credentials=_credentials(head),
        scripted=_is_scripted(head),
        length=_length(head),
        bare=request.method == "PUT",
    )


async def _arrival(services: Services, request: Request, frame: UploadRequest) -> Arrival | None:
    """Return an ordinary small upload that has arrived whole. Return None for one to read while it arrives."""
    if request.method != "POST" or frame.credentials is not None:
        return None
    limits, body = services.limits, request.body
    first = await body.first()
    if not body.complete or len(first) > limits.small_body_bytes:
        return None
    form = read_whole_form(first, request.head.get("content-type"), limits)
    if form is None or (form.late and not _is_signed_late(form, frame, limits)):
        return None
    fields = form.fields + form.late
    frame = frame.narrowed({name.removesuffix("[]"): value for name, value in frame.fields + fields})
    facts = services.read_ordinary(form.file, frame.requested, limits)
    if facts is None:
        return None
    request.note_fields(fields)
    return Arrival(frame, frame.fields + fields, form.filename, form.file, facts)


@dataclass(frozen=True, slots=True)
class WholeForm:
    """A multipart form that has arrived whole: the fields before its file, the file, and the `late` fields."""

    fields: Fields
    filename: str
    file: memoryview
    late: Fields


_PLAIN_TYPE = re.compile(r"multipart/form-data; ?boundary=([A-Za-z0-9'+_.-]{1,70})")
_PLAIN_PART = re.compile(
    rb'\r\nContent-Disposition: form-data; name="([^"\\%\x00-\x1f\x7f]{1,200})"'
    rb'(?:; filename="([^"\\%\x00-\x1f\x7f]{1,255})")?(?:\r\nContent-Type: [A-Za-z0-9/+.-]{1,100})?\r\n\r\n',
    re.IGNORECASE,
)


_FILES = (b"file", b"file[]")


def read_whole_form(body: bytes, content_type: str, limits: Limits) -> WholeForm | None:
    """Return a form with one file in its ordinary spelling. Return None for any other form.

    `multipart_events` reads or refuses the other forms. If both read a form, they read the same.
    """
    plain = _PLAIN_TYPE.fullmatch(content_type)
    try:
        return None if plain is None else _whole_form(body, b"\r\n--" + plain[1].encode(), limits)
    except ValueError:  # of the spelling, or of text that is not UTF-8
        return None


def _whole_form(body: bytes, delimiter: bytes, limits: Limits) -> WholeForm:
    """Return the form. Raise ValueError if the body has anything else."""
    fields: list[tuple[str, str]] = []
    file, filename, place, at = None, "", 0, len(delimiter) - 2
    if not body.startswith(delimiter[2:]):
        raise ValueError
    while part := _PLAIN_PART.match(body, at):
        start, (name, sent) = part.end(), part.groups()
        end = body.index(delimiter, start)
        at = end + len(delimiter)
        if sent is None:
            if name in _FILES or end - start > limits.max_field_bytes or len(fields) == limits.max_fields:
                raise ValueError
            fields.append((name.decode(), body[start:end].decode()))
        elif name == b"file" and file is None:
            place, filename, file = len(fields), sent.decode(), memoryview(body)[start:end]
        else:
            raise ValueError
    if body[at:] not in (b"--\r\n", b"--") or file is None or len(body) - len(file) > limits.max_form_bytes:
        raise ValueError
    return WholeForm(tuple(fields[:place]), filename, file, tuple(fields[place:]))


def _is_signed_late(form: WholeForm, frame: UploadRequest, limits: Limits) -> bool:
    """Return whether no field could be verified before the file. Then fields after the file may be signed too."""
    is_early = any(name == "signature" for name, _ in frame.fields + form.fields)
    return not is_early and len(form.file) <= limits.max_unverified_bytes


async def _upload_arrival(services: Services, pipeline: Pipeline, arrival: Arrival) -> Uploaded | Forwarded | None:
    """Return the upload. Return None to read a stream: a stale signature may have an answer, and see MustStream."""
    try:
        return await (upload_whole(services, arrival) if services.put_group is None else pipeline.upload(arrival))
    except MustStream:
        return None
    except StaleRequest:
        if arrival.request.idempotency_key is None:
            raise
        return None


def _response(request: Request, outcome: Uploaded | Forwarded, bases: Bases, *, is_chunk: bool = False) -> Response:
    """Return the answer. It has `done` for a client that sent the file as its only chunk."""
    note_outcome(request, outcome)
    again = (REPLAYED,) if outcome.replayed else ()
    if is_chunk:
        return json_response(chunk_answer(outcome, bases), headers=again)
    if isinstance(outcome, Forwarded):
        return forwarded_response(outcome.status, outcome.body, outcome.headers, replayed=outcome.replayed)
    return json_response(upload_answer(outcome, bases), headers=again)


def _events(request: Request, limits: Limits) -> AsyncGenerator[Event, None]:
    content_type = request.head.get("content-type")
    media_type = media_type_of(content_type)
    if request.method == "PUT":
        if media_type == "multipart/form-data":
            raise MalformedRequest(
                "A PUT brings the file itself, not a form. PUT the bytes of the file, or POST the form."
            )
        return _raw_events(request.body, _length(request.head))
    if media_type in (URLENCODED, "application/json"):
        return text_events(request.body, media_type != URLENCODED, limits)
    return multipart_events(request.body, content_type, limits)


async def _raw_events(body: Body, size: int | None) -> AsyncGenerator[Event, None]:
    """Yield the events of a body that is the file itself."""
    yield FileStart(None, size)
    async for chunk in body.chunks():
        yield chunk
        del chunk


async def _watched(
    request: Request, events: AsyncGenerator[Event, None], size: int | None
) -> AsyncGenerator[Event, None]:
    """Yield the events of an upload, and note the API key and the public_id among its fields.

    Raise MalformedRequest if a size is given and the file has not as many bytes.
    """
    arrived = 0
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Field):
                request.note_fields([(event.name, event.value)])
            elif isinstance(event, bytes | bytearray):
                arrived += len(event)
            yield event
            del event
    if size is not None and arrived != size:
        raise MalformedRequest(
            f"The file has {arrived} bytes, but its Content-Range gives {size}. Send the file again."
        )


def _credentials(head: Head) -> tuple[str, str] | None:
    """Return HTTP Basic credentials. They count if the fields have no signature."""
    try:
        return head.added_credentials()
    except BadCredentials:
        return "", ""  # wrong for every key, so the refusal names HTTP Basic


def _is_scripted(head: Head) -> bool:
    """Return whether a script or program reads the answer: no browser shows it in place of a page.

    jQuery sets the first header, fetch in browsers the second one. A browser that posts a form accepts HTML. It omits
    the second header if it is old, or if the URL is not HTTPS.
    """
    mode = head.get("sec-fetch-mode")
    if mode in ("cors", "same-origin") or head.get("x-requested-with") == "XMLHttpRequest":
        return True
    return not mode and "text/html" not in head.get("accept")


def _length(head: Head) -> int | None:
    length = head.get("content-length")
    return int(length) if length.isdecimal() else None


def _requested(request: Request) -> ResourceType | None:
    resource_type = request.params.get("resource_type", "auto")
    if resource_type == "auto":
        return None
    try:
        return ResourceType(resource_type)
    except ValueError:
        raise missing(request.method, request.path) from None


def read_chunk(head: Head) -> tuple[str, Chunk] | int | None:
    """Return the client's name for the whole upload, and the chunk.

    For a request with a whole file, return its size if Content-Range gives one, else None.

    Raise UnsupportedParameter for a chunk that has a number in place of its byte range.
    """
    upload_id, content_range = head.get("x-unique-upload-id"), head.get("content-range")
    if not content_range:
        if any(name in head.headers for name in _PART_NUMBERS):
            raise UnsupportedParameter(
                "Chunks that have X-Upload-Part-Number or X-Upload-Total-Parts and no Content-Range are not supported "
                "by this server yet. Send Content-Range with each chunk. In the .NET SDK, omit PartNumber and "
                "TotalParts."
            )
        return None
    chunk = _parse_range(content_range)
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
    return upload_id, chunk


def _parse_range(content_range: str) -> Chunk:
    if _EMPTY.fullmatch(content_range):
        raise EmptyFile("Empty file. Send at least one byte.")
    match = _RANGE.fullmatch(content_range)
    if match is None:
        raise _malformed_range(content_range, "write `bytes 0-19999999/50000000`, with `-1` for an unknown total")
    first, last = int(match[1]), int(match[2])
    total = None if match[3] in (None, "-1", "*") else int(match[3])
    if last + 1 == first == total:  # how .NET's SDK ends a stream that has no byte left for another chunk
        return Chunk(Span(first, first), total)
    if last < first:
        raise _malformed_range(content_range, "the last byte precedes the first one")
    if total is not None and last >= total:
        raise _malformed_range(content_range, "the last byte is beyond the total")
    return Chunk(Span(first, last + 1), total)


def _malformed_range(content_range: str, why: str) -> MalformedRequest:
    return MalformedRequest(f"Header Content-Range '{shown(content_range)}' is not valid: {why}.")


def read_idempotency_key(header: str | None) -> str | None:
    """Return the key, 1 to 255 visible ASCII characters, or None without the header. `"abc"` and `abc` are one key."""
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
