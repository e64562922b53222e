"""Every error uponce raises on purpose, as one tree.

UponceError
├── Refused                     the request's doing: nothing stored, nothing spent
│   ├── GrantRefused            the signature is genuine, and still not good (any more)
│   │   ├── SignatureUsed · SignatureInUse · SignatureRevoked · StaleRequest · FutureTimestamp
│   │   └── IdempotencyKeyReused
│   ├── AuthRefused             who or what was asked for does not check out
│   │   ├── UnknownCloud · UnknownApiKey · InvalidSignature · BadCredentials · BadToken · ScopeDenied
│   │   └── OriginMismatch · DeliveryDenied · TooManyFailures
│   ├── ParameterRefused        a parameter is wrong
│   │   ├── MissingParameter · InvalidParameter · DuplicateParameter · LateParameter
│   │   └── UnknownParameter · UnsupportedParameter
│   ├── FileRefused             the file is wrong
│   │   ├── FileTooLarge · EmptyFile · InvalidMedia · MediaTooLarge · FormatNotAllowed · ContentMismatch
│   ├── SeriesRefused           a part does not fit the series that it belongs to, which stays as it was
│   │   ├── ChunkConflict · ChunkTooSmall · ChunkInProgress · ChunkSuperseded · TooManySeries
│   │   └── OffsetConflict · ChecksumMismatch · SeriesComplete · SeriesExpired · SeriesGone
│   └── RequestRefused          the request as such is wrong
│       ├── MalformedRequest · RequestTooSlow · NotFound · UnsupportedCall · RangeNotSatisfiable
│       └── UnsupportedVersion · UnsupportedContentType
├── Unavailable                 the server's doing: nothing is spent, the same request may be sent again
│   ├── DatabaseUnavailable · OutcomeUnknown
│   └── StorageUnavailable · StorageFull · BlobCondemned · ServerBusy
└── SettingRefused              a setting would break a guarantee; the server does not start

An error carries a stable `code` (for programs), a public sentence (for people, it says what to do next) and
a private `detail` (for the log only). HTTP statuses are not known here: web/errors.py has the one table.
"""

from typing import ClassVar


