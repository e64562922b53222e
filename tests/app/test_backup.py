"""What a restore makes of a backup, at any moment of it, on purpose."""

import errno
import hashlib
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.app.planted import put_assets, put_packed, rot, spoil_packed
from tests.contract.databases import run
from tests.world import START, MovableClock, World, assert_accepted
from uponce.adapters import files as files_module
from uponce.adapters.archive import Archive
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.statements import load_migrations
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.records import HEADER_BYTES
from uponce.adapters.system import RandomIds
from uponce.app.backup import BackedUp, back_up, restore
from uponce.app.copy_media import Copying
from uponce.app.sweep import sweep
from uponce.core.errors import SettingRefused

SKEW = 300
OWNER = "0" * 32
FIRST, LATER = (name * 100_000 for name in (b"first", b"later"))  # too large for packs
SECRETS = AesSecretBox(bytes(32))

Progress = Callable[..., None]


def ignore(*progress: object) -> None: ...


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


class SlowClock(MovableClock):
    """Each report of progress comes an hour later."""

    def an_hour_later(self, *progress: object) -> None:
        self.time += 3600


@dataclass
class Box:
    """A server with its `first` blob and a backup, and the data folder of another one, which has no database yet."""

    world: World
    first: Path
    folder: Path
    data: Path

    @property
    def database(self) -> Path:
        return self.data / "uponce.db"

    def back_up(self, progress: Progress = ignore) -> BackedUp:
        archive = Archive(self.folder, database=self.world.path, secret_key=None)
        with archive.writing():
            work = back_up(self.world.services, SECRETS, archive, "1", on_pages=progress, on_media=progress)
            return run(work)

    def restore(
        self,
        storage: Path | None = None,
        *,
        reuses_storage: bool = False,
        clock: MovableClock | None = None,
        progress: Progress = ignore,
    ) -> tuple[Copying, int]:
        archive, clock = Archive(self.folder, database=self.database, secret_key=None), clock or MovableClock()
        with archive.reading(SECRETS, clock.now()) as snapshot:
            blobs = LocalBlobs(storage or self.data / "media", ids=RandomIds())
            work = restore(
                archive,
                snapshot,
                blobs,
                clock,
                SKEW,
                OWNER,
                reuses_storage=reuses_storage,
                on_pages=progress,
                on_media=progress,
            )
            return run(work)[:2]


@pytest.fixture
def box(tmp_path: Path, world: World, monkeypatch: pytest.MonkeyPatch) -> Box:
    monkeypatch.setattr("uponce.app.copy_media.PLACES", ("",))  # one look at all of it, for a store of a few blobs
    assert_accepted(world.upload(world.sign({"public_id": "first"}), FIRST, kind="raw"))
    (first,) = files(world.media / "blobs")
    box = Box(world, first, tmp_path / "backup", tmp_path / "restored")
    box.back_up()
    return box


def test_the_fence_of_a_restore_counts_from_its_end(box: Box) -> None:
    """The old server may take uploads while the media and the database are copied, which can last for hours."""
    clock = SlowClock()
    _, watermark = box.restore(clock=clock, progress=clock.an_hour_later)
    assert clock.time >= START + 2 * 3600
    assert watermark == clock.time + SKEW


def test_the_fence_of_a_restore_counts_the_greater_skew_of_the_server_that_was_backed_up(box: Box) -> None:
    run(box.world.database.note_settings({"skew": "3600"}))
    box.back_up()
    assert box.restore()[1] == START + 3600


def put_later(box: Box) -> tuple[Path, Path]:
    """What the server gets after the backup: a blob, and a file that it still receives."""
    before = files(box.world.media / "blobs")
    assert_accepted(box.world.upload(box.world.sign({"public_id": "later"}), LATER, kind="raw"))
    (blob,) = files(box.world.media / "blobs") - before
    spooled = box.world.media / "spool" / ("a" * 32)
    spooled.write_bytes(b"arriving")
    return blob, spooled


def test_a_restore_leaves_the_storage_of_a_server_that_runs_alone(box: Box) -> None:
    """A drill that names it by mistake: a sweep of the restored server would delete what came since the backup."""
    put_later(box)
    before = files(box.world.media)
    with pytest.raises(SettingRefused, match="holds files that the backup does not name"):
        box.restore(box.world.media)
    assert files(box.world.media) == before
    assert files(box.data) == set()


def test_a_restore_into_the_storage_that_outlived_its_database(box: Box) -> None:
    """It adds what is missing, and deletes nothing."""
    later, spooled = put_later(box)
    box.first.unlink()
    copied, _ = box.restore(box.world.media, reuses_storage=True)
    assert (copied.copied, copied.lost) == (1, {})
    assert box.first.read_bytes() == FIRST
    assert later.read_bytes() == LATER
    assert spooled.read_bytes() == b"arriving"


def overwrite_first(box: Box) -> None:
    fields = box.world.sign({"public_id": "first"}, key=box.world.server)
    assert_accepted(box.world.upload(fields, LATER, kind="raw"))


