"""What commits were answered, kept for clients that ask again with the same Idempotency-Key."""

import hashlib
import sqlite3
from dataclasses import replace

import msgspec

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
    row = connection.execute(_FIND, (grant_key, _hash(idempotency_key))).fetchone()
    return None if row is None else Reply(msgspec.json.decode(row[0], type=Committed), row[1])


def keep(connection: sqlite3.Connection, grant: Grant, draft: Draft, committed: Committed) -> None:
    """Belongs into the transaction that commits: a use without its reply could never be told again."""
    if draft.idempotency_key is None:
        return
    told = msgspec.json.encode(replace(committed, unneeded_blob=None)).decode()
    connection.execute(
        "INSERT INTO replies (grant_key, key_hash, sha256, committed) VALUES (?, ?, ?, ?)",
        (grant.key, _hash(draft.idempotency_key), draft.digest.sha256, told),
    )


def _hash(idempotency_key: str) -> bytes:
    return hashlib.sha256(idempotency_key.encode()).digest()