class UponceError(Exception):
    """Base of the tree; never raised itself."""

    code: ClassVar[str]

    def __init__(self, message: str, *, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = retry_after


class Refused(UponceError):
    """The request was refused; nothing is stored, nothing is spent."""


class GrantRefused(Refused):
    """A genuine signature that is not good now."""


class SignatureUsed(GrantRefused):
    """The signature was already used by an upload, or a deletion, that completed."""

    code = "signature_used"


class SignatureInUse(GrantRefused):
    """Too many attempts with this signature are running at this moment."""

    code = "signature_in_use"


class SignatureRevoked(GrantRefused):
    """The owner revoked the signature before it was used."""

    code = "signature_revoked"


class StaleRequest(GrantRefused):
    """The signature's time is over."""

    code = "stale_request"


class FutureTimestamp(GrantRefused):
    """The timestamp lies further in the future than the clock skew allows."""

    code = "future_timestamp"


class IdempotencyKeyReused(GrantRefused):
    """The Idempotency-Key was already sent with this signature, for a file with other bytes."""

    code = "idempotency_key_reused"


class AuthRefused(Refused):
    """Identity or permission does not check out."""


class UnknownCloud(AuthRefused):
    """No such cloud."""

    code = "invalid_cloud_name"


class UnknownApiKey(AuthRefused):
    """No such API key in this cloud, or it was revoked."""

    code = "unknown_api_key"


class InvalidSignature(AuthRefused):
    """The signature does not fit the parameters that arrived."""

    code = "invalid_signature"


class BadCredentials(AuthRefused):
    """HTTP Basic credentials are missing or wrong."""

    code = "bad_credentials"


class BadToken(AuthRefused):
    """The token that opens the metrics is missing or wrong."""

    code = "bad_token"


class ScopeDenied(AuthRefused):
    """The API key's scope does not cover this."""

    code = "scope_denied"


class OriginMismatch(AuthRefused):
    """The request does not come from the web origin that was signed."""

    code = "origin_mismatch"


class DeliveryDenied(AuthRefused):
    """The asset needs a valid delivery signature in its URL."""

    code = "delivery_denied"


class TooManyFailures(AuthRefused):
    """Too many requests with wrong credentials came from one address. Correct ones from there still pass."""

    code = "too_many_failures"


class ParameterRefused(Refused):
    """A parameter is wrong."""


class MissingParameter(ParameterRefused):
    """A required parameter is missing."""

    code = "missing_parameter"


class InvalidParameter(ParameterRefused):
    """A parameter's value is not valid."""

    code = "invalid_parameter"


class DuplicateParameter(ParameterRefused):
    """A parameter that may stand once was sent more than once."""

    code = "duplicate_parameter"


class LateParameter(ParameterRefused):
    """A parameter arrived after the file, when the signature had been verified without it."""

    code = "late_parameter"


class UnknownParameter(ParameterRefused):
    """A parameter that does not exist; nothing is ignored silently."""

    code = "unknown_parameter"


class UnsupportedParameter(ParameterRefused):
    """A parameter of Cloudinary's API that uponce does not support yet."""

    code = "unsupported_parameter"


class FileRefused(Refused):
    """The file is wrong."""


class FileTooLarge(FileRefused):
    """The file has more bytes than a limit allows."""

    code = "file_too_large"


class EmptyFile(FileRefused):
    """The file has no bytes."""

    code = "empty_file"


class InvalidMedia(FileRefused):
    """The file is not what it was uploaded as, or cannot be read."""

    code = "invalid_media"


class MediaTooLarge(FileRefused):
    """The picture or film is larger (pixels, frames, seconds) than a limit allows."""

    code = "media_too_large"


class FormatNotAllowed(FileRefused):
    """The format is not among the signed allowed_formats."""

    code = "format_not_allowed"


class ContentMismatch(FileRefused):
    """The bytes do not have the signed SHA-256."""

    code = "content_mismatch"


class SeriesRefused(Refused):
    """A part of an upload in several requests is refused; what arrived before stays."""


class ChunkConflict(SeriesRefused):
    """A chunk contradicts what has arrived of its series: other bytes, another total, other parameters."""

    code = "chunk_conflict"


class ChunkTooSmall(SeriesRefused):
    """A chunk that is not the last one is smaller than chunks have to be."""

    code = "chunk_too_small"


class ChunkInProgress(SeriesRefused):
    """Another request is sending the same bytes, or completing the series, at this moment."""

    code = "chunk_in_progress"


class ChunkSuperseded(SeriesRefused):
    """A newer request for the same bytes took over from this one."""

    code = "chunk_superseded"


class TooManySeries(SeriesRefused):
    """As many series are unfinished as a limit allows."""

    code = "too_many_series"


class OffsetConflict(SeriesRefused):
    """The bytes do not begin where those that have arrived end."""

    code = "offset_conflict"


class ChecksumMismatch(SeriesRefused):
    """The bytes of a request do not have the checksum that it was sent with; none of them was taken."""

    code = "checksum_mismatch"


class SeriesComplete(SeriesRefused):
    """The series is complete: it has become an asset, and nothing can be added or given up any more."""

    code = "upload_complete"


class SeriesExpired(SeriesRefused):
    """The time in which the series had to be complete is over."""

    code = "upload_expired"


class SeriesGone(SeriesRefused):
    """The series is complete, was given up, or never existed."""

    code = "series_gone"


class RequestRefused(Refused):
    """The request as such is wrong."""


class MalformedRequest(RequestRefused):
    """The request breaks its own format: torn, oversized or contradictory."""

    code = "malformed_request"


class RequestTooSlow(RequestRefused):
    """The body stalled, or took longer than allowed."""

    code = "request_too_slow"


class NotFound(RequestRefused):
    """No such thing."""

    code = "not_found"


class UnsupportedCall(RequestRefused):
    """A call, or a delivery URL, of Cloudinary's API that uponce does not support yet."""

    code = "unsupported_call"


class RangeNotSatisfiable(RequestRefused):
    """No requested byte range lies inside the file."""

    code = "range_not_satisfiable"


class UnsupportedVersion(RequestRefused):
    """The request speaks another version of the protocol."""

    code = "unsupported_version"


class UnsupportedContentType(RequestRefused):
    """The body is not of the type that is taken here."""

    code = "unsupported_content_type"


class Unavailable(UponceError):
    """The server cannot do it now; nothing is spent."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached or written."""

    code = "database_unavailable"


class OutcomeUnknown(Unavailable):
    """The reply to COMMIT was lost: it may have happened. Whoever sees this deletes nothing."""

    code = "outcome_unknown"


class StorageUnavailable(Unavailable):
    """The blob store cannot be reached or written."""

    code = "storage_unavailable"


class StorageFull(Unavailable):
    """The blob store or the database has no space left."""

    code = "storage_full"


class BlobCondemned(Unavailable):
    """The sweeper took the staged bytes for an orphan before this attempt committed."""

    code = "attempt_expired"


class ServerBusy(Unavailable):
    """A limit on work at one time is reached."""

    code = "server_busy"


class SettingRefused(UponceError):
    """A setting is wrong or would break a guarantee."""

    code = "setting_refused"
