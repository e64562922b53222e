"""How uponce decides about an upload whose outcome in the upstream is not known. The table is in docs/design/relay.md.

A grant whose upload may have completed upstream is pending. It stays pending until the upstream shows the asset, or
until the upload can no longer complete: its signature is dead, and two look-ups found nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from enum import Enum

from uponce.core.policy import Limits
from uponce.core.signature import Signer, sign_response
from uponce.core.upstream import Target
from uponce.core.values import Caller, Digest, Grant

MISSES = 2  # look-ups after the bound that must find nothing before a grant is free again
_TICK = 2  # seconds; the clocks of both sides are read without fractions
# Request Timeout, Locked (an account says so while it still processes the file), Too Early.
_NOT_FINAL = frozenset({408, 423, 425})
_OF_TIME = ("Stale request", "Timestamp is in the future")


@dataclass(frozen=True, slots=True)
class Relay:
    """One upload that uponce passes on, pending until its outcome is known. `id` names the attempt, which owns the row.

    `pending_at` is in Unix seconds, by the database's clock. `misses` counts look-ups that found nothing after the
    bound. `bound` is that of the server that signs the upload. `series_id` names the series that the upload completes.
    `key_hash` is the `repeat_hash` of the client's Idempotency-Key.
    """

    id: str
    cloud: str
    grants: tuple[Grant, ...]
    target: Target
    digest: Digest
    caller: Caller
    key_hash: bytes | None = None
    series_id: str | None = None
    pending_at: int = 0
    misses: int = 0
    bound: int = 0


def repeat_hash(idempotency_key: str) -> bytes:
    """Return the hash under which the database keeps the answer to uploads with this Idempotency-Key."""
    return hashlib.sha256(idempotency_key.encode()).digest()


@dataclass(frozen=True, slots=True)
class Forwarded:
    """The upstream's answer, unchanged or `signed_by` a key of uponce. `body` is JSON text.

    `headers` are those that clients may see.
    `asset_id` and `public_id` are those of the upstream's asset, empty if the answer names none. `size` is how many
    bytes uponce sent. `replayed` says that a repeated request got the answer of the first one.
    """

    status: int
    body: str
    asset_id: str = ""
    public_id: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    size: int = 0
    replayed: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """An asset that a look-up found. `version` and `upstream_now` are Unix seconds by the upstream's clock.

    `at` is the time of `upstream_now` by the database's clock, or later. A later `at` makes the asset look newer, never
    older. `is_foreign`: the upload has a marker, and the asset has another one or none. `is_gone`: it was deleted, and
    the upstream only remembers it.
    """

    etag: str
    version: int
    upstream_now: float
    at: float
    forwarded: Forwarded
    is_foreign: bool = False
    is_gone: bool = False


def signed_by(signer: Signer, answer: Forwarded) -> Forwarded:
    """Return the answer with the signature of the caller's key in place of the account's, so that SDKs verify it.

    Not a byte of the rest changes. An answer that a look-up found has no signature, and gets one. An answer that names
    no asset stays as it is.
    """
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):  # a number or a depth that other readers take
        return answer
    public_id, version, signature = (document.get(name) for name in ("public_id", "version", "signature"))
    if not isinstance(public_id, str) or not isinstance(version, int) or not isinstance(signature, str | None):
        return answer
    own = sign_response(public_id, version, signer.secret, signer.algorithm)
    if signature is None:
        return replace(answer, body=f'{answer.body.rstrip().removesuffix("}")},"signature":"{own}"}}')
    return replace(answer, body=answer.body.replace(f'"{signature}"', f'"{own}"'))


class Outcome(Enum):
    """What an answer of the upstream proves about an upload whose signature was sent."""

    STORED = "the upload completed"
    REFUSED = "the upload never completes"
    UNKNOWN = "the upload may have completed, or may complete later"


class Missing(Enum):
    """What a look-up found instead of an asset."""

    NOTHING = "the upstream has no asset of that name"
    UNREADABLE = "the upstream did not answer the look-up"


class GrantVerdict(Enum):
    SPENT = "the upload completed: the grant is spent"
    FREE = "the upload can no longer complete: the grant is free again"
    WAIT = "the outcome is still unknown"


@dataclass(frozen=True, slots=True)
class Judgement:
    """The verdict of a look-up. `misses` is the count to store with the row."""

    verdict: GrantVerdict
    misses: int


def outcome_of(status: int, document: Mapping[str, object] | None) -> Outcome:
    """Return the outcome that an answer proves. `document` is its JSON object, None if it has none.

    An answer without JSON may come from a server in between, and so may JSON that names no asset and has no error in
    the upstream's shape, or a 408. After a 423 the upstream may still complete the upload. `done` is false while the
    upstream waits for more chunks. `status` is `pending` if it stores the asset later (`async`).
    """
    if document is None or status in _NOT_FINAL:
        return Outcome.UNKNOWN
    if 400 <= status < 500:
        return Outcome.REFUSED if error_message(document) is not None else Outcome.UNKNOWN
    is_named = bool(document.get("public_id")) or document.get("status") == "pending"
    if 200 <= status < 300 and is_named and "error" not in document and document.get("done") is not False:
        return Outcome.STORED
    return Outcome.UNKNOWN


def error_message(document: Mapping[str, object]) -> str | None:
    """Return the text of an error in the upstream's shape, `{"error": {"message": …}}`, else None."""
    error = document.get("error")
    message = error.get("message") if isinstance(error, Mapping) else None
    return message if isinstance(message, str) else None


