"""What a relay needs from the database: pending uploads, and the outbox of work that a worker does later."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from uponce.core.relaying import Forwarded, Relay


class Relays(Protocol):
    """Uploads that were passed on to an upstream, as long as their outcome is not known."""

    async def begin_relay(self, relay: Relay, seconds: int) -> Relay | Forwarded:
        """Take one use of each grant, and note the upload as pending: the only arbiter of which attempt is passed on.

        Return the relay with its `pending_at`. In the same transaction: the uses, the row, the end of the series, and
        an effect that looks the upload up after `seconds`. OutcomeUnknown while another upload of a grant is pending;
        SignatureUsed, SignatureRevoked, StaleRequest, UnknownApiKey, SeriesGone as for `commit`: these leave no trace.

        Where an answer is stored for this grant and Idempotency-Key already, that answer comes back and nothing else
        happens; other bytes are IdempotencyKeyReused.
        """

    async def end_relay(self, relay: Relay, answer: Forwarded | None, code: str = "") -> bool:
        """Write the outcome, if the row is still there: the attempt that owns it writes once. False if it is gone.

        With an answer the grants are spent: the audit row has its asset and `code`, and the answer is stored for the
        relay's Idempotency-Key. Without one each grant gets its use back. The effect goes too.
        """

    async def find_relay(self, relay_id: str) -> Relay | None: ...

    async def note_misses(self, relay_id: str, misses: int) -> None:
        """Store how many look-ups found nothing after the bound."""


@dataclass(frozen=True, slots=True)
class Effect:
    """Work that a transaction left for later. `name` says which, `subject` on what. Times in Unix seconds.

    `details` is what the work needs to know, in a form of its own. Effects of one subject run one after the other. A
    `dead` one waits for an operator. `now` is the moment of the claim, by the database's clock.
    """

    id: int
    name: str
    subject: str
    due_at: int
    tries: int
    created_at: int
    error: str = ""
    dead: bool = False
    now: int = 0
    details: str = ""


class Outbox(Protocol):
    """Effects, each run at least once."""

    async def claim_effects(self, most: int, lease: int) -> Sequence[Effect]:
        """Take effects that are due, oldest first, and of each subject its first only. No other claim gets them for
        `lease` seconds. Each claim counts as a try."""

    async def finish_effect(self, effect_id: int) -> None: ...

    async def postpone_effect(self, effect_id: int, seconds: int, error: str = "", *, dead: bool = False) -> None:
        """Run it again after so many seconds, or when an operator says so if it is `dead`."""

    async def hasten_effect(self, subject: str) -> None:
        """The effects of a subject are due now."""

    async def list_effects(self, limit: int) -> Sequence[Effect]:
        """Dead ones first, then by their time."""

    async def retry_effects(self, effect_id: int | None = None) -> int:
        """Make one, or all that are dead, due now and alive. Return how many."""
