"""What a relay needs: pending uploads in the database, and the HTTP API of the account that stores the media."""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from uponce.core.relaying import Forwarded, Relay
from uponce.core.values import Upstream


class Relays(Protocol):
    """Uploads that were passed on to an upstream, while their outcome is unknown."""

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        """Take one use of each grant, and record the upload as pending: the only arbiter of which attempt is passed on.

        Return the relay with its `pending_at`. The same transaction writes the uses, the row, the end of the series,
        and an effect that looks the upload up after `seconds`. Raise OutcomeUnknown while another upload of a grant is
        pending. Raise SignatureUsed, SignatureRevoked, StaleRequest, UnknownApiKey and SeriesGone as `commit` does:
        these leave no trace.

        If this grant and Idempotency-Key already have an answer, return that answer and change nothing. Raise
        IdempotencyKeyReused if the bytes differ, and OutcomeUnknown while one of them is pending, whatever its bytes.
        """

    async def end_relay(self, relay: Relay, answer: Forwarded | None, code: str = "") -> bool:
        """Write the outcome if the row still exists. Return False if it is gone: the attempt that owns it writes once.

        With an answer the grants are spent: the audit row has its asset and `code`, and the answer is stored for the
        relay's Idempotency-Key. Without an answer each grant gets its use back. The effect is deleted too.
        """

    async def find_relay(self, relay_id: str) -> Relay | None: ...

    async def moment(self) -> float:
        """Return the time by the database's clock, in Unix seconds."""

    async def hasten_relays(self, cloud: str, names: Sequence[str], seconds: int) -> None:
        """Look up the pending uploads of these names or markers in so many seconds, unless a look-up is due sooner."""

    async def note_misses(self, relay_id: str, misses: int) -> None:
        """Store how many look-ups after the bound found nothing."""


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One upload request. `kind` is the resource type in the URL. `fields` are sent before the file.

    `size` is how many bytes the file has, None if that is unknown. `span` is the value of Content-Range, and
    `upload_id` of X-Unique-Upload-Id: both are for one chunk of a file.
    """

    kind: str
    fields: Mapping[str, str]
    filename: str
    size: int | None = None
    span: str | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """The upstream's answer. `document` is its JSON object, None if the body is no JSON object. `body` is its text.

    `headers` are those that clients may see. `date` is the upstream's clock in Unix seconds, if the answer has it.
    `is_early` says that the answer came before the end of the upload or chunk was sent, so the upstream completed
    nothing.
    """

    status: int
    document: Mapping[str, Any] | None
    body: str
    headers: tuple[tuple[str, str], ...] = ()
    date: float | None = None
    is_early: bool = False


Query = Mapping[str, str] | Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class AdminCall:
    """A call that a server sent with HTTP Basic. `query` may have a name more than once."""

    method: str
    query: Sequence[tuple[str, str]]
    content_type: str
    body: bytes


Sign = Callable[[], Awaitable[Mapping[str, str]]]


class UpstreamClient(Protocol):
    """Calls to an upstream. Every call raises UpstreamUnavailable if the upstream cannot have completed it."""

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        """Send one upload, and return the answer, whatever its status.

        The fields go first, then the file while it arrives. After its last byte, `sign` returns the fields that make
        the request valid. They go last, in a separate write: without them the request is not complete. `sign` None:
        `fields` are valid already. An exception of `file` or `sign` ends the request, and the caller gets it. Raise
        OutcomeUnknown if the signature may have been sent, and no answer came.
        """

    async def get(self, upstream: Upstream, path: str, query: Query = ()) -> UpstreamReply:
        """Return the answer to a GET of `/v1_1/<cloud>/<path>` with HTTP Basic. `path` is not escaped yet.

        The answer must come soon: otherwise an account that hangs would delay the others.
        """

    async def call(self, upstream: Upstream, path: str, asked: AdminCall) -> UpstreamReply:
        """Return the answer to the call of a server, with HTTP Basic. `path` is not escaped yet.

        Raise OutcomeUnknown if the upstream may have done it, and no answer came. A GET does nothing.
        """

    async def post(self, upstream: Upstream, path: str, fields: Query) -> UpstreamReply:
        """Send a form to `/v1_1/<cloud>/<path>`, and return the answer. Raise OutcomeUnknown as `upload` does."""
