"""What commits were answered, kept for clients that ask again with the same Idempotency-Key."""

from uponce.adapters.database.postgres.connection import Connection, Cursor
from uponce.adapters.database.rows import key_hash, reply_of, reply_row
from uponce.app.ports import Committed, Draft, Reply
from uponce.core.values import Grant

# A revoked grant answers nothing any more, nor does one that was forgotten.
_FIND = """
SELECT committed, sha256 FROM replies JOIN grants USING (grant_key)
WHERE grant_key = %s AND key_hash = %s AND revoked_at IS NULL
"""

_PURGE = """
WITH old AS (SELECT grant_key, key_hash FROM replies WHERE keep_until < %(before)s LIMIT %(rows)s)
DELETE FROM replies USING old WHERE replies.grant_key = old.grant_key AND replies.key_hash = old.key_hash
RETURNING 1
"""


async def ask(connection: Connection, grant_key: bytes, idempotency_key: str) -> Cursor:
    return await connection.execute(_FIND, (grant_key, key_hash(idempotency_key)))


async def answer(asked: Cursor) -> Reply | None:
    row = await asked.fetchone()
    return None if row is None else reply_of(row)


async def keep(connection: Connection, grant: Grant, draft: Draft, committed: Committed) -> None:
    """Belongs into the transaction that commits: a use without its reply could never be told again."""
    if draft.idempotency_key is not None:
        await connection.execute(
            "INSERT INTO replies (grant_key, key_hash, sha256, committed, keep_until) VALUES (%s, %s, %s, %s, %s) "
            "ON CONFLICT (grant_key, key_hash) DO UPDATE SET sha256 = excluded.sha256, "
            "committed = excluded.committed, keep_until = excluded.keep_until",  # that of a grant that was forgotten
            (*reply_row(grant, draft, draft.idempotency_key, committed), grant.keep_until),
        )


async def purge(connection: Connection, before: float, rows: int) -> int:
    """Parts of the ledger are dropped whole, so replies go by their own time; at most so many, how many."""
    dropped = await connection.execute(_PURGE, {"before": int(before), "rows": rows})
    return len(await dropped.fetchall())  # a pipeline knows no rowcount before the answer is read
