"""Check a whole store: rows against bytes, bytes against rows, and the ledger itself. Change nothing.

Servers may run. fsck reports no state that only exists during their work. It compares rows and blobs shard by shard,
and reads the rows first. It checks each suspect a second time, and reports only what is still wrong. This is safe: a
blob is durable before a row names it, and no key is ever named twice. So if a row exists before and after a listing of
blobs, its blob must be in that listing.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice

from uponce.app.owner import check_owner
from uponce.app.ports import PLACES as SHARDS
from uponce.app.ports import Rule, StoredBlob
from uponce.app.services import Services
from uponce.core.errors import DatabaseUnavailable, SettingRefused, StorageUnavailable
from uponce.core.values import Digest

SPOOL = "spool"
PLACES = (SPOOL, *SHARDS)

_MOST_SUSPECTS = 50_000
_LISTED = 10_000  # findings of each kind: the report of a ruined store must not fill the memory
_READ_AT_ONCE = 8
_ABSENT = "it does not exist, or the store cannot read it"
_FROM_BACKUP = "restore these blobs from a backup. In a bucket, copy the objects. In a local folder, "
_BY_RESTORE = (
    "stop the server, run `uponce backup` into the folder of the last backup, or the uploads since then are lost. Only "
    "then move `uponce.db*` away, and run `uponce restore --reuse-storage`"
)
_REPLACE = (
    f"{_FROM_BACKUP}copy the files with `cp -a`. Beside a pack, such a file has no effect: for blobs that begin with "
    f"p, {_BY_RESTORE}"
)
_ADD = (
    f"{_FROM_BACKUP}copy the files with `cp -a` from `media/blobs` of the backup to the same place. If `uponce fsck "
    f"--deep` still names an asset, {_BY_RESTORE}"
)


class Severity(StrEnum):
    """DAMAGE needs the operator. A WARNING does no harm yet. The next sweep deletes what is REMOVABLE."""

    DAMAGE = "damage"
    WARNING = "warning"
    REMOVABLE = "removable"


DAMAGE, WARNING, REMOVABLE = Severity


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding. `meaning` names the fault and the cure."""

    name: str
    severity: Severity
    meaning: str


HOLLOW = Kind("hollow", DAMAGE, f"assets whose bytes are missing: check the disk, {_ADD}")
SIZE = Kind("size", DAMAGE, f"blobs with another size than the upload: {_REPLACE}")
HASH = Kind("hash", DAMAGE, f"blobs with other bytes than the upload: check the disk, {_REPLACE}")
UNREADABLE = Kind("unreadable", DAMAGE, f"blobs that cannot be read: check the disk, {_REPLACE}")
DATABASE = Kind(
    "database",
    DAMAGE,
    "faults of the database. SQLite: stop the server, run `uponce backup`: it says if a REINDEX is enough. Otherwise "
    "restore the database from a backup. PostgreSQL: see each line",
)
UNCHECKED = Kind("unchecked", WARNING, "parts of the database that may have faults: each line says what to do")
SECRET = Kind("secret", DAMAGE, "API keys whose secret cannot be read: put the right secret.key back, see below")
OWNER = Kind("owner", DAMAGE, "the storage of another database: use the right UPONCE_DATABASE and UPONCE_STORAGE")
ORPHAN = Kind("orphan", REMOVABLE, "blobs that no asset names")
CONDEMNED = Kind("condemned", REMOVABLE, "condemned blobs that a sweep has not deleted yet")
SPOOLED = Kind("spooled", REMOVABLE, "unfinished uploads older than the grace time")

RULES = {
    Rule.ADDRESSABLE: Kind("blob_key", DAMAGE, "assets with an invalid blob key: restore the database"),
    Rule.NOT_CONDEMNED: Kind(
        "condemned_asset", DAMAGE, "assets whose bytes a sweep may delete: copy the media, report a bug"
    ),
    Rule.WITHIN_USES: Kind("overused", DAMAGE, "signatures used more often than they allow: report a bug"),
    Rule.DATED: Kind("undated", DAMAGE, "signatures whose uses and time of use disagree: report a bug"),
    Rule.PENDING: Kind(
        "unsettled", DAMAGE, "signatures whose pending uses and passed-on uploads disagree: report a bug"
    ),
    Rule.AUDITED: Kind(
        "unaudited",
        DAMAGE,
        "signatures whose uses and audit rows disagree: report a bug, unless UPONCE_AUDIT_DAYS was raised and no "
        "upload came since",
    ),
    Rule.PURGED: Kind(
        "overdue", WARNING, "grants that expired more than an hour ago: run `uponce sweep`, or the server"
    ),
    Rule.AFTER_WATERMARK: Kind(
        "watermark",
        WARNING,
        "grants at or before the watermark, refused as stale. Normal after a restore, and for two hours after a long "
        "upload in parts or a relayed upload that was pending for hours; otherwise check the clock",
    ),
}


