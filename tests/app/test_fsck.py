"""fsck finds every fault that is there, none that is not, and changes nothing."""

import asyncio
import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pytest

from tests.adapters.packing import break_page
from tests.app.planted import (
    PLANTERS,
    keys,
    plant_healthy,
    plant_missing_index_entries,
    put_assets,
    put_blobs,
    put_condemned,
    put_packed,
    spoil_packed,
)
from tests.app.test_sweep import orphan
from tests.app.uploads import attempt
from tests.world import World
from uponce.adapters.store.records import HEADER_BYTES
from uponce.app.fsck import (
    HASH,
    HOLLOW,
    PLACES,
    RULES,
    SIZE,
    UNREADABLE,
    Examined,
    FsckFinding,
    Severity,
    fsck,
)
from uponce.app.ports import Fault, Rule
from uponce.app.services import Services
from uponce.app.sweep import sweep
from uponce.core.errors import DatabaseUnavailable, StorageUnavailable
from uponce.core.values import Digest

WORLD = World

DAY = 86400
MANY = 1000


@dataclass
class Checked:
    """What one check said: the subjects by kind, and the last counts."""

    found: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    findings: list[FsckFinding] = field(default_factory=list)
    examined: Examined = field(default_factory=Examined)

    @property
    def damage(self) -> list[FsckFinding]:
        return [finding for finding in self.findings if finding.kind.severity is Severity.DAMAGE]


async def check(
    world: World,
    *,
    services: Services | None = None,
    deep: bool = False,
    grace: float = 3600,
    settle: float = 0,
) -> Checked:
    checked = Checked()

    def note(examined: Examined) -> None:
        checked.examined = examined

    report = await fsck(
        services or world.services,
        grace_seconds=grace,
        audit_seconds=DAY,
        deep=deep,
        settle_seconds=settle,
        progress=note,
    )
    for finding in chain.from_iterable(report.findings.values()):
        checked.findings.append(finding)
        checked.found[finding.kind.name].add(finding.subject)
    return checked


def run(world: World, **options: Any) -> Checked:
    return asyncio.run(check(world, **options))


class Around:
    """A port with some methods replaced."""

    def __init__(self, real: Any, **methods: Any) -> None:
        self._real = real
        self._methods = methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._real, name)


@pytest.mark.parametrize(("many", "deep"), [(MANY, True), (20, False)])
def test_a_thousand_faults_of_every_kind_are_found_and_nothing_else(world: World, many: int, deep: bool) -> None:
    """All planted into one store, beside healthy assets: each is named once, under its own kind."""
    plant_healthy(world, many)
    planted = {kind: plant(world, many) for kind, plant in PLANTERS.items()}
    if not deep:
        planted.pop("hash")

    checked = run(world, deep=deep)

    database = [f.detail for f in checked.findings if f.kind.name == "database"]
    assert database == ["CHECK constraint failed in grants"]  # SQLite's own word on those used too often
    assert {kind: found for kind, found in checked.found.items() if kind != "database"} == planted
    assert [len(subjects) for subjects in planted.values()] == [many] * len(planted)
    assert len(checked.findings) == many * len(planted) + 1


@pytest.mark.usefixtures("few_places")
@pytest.mark.parametrize("kind", sorted(PLANTERS))
def test_one_fault_alone_is_found(world: World, kind: str) -> None:
    """With nothing else about, in a store of one shard's worth."""
    plant_healthy(world, 3)
    planted = PLANTERS[kind](world, 1)
    found = run(world, deep=True).found
    found.pop("database", None)
    assert found == {kind: planted}


@pytest.mark.usefixtures("few_places")
def test_rows_that_an_index_lost_are_found_by_a_deep_check(world: World) -> None:
    plant_missing_index_entries(world, MANY)
    assert [f.detail for f in run(world).findings] == ["wrong # of entries in index audit_age"]
    missing = [f.detail for f in run(world, deep=True).findings if "missing from index audit_age" in f.detail]
    assert len(missing) == len(set(missing)) == MANY


