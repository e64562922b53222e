"""Limits as data, and the checks of a file against them."""

from dataclasses import dataclass, field
from functools import partial

from uponce.core.errors import ContentMismatch, EmptyFile, FileTooLarge, FormatNotAllowed, MediaTooLarge
from uponce.core.formats import FORMATS, canonical_format
from uponce.core.naming import split_filename
from uponce.core.parameters import UploadSpec
from uponce.core.values import Digest, MediaFacts, ResourceType

MIB = 1024 * 1024
GIB = 1024 * MIB
_DOCUMENTS = frozenset(name for name, format_ in FORMATS.items() if format_.is_document)


# The largest values of settings. Greater ones would fail later, at a request: in a date, a timer, a number of C.
MOST_SECONDS = 10 * 365 * 86400
MOST_BYTES = 2**53
MOST_NUMBER = 2**31 - 1


def _limit(default: int, meaning: str, *, most: int, least: int = 1, noted: bool = False) -> int:
    """Return a field that is also a setting.

    The reference page prints `meaning`; `least` and `most` are the smallest and largest allowed value. If it is
    `noted`, a server writes its value to the database, for commands in shells without its settings.
    """
    return field(default=default, metadata={"meaning": meaning, "least": least, "most": most, "noted": noted})


_seconds = partial(_limit, most=MOST_SECONDS)
_bytes = partial(_limit, most=MOST_BYTES)
_number = partial(_limit, most=MOST_NUMBER)
_pixels = partial(_limit, most=MOST_BYTES)  # of films, FFmpeg reads a number of C


