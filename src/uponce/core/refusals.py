"""Why a grant that the ledger knows is refused, in words."""

from uponce.core.errors import GrantRefused, SignatureRevoked, SignatureUsed
from uponce.core.freshness import utc
from uponce.core.values import GrantRecord


def refusal_of(record: GrantRecord, max_uses: int, *, by: str = "an upload") -> GrantRefused | None:
    """The refusal that a further use deserves; None when there is a use left.

    `max_uses` is what the request at hand is good for. The lesser of it and the row's counts: a key's policy may
    have been changed between two uses, and neither tightening nor loosening it revives what was used up. `by` says what
    it was used by, as far as the caller can know.
    """
    if record.revoked_at is not None:
        return SignatureRevoked(f"This signature was revoked at {utc(record.revoked_at)}. Ask for a new one.")
    if record.uses >= min(max_uses, record.grant.max_uses):
        return SignatureUsed(
            f"This signature was already used by {by} that completed at {utc(record.spent_at or 0)}. Ask for "
            "a new one; to ask twice within one second with equal parameters, sign a nonce."
        )
    return None
