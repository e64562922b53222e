"""Whether the database is sound, and whether what stands in it agrees with itself. Each rule is one statement.

So each is answered from one snapshot: beside running servers no half of a commit is ever seen.
"""

from collections.abc import Sequence

from uponce.adapters.database.postgres.catalog import ADDRESSABLE
from uponce.adapters.database.postgres.connection import Connection
from uponce.app.ports import Rule

_SKEW = 3600  # a grant may be spent that long before its timestamp
_PURGE_LAG = 3600

_GRANT = "SELECT encode(grant_key, 'hex') FROM grants"
_NOT_IN_SERIES = "grant_key NOT IN (SELECT grant_key FROM series_grants)"
_ASSET = "SELECT cloud || '/' || resource_type || '/' || type || '/' || public_id FROM assets"

_BROKEN = {
    Rule.ADDRESSABLE: f"{_ASSET} WHERE NOT {ADDRESSABLE}",
    Rule.NOT_CONDEMNED: f"{_ASSET} WHERE blob_key IN (SELECT blob_key FROM condemned)",
    Rule.WITHIN_USES: f"{_GRANT} WHERE uses NOT BETWEEN 0 AND max_uses",
    Rule.DATED: f"{_GRANT} WHERE (uses > 0) != (spent_at IS NOT NULL)",
    Rule.AUDITED: (
        f"{_GRANT} WHERE uses > 0 AND timestamp > %(now)s - %(audit_seconds)s + {_SKEW} AND uses != "
        "(SELECT count(*) FROM audit WHERE audit.grant_key = grants.grant_key AND event IN ('spent', 'deleted'))"
    ),
    Rule.PURGED: f"{_GRANT} WHERE keep_until < %(now)s - {_PURGE_LAG} AND {_NOT_IN_SERIES}",
    Rule.AFTER_WATERMARK: f"{_GRANT} JOIN api_keys USING (api_key) WHERE timestamp <= watermark AND {_NOT_IN_SERIES}",
}

_CHECKSUMS = """
SELECT 'page checksums failed ' || checksum_failures || ' times, last ' || checksum_last_failure
FROM pg_stat_database WHERE datname = current_database() AND checksum_failures > 0
"""
# Not of a partitioned table: those have no rows of their own, and older parts may lack the like of them.
_INVALID = """
SELECT 'index ' || indexrelid::regclass || ' is not valid' FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
WHERE NOT indisvalid AND relkind = 'i'
"""
_AMCHECK = "SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'amcheck')"
_INDEXES = """
SELECT index.indexrelid::regclass::text FROM pg_index AS index JOIN pg_class ON pg_class.oid = index.indexrelid
JOIN pg_class AS owner ON owner.oid = index.indrelid
WHERE owner.relnamespace = current_schema()::regnamespace AND pg_class.relkind = 'i'
"""


async def violations(connection: Connection, rule: Rule, now: float, audit_seconds: int) -> Sequence[str]:
    rows = await connection.execute(
        _BROKEN[rule],
        {"now": int(now), "audit_seconds": audit_seconds},
    )
    return [subject for (subject,) in await rows.fetchall()]


async def integrity(connection: Connection, deep: bool) -> Sequence[str]:
    """What PostgreSQL has noticed; `deep` also lets the extension amcheck, where installed, compare every index."""
    found = [text for query in (_CHECKSUMS, _INVALID) for (text,) in await (await connection.execute(query)).fetchall()]
    if deep and await (await connection.execute(_AMCHECK)).fetchone() == (True,):
        for (index,) in await (await connection.execute(_INDEXES)).fetchall():
            found += await _compare(connection, index)
    return found


async def _compare(connection: Connection, index: str) -> Sequence[str]:
    try:
        await connection.execute("SELECT bt_index_check(%s::regclass, true)", (index,))
    except Exception as error:
        if getattr(error, "sqlstate", None) not in _CORRUPT:
            raise
        return [str(error)]
    return []


_CORRUPT = ("XX001", "XX002")  # data_corrupted, index_corrupted
