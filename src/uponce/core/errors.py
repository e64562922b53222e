"""Every error uponce raises on purpose, as one tree.

UponceError
├── Refused                     the request is wrong: uponce stores nothing and spends nothing
│   ├── GrantRefused            the signature is genuine, but cannot be used now
│   │   └── SignatureUsed · SignatureInUse · SignatureRevoked · StaleRequest · FutureTimestamp · IdempotencyKeyReused
│   ├── AuthRefused             identity or permission is wrong
│   │   ├── UnknownCloud · UnknownApiKey · InvalidSignature · BadCredentials · BadToken · ScopeDenied
│   │   └── OriginMismatch · DeliveryDenied · TooManyFailures
│   ├── ParameterRefused        a parameter is wrong
│   │   ├── MissingParameter · InvalidParameter · DuplicateParameter · LateParameter
│   │   └── UnknownParameter · UnsupportedParameter
│   ├── FileRefused             the file is wrong
│   │   ├── FileTooLarge · EmptyFile · InvalidMedia · MediaTooLarge · FormatNotAllowed · ContentMismatch
│   ├── SeriesRefused           a part does not fit its series, which stays as it was
│   │   ├── ChunkConflict · ChunkTooSmall · ChunkInProgress · ChunkSuperseded · TooManySeries
│   │   └── OffsetConflict · ChecksumMismatch · SeriesComplete · SeriesExpired · SeriesGone
│   ├── UpstreamRefused         the upstream of a relay refused the upload
│   └── RequestRefused          the request itself is wrong
│       ├── MalformedRequest · RequestTooSlow · NotFound · UnsupportedCall · RangeNotSatisfiable
│       └── PreconditionFailed · UnsupportedVersion · UnsupportedContentType
├── Unavailable                 the server cannot do it now: clients may repeat the request
│   ├── DatabaseUnavailable · OutcomeUnknown · StorageUnavailable · StorageFull · BlobCondemned · ServerBusy
│   └── UpstreamUnavailable     all but OutcomeUnknown: nothing is spent
└── SettingRefused              a setting would break a guarantee; the server does not start

An error has a stable `code` for programs, a public `message` that says what a client should do next, and a private
`detail` for the log and for the operator. Its class says after how many seconds a client may try again. HTTP statuses
are in web/errors.py, the one table of them.
"""

from uponce.core import failures

UponceError = failures.UponceError
Unavailable = failures.Unavailable
DatabaseUnavailable = failures.DatabaseUnavailable
OutcomeUnknown = failures.OutcomeUnknown
StorageUnavailable = failures.StorageUnavailable
StorageFull = failures.StorageFull
BlobCondemned = failures.BlobCondemned
ServerBusy = failures.ServerBusy
UpstreamUnavailable = failures.UpstreamUnavailable
SettingRefused = failures.SettingRefused


class Refused(UponceError):
    """The request is refused. Nothing is stored, nothing is spent."""


class GrantRefused(Refused):
    """A genuine signature that cannot be used now."""


class SignatureUsed(GrantRefused):
    """An upload or a deletion with this signature was completed before."""

    code = "signature_used"


class SignatureInUse(GrantRefused):
    """Too many attempts with this signature are running now."""

    code = "signature_in_use"
    retry_seconds = 5


class SignatureRevoked(GrantRefused):
    """The owner revoked the signature before it was used."""

    code = "signature_revoked"


class StaleRequest(GrantRefused):
    """The signature has expired."""

    code = "stale_request"


class FutureTimestamp(GrantRefused):
    """The timestamp is further in the future than the clock skew allows."""

    code = "future_timestamp"


class IdempotencyKeyReused(GrantRefused):
    """The Idempotency-Key was sent with this signature before, for a file with other bytes."""

    code = "idempotency_key_reused"


class AuthRefused(Refused):
    """Identity or permission is wrong."""


class UnknownCloud(AuthRefused):
    """The cloud does not exist."""

    code = "invalid_cloud_name"


class UnknownApiKey(AuthRefused):
    """The API key does not exist in this cloud, or it was revoked."""

    code = "unknown_api_key"


class InvalidSignature(AuthRefused):
    """The signature does not match the parameters that arrived."""

    code = "invalid_signature"


class BadCredentials(AuthRefused):
    """HTTP Basic credentials are missing or wrong."""

    code = "bad_credentials"


class BadToken(AuthRefused):
    """The token for the metrics is missing or wrong."""

    code = "bad_token"


class ScopeDenied(AuthRefused):
    """The API key's scope does not allow this call."""

    code = "scope_denied"


class OriginMismatch(AuthRefused):
    """The request does not come from the signed web origin."""

    code = "origin_mismatch"