@dataclass(frozen=True, slots=True)
class Limits:
    """What one upload may cost. Bytes, pixels (width × height), frames, seconds."""

    max_image_bytes: int = _bytes(100 * MIB, "Maximum size of an image, in bytes.")
    max_video_bytes: int = _bytes(5 * GIB, "Maximum size of a video or sound, in bytes.")
    max_raw_bytes: int = _bytes(5 * GIB, "Maximum size of any other file, in bytes.")
    max_unverified_bytes: int = _bytes(
        100 * MIB, "Maximum size, in bytes, of a file that arrives before the fields that sign it."
    )
    unverified_seconds: int = _seconds(120, "Seconds that an upload may take whose file comes before its fields.")
    max_unverified_uploads: int = _number(
        32,
        "Maximum number of uploads at a time, in one process, whose file comes before the fields. When there are more, "
        "the slowest one ends.",
    )
    max_unverified_per_address: int = _number(
        16,
        "Maximum number of such uploads of one client address (IPv6: one /64 network). When there are more, the "
        "slowest one of this address ends.",
    )
    max_unverified_form_bytes: int = _bytes(
        16 * MIB,
        "Maximum size, in bytes, of all forms together that arrive in one process and have no verified signature yet. "
        "Files and forms up to 4 KiB do not count. When there are more bytes, the oldest form ends. In memory, a byte "
        "may take four.",
    )
    least_rate: int = _bytes(
        4096,
        "Minimum rate, in bytes per second, of an upload whose file comes before the fields. A slower unfinished "
        "upload in several requests makes room for a new one.",
    )
    rate_seconds: int = _seconds(10, "Seconds from the start of an upload before its rate counts.")
    max_image_pixels: int = _pixels(100_000_000, "Maximum number of pixels (width × height) of an image.")
    max_video_pixels: int = _number(40_000_000, "Maximum number of pixels (width × height) of a video.")
    max_frames: int = _number(
        2_000,
        "Maximum number of frames of an animation, or of pages of a TIFF. Of an AVIF only the first frame counts.",
    )
    max_samples: int = _number(5_000_000, "Maximum number of frames and sound samples in the index of an MP4 or MOV.")
    max_total_pixels: int = _pixels(500_000_000, "Maximum number of pixels (width × height × frames) of an animation.")
    max_upload_seconds: int = _seconds(
        3600, "Maximum time of an upload, in seconds. Set the same on all servers of one database.", noted=True
    )
    idle_seconds: int = _seconds(30, "Seconds without a byte after which uponce ends an upload.")
    attempts_per_grant: int = _number(
        4,
        "Maximum number of uploads with one signature at a time in one process. A signature for several uses may have "
        "one more for each further use. When there are more, the slowest one ends.",
    )
    refusals_per_grant: int = _number(
        20,
        "Maximum number of audit rows of refused uses of one signature. Further refusals are counted in one more row.",
    )
    min_chunk_bytes: int = _bytes(
        5 * MIB, "Minimum size of a chunk, in bytes. The last chunk of an upload may be smaller."
    )
    series_seconds: int = _seconds(
        86400, "Seconds in which an upload in several requests must be complete.", noted=True
    )
    empty_series_seconds: int = _seconds(
        300, "Seconds after which an upload in several requests ends if no byte arrived.", noted=True
    )
    max_series: int = _number(
        10_000,
        "Maximum number of unfinished uploads in several requests. When there are more, one that is too slow ends, "
        "or one whose completion failed.",
    )
    max_series_per_key: int = _number(
        1_000, "Maximum number of unfinished uploads in several requests, of one API key."
    )
    signatures_per_series: int = _limit(
        2_048,
        "Maximum number of signatures of one unfinished upload in several requests. SDKs make one for each chunk.",
        most=10_000,  # PostgreSQL holds a lock for each when they are spent, in a table of about 14,000 by default
    )
    parts_per_series: int = _number(
        10_000,
        "Maximum number of parts of one unfinished upload in several requests, with a bucket. Each request makes one, "
        "and one more for each `UPONCE_RECORD_BYTES`.",
    )
    arriving_per_series: int = _number(
        32,
        "Maximum number of chunks of one unfinished upload that arrive at a time in one process. When there are more, "
        "the slowest one ends.",
    )
    waiting_per_series: int = _number(
        16,
        "Maximum number of requests in one process that wait for an unfinished upload, while another request sends or "
        "checks it.",
    )
    takeover_seconds: int = _seconds(10, "Seconds that a request waits for an older request of the same upload to end.")
    record_bytes: int = _bytes(
        32 * MIB, "uponce records the bytes of a tus request each time that so many have arrived."
    )
    small_body_bytes: int = _bytes(
        256 * 1024,
        "Maximum size, in bytes, of a form that is gathered in memory, and stored with others or sent to a bucket. "
        "0 turns this off.",
        least=0,
    )
    relay_fence: int = _seconds(
        300,
        "Seconds that the signature lives which a relay makes for its upstream. No upload may take longer there after "
        "its last byte was sent.",
    )
    relay_answer: int = _seconds(
        300,
        "Seconds that a relay waits for the answer of its upstream after the last byte of a request. At most "
        "`UPONCE_RELAY_FENCE`.",
    )
    relay_processing: int = _seconds(
        600, "Seconds that an upstream may need to store an upload after it accepted the signature."
    )
    relay_chunk_bytes: int = _bytes(
        20_000_000, "Bytes of each chunk in which a relay passes a large file on.", least=5 * MIB
    )
    relay_whole_bytes: int = _bytes(100_000_000, "Maximum number of bytes that a relay passes on in one request.")
    max_fields: int = _number(
        128, "Maximum number of fields in the query of a request, in its body, and in its `Upload-Metadata`."
    )
    max_field_bytes: int = _bytes(64 * 1024, "Maximum size of one field of a multipart form, in bytes.")
    max_form_bytes: int = _bytes(MIB, "Maximum size of a multipart form without its file, in bytes.")
    max_head_bytes: int = _bytes(
        64 * 1024,
        "Approximate maximum size of a request's head (its first line and its headers), in bytes. uponce refuses a "
        "larger head with 431.",
    )
    max_headers: int = _number(128, "Maximum number of headers of a request. uponce refuses more with 431.")
    max_connections_per_address: int = _number(
        1_000,
        "Maximum number of connections of one address to one process. A new connection ends an idle one: the oldest. "
        "If all are busy, uponce refuses the new one. Behind a trusted proxy, the maximum number of running requests "
        "of one address.",
    )
    head_seconds: int = _seconds(10, "Seconds in which the head of a request must arrive. A slower head gets 408.")
    write_seconds: int = _seconds(
        30,
        "Seconds after which uponce closes a connection whose client reads nothing of its answer. It may take twice as "
        "long for the end of an answer.",
    )
    max_failed_credentials: int = _number(
        100,
        "Maximum number of requests with wrong credentials from one address in `UPONCE_FAILED_CREDENTIALS_SECONDS`. "
        "uponce answers further ones with 429. Correct credentials always pass. Each process counts for itself.",
    )
    failed_credentials_seconds: int = _seconds(60, "Seconds for which uponce counts wrong credentials of an address.")
    skew: int = _seconds(
        300,
        "Seconds by which a timestamp may be in the future. A fence, as of a restore, refuses timestamps up to this "
        "many seconds after it. If you raise the value later, the last fence grows too. A smaller value does not undo "
        "this.",
        least=0,
        noted=True,
    )

    def max_bytes(self, requested: ResourceType | None, spec: UploadSpec | None) -> int:
        """Return the most bytes that a file of unknown kind may have. `spec` is None before the first signed field."""
        by_kind = {
            ResourceType.IMAGE: self.max_image_bytes,
            ResourceType.VIDEO: self.max_video_bytes,
            ResourceType.RAW: self.max_raw_bytes,
        }
        limit = by_kind[requested] if requested else max(by_kind.values())
        if spec is None:
            return min(limit, self.max_unverified_bytes)
        return limit if spec.max_bytes is None else min(limit, spec.max_bytes)