@dataclass(frozen=True, slots=True)
class FsckFinding:
    """One fault. `subject` is an asset's name, a blob's key or a grant's key in hex."""

    kind: Kind
    subject: str
    detail: str = ""


@dataclass(slots=True)
class Examined:
    """What fsck has examined so far.

    `places` counts finished PLACES. `bytes` is the size of all blobs. `hashed` counts the blobs whose bytes were read.
    `in_flight` counts young blobs, spooled or published, that no asset names yet.
    """

    places: int = 0
    assets: int = 0
    blobs: int = 0
    bytes: int = 0
    hashed: int = 0
    in_flight: int = 0


@dataclass(slots=True)
class Report:
    """The number of findings of each kind, and the first _LISTED of them."""

    examined: Examined = field(default_factory=Examined)
    counts: dict[Kind, int] = field(default_factory=lambda: defaultdict(int))
    findings: dict[Kind, list[FsckFinding]] = field(default_factory=lambda: defaultdict(list))

    def add(self, finding: FsckFinding) -> None:
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= _LISTED:
            self.findings[finding.kind].append(finding)

    def total(self, severity: Severity) -> int:
        return sum(count for kind, count in self.counts.items() if kind.severity is severity)


Suspects = Mapping[str, FsckFinding]  # by blob key, which is the subject


async def fsck(
    services: Services,
    *,
    grace_seconds: float,
    audit_seconds: int,
    deep: bool = False,
    settle_seconds: float = 1.0,
    progress: Callable[[Examined], None] = lambda examined: None,
) -> Report:
    """Return a report of every fault. Only one shard and its suspects are in memory at a time.

    `deep` reads and hashes every blob. `settle_seconds` pass before the second look at the suspects. Audit rows may be
    gone after `audit_seconds`.
    """
    report = Report()
    for fault in await services.database.integrity(deep=deep):
        report.add(FsckFinding(DATABASE if fault.is_damage else UNCHECKED, "database", fault.message))
    try:
        await _check_rows(services, audit_seconds, report)
        await _Comparison(services, grace_seconds, deep, settle_seconds, progress, report).run()
    except DatabaseUnavailable:
        if DATABASE not in report.counts:  # otherwise a finding already has the reason
            raise
    return report


async def _check_rows(services: Services, audit_seconds: int, report: Report) -> None:
    try:
        await check_owner(services.database, services.blobs)
    except SettingRefused as error:
        report.add(FsckFinding(OWNER, "UPONCE_STORAGE", error.message))
    for api_key, reason in (await services.database.unreadable_keys()).items():
        report.add(FsckFinding(SECRET, api_key, reason))
    for rule, kind in RULES.items():
        subjects = await services.database.violations(rule, audit_seconds, _LISTED)
        for subject in subjects:
            report.add(FsckFinding(kind, subject))
        if len(subjects) == _LISTED:
            report.counts[kind] = max(_LISTED, await services.database.count_violations(rule, audit_seconds))