def refuses_timestamp(reply_status: int, document: Mapping[str, object] | None) -> bool:
    """Return whether the upstream refuses the time of a signature. uponce made it, so no client is the cause.

    The first text begins alike in Cloudinary and in uponce. The second one is of uponce.
    """
    return reply_status == 400 and (error_message(document or {}) or "").startswith(_OF_TIME)


def seconds_of(date: str) -> float | None:
    """Return the Unix seconds of a date in a header, None if the text is no date. Without a zone it is in UTC."""
    try:
        moment = parsedate_to_datetime(date)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def bound(limits: Limits) -> int:
    """Return how many seconds after `pending_at` an upload can still complete in the upstream."""
    return limits.relay_fence + limits.skew + limits.relay_processing + _TICK


def dies_at(relay: Relay, limits: Limits) -> int:
    """Return when an upload can no longer complete: by the limits of the server that signed it, and by these."""
    return relay.pending_at + max(relay.bound, bound(limits))


def trailer_timestamp(pending_at: int, window: int, fence: int) -> int:
    """Return the timestamp of the upstream's signature: so far back that it dies `fence` seconds from now.

    A process may stop before it sends the signature, and wake late. The upstream then refuses the signature.
    """
    return pending_at - max(0, window - fence)


def is_of(relay: Relay, found: Found) -> bool:
    """Return whether an asset counts as the asset of this upload.

    An asset with the MD5 of the bytes counts. Presets may change the bytes, so an asset that is not older than the
    attempt, by the upstream's clock, counts too. If another writer used the same name, the grant is therefore spent.
    """
    pending_upstream = relay.pending_at + (found.upstream_now - found.at)
    return found.etag == relay.digest.md5 or found.version >= pending_upstream - _TICK


def is_answer(relay: Relay, found: Found) -> bool:
    """Return whether a repeated upload gets the asset as its answer. An asset that counts may have other bytes."""
    return not found.is_gone and (not found.is_foreign or found.etag == relay.digest.md5)


def judge_look_up(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    """Return the verdict of one look-up that began at `now`, by the database's clock and by the upstream's.

    The earlier one counts. The upstream's clock decides whether it still accepts the signature, and a database whose
    clock steps ahead would free the grant of an upload that is under way. Only a certain outcome ends the wait.
    """
    if found is Missing.UNREADABLE:
        return Judgement(GrantVerdict.WAIT, relay.misses)
    if isinstance(found, Found) and is_of(relay, found):
        return Judgement(GrantVerdict.SPENT, relay.misses)
    if now < dies_at(relay, limits):
        return Judgement(GrantVerdict.WAIT, relay.misses)
    misses = relay.misses + 1
    return Judgement(GrantVerdict.FREE if misses >= MISSES else GrantVerdict.WAIT, misses)