def too_large(size: int, limit: int, *, is_whole: bool) -> FileTooLarge:
    """Return the refusal of a size. Both in bytes. With `is_whole` false, more bytes may follow."""
    return FileTooLarge(f"File size too large. Got {'' if is_whole else 'at least '}{size}. Maximum is {limit}.")


def refuse_size(size: int, limit: int, *, is_whole: bool = True) -> None:
    """Raise FileTooLarge if the size is above the limit. Both in bytes."""
    if size > limit:
        raise too_large(size, limit, is_whole=is_whole)


def judge_content(digest: Digest, requested: ResourceType | None, spec: UploadSpec, limits: Limits) -> None:
    """Raise a FileRefused for a file that is empty, too large or not the signed one. `requested` None is auto."""
    if digest.size == 0:
        raise EmptyFile("Empty file. Send at least one byte.")
    refuse_size(digest.size, limits.max_bytes(requested, spec))
    if spec.sha256 is not None and spec.sha256 != digest.sha256:
        raise ContentMismatch(
            f"The file's SHA-256 is {digest.sha256}, but the signature allows only {spec.sha256}. "
            "Send the file that was signed, or sign this one."
        )


def judge_media(facts: MediaFacts, digest: Digest, filename: str | None, spec: UploadSpec, limits: Limits) -> None:
    """Raise a FileRefused if the limits or the signed parameters do not allow the size, dimensions or format."""
    refuse_size(digest.size, limits.max_bytes(facts.kind, spec))
    judge_dimensions(facts, limits)
    if spec.allowed_formats is None:
        return
    # A filename never proves a format that uponce can read from the bytes. The resource type in the URL is not signed.
    # So a client could otherwise send any bytes as raw and call them x.png.
    signed = split_filename(spec.naming.filename_override or "")[1]
    named = canonical_format(signed or split_filename(filename or "")[1])
    actual = facts.format or (named if named not in FORMATS else None)
    if actual not in spec.allowed_formats:
        allowed = ", ".join(sorted(spec.allowed_formats))
        raise FormatNotAllowed(
            f"{facts.kind.capitalize()} file format {actual or 'unknown'} not allowed. Allowed: {allowed}."
        )


def judge_dimensions(facts: MediaFacts, limits: Limits) -> MediaFacts:
    """Return the facts. Raise MediaTooLarge if they promise more pixels or frames than the limits allow to decode."""
    pixels = (facts.width or 0) * (facts.height or 0)
    if facts.kind is ResourceType.VIDEO:
        _refuse("video frame size", pixels, limits.max_video_pixels, "pixels")
    elif facts.format not in _DOCUMENTS:
        frames = facts.pages or 1
        _refuse("image size", pixels, limits.max_image_pixels, "pixels")
        _refuse("number of frames", frames, limits.max_frames, "frames")
        if frames > 1:
            _refuse("area of all frames together", pixels * frames, limits.max_total_pixels, "pixels")
    return facts


def _refuse(what: str, value: int, limit: int, unit: str) -> None:
    if value > limit:
        raise MediaTooLarge(f"Maximum {what} is {limit} {unit}. Requested {value} {unit}.")