@dataclass(slots=True)
class _Comparison:
    """The comparison of the catalog with the blob store."""

    services: Services
    grace_seconds: float
    deep: bool
    settle_seconds: float
    progress: Callable[[Examined], None]
    report: Report

    async def run(self) -> None:
        suspects: dict[str, Suspects] = {}
        for place in PLACES:
            if found := await self._look(place):
                suspects[place] = found
            self.report.examined.places += 1
            self.progress(self.report.examined)
            if sum(map(len, suspects.values())) > _MOST_SUSPECTS or (suspects and place == PLACES[-1]):
                await asyncio.sleep(self.settle_seconds)
                await self._confirm(suspects)
                suspects = {}

    async def _confirm(self, suspects: Mapping[str, Suspects]) -> None:
        """Report what is still wrong. An asset that has other bytes by now is right."""
        for place, before in suspects.items():
            now = await self._look(place, before)
            for key in before.keys() & now.keys():
                found = now[key]
                if found.kind.severity is REMOVABLE:
                    self.report.add(found)
                elif asset := await self.services.database.find_commit(key):
                    self.report.add(FsckFinding(found.kind, str(asset.name), f"blob {key}: {found.detail}"))

    async def _look(self, place: str, again: Suspects | None = None) -> Suspects:
        """Return the suspects in one place. `again` are those of the first look; only that one counts in Examined."""
        if place == SPOOL:
            rows: Mapping[str, Digest] = {}
            blobs = await self._unfinished()
            left = blobs.keys() - await self.services.database.series_blobs()
            suspects = {key: _left(SPOOLED, blobs[key]) for key in left if blobs[key].age >= self.grace_seconds}
        else:
            rows = await self.services.database.digests(place)
            blobs = {blob.key: blob async for blob in self.services.blobs.published(place)}
            suspects = _unlike(rows, blobs) | await self._unnamed(rows, blobs)
            if self.deep:
                sound = {key: rows[key] for key in rows.keys() - suspects.keys() if again is None or key in again}
                suspects |= await self._rotten(sound, counted=again is None)
        if again is None:
            self._count(rows, blobs, suspects)
        return suspects

    async def _unfinished(self) -> dict[str, StoredBlob]:
        """Return the spooled files, and each unfinished shared blob: all its objects, as old as the youngest."""
        blobs = {blob.key: blob async for blob in self.services.blobs.spooled()}
        async for part in self.services.blobs.parts.listed():
            known = blobs.get(part.key, part)
            size = part.size + (known.size if known is not part else 0)
            blobs[part.key] = StoredBlob(part.key, size, min(part.age, known.age))
        return blobs

    async def _unnamed(self, rows: Mapping[str, Digest], blobs: Mapping[str, StoredBlob]) -> dict[str, FsckFinding]:
        """Return the blobs without a row, except young ones: an upload may be about to commit them."""
        without_row = blobs.keys() - rows.keys()
        if not without_row:  # as in nearly every place: this saves a query
            return {}
        unnamed = {key: blobs[key] for key in without_row - await self.services.database.series_blobs()}
        condemned = set(await self.services.database.condemned(list(unnamed)))
        return {
            key: _left(CONDEMNED if key in condemned else ORPHAN, blob)
            for key, blob in unnamed.items()
            if key in condemned or blob.age >= self.grace_seconds
        }

    async def _rotten(self, rows: Mapping[str, Digest], *, counted: bool) -> dict[str, FsckFinding]:
        """Return the blobs that have the right size but other bytes, or that cannot be read."""
        suspects: dict[str, FsckFinding] = {}
        left = iter(rows.items())
        while batch := dict(islice(left, _READ_AT_ONCE)):
            verdicts = await asyncio.gather(*(self._verdict(key, digest) for key, digest in batch.items()))
            suspects |= {key: verdict for key, verdict in zip(batch, verdicts, strict=True) if verdict is not None}
            self.report.examined.hashed += len(batch) if counted else 0
            self.progress(self.report.examined)
        return suspects

    async def _verdict(self, key: str, expected: Digest) -> FsckFinding | None:
        try:
            found = await self.services.blobs.digest(key)
        except StorageUnavailable as error:
            return FsckFinding(UNREADABLE, key, error.detail)
        if found is None:
            return FsckFinding(HOLLOW, key, _ABSENT)
        if found != expected:
            return FsckFinding(HASH, key, f"its SHA-256 is {found.sha256} instead of {expected.sha256}")
        return None

    def _count(self, rows: Mapping[str, Digest], blobs: Mapping[str, StoredBlob], suspects: Suspects) -> None:
        examined = self.report.examined
        examined.assets += len(rows)
        examined.blobs += len(blobs)
        examined.bytes += sum(blob.size for blob in blobs.values())
        examined.in_flight += len(blobs.keys() - rows.keys() - suspects.keys())


def _unlike(rows: Mapping[str, Digest], blobs: Mapping[str, StoredBlob]) -> dict[str, FsckFinding]:
    """Return the rows whose blob is missing or has another size or SHA-256."""
    suspects = {key: FsckFinding(HOLLOW, key, _ABSENT) for key in rows.keys() - blobs.keys()}
    for key in rows.keys() & blobs.keys():
        expected, found = rows[key].size, blobs[key].size
        if found != expected:
            suspects[key] = FsckFinding(SIZE, key, f"it has {found} bytes instead of {expected}")
        elif blobs[key].sha256 not in (None, rows[key].sha256):
            detail = f"the store has noted the SHA-256 {blobs[key].sha256} instead of {rows[key].sha256}"
            suspects[key] = FsckFinding(HASH, key, detail)
    return suspects


def _left(kind: Kind, blob: StoredBlob) -> FsckFinding:
    return FsckFinding(kind, blob.key, f"{blob.size} bytes, {int(blob.age)} seconds old")
