"""What a relay needs: pending uploads in the database, and the HTTP API of the account that stores the media."""

from collections.abc import AsyncIterable, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from uponce.core.relaying import Forwarded, Relay
from uponce.core.values import Upstream


class Relays(Protocol):
    """Uploads that were passed on to an upstream, as long as their outcome is not known."""

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        """Take one use of each grant, and note the upload as pending: the only arbiter of which attempt is passed on.

        Return the relay with its `pending_at`. In the same transaction: the uses, the row, the end of the series, and
        an effect that looks the upload up after `seconds`. OutcomeUnknown while another upload of a grant is pending;
        SignatureUsed, SignatureRevoked, StaleRequest, UnknownApiKey, SeriesGone as for `commit`: these leave no trace.

        Where an answer is stored for this grant and Idempotency-Key already, that answer comes back and nothing else
        happens; other bytes are IdempotencyKeyReused. OutcomeUnknown while one of them is pending, whatever its bytes.
        """

    async def end_relay(self, relay: Relay, answer: Forwarded | None, code: str = "") -> bool:
        """Write the outcome, if the row is still there: the attempt that owns it writes once. False if it is gone.

        With an answer the grants are spent: the audit row has its asset and `code`, and the answer is stored for the
        relay's Idempotency-Key. Without one each grant gets its use back. The effect goes too.
        """

    async def find_relay(self, relay_id: str) -> Relay | None: ...

    async def moment(self) -> float:
        """Return the time by the database's clock, in Unix seconds."""

    async def hasten_relays(self, cloud: str, names: Sequence[str], seconds: int) -> None:
        """Look up the pending uploads of these names or markers in so many seconds, unless it is done sooner."""

    async def note_misses(self, relay_id: str, misses: int) -> None:
        """Store how many look-ups found nothing after the bound."""


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """One upload request. `kind` is the resource type in the URL. `fields` are sent before the file.

    `size` is how many bytes the file has, None while that is unknown.
    `span` is the value of Content-Range, and `upload_id` of X-Unique-Upload-Id: both are for one chunk of a file.
    """

    kind: str
    fields: Mapping[str, str]
    filename: str
    size: int | None = None
    span: str | None = None
    upload_id: str | None = None


@dataclass(frozen=True, slots=True)
class UpstreamReply:
    """An answer. `document` is the JSON object in it, None if the body is no JSON object. `body` is its text.

    `headers` are those that clients may see. `date` is the upstream's clock in Unix seconds, if it tells it.
    `is_early` says that the answer came before the signature left, so the upstream completed nothing.
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
    """Every call raises UpstreamUnavailable if the upstream cannot have completed it."""

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        """Send one upload, and return the answer, whatever its status.

        The fields go first, then the file while it arrives. After its last byte, `sign` returns the fields that make
        the request valid, and they go last, in a separate write: nothing is complete without them. `sign` None:
        `fields` are valid already. An exception of `file` or `sign` ends the request and comes back. OutcomeUnknown:
        the signature may have left, and no answer came.
        """

    async def get(self, upstream: Upstream, path: str, query: Query = (), *, patient: bool = False) -> UpstreamReply:
        """Ask `/v1_1/<cloud>/<path>` with HTTP Basic. `path` is not escaped yet.

        The answer must be there soon, unless the caller is `patient`: an account that hangs would delay the others.
        """

    async def call(self, upstream: Upstream, path: str, asked: AdminCall) -> UpstreamReply:
        """Make a call that may change something, with HTTP Basic. `path` is not escaped yet.

        OutcomeUnknown: the upstream may have carried out the call, and no answer came.
        """

    async def post(self, upstream: Upstream, path: str, fields: Query) -> UpstreamReply:
        """Send a form to `/v1_1/<cloud>/<path>`. OutcomeUnknown as for `upload`."""
