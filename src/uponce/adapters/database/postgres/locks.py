"""Locks for what has no row to lock, among all servers of a database; they end with their transaction.

Whoever takes several takes them in one order, so that no two wait for one another: the rules; the row of a series;
names and repeats, by their numbers; rows of grants, by their keys. Beginning a series comes after the rules, and
what joins take comes last, for they take neither names nor grants.

Two kinds of transactions must not overlap: those that use a grant, and those that change what every use depends on
(the keys, their watermarks, condemned blobs, the partitions). The former share the rules, the latter hold them alone.
A statement sees what was committed when it began, so whoever has a lock sees all that those before it did.
"""

import hashlib
from collections.abc import Iterable

from uponce.adapters.database.postgres.connection import Connection
from uponce.core.values import AssetName

SHARE_RULES = "SELECT pg_advisory_xact_lock_shared(hashtextextended('uponce rules', 0))"
OWN_RULES = "SELECT pg_advisory_xact_lock(hashtextextended('uponce rules', 0))"
# So that two series do not pass a limit together, nor take one name.
BEGIN_SERIES = "SELECT pg_advisory_xact_lock(hashtextextended('uponce series', 0))"


def of_name(name: AssetName) -> int:
    """Whoever puts an asset under this name."""
    return _number("\0".join((name.cloud, name.resource_type, name.type, name.public_id)).encode())


def of_repeat(grant_key: bytes, idempotency_key: str) -> int:
    """Whoever commits with this grant and Idempotency-Key: of equal ones the next finds the reply of the first."""
    return _number(grant_key + idempotency_key.encode())


def of_joins(grant_key: bytes) -> int:
    """Whoever makes this grant part of a series: two do not take its last use."""
    return _number(b"join" + grant_key)


async def hold(connection: Connection, numbers: Iterable[int]) -> None:
    await connection.execute("SELECT pg_advisory_xact_lock(n) FROM unnest(%s::bigint[]) AS n", (sorted(set(numbers)),))


def _number(subject: bytes) -> int:
    """What stands for it among PostgreSQL's advisory locks. Should two ever share one, they wait without need."""
    return int.from_bytes(hashlib.sha256(subject).digest()[:8], "big", signed=True)
