"""The refusal of a grant that the ledger knows."""

from uponce.core.errors import GrantRefused, SignatureRevoked, SignatureUsed
from uponce.core.freshness import utc
from uponce.core.values import GrantRecord

WHY_SIGNATURES_COLLIDE = (
    "Equal parameters signed within one second give the same signature: to upload several files, sign a different "
    "nonce for each file."
)


def refusal_of(record: GrantRecord, max_uses: int, *, by: str = "an upload") -> GrantRefused | None:
    """Return the refusal of a further use, or None while a use is left.

    `max_uses` is how often the present request's signature works. The smaller of `max_uses` and the row's own limit
    counts: a key's policy may change between two uses, and no change revives a spent signature. `by` names what spent
    the signature, as far as the caller can know.
    """
    if record.revoked_at is not None:
        return SignatureRevoked(f"This signature was revoked at {utc(record.revoked_at)}. Ask for a new signature.")
    if record.uses >= min(max_uses, record.grant.max_uses):
        return SignatureUsed(
            f"This signature was already used by {by} that completed at {utc(record.spent_at or 0)}. Ask for a new "
            f"signature. {WHY_SIGNATURES_COLLIDE}"
        )
    return None