def test_the_copy_before_has_its_files(box: Box) -> None:
    """Also those that were overwritten since. The backup after that drops them."""
    overwrite_first(box)
    second = box.back_up()
    assert (second.dropped, second.media.copied) == (0, 1)
    assert second.before is not None
    with second.before.open("rb") as older, (box.folder / "uponce.db").open("wb") as last:
        shutil.copyfileobj(older, last)
    assert box.restore()[0].lost == {}
    assert (box.data / "media" / "blobs" / box.first.parent.name / box.first.name).read_bytes() == FIRST


def test_a_backup_drops_the_files_that_only_an_older_copy_names(box: Box) -> None:
    overwrite_first(box)
    assert [box.back_up().dropped for _ in range(3)] == [0, 1, 0]


def test_a_damaged_copy_before_fails_no_backup_and_drops_nothing(box: Box) -> None:
    overwrite_first(box)
    rot(box.folder / "uponce.db", "assets")
    assert [box.back_up().dropped for _ in range(2)] == [0, 1]


def test_damaged_blobs_are_replaced_by_a_backup_and_a_restore(box: Box) -> None:
    """As the guide says it: nothing that came since the first backup is lost."""
    (packed,) = put_packed(box.world, b"packed")
    put_assets(box.world, [packed], b"packed")
    box.back_up()
    later, _ = put_later(box)
    spoil_packed(box.world, packed, HEADER_BYTES)
    box.first.write_bytes(bytes(len(FIRST)))
    assert box.back_up().media.copied == 1
    repaired, _ = box.restore(box.world.media, reuses_storage=True)
    assert (repaired.copied, repaired.present, repaired.lost) == (2, 1, {})
    assert (box.first.read_bytes(), later.read_bytes()) == (FIRST, LATER)
    digest = run(box.world.blobs.digest(packed))
    assert digest is not None and digest.sha256 == hashlib.sha256(b"packed").hexdigest()