def test_a_torn_database_is_told_and_not_raised(world: World) -> None:
    """Pages of zeros in the middle of the file."""
    plant_healthy(world, MANY)
    world.close()
    size = world.path.stat().st_size
    with world.path.open("r+b") as file:
        file.seek(size // 2 // 4096 * 4096)
        file.write(bytes(8 * 4096))
    broken = World(world.path.parent)
    try:
        assert any(finding.kind.name == "database" for finding in run(broken).findings)
    finally:
        broken.close()


def test_the_cure_of_lost_bytes_fits_a_bucket_and_a_folder() -> None:
    """A box that moved to a bucket keeps the keys of its packs, which are ordinary objects there."""
    for kind in (HOLLOW, SIZE, HASH, UNREADABLE):
        of_bucket, of_folder = kind.meaning.split("In a local folder, ")
        assert "In a bucket, copy the objects" in of_bucket
        before, _ = of_folder.split("uponce restore --reuse-storage")
        assert "uponce backup" in before, "this restore would lose the uploads since the last backup"


@pytest.mark.parametrize("damage", ["no pack", "header"])
@pytest.mark.usefixtures("few_places")
def test_a_copied_file_replaces_a_blob_that_its_pack_no_longer_has(world: World, damage: str) -> None:
    """As the cure of `hollow` says, without a restore. Beside a whole record, the file would have no effect."""
    (key,) = put_packed(world, b"whole")
    subjects = put_assets(world, [key])
    if damage == "header":
        spoil_packed(world, key, 40)
    else:
        (world.media / "packs" / key[1:11]).unlink()
    assert run(world).found == {"hollow": subjects}
    (world.media / "blobs" / key[:3] / key).write_bytes(b"whole")
    assert run(world, deep=True).findings == []


def test_what_the_database_could_not_check_is_a_warning_and_the_rest_is_checked(world: World) -> None:
    async def integrity(*, deep: bool) -> list[Fault]:
        return [Fault("its indexes were not compared", is_damage=False)]

    plant_healthy(world, 3)
    world.swap(database=Around(world.database, integrity=integrity))
    checked = run(world, deep=True)
    assert [(found.kind.severity, found.detail) for found in checked.findings] == [
        (Severity.WARNING, "its indexes were not compared")
    ]
    assert checked.examined.hashed


def test_a_database_that_cannot_be_read_raises(world: World) -> None:
    async def gone(*_: object) -> None:
        raise DatabaseUnavailable("gone")

    world.swap(database=Around(world.database, violations=gone))
    with pytest.raises(DatabaseUnavailable):
        run(world)


@pytest.mark.usefixtures("few_places")
def test_unreadable_blobs_are_found_by_a_deep_check_and_do_not_end_it(world: World) -> None:
    bad = set(keys("bad", MANY))
    put_blobs(world, bad)
    subjects = put_assets(world, bad)
    planted = PLANTERS["hash"](world, 10)

    async def digest(key: str) -> Digest | None:
        if key in bad:
            raise StorageUnavailable("no", detail="[Errno 5] Input/output error")
        return await world.blobs.digest(key)

    world.swap(blobs=Around(world.blobs, digest=digest))
    checked = run(world, deep=True)
    assert checked.found == {"unreadable": subjects, "hash": planted}
    assert "Input/output error" in checked.findings[0].detail + checked.findings[-1].detail


@pytest.mark.usefixtures("few_places")
def test_both_digests_are_compared(world: World) -> None:
    """A row with the right SHA-256 and a wrong MD5 is damage too: delivery shows the MD5."""
    plant_healthy(world, 5)
    world.sql("UPDATE assets SET md5 = 'ffff' WHERE id = 1")
    checked = run(world, deep=True)
    assert len(checked.found["hash"]) == 1
    assert checked.examined.hashed == 5  # a second look does not count


def test_a_store_after_real_uploads_is_clean(world: World) -> None:
    for number in range(20):
        assert attempt(world, world.sign({"public_id": f"cat-{number % 7}"})) == "ok"
    world.sign()
    checked = run(world, deep=True, grace=0)
    assert checked.findings == []
    examined = checked.examined
    assert (examined.places, examined.assets, examined.blobs, examined.hashed) == (len(PLACES), 7, 7, 7)
    assert examined.in_flight == 0


@pytest.mark.usefixtures("few_places")
def test_it_changes_nothing(world: World) -> None:
    for plant in PLANTERS.values():
        plant(world, 3)
    before = {path: path.stat().st_mtime_ns for path in world.media.rglob("*")}
    with world.untouched():
        run(world, deep=True)
    assert {path: path.stat().st_mtime_ns for path in world.media.rglob("*")} == before


@pytest.mark.usefixtures("few_places")
def test_young_bytes_without_a_row_are_in_flight(world: World) -> None:
    orphan(world)
    (world.media / "spool" / ("a" * 32)).write_bytes(b"half")
    checked = run(world)
    assert (checked.findings, checked.examined.in_flight) == ([], 2)
    assert {kind: len(found) for kind, found in run(world, grace=0).found.items()} == {"orphan": 1, "spooled": 1}


@pytest.mark.usefixtures("few_places")
def test_a_sweep_removes_all_that_is_removable(world: World) -> None:
    removable = ("orphan", "condemned", "spooled", "overdue")
    for kind in removable:
        PLANTERS[kind](world, 50)
    assert {kind: len(found) for kind, found in run(world).found.items()} == dict.fromkeys(removable, 50)
    asyncio.run(sweep(world.services, grace_seconds=3600, audit_seconds=DAY))
    assert run(world).findings == []


@pytest.mark.usefixtures("few_places")
def test_missing_audit_rows_beyond_their_time_are_no_fault(world: World) -> None:
    """The audit of a key with a long window may be purged before its ledger rows."""
    assert attempt(world, world.sign()) == "ok"
    world.sql("DELETE FROM audit")
    assert len(run(world).found["unaudited"]) == 1
    world.clock.time += DAY
    assert run(world).found.get("unaudited") is None


@pytest.mark.usefixtures("few_places")
def test_audit_rows_from_before_the_oldest_one_are_no_fault(world: World) -> None:
    """A server that kept the audit for a shorter time has purged them. One of two uses may have its row."""
    twice = world.sign({"max_uses": "2"}, key=world.server)
    assert [attempt(world, fields) for fields in (world.sign(), twice)] == ["ok"] * 2
    world.clock.time += 60
    assert [attempt(world, fields) for fields in (world.sign(), twice)] == ["ok"] * 2
    asyncio.run(world.database.purge(0))
    assert world.sql("SELECT count(*) FROM audit") == 2
    assert run(world).found.get("unaudited") is None
    assert attempt(world, world.sign()) == "ok"
    world.sql("DELETE FROM audit WHERE id = (SELECT max(id) FROM audit)")
    assert len(run(world).found["unaudited"]) == 1


@pytest.mark.usefixtures("few_places")
def test_files_that_are_not_ours_are_left_alone(world: World) -> None:
    for name in ("README", "a" * 31, "A" * 32):
        (world.media / "spool" / name).write_bytes(b"")
        (world.media / "blobs" / "aa" / name).write_bytes(b"")
    assert run(world, grace=0).findings == []


def test_a_blob_in_the_wrong_folder_is_as_good_as_gone(world: World) -> None:
    """The asset is hollow; the stray file does not count as an orphan, so no sweep condemns it."""
    (key,) = keys("stray", 1)
    put_blobs(world, [key])
    subjects = put_assets(world, [key])
    home = world.media / "blobs" / key[:2] / key
    os.rename(home, world.media / "blobs" / ("00" if key[:2] != "00" else "01") / key)
    assert run(world).found == {"hollow": subjects}


def test_blobs_in_packs_are_compared_like_files(world: World) -> None:
    healthy, hollow, torn, rotten, spoilt = put_packed(world, *[b"whole"] * 2, b"torn", *[b"whole"] * 2)
    named = {key: put_assets(world, [key]) for key in (healthy, hollow, torn, rotten, spoilt)}
    asyncio.run(world.blobs.delete(hollow))
    spoil_packed(world, rotten, HEADER_BYTES)
    spoil_packed(world, spoilt, 40)
    assert run(world).found == {"hollow": named[hollow] | named[spoilt], "size": named[torn]}
    deep = run(world, deep=True)
    assert deep.found == {"hollow": named[hollow] | named[spoilt], "size": named[torn], "hash": named[rotten]}
    assert deep.examined.places == len(PLACES)


@pytest.mark.usefixtures("few_places")
def test_a_header_that_the_disk_cannot_read_is_a_finding_and_ends_no_sweep(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = put_packed(world, b"lost", b"neighbour")
    named = [put_assets(world, [key], each) for key, each in zip(keys, (b"lost", b"neighbour"), strict=True)]
    break_page(monkeypatch, 0)
    assert run(world, deep=True).found == {"hollow": named[0]}
    swept = asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=None))
    assert (swept.blobs, asyncio.run(world.blobs.digest(keys[1])) is None) == (0, False)


