"""One upload, as a form, as JSON, or as the bytes of the file; or one chunk of a file."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from uponce.app.services import Services
from uponce.app.uploading.chunks import NamedChunk, upload_chunk
from uponce.app.uploading.intake import Event, FileStart, UploadRequest
from uponce.app.uploading.pipeline import Arrival, GoesUpstream, Pipeline, Uploaded
from uponce.app.uploading.pipeline import upload as upload_events
from uponce.core.errors import BadCredentials, InvalidParameter, MalformedRequest, StaleRequest
from uponce.core.policy import Limits
from uponce.core.relaying import Forwarded
from uponce.core.values import ResourceType
from uponce.web.cloudinary.answers import Bases, bases_of, chunk_answer, upload_answer
from uponce.web.cloudinary.calls import missing
from uponce.web.cloudinary.forms import WholeForm, media_type_of, multipart_events, read_whole_form
from uponce.web.cloudinary.headers import added_credentials, read_chunk, read_idempotency_key
from uponce.web.cloudinary.text_bodies import json_events, urlencoded_events
from uponce.web.request import Body, Head, Request, check_encoding
from uponce.web.request_log import note_fields, note_outcome, noting
from uponce.web.response import REPLAYED, Response, forwarded_response, json_response


def group_pipeline(services: Services) -> Pipeline | None:
    """Return the pipeline of small uploads, or None if the store does not take small blobs in groups."""
    return None if services.group_store is None else Pipeline(services, services.group_store)


async def upload(services: Services, pipeline: Pipeline | None, request: Request) -> Response:
    """Store the upload of `/v1_1/<cloud>/[<image|video|raw|auto>/]upload`, and return its answer.

    `…/upload_chunked` is the same.
    """
    head, limits = request.head, services.limits
    chunk = read_chunk(head)
    check_encoding(head)
    bases = bases_of(request)
    frame = _frame(request, limits)
    note_fields(request, frame.fields)
    whole = pipeline is not None and chunk is None and pipeline.is_for(frame.cloud)
    arrival = await _arrival(services, request, frame) if whole else None
    uploaded = None if arrival is None or pipeline is None else await _upload_arrival(pipeline, arrival)
    if uploaded is not None:
        return _response(request, uploaded, bases)
    found = _events(request, limits)
    async with aclosing(noting(request, _sized(found, chunk) if isinstance(chunk, int) else found)) as events:
        if isinstance(chunk, NamedChunk):
            outcome = await upload_chunk(services, frame, chunk, events)
            note_outcome(request, outcome)
            return json_response(chunk_answer(outcome, bases))
        stored = await upload_events(services, frame, events)
        if pipeline is not None:
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
    """Return an ordinary small upload that has arrived whole.

    Return None for any other, which is read while it arrives.
    """
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
    if any(name == "callback" for name, _ in fields):
        return None
    facts = services.inspector.read_header(form.file, frame.requested)
    if facts is None:
        return None
    note_fields(request, fields)
    return Arrival(frame, frame.fields + fields, form.filename, form.file, facts)


def _is_signed_late(form: WholeForm, frame: UploadRequest, limits: Limits) -> bool:
    """Return whether no field could be verified before the file. Then fields after the file may be signed too."""
    is_early = any(name == "signature" for name, _ in frame.fields + form.fields)
    return not is_early and len(form.file) <= limits.max_unverified_bytes


async def _upload_arrival(pipeline: Pipeline, arrival: Arrival) -> Uploaded | None:
    """Return the upload, or None if it must be read as a stream.

    A stale signature may have a stored answer, and a cloud may have an upstream.
    """
    try:
        return await pipeline.upload(arrival)
    except GoesUpstream:
        return None
    except StaleRequest:
        if arrival.request.idempotency_key is None:
            raise
        return None


def _response(request: Request, outcome: Uploaded | Forwarded, bases: Bases, *, is_chunk: bool = False) -> Response:
    """Return the answer. It has `done` for a client that sent the file as its only chunk."""
    note_outcome(request, outcome)
    replayed = outcome.replayed if isinstance(outcome, Forwarded) else outcome.committed.replayed
    again = (REPLAYED,) if replayed else ()
    if is_chunk:
        return json_response(chunk_answer(outcome, bases), headers=again)
    if isinstance(outcome, Forwarded):
        return forwarded_response(outcome.status, outcome.body, outcome.headers, replayed=replayed)
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
    match media_type:
        case "application/x-www-form-urlencoded":
            return urlencoded_events(request.body, limits)
        case "application/json":
            return json_events(request.body, limits)
    return multipart_events(request.body, content_type, limits)


async def _raw_events(body: Body, size: int | None) -> AsyncGenerator[Event, None]:
    """Yield the events of a body that is the file itself."""
    yield FileStart(None, size)
    async for chunk in body.chunks():
        yield chunk


async def _sized(events: AsyncGenerator[Event, None], size: int) -> AsyncGenerator[Event, None]:
    """Yield the events. Raise MalformedRequest unless the file has `size` bytes."""
    arrived = 0
    async with aclosing(events):
        async for event in events:
            arrived += len(event) if isinstance(event, bytes | bytearray) else 0
            yield event
    if arrived != size:
        raise MalformedRequest(
            f"The file has {arrived} bytes, but its Content-Range gives {size}. Send the file again."
        )


def _credentials(head: Head) -> tuple[str, str] | None:
    """Return HTTP Basic credentials. They count if the fields have no signature."""
    try:
        return added_credentials(head)
    except BadCredentials:
        return "", ""  # wrong for every key, so the refusal names HTTP Basic


def _is_scripted(head: Head) -> bool:
    """Return whether a script reads the answer. jQuery sets the first header, fetch in browsers the second one."""
    return head.get("x-requested-with") == "XMLHttpRequest" or head.get("sec-fetch-mode") in ("cors", "same-origin")


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
