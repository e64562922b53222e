"""Mutants that no tool makes: of SQL, of constants, of properties. Each must be killed by the tests it is run with."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

# Begins the suites of databases. If it fails, no commit works, as with SQL that no engine can read. Then any test kills
# the mutant, and such a kill says nothing about the change.
PLAIN_COMMIT = "tests/contract/test_database.py::test_a_commit_spends_the_grant_and_publishes_the_asset"

SQLITE, POSTGRES, CORE, WEB, IN_APP = (
    (
        PLAIN_COMMIT,
        "tests/contract",
        "tests/adapters/database/sqlite/test_writer.py",
        "-k",
        "sqlite and not four_processes and not many_rows",
    ),
    (
        PLAIN_COMMIT,
        "tests/contract",
        "tests/adapters/database/postgres/test_deleting.py",
        "tests/adapters/database/postgres/test_groups.py",
        "tests/adapters/database/postgres/test_rules.py",
        "-k",
        "postgres and not four_processes and not many_rows",
    ),
    ("tests/core",),
    ("tests/web/test_bad_forms.py", "tests/web/test_bad_parameters.py", "tests/web/test_http.py"),
    ("tests/app", "tests/web/test_relay_small.py", "-k", "series_ends or all_signatures or is_refused_and_noted"),
)

_BOTH, _SQLITE_ONLY, _POSTGRES_ONLY = (f"adapters/database/sql/{name}.sql" for name in ("both", "sqlite", "postgres"))
_COMMITS, _SERIES, _RELAYS, _UPKEEP, _STEPS = (
    f"adapters/database/{name}.py" for name in ("commits", "series", "relays", "upkeep", "steps")
)
_COMPLETION = "app/uploading/completion.py"
_ROWS_LEFT = "grants.uses < grants.max_uses AND grants.uses < excluded.max_uses"
_SPEND_WHERE = f"WHERE {_ROWS_LEFT} AND grants.revoked_at IS NULL\n"
_REVOKE_WHERE = "WHERE grants.uses - grants.pending < grants.max_uses AND grants.revoked_at IS NULL\n"
_LEAST = "  max_uses = CASE WHEN grants.max_uses < excluded.max_uses THEN grants.max_uses ELSE excluded.max_uses END,\n"
_LONGEST = "CASE WHEN grants.keep_until > excluded.keep_until THEN grants.keep_until ELSE excluded.keep_until END"
# Without the fragment, which assigns `uses` too: PostgreSQL refuses two assignments to one column.
_TAKEN_AGAIN = f"ON CONFLICT (grant_key) DO UPDATE SET uses = 1, pending = 1,\n{_LEAST}  keep_until = {_LONGEST}\n"
_GREATER_MARK = "CASE WHEN fences.mark > excluded.mark THEN fences.mark ELSE excluded.mark END"
_OF_ONE, _OF_ALL = (f"-- name: raise_watermark{end}!\nUPDATE api_keys SET watermark = " for end in ("", "s"))
_EACH_KEY = (
    "    for grant, keys in zip(grants, found[::2], strict=True):\n"
    "        commits.check_key(grant, keys, watermark=False)\n"
)
_KEY = "WHERE api_key = :api_key AND cloud = :cloud AND revoked_at IS NULL"


@dataclass(frozen=True, slots=True)
class HandMade:
    """`was` stands once in the file, and is replaced by `became`."""

    name: str
    file: str
    was: str
    became: str
    suite: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """Return what no other mutant has: file, name, and the database if there is one mutant for each."""
        return self.file, self.name, {SQLITE: "SQLite", POSTGRES: "PostgreSQL"}.get(self.suite, "")

    def apply(self, source: str) -> str:
        assert source.count(self.was) == 1, f"{self.name}: {self.file} holds it {source.count(self.was)} times"
        return source.replace(self.was, self.became)


_Row: TypeAlias = tuple[str, str, str, str]


def _made(suite: tuple[str, ...], rows: Iterable[_Row]) -> Iterator[HandMade]:
    return (HandMade(name, file, was, became, suite) for name, file, was, became in rows)


# Operations and statements that both engines run: each is broken for the suite of each.
_ON_BOTH: Sequence[_Row] = [
    ("a spend asks for no use that is left", _BOTH, _SPEND_WHERE, "WHERE grants.revoked_at IS NULL\n"),
    ("a spend takes one use too many", _BOTH, _ROWS_LEFT, _ROWS_LEFT.replace("<", "<=")),
    ("a spend trusts the request's policy alone", _BOTH, _ROWS_LEFT, "grants.uses < excluded.max_uses"),
    ("a spend trusts the row's policy alone", _BOTH, _ROWS_LEFT, "grants.uses < grants.max_uses"),
    ("a spend overlooks a revocation", _BOTH, _SPEND_WHERE, f"WHERE {_ROWS_LEFT}\n"),
    ("a spend counts no use", _BOTH, "  uses = grants.uses + 1,\n", ""),
    ("a spend forgets the stricter policy", _BOTH, _LEAST, ""),
    ("a spend keeps the time of the first one", _BOTH, ", spent_at = excluded.spent_at\n", "\n"),
    (
        "a spend may shorten how long the row is kept",
        _BOTH,
        f"keep_until = {_LONGEST}\n\n-- fragment",
        "keep_until = excluded.keep_until\n\n-- fragment",
    ),
    ("a pending use may be taken again", _BOTH, "@one_use_more, pending = grants.pending + 1\n", _TAKEN_AGAIN),
    ("a free grant stays used", _BOTH, "pending = pending - 1, uses = uses - 1", "pending = pending - 1, uses = uses"),
    ("a pending grant is purged", _BOTH, "pending = 0 AND NOT EXISTS", "NOT EXISTS"),
    ("a revocation takes back what is used up", _BOTH, _REVOKE_WHERE, "WHERE grants.revoked_at IS NULL\n"),
    ("a revocation is repeated", _BOTH, _REVOKE_WHERE, "WHERE grants.uses - grants.pending < grants.max_uses\n"),
    (
        "a revocation may shorten how long the row is kept",
        _BOTH,
        f"keep_until = {_LONGEST},\n  revoked_at",
        "keep_until = excluded.keep_until,\n  revoked_at",
    ),
    ("a page shows the grants of every cloud", _BOTH, "| grants_page     | cloud = :cloud\n", "| grants_page | true\n"),
    ("a purge drops what has a second left", _BOTH, "keep_until < :before AND", "keep_until <= :before AND"),
    ("a purge drops everything", _BOTH, "keep_until < :before AND", ":before > 0 AND"),
    ("a purge drops the grants of series", _BOTH, ":before AND @not_held", ":before"),
    ("a purge raises no watermark", _BOTH, f"{_OF_ONE}:mark", f"{_OF_ONE}watermark"),
    (
        "a purge lowers a watermark",
        _BOTH,
        "WHERE api_key = :api_key AND (watermark IS NULL OR watermark < :mark)",
        "WHERE api_key = :api_key",
    ),
    (
        "a purge raises the watermark of every key",
        _BOTH,
        "WHERE api_key = :api_key AND (watermark IS NULL",
        "WHERE api_key = api_key AND (watermark IS NULL",
    ),
    (
        "a fence lowers a watermark",
        _BOTH,
        f"{_OF_ALL}:mark WHERE watermark IS NULL OR watermark < :mark",
        f"{_OF_ALL}:mark",
    ),
    ("a fence forgets keys that come back later", "adapters/database/keys.py", "if fences and not new:", "if False:"),
    ("a fence forgets a greater one", _BOTH, f"mark = {_GREATER_MARK}", "mark = excluded.mark"),
    ("a start widens no fence", _UPKEEP, 'if row["mark"] < row["moment"] + skew:', "if False:"),
    (
        "a wider fence keeps series",
        _UPKEEP,
        '("raise_fenced", wider), ("end_fenced_series", {"mark": wider["mark"]})',
        '("raise_fenced", wider)',
    ),
    (
        "a wider fence refuses new keys",
        _BOTH,
        "WHERE watermark >= :moment AND watermark < :mark",
        "WHERE watermark IS NULL OR watermark < :mark",
    ),
    ("a revoked key commits", _BOTH, _KEY, "WHERE api_key = :api_key AND cloud = :cloud"),
    ("a key of another cloud commits", _BOTH, _KEY, "WHERE api_key = :api_key AND revoked_at IS NULL"),
    (
        "a reply is told although the grant was revoked",
        _BOTH,
        "AND key_hash = :key_hash AND revoked_at IS NULL",
        "AND key_hash = :key_hash",
    ),
    ("a reply is told to any Idempotency-Key", _BOTH, "AND key_hash = :key_hash AND revoked_at", "AND revoked_at"),
    ("a condemned blob is condemned twice", _BOTH, "(:blob_key, :at) ON CONFLICT DO NOTHING", "(:blob_key, :at)"),
    ("digests begin after the prefix", _BOTH, "blob_key >= :first", "blob_key > :first"),
    ("digests of all that come after the prefix", _BOTH, " AND blob_key < :behind", ""),
    ("an overwrite keeps the old blob", _BOTH, "blob_key = excluded.blob_key, ", ""),
    ("a deletion spends nothing", _COMMITS, "    yield from _spend(grant, now, _CALL)\n", ""),
    (
        "a deletion that finds nothing overlooks that its signature is spent",
        _COMMITS,
        "        check_usable(first_grant(records), grant, by=_CALL)\n",
        "",
    ),
    (
        "a deletion drops every asset",
        _BOTH,
        "FROM assets WHERE asset_id = :asset_id",
        "FROM assets WHERE asset_id > ''",
    ),
    ("a deletion is no use in the audit", _BOTH, "AND event IN ('spent', 'deleted')", "AND event = 'spent'"),
    (
        "series are counted over all keys",
        _BOTH,
        "count(CASE WHEN api_key = :api_key THEN 1 END)",
        "count(CASE WHEN api_key > '' THEN 1 END)",
    ),
    (
        "a name of a series is shared by clouds",
        _BOTH,
        "WHERE cloud = :cloud AND api_key = :api_key AND upload_id",
        "WHERE api_key = :api_key AND upload_id",
    ),
    (
        "a signature is in as many series as it likes",
        _BOTH,
        "ON series.id = series_id WHERE grant_key = :grant_key",
        "ON series.id = series_id WHERE false",
    ),
    (
        "a signature waits for the series of others",
        _BOTH,
        "ON series.id = series_id WHERE grant_key = :grant_key",
        "ON series.id = series_id WHERE true",
    ),
    ("a complete series of one server holds no signature", _BOTH, "shared = 1 AND created_at", "created_at"),
    ("a young complete series holds no signature", _BOTH, "created_at < :complete_before", "created_at > 0"),
    ("complete series hold no signature", _SERIES, "holders - min(idle, left) >= left", "holders - idle >= left"),
    ("a series takes a signature too many", _SERIES, "series.signatures >= most", "series.signatures > most"),
    ("a series counts no signature", _BOTH, "signatures = signatures + 1", "signatures = signatures + 0"),
    ("a series commits a condemned blob", _SERIES, "    if condemned:\n        raise commits.refuse_condemned()\n", ""),
    ("a series of a revoked key commits", _SERIES, _EACH_KEY, ""),
    ("a series of the very second ends", _BOTH, "created_at < :before OR", "created_at <= :before OR"),
    ("series of other keys make room", _BOTH, "coalesce(api_key = :api_key, true)", "coalesce(api_key > '', true)"),
    ("complete series of other keys make room", _BOTH, "coalesce(api_key = :of_key, true)", "true"),
    ("young complete series make room", _BOTH, "CASE WHEN shared = 0 THEN :before", "CASE WHEN shared = 0 THEN :now"),
    ("young shared series make room", _BOTH, "ELSE :shared_before END", "ELSE :before END"),
    ("series that arrived make room", _BOTH, "total > 0 AND spans <>", "true OR spans <>"),
    ("bytes that failed keep a series", _BOTH, "total > 0 AND spans <>", "arrived < total AND spans <>"),
    ("refusals have no end", _COMMITS, 'known["refusals"] <= most', 'known["refusals"] >= 0'),
    ("used up is told one use late", _BOTH, "uses >= max_uses", "uses > max_uses"),
    (
        "a use is left when none is",
        _BOTH,
        "unused_of_cloud  | grants_unused   | cloud = :cloud AND @unused",
        "unused_of_cloud | grants_page | cloud = :cloud AND revoked_at IS NULL AND pending = 0",
    ),
    ("replies stay for ever", _UPKEEP, '"drop_replies", {"before": int(now - slack)', '"drop_replies", {"before": 0'),
    (
        "an operation may refuse after it has written",
        _STEPS,
        "            if self._wrote:\n",
        "            if False:\n",
    ),
]

_ON_SQLITE: Sequence[_Row] = [
    (
        "a page begins with the last row of the one before",
        _SQLITE_ONLY,
        "grant_key < :before ORDER",
        "grant_key <= :before ORDER",
    ),
]

_ON_POSTGRES: Sequence[_Row] = [
    (
        "a deletion locks no name",
        _COMMITS,
        "caller: (of_name(name), of_grant(grant.key))",
        "caller: (of_grant(grant.key),)",
    ),
    ("a purge beside commits", _UPKEEP, "(rules=Rules.OWN)\ndef purge_grants(", "(writes=True)\ndef purge_grants("),
    ("a fence beside commits", _UPKEEP, "rules=Rules.OWN, patient=True)\ndef fence(", "writes=True)\ndef fence("),
    (
        "a wider fence beside commits",
        _UPKEEP,
        "rules=Rules.OWN, patient=True)\ndef widen_fence(",
        "writes=True)\ndef widen_fence(",
    ),
    (
        "a key is revoked beside commits",
        "adapters/database/keys.py",
        "(rules=Rules.OWN, patient=True)  # the key may have many series\ndef revoke(",
        "(writes=True)\ndef revoke(",
    ),
    (
        "a blob is condemned beside commits",
        "adapters/database/catalog.py",
        "(rules=Rules.OWN)\ndef condemn(",
        "(writes=True)\ndef condemn(",
    ),
    (
        "a partition goes beside commits",
        "adapters/database/postgres/schema.py",
        "(rules=Rules.OWN)\ndef drop_part(",
        "(writes=True)\ndef drop_part(",
    ),
    ("a series begins beside a fence", _SERIES, "rules=Rules.SHARED, waits=True", "writes=True, waits=True"),
    ("a series is joined beside a fence", _SERIES, "(rules=Rules.SHARED)\ndef join(", "(writes=True)\ndef join("),
    (
        "a series commits beside a condemnation",
        _SERIES,
        "rules=Rules.SHARED, locks=lambda series_id",
        "writes=True, locks=lambda series_id",
    ),
    (
        "a relay of a series begins beside a fence",
        _RELAYS,
        "(rules=Rules.SHARED)\ndef begin_of_series(",
        "(writes=True)\ndef begin_of_series(",
    ),
    (
        "a relay ends beside a purge",
        _RELAYS,
        "(rules=Rules.SHARED, locks=_locks)\ndef end(",
        "(writes=True, locks=_locks)\ndef end(",
    ),
    ("a series locks no name", _SERIES, ", locks=lambda series_id, draft, caller: (of_name(draft.asset.name),)", ""),
    ("uses of one grant share a wave", _STEPS, "wave = max(", "wave = 0 * max("),
]

_ON_CORE: Sequence[_Row] = [
    ("an unsigned folder", "core/parameters.py", '"folder", Use.NAMING', '"folder", Use.UNSIGNED'),
    ("a timestamp of 14 digits", "core/parameters.py", "[0-9]{0,12}", "[0-9]{0,13}"),
    ("a timestamp with leading zeros", "core/parameters.py", "0|[1-9][0-9]{0,12}", "[0-9]{1,13}"),
    ("milliseconds are seconds", "core/parameters.py", "10**12", "10**13"),
    (
        "used up is told one use late",
        "core/values.py",
        "self.uses >= self.grant.max_uses",
        "self.uses > self.grant.max_uses",
    ),
    ("a revoked signature is unused", "core/values.py", "if self.revoked_at is not None", "if False"),
    (
        "a series is complete a byte early",
        "core/series.py",
        "return self.received == self.total",
        "return self.total is not None and self.received >= self.total - 1",
    ),
    (
        "a series is complete when its total is known",
        "core/series.py",
        "self.received == self.total",
        "bool(self.total)",
    ),
    ("a series ends where its first hole begins", "core/series.py", "self.spans[-1].end", "self.spans[0].end"),
    ("a name of a series is a parameter that varies", "core/series.py", '"nonce"})', '"nonce", "public_id"})'),
    ("a public_id may hold an ampersand", "core/naming.py", "frozenset('?&#", "frozenset('?#"),
    ("a public_id may hold invisible characters", "core/naming.py", '"Cc", "Cf", "Cs"', '"Cc", "Cs"'),
    ("a first folder may pose as a version", "core/naming.py", "v[0-9]+|s--", "s--"),
    ("the name of a raw file proves a format", "core/policy.py", "named not in FORMATS", "named"),
    ("a signature never gets old", "core/signature.py", "if now > timestamp + lifetime:", "if False:"),
    ("a signature of the future", "core/signature.py", "if timestamp > now + skew:", "if False:"),
    ("limits have no defaults", "core/policy.py", "default=default", "default=0"),
    ("a range ends one byte late", "core/ranges.py", "int(last) + 1, size", "int(last) + 2, size"),
    ("a delivery signature of nine characters", "core/naming.py", "{8}|", "{8,9}|"),
    ("a message repeats control characters", "core/errors.py", "if c.isprintable()", "if c"),
    ("more tags than allowed", "core/parameters.py", "MAX_TAGS = 1000", "MAX_TAGS = 1001"),
    ("more uses than allowed", "core/parameters.py", "MAX_USES = 1_000_000", "MAX_USES = 1_000_001"),
]

_ON_WEB: Sequence[_Row] = [
    ("a refusal gives no code", "web/errors.py", '"code": error.code}}', '"code": "refused"}}'),
    ("a refusal says no time to wait", "web/errors.py", "if error.retry_after is not None:", "if False:"),
    ("a database that is down is a defect", "web/errors.py", "errors.Unavailable: 503", "errors.Unavailable: 500"),
    ("a refusal gives no reason to SDKs", "web/errors.py", '(b"x-cld-error", _header', '(b"x-error", _header'),
    (
        "a refused form leaves its file",
        "app/uploading/intake.py",
        "        if self.body is not None:\n            await self.body.discard()\n",
        "",
    ),
]

_ON_APP: Sequence[_Row] = [
    (
        "a series ends with its condemned blob",
        _COMPLETION,
        "return series.shared and isinstance(error, errors.BlobCondemned)",
        "return False",
    ),
    ("a refused series is not recorded", _COMPLETION, "await refuse_spent(services, grant, caller)", "pass"),
    (
        "a refused relay is not recorded",
        "app/uploading/streamed.py",
        "async with refusals_recorded(services, admitted.grant, admitted.caller):\n            if isinstance",
        "if True:\n            if isinstance",
    ),
]

BY_HAND = (
    *_made(SQLITE, (*_ON_BOTH, *_ON_SQLITE)),
    *_made(POSTGRES, (*_ON_BOTH, *_ON_POSTGRES)),
    *_made(CORE, _ON_CORE),
    *_made(WEB, _ON_WEB),
    *_made(IN_APP, _ON_APP),
)
