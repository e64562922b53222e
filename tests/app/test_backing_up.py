"""How a backup begins, what it does without room, and how a restore of a newer release begins."""

import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.app.test_backup import LATER, SECRETS, Box, Interrupted, box, files, overwrite_first
from tests.contract.databases import run
from tests.world import START, World, assert_accepted
from uponce.adapters.archive import Archive
from uponce.adapters.database.sqlite import connection, snapshot
from uponce.adapters.database.sqlite.snapshot import Snapshot
from uponce.adapters.spool import uploads
from uponce.adapters.system import write_all
from uponce.app.copy_media import Copying
from uponce.app.owner import take_storage
from uponce.core.errors import SettingRefused, StorageFull

WORLD = World

__all__ = ["box"]  # a fixture


def test_a_backup_is_dated_before_its_copy(box: Box) -> None:
    """After a restore, an operator lists the deletions since. The copy may lack those that came while it was made."""

    def an_hour_later(*_: object) -> None:
        box.world.clock.time += 3600

    assert box.back_up(an_hour_later).facts["made_at"] == START
    assert box.world.clock.time > START


def test_a_server_that_was_fenced_and_has_deleted_all_its_assets_is_backed_up(box: Box) -> None:
    """Its new owner follows that of the last copy."""
    assert not run(take_storage(box.world.database, box.world.blobs))
    box.world.sql("DELETE FROM assets")
    assert box.back_up().facts["assets"] == 0


