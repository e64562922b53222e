"""Whether the file is sound, and whether what stands in it agrees with itself. Each question is one statement.

So each is answered from one snapshot: beside running servers no half of a commit is ever seen.
"""

import sqlite3
from collections.abc import Sequence

from uponce.adapters.database.sqlite.catalog import ADDRESSABLE
from uponce.app.ports import Rule

_MOST_MESSAGES = 10_000
_SKEW = 3600  # a grant may be spent that long before its timestamp
_PURGE_LAG = 3600

_GRANT = "SELECT lower(hex(grant_key)) FROM grants"
_NOT_IN_SERIES = "grant_key NOT IN (SELECT grant_key FROM series_grants)"
_ASSET = "SELECT cloud || '/' || resource_type || '/' || type || '/' || public_id FROM assets"

_BROKEN = {
    # The inner statement is answered by the index of blob keys alone.
    Rule.ADDRESSABLE: f"{_ASSET} WHERE id IN (SELECT id FROM assets WHERE NOT {ADDRESSABLE})",
    Rule.NOT_CONDEMNED: f"{_ASSET} WHERE blob_key IN (SELECT blob_key FROM condemned)",
    Rule.WITHIN_USES: f"{_GRANT} WHERE uses NOT BETWEEN 0 AND max_uses",
    Rule.DATED: f"{_GRANT} WHERE (uses > 0) != (spent_at IS NOT NULL)",
    Rule.AUDITED: (
        f"{_GRANT} WHERE uses > 0 AND timestamp > :now - :audit_seconds + {_SKEW} AND uses != "
        "(SELECT count(*) FROM audit WHERE audit.grant_key = grants.grant_key AND event IN ('spent', 'deleted'))"
    ),
    Rule.PURGED: f"{_GRANT} WHERE keep_until < :now - {_PURGE_LAG} AND {_NOT_IN_SERIES}",
    Rule.AFTER_WATERMARK: f"{_GRANT} JOIN api_keys USING (api_key) WHERE timestamp <= watermark AND {_NOT_IN_SERIES}",
}


def violations(connection: sqlite3.Connection, rule: Rule, now: float, audit_seconds: int) -> Sequence[str]:
    rows = connection.execute(_BROKEN[rule], {"now": int(now), "audit_seconds": audit_seconds})
    return [subject for (subject,) in rows]


def integrity(connection: sqlite3.Connection, deep: bool) -> Sequence[str]:
    """The messages of SQLite's own check, each once."""
    check = "integrity_check" if deep else "quick_check"
    try:
        messages = [text for (text,) in connection.execute(f"PRAGMA {check}({_MOST_MESSAGES})")]
    except sqlite3.OperationalError:  # locked, an I/O error: nothing is known
        raise
    except sqlite3.DatabaseError as error:  # so damaged that the check itself fails
        return [str(error)]
    return [] if messages == ["ok"] else list(dict.fromkeys(messages))
