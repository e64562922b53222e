"""Every error that uponce raises on purpose, as one tree: each branch stands before its leaves.

An error has a stable `code` for programs, a public `message` that says what a client should do next, and a private
`detail` for the log and for the operator. Its class says after how many seconds a client may try again. HTTP statuses
are in web/errors.py, the one table of them.
"""

import re
from typing import ClassVar


def shown(text: str) -> str:
    """Return text that a client sent, in a form that a message may repeat: printable and short."""
    return printable(text[:100])


def printable(text: str) -> str:
    """Return the text with `?` for each character that is not printable, as those that command a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def without_queries(text: str) -> str:
    """Return the text without the queries of its addresses: they may have a signature, or the name of a person."""
    return re.sub(r"\?[^\s'\"]*", "", text)


class UponceError(Exception):
    """Base of the tree; uponce raises only its leaves. `retry_after` is in seconds, by default that of the class."""

    code: ClassVar[str]
    retry_seconds: ClassVar[int | None] = None

    def __init_subclass__(cls, *, code: str = "", retry: int | None = None) -> None:
        """Set the stable code, and after how many seconds a client may try again."""
        if code:
            cls.code, cls.retry_seconds = code, retry

    def __init__(self, message: str, *, detail: str = "", retry_after: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail
        self.retry_after = self.retry_seconds if retry_after is None else retry_after

    @property
    def outcome(self) -> str:
        """Return how the metrics name this outcome of an upload."""
        return self.code

    @property
    def for_operator(self) -> str:
        """Return the text for the operator of the server: the detail, or the message if there is no detail."""
        return self.detail or self.message


class Refused(UponceError):
    """The request is refused. Nothing is stored, nothing is spent."""


class GrantRefused(Refused):
    """A genuine signature cannot be used now."""


class SignatureUsed(GrantRefused, code="signature_used"):
    """An upload or a deletion with this signature was completed before."""


class SignatureInUse(GrantRefused, code="signature_in_use", retry=5):
    """Too many attempts with this signature are running now."""


class SignatureRevoked(GrantRefused, code="signature_revoked"):
    """The owner revoked the signature before it was used."""


class StaleRequest(GrantRefused, code="stale_request"):
    """The signature has expired."""


class FutureTimestamp(GrantRefused, code="future_timestamp"):
    """The timestamp is further in the future than the clock skew allows."""


class IdempotencyKeyReused(GrantRefused, code="idempotency_key_reused"):
    """The Idempotency-Key was sent with this signature before, for a file with other bytes."""


class AuthRefused(Refused):
    """Identity or permission is wrong."""


class UnknownCloud(AuthRefused, code="invalid_cloud_name"):
    """The cloud does not exist."""


class UnknownApiKey(AuthRefused, code="unknown_api_key"):
    """The API key does not exist in this cloud, or it was revoked."""


class InvalidSignature(AuthRefused, code="invalid_signature"):
    """The signature does not match the parameters that arrived."""


class BadCredentials(AuthRefused, code="bad_credentials"):
    """HTTP Basic credentials are missing or wrong."""


class BadToken(AuthRefused, code="bad_token"):
    """The token for the metrics is missing or wrong."""


class ScopeDenied(AuthRefused, code="scope_denied"):
    """The API key's scope does not allow this call."""


class OriginMismatch(AuthRefused, code="origin_mismatch"):
    """The request does not come from the signed web origin."""


class DeliveryDenied(AuthRefused, code="delivery_denied"):
    """The asset needs a valid delivery signature in its URL."""


class TooManyFailures(AuthRefused, code="too_many_failures", retry=60):
    """Too many requests with wrong credentials came from one address. Correct ones from there still pass."""


class ParameterRefused(Refused):
    """A parameter is wrong."""


class MissingParameter(ParameterRefused, code="missing_parameter"):
    """A required parameter is missing."""


class InvalidParameter(ParameterRefused, code="invalid_parameter"):
    """A parameter's value is not valid."""


class DuplicateParameter(ParameterRefused, code="duplicate_parameter"):
    """A parameter that is allowed once was sent more than once."""


class LateParameter(ParameterRefused, code="late_parameter"):
    """A parameter arrived after the file. The signature was verified without it."""


class UnknownParameter(ParameterRefused, code="unknown_parameter"):
    """The parameter does not exist. uponce ignores no parameter silently."""


class UnsupportedParameter(ParameterRefused, code="unsupported_parameter"):
    """Cloudinary's API has this parameter, but uponce does not support it."""


class FileRefused(Refused):
    """The file is wrong."""


class FileTooLarge(FileRefused, code="file_too_large"):
    """The file has more bytes than a limit allows."""


class EmptyFile(FileRefused, code="empty_file"):
    """The file has no bytes."""


class InvalidMedia(FileRefused, code="invalid_media"):
    """The file is not of the type that it was uploaded as, or it cannot be read."""


class MediaTooLarge(FileRefused, code="media_too_large"):
    """The image or video is larger (pixels, frames, seconds) than a limit allows."""