@pytest.mark.parametrize(
    ("number", "cure"), [(errno.EACCES, "Give the files to the server's user"), (errno.ENOSPC, "Make room")]
)
def test_a_backup_that_cannot_be_written_is_refused_with_its_cure(
    box: Box, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(number, "of a test")

    monkeypatch.setattr("uponce.adapters.files.write_all", fail)
    with pytest.raises(SettingRefused, match=f"of a test. {cure}.*, or choose another folder"):
        box.back_up()


def test_a_draft_that_cannot_be_deleted_stops_no_backup(
    box: Box, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    draft = box.folder / f"uponce.db.20260101T000000Z.{'0' * 16}"
    spooled = box.folder / "media" / "spool" / ("a" * 32)
    for path in (draft, spooled):
        path.write_bytes(b"half of it")
    unlink = Path.unlink

    def refuse(path: Path, **how: bool) -> None:
        if path in (draft, spooled):
            raise PermissionError(errno.EPERM, "held by another client")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert box.back_up().media.lost == {}
    assert f"a file that an interrupted backup left in {box.folder} cannot be deleted" in caplog.text


def test_a_server_without_the_keys_of_the_last_backup_replaces_nothing(box: Box) -> None:
    """It has the assets: only the keys were deleted."""
    before = files(box.folder)
    box.world.sql("DELETE FROM api_keys")
    with pytest.raises(SettingRefused, match=rf"does not have its API keys .*{box.world.browser.api_key}.*restore the"):
        box.back_up()
    assert files(box.folder) - {box.folder / "uponce.db.new"} == before


def set_back(box: Box, to: Path) -> None:
    """As a snapshot of the machine does."""
    with closing(sqlite3.connect(to)) as source, closing(sqlite3.connect(box.world.path)) as live:
        source.backup(live)
    run(box.world.database.thaw(0))


@pytest.mark.parametrize("later", [0, 1, 5])
def test_a_server_that_was_set_back_replaces_no_newer_backup(box: Box, later: int) -> None:
    """Two nights later no file of the newer assets would be left."""
    shutil.copy(box.folder / "uponce.db", old := box.folder.with_name("old.db"))
    for number in range(3):
        put(box, f"newer-{number}")
    box.back_up()
    before = files(box.folder)
    set_back(box, old)
    box.world.clock.time += 3600
    for number in range(later):
        put(box, f"other-{number}")
    with pytest.raises(SettingRefused, match=r"newer than the database of this server.*restore the backup"):
        box.back_up()
    assert files(box.folder) - {box.folder / "uponce.db.new"} == before


def test_a_purge_of_the_audit_and_a_refusal_more_stop_no_backup(box: Box) -> None:
    fields = box.world.sign({"public_id": "first"})
    assert box.world.upload(fields, LATER, kind="raw").status == 200
    for _ in range(25):
        assert box.world.upload(fields, LATER, kind="raw").code == "signature_used"
    box.back_up()
    assert box.world.upload(fields, LATER, kind="raw").code == "signature_used"
    box.back_up()
    box.world.clock.time += 10**6
    run(box.world.database.purge(audit_seconds=1))
    put(box, "later")
    assert box.world.sql("SELECT count(*) FROM audit") == 1
    box.back_up()
    box.world.sql("DELETE FROM audit")
    assert box.back_up().media.lost == {}


def test_a_backup_without_the_media_keeps_the_older_versions(box: Box) -> None:
    """As if the disk of the media is not there, for many nights."""
    box.first.unlink()
    put(box, "first")
    for path in (box.world.media / "blobs").rglob("*"):
        if path.is_file():
            path.unlink()
    before = blobs_of(box)
    for _ in range(3):
        assert len(box.back_up().media.lost) == 1
    assert blobs_of(box) == before


def test_the_folder_for_lost_files_of_a_new_disk_is_no_other_file(box: Box, tmp_path: Path) -> None:
    box.folder = tmp_path / "disk"
    (box.folder / "lost+found").mkdir(parents=True)
    assert box.back_up().facts["assets"] == 1


def test_a_key_of_an_earlier_backup_is_named(box: Box) -> None:
    """The setting has the key by now."""
    assert not box.back_up().has_key
    (box.folder / "secret.key").write_bytes(SECRETS.key())
    assert box.back_up().has_key


def test_a_backup_of_a_newer_release_is_refused_before_anything_is_written(box: Box) -> None:
    """Not after hours, when its media are copied and the storage has the owner of a database that never comes."""
    with closing(sqlite3.connect(box.folder / "uponce.db")) as connection:
        connection.execute("PRAGMA user_version = 99")
    box.first.unlink()
    owner, before = run(box.world.blobs.owner()), files(box.world.media)
    with pytest.raises(SettingRefused, match="schema version 99, but this release supports at most"):
        box.restore(box.world.media, reuses_storage=True)
    assert (run(box.world.blobs.owner()), files(box.world.media), files(box.data)) == (owner, before, set())


def put(box: Box, name: str) -> None:
    """Upload a file that is too large for packs."""
    assert_accepted(box.world.upload(box.world.sign({"public_id": name}), LATER + name.encode(), kind="raw"))


def interrupt(*progress: object) -> None:
    if isinstance(progress[0], Copying) and progress[0].copied:
        raise Interrupted


def leave_a_copy(box: Box) -> Path:
    """Interrupt a backup after it has copied a file, and delete the asset of that file. Return the copy."""
    before = files(box.folder / "media")
    put(box, "burst")
    with pytest.raises(Interrupted):
        box.back_up(interrupt)
    box.world.sql("DELETE FROM assets WHERE public_id = 'burst'")
    (copy,) = files(box.folder / "media") - before
    return copy


def fill(box: Box, monkeypatch: pytest.MonkeyPatch, leftover: Path | None = None) -> None:
    """Give the disk of the backup no room for media while the leftover is there, or ever."""

    def refuse(descriptor: int, blocks: Sequence[bytes]) -> None:
        is_backup = os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(box.folder))
        if is_backup and (leftover is None or leftover.exists()):
            raise OSError(errno.ENOSPC, "No space left on device")
        write_all(descriptor, blocks)

    monkeypatch.setattr(uploads, "write_all", refuse)


def test_a_backup_without_room_drops_what_an_earlier_one_left_there(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """All live files have room, and no other command deletes what a backup has copied and not finished."""
    leftover = leave_a_copy(box)
    put(box, "live")
    fill(box, monkeypatch, leftover)
    done = box.back_up()
    assert (done.facts["assets"], done.media.lost, done.dropped) == (2, {}, 1)
    assert not leftover.exists()
    assert box.restore()[0].copied == 2


def named_by_two(box: Box) -> set[str]:
    """Return the blobs that the two kept databases name, one each."""
    named = set[str]()
    for path in (box.folder / "uponce.db", *box.folder.glob("uponce.db.2*Z")):
        with closing(Snapshot(path)) as copy:
            named |= set(run(copy.digests("")))
    assert len(named) == 2
    return named


def blobs_of(box: Box) -> set[str]:
    return {path.name for path in files(box.folder / "media" / "blobs")}


def leave_two_databases(box: Box) -> Path:
    """Make the two kept databases name a file each, and no asset of the server name any. Return a copy to drop."""
    overwrite_first(box)
    box.back_up()
    leftover = leave_a_copy(box)
    box.world.sql("DELETE FROM assets")
    return leftover


def lost_without_room(box: Box, monkeypatch: pytest.MonkeyPatch, leftover: Path) -> set[str]:
    """Make a backup that never gets room. Return the blobs that its kept databases name and no longer have."""
    put(box, "live")
    fill(box, monkeypatch)
    with pytest.raises(StorageFull):
        box.back_up()
    assert not leftover.exists()
    return named_by_two(box) - blobs_of(box)


def test_a_backup_without_room_drops_no_file_of_a_kept_database(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    assert lost_without_room(box, monkeypatch, leave_two_databases(box)) == set()
    assert box.restore()[0].lost == {}
    box.database.unlink()
    (older,) = box.folder.glob("uponce.db.2*Z")
    older.rename(box.folder / "uponce.db")
    assert box.restore(box.data / "older")[0].copied == 1


@pytest.mark.parametrize("forgotten", [0, 1])
def test_control_a_backup_that_forgets_a_kept_database_is_seen(
    box: Box, monkeypatch: pytest.MonkeyPatch, forgotten: int
) -> None:
    leftover, kept = leave_two_databases(box), Archive.kept

    @contextmanager
    def without_one(archive: Archive) -> Iterator[Sequence[Any]]:
        with kept(archive) as copies:
            yield [copy for number, copy in enumerate(copies) if number != forgotten]

    monkeypatch.setattr(Archive, "kept", without_one)
    assert len(lost_without_room(box, monkeypatch, leftover)) == 1


def test_a_backup_without_room_drops_nothing_if_a_kept_database_is_damaged(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwrite_first(box)
    older = box.back_up().before
    assert older is not None
    leftover = leave_a_copy(box)
    before = files(box.folder / "media")
    older.write_bytes(b"no database")
    put(box, "live")
    fill(box, monkeypatch, leftover)
    with pytest.raises(StorageFull):
        box.back_up()
    assert files(box.folder / "media") == before


@pytest.mark.parametrize("code", ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_READ"])
def test_a_backup_without_room_for_the_database_drops_what_no_kept_one_names(
    box: Box, monkeypatch: pytest.MonkeyPatch, code: str
) -> None:
    """A failed backup may leave not even the room that the copy of the database needs."""
    leftover, copy = leave_two_databases(box), snapshot._copy
    named = named_by_two(box)

    def refuse(*arguments: Any, **how: Any) -> None:
        if leftover.exists():
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = getattr(sqlite3, code)
            raise error
        assert named == blobs_of(box)
        copy(*arguments, **how)

    monkeypatch.setattr(snapshot, "_copy", refuse)
    monkeypatch.setattr(connection, "has_no_room", lambda folder: folder == box.folder)  # its quota is used up
    if code == "SQLITE_IOERR_READ":
        with pytest.raises(SettingRefused, match=r"refused\. Check the disk there"):
            box.back_up()
        assert leftover.exists()
    else:
        done = box.back_up()
        assert (done.facts["assets"], done.media.lost) == (0, {})
        assert not leftover.exists()


def test_a_first_backup_without_room_for_the_database_keeps_what_it_has_copied(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or it would copy all of it again each night. No copy of the database is finished yet."""
    (box.folder / "uponce.db").unlink()
    put(box, "live")
    with pytest.raises(Interrupted):
        box.back_up(interrupt)
    copied = files(box.folder / "media" / "blobs")
    leftover, copy = leave_a_copy(box), snapshot._copy

    def refuse(*arguments: Any, **how: Any) -> None:
        if leftover.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        assert files(box.folder / "media" / "blobs") == copied != set()
        copy(*arguments, **how)

    monkeypatch.setattr(snapshot, "_copy", refuse)
    assert box.back_up().media.present == 2


def test_a_backup_without_room_that_has_nothing_to_drop_copies_once(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    put(box, "live")
    fill(box, monkeypatch)
    listed: list[str] = []
    published = type(box.world.blobs).published

    def listing(store: Any, prefix: str = "") -> Any:
        listed.append(prefix)
        return published(store, prefix)

    monkeypatch.setattr(type(box.world.blobs), "published", listing)
    with pytest.raises(StorageFull):
        box.back_up()
    assert len(listed) == 2  # of the copy, and of the look for what can be dropped