class DeliveryDenied(AuthRefused):
    """The asset needs a valid delivery signature in its URL."""

    code = "delivery_denied"


class TooManyFailures(AuthRefused):
    """Too many requests with wrong credentials came from one address. Correct ones from there still pass."""

    code = "too_many_failures"
    retry_seconds = 60


class ParameterRefused(Refused):
    """A parameter is wrong."""


class MissingParameter(ParameterRefused):
    """A required parameter is missing."""

    code = "missing_parameter"


class InvalidParameter(ParameterRefused):
    """A parameter's value is not valid."""

    code = "invalid_parameter"


class DuplicateParameter(ParameterRefused):
    """A parameter that is allowed once was sent more than once."""

    code = "duplicate_parameter"


class LateParameter(ParameterRefused):
    """A parameter arrived after the file. The signature was verified without it."""

    code = "late_parameter"


class UnknownParameter(ParameterRefused):
    """The parameter does not exist. uponce ignores no parameter silently."""

    code = "unknown_parameter"


class UnsupportedParameter(ParameterRefused):
    """Cloudinary's API has this parameter, but uponce does not support it."""

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
    """The file is not of the type that it was uploaded as, or it cannot be read."""

    code = "invalid_media"


class MediaTooLarge(FileRefused):
    """The image or video is larger (pixels, frames, seconds) than a limit allows."""

    code = "media_too_large"


class FormatNotAllowed(FileRefused):
    """The signed allowed_formats do not include the file's format."""

    code = "format_not_allowed"


class ContentMismatch(FileRefused):
    """The bytes do not have the signed SHA-256."""

    code = "content_mismatch"


class SeriesRefused(Refused):
    """A part of an upload in several requests is refused. The parts before it stay."""


class ChunkConflict(SeriesRefused):
    """A chunk contradicts the chunks before it: other bytes, another total size, or other parameters."""

    code = "chunk_conflict"


class ChunkTooSmall(SeriesRefused):
    """A chunk before the last one is smaller than the limit."""

    code = "chunk_too_small"


class ChunkInProgress(SeriesRefused):
    """Another request is sending the same bytes or completing the upload now."""

    code = "chunk_in_progress"
    retry_seconds = 1


class ChunkSuperseded(SeriesRefused):
    """A newer request for the same bytes replaced this one."""

    code = "chunk_superseded"


class TooManySeries(SeriesRefused):
    """The limit of unfinished uploads in several requests is reached."""

    code = "too_many_series"
    retry_seconds = 60


class OffsetConflict(SeriesRefused):
    """The bytes do not begin at the offset where the received bytes end."""

    code = "offset_conflict"


class ChecksumMismatch(SeriesRefused):
    """The bytes of a request do not have the checksum of its header. None of the bytes was stored."""

    code = "checksum_mismatch"


class SeriesComplete(SeriesRefused):
    """The upload is complete and stored as an asset. It takes no more bytes and cannot be ended."""

    code = "upload_complete"


class SeriesExpired(SeriesRefused):
    """The upload was not complete in time."""

    code = "upload_expired"


class SeriesGone(SeriesRefused):
    """The upload is complete, was ended, or never existed."""

    code = "series_gone"


class RequestRefused(Refused):
    """The request itself is wrong."""


class MalformedRequest(RequestRefused):
    """The request breaks its own format: it is cut off, too large or contradictory."""

    code = "malformed_request"


class RequestTooSlow(RequestRefused):
    """The body stalled, or took longer than allowed."""

    code = "request_too_slow"


class NotFound(RequestRefused):
    """The address, asset or signature does not exist."""

    code = "not_found"


class UnsupportedCall(RequestRefused):
    """A call, or a delivery URL, of Cloudinary's API that uponce does not support yet."""

    code = "unsupported_call"


class RangeNotSatisfiable(RequestRefused):
    """The file has no bytes in the requested range."""

    code = "range_not_satisfiable"


class PreconditionFailed(RequestRefused):
    """The file is not the one that `If-Match` or `If-Unmodified-Since` asks for."""

    code = "precondition_failed"


class UnsupportedVersion(RequestRefused):
    """The request uses another version of the protocol."""

    code = "unsupported_version"


class UnsupportedContentType(RequestRefused):
    """The body's content type is not accepted here."""

    code = "unsupported_content_type"


class UpstreamRefused(Refused):
    """The upstream refused the upload. Clients get its answer, `body`, as it is, with `headers`."""

    code = "upstream_refused"
    status = 400
    body = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def may_pass_later(self) -> bool:
        """Return whether the account's credentials, rights or quota are the reason: it may take the same file later."""
        return self.status in (401, 403, 420, 429)
