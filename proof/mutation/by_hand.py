"""Mutants that no tool makes: of SQL, of constants, of properties. Each must be killed by the tests it is run with."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from proof.mutation.tool import ROOT

SQLITE, POSTGRES, CORE = (
    ("tests/contract", "-k", "sqlite and not four_processes and not many_rows"),
    (
        "tests/contract",
        "tests/adapters/database/postgres/test_deleting.py",
        "-k",
        "postgres and not four_processes and not many_rows",
    ),
    ("tests/core",),
)
SUITES = (SQLITE, POSTGRES, CORE)

_LEDGER, _POSTGRES = "adapters/database/sqlite/ledger.py", "adapters/database/postgres/ledger.py"
_CATALOG, _SERIES = "adapters/database/sqlite/catalog.py", "adapters/database/sqlite/series.py"
_DELETING, _POSTGRES_DELETING = (f"adapters/database/{engine}/deleting.py" for engine in ("sqlite", "postgres"))
_POSTGRES_CATALOG = "adapters/database/postgres/catalog.py"
_LEAST = "min(max_uses, excluded.max_uses)"
_POSTGRES_LEAST = "least(present.max_uses, excluded.max_uses)"
_SPEND_WHERE = f"WHERE uses < {_LEAST} AND revoked_at IS NULL\n"
_POSTGRES_SPEND_WHERE = f"WHERE present.uses < {_POSTGRES_LEAST} AND present.revoked_at IS NULL\n"
_REVOKE_WHERE = "WHERE uses < max_uses AND revoked_at IS NULL\n"
_PURGE_WHERE = "WHERE keep_until < :now AND grant_key NOT IN (SELECT grant_key FROM series_grants)"
_MARK = "SET watermark = max(coalesce(watermark, :mark), :mark) WHERE api_key = :api_key"


@dataclass(frozen=True, slots=True)
class HandMade:
    """`was` stands once in the file, and is replaced by `became`."""

    name: str
    file: str
    was: str
    became: str
    suite: tuple[str, ...]

    def apply(self, source: str) -> str:
        assert source.count(self.was) == 1, f"{self.name}: {self.file} holds it {source.count(self.was)} times"
        return source.replace(self.was, self.became)


_Row: TypeAlias = tuple[str, str, str, str]


def _made(suite: tuple[str, ...], rows: Iterable[_Row]) -> Iterator[HandMade]:
    return (HandMade(name, file, was, became, suite) for name, file, was, became in rows)


_ON_SQLITE: Sequence[_Row] = [
    ("a spend asks for no use that is left", _LEDGER, _SPEND_WHERE, "WHERE revoked_at IS NULL\n"),
    ("a spend takes one use too many", _LEDGER, f"uses < {_LEAST}", f"uses <= {_LEAST}"),
    ("a spend trusts the request's policy alone", _LEDGER, f"uses < {_LEAST}", "uses < excluded.max_uses"),
    ("a spend trusts the row's policy alone", _LEDGER, f"uses < {_LEAST}", "uses < max_uses"),
    ("a spend overlooks a revocation", _LEDGER, _SPEND_WHERE, f"WHERE uses < {_LEAST}\n"),
    ("a spend counts no use", _LEDGER, "  uses = uses + 1,\n", ""),
    ("a spend forgets the stricter policy", _LEDGER, f"  max_uses = {_LEAST},\n", ""),
    ("a spend keeps the time of the first one", _LEDGER, ",\n  spent_at = excluded.spent_at\n", "\n"),
    (
        "a spend may shorten how long the row is kept",
        _LEDGER,
        "keep_until = max(keep_until, excluded.keep_until),\n  spent_at",
        "keep_until = excluded.keep_until,\n  spent_at",
    ),
    ("a revocation takes back what is used up", _LEDGER, _REVOKE_WHERE, "WHERE revoked_at IS NULL\n"),
    ("a revocation is repeated", _LEDGER, _REVOKE_WHERE, "WHERE uses < max_uses\n"),
    (
        "a revocation may shorten how long the row is kept",
        _LEDGER,
        "keep_until = max(keep_until, excluded.keep_until),\n  revoked_at",
        "keep_until = excluded.keep_until,\n  revoked_at",
    ),
    ("a purge drops what has a second left", _LEDGER, "keep_until < :now", "keep_until <= :now"),
    ("a purge drops everything", _LEDGER, _PURGE_WHERE, _PURGE_WHERE.replace("keep_until < :now", "1")),
    ("a purge drops the grants of series", _LEDGER, _PURGE_WHERE, "WHERE keep_until < :now"),
    ("a purge raises no watermark", _LEDGER, _MARK, "SET watermark = watermark WHERE api_key = :api_key"),
    ("a purge lowers a watermark", _LEDGER, _MARK, "SET watermark = :mark WHERE api_key = :api_key"),
    ("a purge raises the watermark of every key", _LEDGER, _MARK, _MARK.partition(" WHERE")[0]),
    (
        "a fence lowers a watermark",
        _LEDGER,
        'SET watermark = max(coalesce(watermark, :mark), :mark)",',
        'SET watermark = :mark",',
    ),
    (
        "a revoked key commits",
        _LEDGER,
        "WHERE api_key = ? AND cloud = ? AND revoked_at IS NULL",
        "WHERE api_key = ? AND cloud = ?",
    ),
    ("a key of another cloud commits", _LEDGER, "WHERE api_key = ? AND cloud = ?", "WHERE api_key = ? AND ? != ''"),
    ("a page begins with the last row of the one before", _LEDGER, "grant_key < :after", "grant_key <= :after"),
    (
        "a page breaks inside a timestamp",
        _LEDGER,
        "grant_key < :after",
        "substr(grant_key, 1, 5) < substr(:after, 1, 5)",
    ),
    ("a page shows the grants of every cloud", _LEDGER, "WHERE cloud = :cloud {own}", "WHERE 1 {own}"),
    (
        "a reply is told although the grant was revoked",
        "adapters/database/sqlite/replies.py",
        " AND revoked_at IS NULL",
        "",
    ),
    (
        "a reply is told to any Idempotency-Key",
        "adapters/database/sqlite/replies.py",
        "key_hash = ?",
        "key_hash != ?",
    ),
    ("a condemned blob is condemned twice", _CATALOG, " ON CONFLICT DO NOTHING", ""),
    ("digests begin after the prefix", _CATALOG, "blob_key >= ? AND", "blob_key > ? AND"),
    ("digests of all that come after the prefix", _CATALOG, " AND blob_key < ?", " AND ? != ''"),
    ("an overwrite keeps the old blob", "adapters/database/rows.py", '    "blob_key",\n    "bytes"', '    "bytes"'),
    ("a deletion spends nothing", _DELETING, "    ledger.spend(connection, grant, now, by=_BY)\n", ""),
    ("a deletion asks for no key", _DELETING, "    ledger.check_key(connection, grant)\n", ""),
    (
        "a deletion that finds nothing overlooks that its signature is spent",
        _DELETING,
        "        check_usable(ledger.find(connection, grant.key), grant, by=_BY)\n",
        "",
    ),
    ("a deletion drops every asset", _CATALOG, "FROM assets WHERE asset_id = ?", "FROM assets WHERE ? != ''"),
    (
        "a deletion is no use in the audit",
        "adapters/database/sqlite/checks.py",
        "event IN ('spent', 'deleted')",
        "event = 'spent'",
    ),
    (
        "series are counted over all keys",
        _SERIES,
        'check_room(_count(connection, "series WHERE api_key = ?"',
        "check_room(_count(connection, \"series WHERE ? != ''\"",
    ),
    ("a name of a series is shared by clouds", _SERIES, '"cloud = ? AND api_key', "\"? != '' AND api_key"),
    (
        "a signature is in as many series as it likes",
        _SERIES,
        'series_grants WHERE grant_key = ?", grant.key',
        'series_grants WHERE grant_key != ?", grant.key',
    ),
    ("a series of the very second ends", _SERIES, "created_at < ? OR", "created_at <= ? OR"),
    ("series of other keys make room", _SERIES, "coalesce(api_key = :api_key, true)", "coalesce(:api_key, true)"),
    ("series that arrived make room", _SERIES, "total IS NULL OR arrived < total", "total IS NULL OR true"),
    ("refusals have no end", "adapters/database/sqlite/audit.py", "rows <= most", "rows >= 0"),
    ("used up is told one use late", "adapters/database/listing.py", "uses >= max_uses", "uses > max_uses"),
    ("a use is left when none is", "adapters/database/listing.py", "uses < max_uses", "uses <= max_uses"),
    (
        "replies outlive their grant",
        "adapters/database/sqlite/migrations/0003_replies.sql",
        "WHERE grant_key = OLD.grant_key",
        "WHERE grant_key != OLD.grant_key",
    ),
]

_ON_POSTGRES: Sequence[_Row] = [
    ("a spend asks for no use that is left", _POSTGRES, _POSTGRES_SPEND_WHERE, "WHERE present.revoked_at IS NULL\n"),
    ("a spend takes one use too many", _POSTGRES, f"uses < {_POSTGRES_LEAST}", f"uses <= {_POSTGRES_LEAST}"),
    ("a spend trusts the request's policy alone", _POSTGRES, f"uses < {_POSTGRES_LEAST}", "uses < excluded.max_uses"),
    ("a spend overlooks a revocation", _POSTGRES, _POSTGRES_SPEND_WHERE, f"WHERE present.uses < {_POSTGRES_LEAST}\n"),
    ("a spend forgets the stricter policy", _POSTGRES, f"  max_uses = {_POSTGRES_LEAST},\n", ""),
    ("a revocation takes back what is used up", _POSTGRES, "WHERE present.uses < present.max_uses AND", "WHERE"),
    ("a purge drops everything", _POSTGRES, "WHERE keep_until < %(before)s", "WHERE %(before)s > 0"),
    (
        "a deletion asks for no use that is left",
        _POSTGRES_DELETING,
        "if await spent.fetchone() is None:",
        "if await spent.fetchone() == ():",
    ),
    ("a deletion locks no name", _POSTGRES_DELETING, "[locks.of_name(name)]", "[]"),
    (
        "a deletion drops every asset",
        _POSTGRES_CATALOG,
        "FROM assets WHERE asset_id = %s",
        "FROM assets WHERE %s != ''",
    ),
    ("a watermark is lowered", _POSTGRES, "SET watermark = greatest(watermark, %s)", "SET watermark = %s"),
    ("a revoked key commits", _POSTGRES, "ANY(%s::text[]) AND revoked_at IS NULL", "ANY(%s::text[])"),
]

_ON_CORE: Sequence[_Row] = [
    ("an unsigned folder", "core/parameters.py", '"folder", Use.NAMING', '"folder", Use.UNSIGNED'),
    ("a timestamp of 14 digits", "core/freshness.py", "[0-9]{0,12}", "[0-9]{0,13}"),
    ("a timestamp with leading zeros", "core/freshness.py", "0|[1-9][0-9]{0,12}", "[0-9]{1,13}"),
    ("milliseconds are seconds", "core/freshness.py", "10**12", "10**13"),
    (
        "used up is told one use late",
        "core/values.py",
        "self.uses >= self.grant.max_uses",
        "self.uses > self.grant.max_uses",
    ),
    ("a revoked signature is unused", "core/values.py", "if self.revoked_at is not None", "if self.revoked_at is None"),
    (
        "a series is complete a byte early",
        "core/series.py",
        "self.received == self.total",
        "self.received + 1 == self.total",
    ),
    ("a series ends where its first hole begins", "core/series.py", "self.spans[-1].end", "self.spans[0].end"),
    ("a name of a series is a parameter that varies", "core/series.py", '"nonce", "public_id"', '"nonce", "folder"'),
    ("a public_id may hold an ampersand", "core/naming.py", "frozenset('?&#", "frozenset('?#"),
    ("a public_id may hold invisible characters", "core/naming.py", '"Cc", "Cf", "Cs"', '"Cc", "Cs"'),
    ("a first folder may pose as a version", "core/naming.py", "v[0-9]+|s--", "s--"),
    ("the name of a raw file proves a format", "core/policy.py", "named not in FORMATS", "named"),
    ("limits have no defaults", "core/policy.py", "default=default", "default=0"),
    ("a range ends one byte late", "core/ranges.py", "self.start + self.length - 1", "self.start + self.length"),
    ("a delivery signature of nine characters", "core/delivery.py", "{8}|", "{8,9}|"),
    ("more tags than allowed", "core/readers.py", "MAX_TAGS = 1000", "MAX_TAGS = 1001"),
    ("more uses than allowed", "core/parameters.py", "MAX_USES = 1_000_000", "MAX_USES = 1_000_001"),
]

BY_HAND = (*_made(SQLITE, _ON_SQLITE), *_made(POSTGRES, _ON_POSTGRES), *_made(CORE, _ON_CORE))


def is_killed(mutant: HandMade | None, suite: Sequence[str], scratch: Path) -> bool:
    """Whether a test of the suite fails; with no mutant, whether the suite fails by itself."""
    folder = scratch / (f"hand-{BY_HAND.index(mutant)}" if mutant else f"sound-{SUITES.index(tuple(suite))}")
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
    if mutant:
        file = folder / "src" / "uponce" / mutant.file
        file.write_text(mutant.apply(file.read_text()))
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "TMPDIR": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *suite]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return done.returncode != 0


def run(processes: int, scratch: Path) -> dict[HandMade, bool]:
    """Of each whether it is killed; AssertionError when a suite fails without any."""
    with ThreadPoolExecutor(processes) as pool:
        broken = pool.map(lambda suite: is_killed(None, suite, scratch), SUITES)
        assert not any(list(broken)), "a suite fails without a mutant"
        told = pool.map(lambda mutant: is_killed(mutant, mutant.suite, scratch), BY_HAND)
        return dict(zip(BY_HAND, told, strict=True))
