"""Why a grant that the ledger knows is refused, in words."""

from uponce.core.errors import GrantRefused, SignatureRevoked, SignatureUsed
from uponce.core.freshness import utc
from uponce.core.values import GrantRecord


def refusal_of(record: GrantRecord, max_uses: int) -> GrantRefused | None:
    """The refusal that a further use deserves; None when there is a use left.

    `max_uses` is what the request at hand is good for; it can be less than when the row was written, after the
    key's policy was tightened.
    """
    if record.revoked_at is not None:
        return SignatureRevoked(f"This signature was revoked at {utc(record.revoked_at)}. Ask for a new one.")
    if record.uses >= max_uses:
        return SignatureUsed(
            f"This signature was already used by an upload that completed at {utc(record.spent_at or 0)}. Ask for "
            "a new one; to upload twice within one second with equal parameters, sign a nonce."
        )
    return None
