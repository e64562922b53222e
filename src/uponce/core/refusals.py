"""The refusal of a grant that the ledger knows."""

from uponce.core.errors import GrantRefused, OutcomeUnknown, SignatureRevoked, SignatureUsed
from uponce.core.signature import utc
from uponce.core.values import GrantRecord

WHY_SIGNATURES_COLLIDE = (
    "Equal parameters signed within one second give the same signature: to upload several files, sign a different "
    "nonce for each file, or use a key of unlimited uses."
)


_PENDING_SECONDS = 10


def refusal_of(record: GrantRecord, max_uses: int, *, by: str = "an upload") -> GrantRefused | None:
    """Return the refusal of a further use, or None while a use is left.

    `max_uses` is how often the present request's signature works. The smaller of `max_uses` and the row's own limit
    counts: a key's policy may change between two uses, and no change revives a spent signature. `by` names what spent
    the signature, if the caller knows. Raise OutcomeUnknown if an upload that is pending in an upstream may have taken
    the last use.
    """
    if record.revoked_at is not None:
        return SignatureRevoked(f"This signature was revoked at {utc(record.revoked_at)}. Ask for a new signature.")
    limit = min(max_uses, record.grant.max_uses)
    if record.uses >= limit > record.uses - record.pending:
        raise still_pending()
    if record.uses >= limit:
        return SignatureUsed(
            f"This signature was already used by {by} that completed at {utc(record.spent_at or 0)}. Ask for a new "
            f"signature. {WHY_SIGNATURES_COLLIDE}"
        )
    return None


def still_pending() -> OutcomeUnknown:
    """Return the refusal of an upload while an earlier one, which may be the same, is pending in an upstream."""
    return OutcomeUnknown(
        "An upload with this signature was passed on to the upstream, and its outcome is not known yet. Wait "
        f"{_PENDING_SECONDS} seconds, then ask for the signature's status, or send this upload again.",
        retry_after=_PENDING_SECONDS,
    )
