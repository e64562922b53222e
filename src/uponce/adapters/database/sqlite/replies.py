"""What commits were answered, kept for clients that ask again with the same Idempotency-Key."""

import sqlite3

from uponce.adapters.database.rows import key_hash, reply_of, reply_row
from uponce.app.ports import Committed, Draft, Reply
from uponce.core.values import Grant

# A revoked grant answers nothing any more.
_FIND = """
SELECT committed, sha256 FROM replies JOIN grants USING (grant_key)
WHERE grant_key = ? AND key_hash = ? AND revoked_at IS NULL
"""


def find(connection: sqlite3.Connection, grant_key: bytes, idempotency_key: str | None) -> Reply | None:
    if idempotency_key is None:
        return None
    row = connection.execute(_FIND, (grant_key, key_hash(idempotency_key))).fetchone()
    return None if row is None else reply_of(row)


def keep(connection: sqlite3.Connection, grant: Grant, draft: Draft, committed: Committed) -> None:
    """Belongs into the transaction that commits: a use without its reply could never be told again."""
    if draft.idempotency_key is not None:
        connection.execute(
            "INSERT INTO replies (grant_key, key_hash, sha256, committed) VALUES (?, ?, ?, ?)",
            reply_row(grant, draft, draft.idempotency_key, committed),
        )