@pytest.mark.usefixtures("few_places")
def test_a_pack_that_has_noted_another_sha256_than_the_row_shows_it_without_reading_the_bytes(world: World) -> None:
    (key,) = put_packed(world, b"whorl")
    subjects = put_assets(world, [key])
    assert run(world).found == {"hash": subjects}


@pytest.mark.usefixtures("few_places")
def test_an_orphan_in_a_pack_is_removable_after_its_grace_time_and_gone_after_a_sweep(world: World) -> None:
    kept, gone, condemned = put_packed(world, b"whole", b"whole", b"whole")
    put_assets(world, [kept])
    put_condemned(world, [condemned])
    assert run(world, grace=3600).found == {"condemned": {condemned}}
    assert run(world, grace=0).found == {"orphan": {gone}, "condemned": {condemned}}
    swept = asyncio.run(sweep(world.services, grace_seconds=3600, audit_seconds=DAY))
    assert swept.blobs == 0
    swept = asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=DAY))
    assert (swept.blobs, swept.bytes) == (2, 10)
    assert run(world, grace=0, deep=True).findings == []
    assert world.sql(f"SELECT count(*) FROM condemned WHERE blob_key = '{gone}'") == 1
    assert world.traces().blobs == {kept}


def test_every_rule_has_its_kind() -> None:
    assert set(RULES) == set(Rule)


def test_memory_is_bounded_by_waves(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """More suspects than are kept at a time are confirmed in several goes; none is lost or reported twice."""
    monkeypatch.setattr("uponce.app.fsck._MOST_SUSPECTS", 10)
    planted = PLANTERS["hollow"](world, 100)
    checked = run(world)
    assert checked.found == {"hollow": planted}
    assert len(checked.findings) == 100


@pytest.mark.usefixtures("few_places")
def test_a_rule_that_all_the_ledger_breaks_is_counted_and_not_loaded(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore of an old backup, the whole ledger is overdue and behind the fence."""
    monkeypatch.setattr("uponce.app.fsck._LISTED", 10)
    PLANTERS["overdue"](world, 100)
    loaded: list[int] = []

    async def violations(rule: Rule, *limits: int) -> Sequence[str]:
        found = await world.database.violations(rule, *limits)
        loaded.append(len(found))
        return found

    services = replace(world.services, database=Around(world.database, violations=violations))
    report = asyncio.run(fsck(services, grace_seconds=3600, audit_seconds=DAY, settle_seconds=0))
    assert max(loaded) == 10
    assert [(kind.name, count, len(report.findings[kind])) for kind, count in report.counts.items()] == [
        ("overdue", 100, 10)
    ]