class FormatNotAllowed(FileRefused, code="format_not_allowed"):
    """The signed allowed_formats do not include the file's format."""


class ContentMismatch(FileRefused, code="content_mismatch"):
    """The bytes do not have the signed SHA-256."""


class SeriesRefused(Refused):
    """A part of an upload in several requests is refused. The parts before it stay."""


class ChunkConflict(SeriesRefused, code="chunk_conflict"):
    """A chunk contradicts the chunks before it: other bytes, another total size, or other parameters."""


class ChunkTooSmall(SeriesRefused, code="chunk_too_small"):
    """A chunk before the last one is smaller than the limit."""


class ChunkInProgress(SeriesRefused, code="chunk_in_progress", retry=1):
    """Another request is sending the same bytes or completing the upload now."""


class ChunkSuperseded(SeriesRefused, code="chunk_superseded"):
    """A newer request for the same bytes replaced this one."""


class TooManySeries(SeriesRefused, code="too_many_series", retry=60):
    """The limit of unfinished uploads in several requests is reached."""


class TooManySignatures(SeriesRefused, code="too_many_signatures"):
    """The limit of signatures of one upload in several requests is reached."""


class TooManyParts(SeriesRefused, code="too_many_parts"):
    """With a bucket, the limit of parts of one upload in several requests is reached."""


class OffsetConflict(SeriesRefused, code="offset_conflict"):
    """The bytes do not begin at the offset where the received bytes end."""


class ChecksumMismatch(SeriesRefused, code="checksum_mismatch"):
    """The bytes of a request do not have the checksum of its header. None of the bytes was stored."""


class SeriesComplete(SeriesRefused, code="upload_complete"):
    """The upload is complete and stored as an asset. It takes no more bytes and cannot be ended."""


class SeriesExpired(SeriesRefused, code="upload_expired"):
    """The upload was not complete in time."""


class SeriesGone(SeriesRefused, code="series_gone"):
    """The upload is complete, was ended, or never existed."""


class RequestRefused(Refused):
    """The request itself is wrong."""


class MalformedRequest(RequestRefused, code="malformed_request"):
    """The request breaks its own format: it is cut off, too large or contradictory."""


class RequestTooSlow(RequestRefused, code="request_too_slow"):
    """The body stalled (`Retry-After` is 1), or took longer than allowed (no `Retry-After`)."""


class NotFound(RequestRefused, code="not_found"):
    """The address, asset or signature does not exist."""


class UnsupportedCall(RequestRefused, code="unsupported_call"):
    """A call, or a delivery URL, of Cloudinary's API that uponce does not support yet."""


class RangeNotSatisfiable(RequestRefused, code="range_not_satisfiable"):
    """The file has no bytes in the requested range."""


class PreconditionFailed(RequestRefused, code="precondition_failed"):
    """The file is not the one that `If-Match` or `If-Unmodified-Since` asks for."""


class UnsupportedVersion(RequestRefused, code="unsupported_version"):
    """The request uses another version of the protocol."""


class UnsupportedContentType(RequestRefused, code="unsupported_content_type"):
    """The body's content type is not accepted here."""


class UpstreamRefused(Refused, code="upstream_refused"):
    """The upstream refused the upload. Clients get its answer unchanged: `body`, with `headers`."""

    account_outcome: ClassVar[str] = "upstream_refused_account"  # if no client is the cause
    status = 400
    body = ""
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def may_pass_later(self) -> bool:
        """Return whether the upstream may take the file later: it says when, or credentials, rights or quota count."""
        return self.status in (401, 403, 420, 429) or any(name == "Retry-After" for name, _ in self.headers)

    @property
    def outcome(self) -> str:
        return self.account_outcome if self.may_pass_later else self.code


class Unavailable(UponceError):
    """The server cannot do this now. Nothing is spent, unless the error is OutcomeUnknown."""


class DatabaseUnavailable(Unavailable, code="database_unavailable", retry=2):
    """The server cannot reach or write its database."""


class OutcomeUnknown(Unavailable, code="outcome_unknown", retry=2):
    """The reply to a commit was lost, so the upload may be stored or not. Ask for the signature's status."""


class StorageUnavailable(Unavailable, code="storage_unavailable", retry=5):
    """The server cannot reach or write its file storage."""


class StorageFull(Unavailable, code="storage_full", retry=5):
    """The file storage or the database has no space left."""


class BlobCondemned(Unavailable, code="attempt_expired", retry=1):
    """The upload took too long: the sweeper removed its bytes before they were stored."""


class ServerBusy(Unavailable, code="server_busy", retry=5):
    """The server is at a limit of simultaneous work."""


class UpstreamUnavailable(Unavailable, code="upstream_unavailable", retry=5):
    """The relay cannot use its upstream, or is at its limit of calls. The upload cannot have completed there."""

    is_refusal = False  # the upstream answered, and refused what uponce itself sent

    @property
    def outcome(self) -> str:
        return UpstreamRefused.account_outcome if self.is_refusal else self.code


class SettingRefused(UponceError, code="setting_refused"):
    """A setting is wrong or would break a guarantee. The operator must change it."""