def test_a_blob_that_is_gone_is_named_also_if_the_path_of_the_database_is_relative(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    box.first.unlink()
    monkeypatch.chdir(box.world.path.parent)
    box.world.path = Path(box.world.path.name)
    shutil.rmtree(box.folder)
    assert list(box.back_up().media.lost) == ["demo/raw/upload/first"]


def no_hard_links(self: Path, target: Path) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


def test_a_backup_on_a_disk_without_hard_links_keeps_the_database_before(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (box.folder / "uponce.db").read_bytes()
    monkeypatch.setattr(Path, "hardlink_to", no_hard_links)
    kept = box.back_up().before
    assert kept is not None
    assert (kept.read_bytes(), kept.stat().st_mode & 0o777) == (before, 0o600)
    assert box.restore()[0].copied == 1


def full(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("moment", ["begin", "finish"])
def test_a_backup_on_a_full_disk_is_refused_and_made_when_there_is_room(
    box: Box, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    if moment == "begin":
        shutil.rmtree(box.folder)
    with monkeypatch.context() as patched:
        patched.setattr(files_module, "write_all", full)
        patched.setattr(Path, "hardlink_to", no_hard_links)
        with pytest.raises(SettingRefused, match="cannot be written"):
            box.back_up()
    assert box.back_up().media.lost == {}
    assert box.restore()[0].copied == 1


def test_a_first_backup_that_was_killed_does_not_lock_its_folder(box: Box) -> None:
    shutil.rmtree(box.folder)
    box.folder.mkdir()
    (box.folder / "backup.json.0123456789abcdef").touch()
    assert box.back_up().media.copied == 1


def test_a_restore_to_a_full_disk_is_refused(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    (box.folder / "secret.key").write_bytes(bytes(32))
    archive = Archive(box.folder, database=box.database, secret_key=box.data / "secret.key")
    monkeypatch.setattr(files_module, "write_all", full)
    with pytest.raises(SettingRefused, match="cannot be written"):
        archive.give_key()
    assert files(box.data) == set()


class Interrupted(Exception):
    """Ends a restore in the middle."""


def test_a_server_that_starts_during_a_restore_makes_no_database(box: Box) -> None:
    """Its own one would refuse the restored one at the end. Interrupted, the restore is repeated."""
    server = SqliteDatabase(box.database, clock=MovableClock(), secrets=SECRETS)

    def start(*progress: object) -> None:
        with pytest.raises(SettingRefused, match="shows a restore that has not ended"):
            server.open()
        raise Interrupted

    with pytest.raises(Interrupted):
        box.restore(progress=start)
    assert not box.database.exists()
    box.restore()
    server.open()
    server.close()
    assert files(box.data) == {box.database, *files(box.data / "uponce.reserve"), *files(box.data / "media")}


def owner_of(path: Path) -> list[tuple[str]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute("SELECT name FROM owner").fetchall()


def test_a_restored_server_has_a_new_owner_and_the_lost_one_deletes_nothing_more(box: Box) -> None:
    box.restore(box.world.media, reuses_storage=True)
    assert (owner_of(box.database), run(box.world.blobs.owner())) == ([(OWNER,)], OWNER)
    with pytest.raises(SettingRefused, match="belongs to another database"):
        run(sweep(box.world.services, grace_seconds=0, audit_seconds=10**9))


def test_a_restore_leaves_the_storage_of_a_server_also_if_the_backup_names_all_its_files(box: Box) -> None:
    """Soon the server has more, and the restored one would delete them."""
    before = files(box.world.media)
    with pytest.raises(SettingRefused, match="belongs to a database"):
        box.restore(box.world.media)
    assert (files(box.world.media), files(box.data)) == (before, set())


def test_a_backup_of_an_earlier_release_is_restored(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [*load_migrations("sqlite"), "UPDATE assets SET original_filename = 'from a step';"]
    monkeypatch.setattr("uponce.adapters.database.sqlite.file.load_migrations", lambda _: steps)
    assert box.restore()[0].copied == 1
    with closing(sqlite3.connect(box.database)) as connection:
        assert connection.execute("SELECT original_filename FROM assets").fetchall() == [("from a step",)]
    assert owner_of(box.database) == [(OWNER,)]
    assert OWNER in (box.data / "media" / "owner").read_text()  # so a start has nothing to warn of


def test_a_backup_of_the_media_has_no_owner(box: Box) -> None:
    assert (box.world.media / "owner").exists()
    assert [path for path in box.folder.rglob("*") if path.name == "owner"] == []


def lose_the_data_disk(box: Box) -> None:
    """What a first start makes of an empty disk, with keys and secret key from the settings."""
    box.world.sql(f"UPDATE owner SET name = '{OWNER}'")
    box.world.sql("DELETE FROM assets")


@pytest.mark.parametrize("uploads", [0, 1])
def test_a_backup_of_an_empty_server_with_the_same_keys_replaces_no_backup(box: Box, uploads: int) -> None:
    """Also once the empty server has taken an upload."""
    lose_the_data_disk(box)
    for _ in range(uploads):
        put_later(box)
    before = files(box.folder)
    with pytest.raises(SettingRefused, match=r"none of its assets.*restore the backup"):
        box.back_up()
    assert files(box.folder) - {box.folder / "uponce.db.new"} == before
    assert box.restore()[0].copied == 1


def test_a_server_that_has_deleted_all_its_assets_is_backed_up(box: Box) -> None:
    box.world.sql("DELETE FROM assets")
    assert box.back_up().facts["assets"] == 0
    lose_the_data_disk(box)
    assert box.back_up().facts["assets"] == 0  # the last copy has nothing to lose


def test_a_server_is_backed_up_over_a_copy_without_an_owner(box: Box) -> None:
    with closing(sqlite3.connect(box.folder / "uponce.db")) as connection:
        connection.executescript("DELETE FROM owner")
    assert box.back_up().facts["assets"] == 1


def test_a_server_that_was_restored_is_backed_up_into_the_same_folder(box: Box) -> None:
    box.world.sql(f"UPDATE owner SET name = '{OWNER}'")
    put_later(box)
    assert box.back_up().facts["assets"] == 2


def test_a_damaged_database_replaces_no_backup(box: Box) -> None:
    before = (box.folder / "uponce.db").read_bytes()
    rot(box.world.path, "audit")
    for _ in range(2):
        with pytest.raises(SettingRefused, match=rf"{box.world.path} is damaged: .*The last backup stays"):
            box.back_up()
        assert (box.folder / "uponce.db").read_bytes() == before
    assert box.restore()[0].copied == 1


@pytest.mark.parametrize("table", ["audit", "outbox"])
def test_a_damaged_backup_is_refused_with_the_one_before(box: Box, table: str) -> None:
    box.back_up()
    (older,) = box.folder.glob("uponce.db.2*Z")
    rot(box.folder / "uponce.db", table)
    with pytest.raises(SettingRefused, match=rf"is damaged: .*Rename {older.name} to uponce.db"):
        box.restore()
    older.rename(box.folder / "uponce.db")
    assert box.restore()[0].copied == 1


def test_no_backup_ends_while_a_restore_reads_its_folder(box: Box) -> None:
    """Its database would be restored, and its media would not."""
    assert_accepted(box.world.upload(box.world.sign({"public_id": "later"}), LATER, kind="raw"))
    refused: list[BaseException | None] = []

    def back_up(*progress: object) -> None:
        with ThreadPoolExecutor(1) as thread:
            refused.append(thread.submit(box.back_up).exception())

    assert box.restore(progress=back_up)[0].lost == {}
    assert all("a restore from it, is running" in str(error) for error in refused) and refused
    with closing(sqlite3.connect(box.database)) as connection:
        assert connection.execute("SELECT public_id FROM assets").fetchall() == [("first",)]
    box.back_up()


def test_of_two_restores_at_once_the_second_is_refused(box: Box) -> None:
    """Both would write the same draft of the database."""
    refused: list[BaseException | None] = []

    def begin_another(*progress: object) -> None:
        if not refused:
            with ThreadPoolExecutor(1) as thread:
                refused.append(thread.submit(box.restore).exception())

    assert box.restore(progress=begin_another)[0].copied == 1
    assert isinstance(refused[0], SettingRefused)
    assert "Another restore to" in str(refused[0])
    assert owner_of(box.database) == [(OWNER,)]
