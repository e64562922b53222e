"""`uponce backup` beside a running server that takes uploads, and `uponce restore` of what it made."""

import errno
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import pytest

from tests import samples
from tests.app.planted import rot
from tests.e2e.commands import (
    Done,
    as_json,
    beside,
    code_of,
    in_a_process,
    killed_amid_copying,
    printed,
    settings_of,
    uponce,
)
from tests.e2e.traffic import Traffic
from tests.server import Key, Server
from uponce.adapters import files
from uponce.adapters.archive import Archive
from uponce.adapters.database.sqlite import snapshot
from uponce.app.ports.blobs import Data

pytestmark = pytest.mark.xdist_group("operator")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(tmp_path_factory.mktemp("server") / "data", env={"UPONCE_SKEW": "0"}) as server:
        yield server


def restored(folder: Path, data: Path) -> Done:
    return uponce("restore", folder, "--data", data, "--json", env={"UPONCE_SKEW": "0"})


def put(server: Server, public_id: str, data: bytes) -> None:
    answer = server.post(server.signed({"public_id": public_id, "nonce": time.time()}), data, resource_type="raw")
    assert answer.status == 200, answer.data


def blobs(media: Path) -> list[Path]:
    return [path for path in (media / "blobs").rglob("*") if path.is_file()]


@pytest.mark.proof
def test_a_backup_under_uploads_is_whole_and_what_it_forgot_is_refused(server: Server, tmp_path: Path) -> None:
    """Every row of the copy has its bytes, though one name is overwritten again and again while the backup runs."""
    before = server.signed({"nonce": "before"})
    assert code_of(server, before) == ""
    with Traffic(server) as traffic:
        for _ in range(3):
            made = as_json(server, "backup", tmp_path / "backup")
            assert made["lost"] == {}
    assert traffic.refused == []
    after = [server.signed({"nonce": f"after {number}"}) for number in range(2)]
    assert [code_of(server, fields) for fields in after] == ["", ""]

    data = tmp_path / "restored"
    told = json.loads(printed(restored(tmp_path / "backup", data)))
    assert (told["copied"], told["lost"]) == (made["assets"], {})
    checked = json.loads(printed(uponce("fsck", "--deep", "--data", data, "--grace", "0", "--json")))
    assert checked["examined"]["assets"] == checked["examined"]["hashed"] == made["assets"]
    assert (checked["damage"], checked["removable"], set(checked["counts"])) == (0, 0, {"watermark"})

    with Server(data, env={"UPONCE_SKEW": "0"}) as second:
        second.cloud, second.browser = server.cloud, server.browser
        for name, contents in traffic.made.items():
            found = second.get(f"/{second.cloud}/raw/upload/{name}")
            assert found.status == 404 or found.data in contents
        assert code_of(second, before) == "stale_request"
        assert code_of(second, after[0]) == "stale_request"
        time.sleep(1)
        assert code_of(second, second.signed({"nonce": "fresh"})) == ""
        with closing(sqlite3.connect(data / "uponce.db")) as database, database:
            database.execute("UPDATE api_keys SET watermark = NULL")
        assert code_of(second, after[1]) == ""  # this is what the fence is against


@pytest.mark.proof
def test_a_restore_refuses_what_later_keys_and_a_greater_skew_have_used(tmp_path: Path) -> None:
    """The copy is from before the key came, and before the server had its skew."""
    first, later, data = Key("first", "s" * 24), Key("later", "z" * 24), tmp_path / "data"
    settings = {"UPONCE_KEYS": f"cloudinary://{first.key}:{first.secret}@media", "UPONCE_SKEW": "60"}
    with Server(data, env=settings):
        printed(uponce("backup", tmp_path / "backup", "--data", data))
    settings = {"UPONCE_KEYS": f"{settings['UPONCE_KEYS']} cloudinary://{later.key}:{later.secret}@media"}
    settings |= {"UPONCE_SKEW": "900"}
    with Server(data, env=settings) as server:
        server.cloud = "media"
        used = [
            server.signed({"nonce": nonce}, key, timestamp=int(time.time()) + ahead)
            for nonce, key, ahead in (("a", first, 0), ("b", first, 800), ("c", later, 0), ("d", later, 800))
        ]
        assert [code_of(server, fields) for fields in used] == [""] * 4
    data.rename(tmp_path / "lost")
    printed(uponce("restore", tmp_path / "backup", "--data", data))
    with Server(data, env=settings) as server:
        server.cloud = "media"
        assert [code_of(server, fields) for fields in used] == ["stale_request"] * 4


def test_the_next_backup_copies_what_is_new_and_drops_what_is_old(server: Server, tmp_path: Path) -> None:
    put(server, "kept", b"kept")
    put(server, "changed", b"one")
    first = as_json(server, "backup", tmp_path / "backup")
    put(server, "changed", b"two")
    put(server, "new", b"new")
    second = as_json(server, "backup", tmp_path / "backup")
    assert (second["present"], second["copied"], second["dropped"]) == (first["assets"] - 1, 2, 0)
    assert second["assets"] == first["assets"] + 1
    assert len(blobs(tmp_path / "backup" / "media")) == second["assets"] + 1  # the copy before names one more
    third = printed(beside(server, "backup", tmp_path / "backup"))
    assert "0 of them new" in third and "keep it as safe as the server" in third
    assert len(blobs(tmp_path / "backup" / "media")) == second["assets"]


@pytest.mark.proof
def test_a_backup_that_was_killed_is_none_and_is_finished_by_the_next(server: Server, tmp_path: Path) -> None:
    for number in range(40):
        put(server, f"many-{number}", bytes([number]) * 50_000)
    folder = tmp_path / "backup"
    killed_amid_copying("backup", folder, "--data", server.data_dir)
    refused = restored(folder, tmp_path / "restored")
    assert (refused.code, "holds no finished backup" in refused.stderr) == (1, True)
    assert not (tmp_path / "restored" / "uponce.db").exists()
    done = as_json(server, "backup", folder)
    assert done["present"] > 0 and done["lost"] == {}
    printed(restored(folder, tmp_path / "restored"))
    printed(uponce("fsck", "--deep", "--data", tmp_path / "restored"))


@pytest.mark.usefixtures("few_places")
def test_a_restore_that_broke_off_goes_on_and_takes_no_rotten_file_for_good(server: Server, tmp_path: Path) -> None:
    put(server, "first", b"first")
    put(server, "second", b"second")
    made = as_json(server, "backup", tmp_path / "backup")
    data = tmp_path / "restored"
    shutil.copytree(tmp_path / "backup" / "media", data / "media")
    stored = {blob.read_bytes(): blob for blob in blobs(data / "media")}
    rotten, missing = stored[b"first"], stored[b"second"]
    rotten.write_bytes(bytes(rotten.stat().st_size))
    missing.unlink()
    (data / "media" / "spool" / rotten.name).write_bytes(b"left behind")
    told = json.loads(printed(restored(tmp_path / "backup", data)))
    assert (told["present"], told["copied"]) == (made["assets"] - 2, 2)
    assert json.loads(printed(uponce("fsck", "--deep", "--data", data, "--json")))["damage"] == 0


@pytest.mark.usefixtures("few_places")
def test_what_a_backup_has_lost_is_told_and_the_rest_is_restored(server: Server, tmp_path: Path) -> None:
    put(server, "lost", b"lost bytes")
    put(server, "rotten", b"rotten bytes")
    made = as_json(server, "backup", tmp_path / "backup")
    for blob in blobs(tmp_path / "backup" / "media"):
        if blob.read_bytes() == b"lost bytes":
            blob.unlink()
        elif blob.read_bytes() == b"rotten bytes":
            blob.write_bytes(b"ROTTEN bytes")
    done = restored(tmp_path / "backup", tmp_path / "restored")
    told = json.loads(done.stdout)
    assert (done.code, told["copied"]) == (1, made["assets"] - 2)
    assert set(told["lost"]) == {"media/raw/upload/lost", "media/raw/upload/rotten"}
    assert "2 assets have lost their bytes" in done.stderr
    assert "The restore has ended, so do not repeat it. Start the server." in done.stderr


@pytest.mark.usefixtures("few_places")
def test_a_backup_that_finds_no_files_names_the_wrong_storage(server: Server, tmp_path: Path) -> None:
    """As before a disk is mounted, and as with the storage of another server. Its advice is not to upload again."""
    put(server, "elsewhere", b"elsewhere")
    storage = tmp_path / "storage"
    env = {**settings_of(server), "UPONCE_STORAGE": storage.as_uri()}
    for why in ("is empty and belongs to no database", "belongs to another database"):
        done = uponce("backup", tmp_path / "backup", env=env)
        assert (done.code, "upload them again" in done.stderr) == (1, False), done.stderr
        assert f"UPONCE_STORAGE {why}" in done.stderr and "Then repeat the backup." in done.stderr
        (storage / "owner").write_text("0" * 32)


@pytest.mark.usefixtures("few_places")
def test_a_backup_without_lost_bytes_succeeds_once_these_assets_are_uploaded_again_or_deleted(
    server: Server, tmp_path: Path
) -> None:
    for public_id in ("replaced", "given up"):
        put(server, public_id, public_id.encode() * 100_000)
    for blob in blobs(server.data_dir / "media"):
        if blob.read_bytes().startswith((b"replaced" * 9, b"given up" * 9)):
            blob.unlink()
    done = beside(server, "backup", tmp_path / "backup")
    assert done.code == 1
    assert "Repeat the backup first" in done.stderr
    assert "If assets stay lost, upload them again, or delete them" in done.stderr
    put(server, "replaced", b"replaced")
    assert beside(server, "backup", tmp_path / "backup").code == 1
    fields = urlencode(server.signed({"public_id": "given up"}, server.server))
    assert server.get(f"/v1_1/{server.cloud}/raw/destroy?{fields}", method="POST").json() == {"result": "ok"}
    assert as_json(server, "backup", tmp_path / "backup")["lost"] == {}


@pytest.mark.usefixtures("few_places")
def test_a_storage_with_newer_files_is_reused_only_if_the_operator_says_so(server: Server, tmp_path: Path) -> None:
    as_json(server, "backup", tmp_path / "backup")
    put(server, "newer", b"newer")
    words = ("restore", tmp_path / "backup", "--data", tmp_path / "restored")
    env = {"UPONCE_STORAGE": f"file://{server.data_dir}/media"}
    refused = uponce(*words, env=env)
    assert (refused.code, "add --reuse-storage" in refused.stderr) == (1, True)
    done = uponce(*words, "--reuse-storage", env=env | {"UPONCE_GRACE_SECONDS": "9000"})
    assert (done.code, "has 1 files that the backup does not name" in done.stderr) == (0, True)
    assert "deletes them 9,000 seconds after this restore" in done.stderr
    found = server.get(f"/{server.cloud}/raw/upload/newer")
    assert (found.status, found.data) == (200, b"newer")


@pytest.mark.usefixtures("few_places")
def test_interrupted_backups_leave_no_drafts_for_ever(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may be as large as the database. A network share may go away under a backup."""
    folder = tmp_path / "backup"
    drafts: set[Path] = set()
    real = files.write_new

    def write_new(path: Path, blocks: Iterable[Data]) -> None:
        drafts.add(path)
        real(path, blocks)

    def no_hard_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(files, "write_new", write_new)
    monkeypatch.setattr(Path, "hardlink_to", no_hard_links)
    for _ in range(2):
        as_json(server, "backup", folder)
    left = [path for path in drafts if path.parent == folder and not path.name.startswith("backup.json")]
    assert sorted(path.name[:8] for path in left) == ["secret.k", "uponce.d"]
    mine = [folder / "uponce.db.20260101T000000Z.mine", folder / "secret.key.mine"]
    for path in (*left, *mine):
        path.write_bytes(b"half of it")
    as_json(server, "backup", folder)
    assert [path.exists() for path in (*left, *mine)] == [False, False, True, True]


@pytest.mark.usefixtures("few_places")
def test_a_restore_says_that_deleted_assets_are_back(server: Server, tmp_path: Path) -> None:
    put(server, "erased", b"erased")
    as_json(server, "backup", tmp_path / "backup")
    fields = urlencode(server.signed({"public_id": "erased"}, server.server))
    done = server.get(f"/v1_1/{server.cloud}/raw/destroy?{fields}", method="POST")
    assert done.json() == {"result": "ok"}
    told = printed(uponce("restore", tmp_path / "backup", "--data", tmp_path / "data", env={"UPONCE_SKEW": "0"}))
    with closing(sqlite3.connect(tmp_path / "data" / "uponce.db")) as database:
        assert database.execute("SELECT count(*) FROM assets WHERE public_id = 'erased'").fetchone() == (1,)
    assert "Restoring undoes key revocations, key rotations and deletions made since the backup" in told
    made_at = json.loads((tmp_path / "backup" / "backup.json").read_text())["made_at"]
    with closing(sqlite3.connect(server.data_dir / "uponce.db")) as lost:  # as the guide says
        query = "SELECT cloud, public_id FROM audit WHERE event = 'deleted' AND at >= ?"
        assert (server.cloud, "erased") in lost.execute(query, [made_at]).fetchall()


@pytest.mark.usefixtures("few_places")
def test_a_restore_overwrites_nothing(server: Server, tmp_path: Path) -> None:
    as_json(server, "backup", tmp_path / "backup")
    data = tmp_path / "restored"
    data.mkdir()
    for name in ("uponce.db", "uponce.db-wal"):
        (data / name).write_bytes(b"something")
        done = restored(tmp_path / "backup", data)
        assert (done.code, f"{data / name} exists, and uponce overwrites nothing" in done.stderr) == (1, True)
        assert (data / name).read_bytes() == b"something"
        (data / name).unlink()
    (data / "secret.key").write_bytes(bytes(32))
    assert "is another key than" in restored(tmp_path / "backup", data).stderr
    (data / "secret.key").unlink()
    other = uponce("restore", tmp_path / "backup", "--data", data, env={"UPONCE_SECRET_KEY": "00" * 32})
    assert (other.code, "cannot be decrypted" in other.stderr) == (1, True)
    (tmp_path / "backup" / "secret.key").write_bytes(b"")
    assert "secret.key holds 0 bytes instead of 32. Put another copy" in restored(tmp_path / "backup", data).stderr
    assert not (data / "uponce.db").exists()


@pytest.mark.usefixtures("few_places")
def test_with_a_clock_behind_the_backup_nothing_is_restored(server: Server, tmp_path: Path) -> None:
    """The fence would be as far behind, and signatures used since would work again. A lost time stops no restore."""
    as_json(server, "backup", tmp_path / "backup")
    facts, data = tmp_path / "backup" / "backup.json", tmp_path / "restored"
    facts.write_text(json.dumps(json.loads(facts.read_text()) | {"made_at": int(time.time()) + 600}))
    refused = restored(tmp_path / "backup", data)
    assert (refused.code, "seconds behind the time of the backup" in refused.stderr) == (1, True)
    assert not (data / "uponce.db").exists()
    facts.write_text("{")
    assert restored(tmp_path / "backup", data).code == 0


@pytest.mark.usefixtures("few_places")
def test_a_restore_replaces_the_empty_database_that_a_refused_start_leaves(server: Server, tmp_path: Path) -> None:
    """Not one with a key: that server may have taken uploads."""
    as_json(server, "backup", tmp_path / "backup")
    data = tmp_path / "restored"
    env = {"UPONCE_STORAGE": f"file://{server.data_dir}/media"}
    refused = in_a_process("serve", "--port", "0", "--data", data, env=env)
    assert (refused.code, "belongs to another database" in refused.stderr) == (1, True)
    assert (data / "uponce.db").exists()
    printed(restored(tmp_path / "backup", data))
    printed(uponce("keys", "create", "--data", tmp_path / "used"))
    refused = restored(tmp_path / "backup", tmp_path / "used")
    assert (refused.code, "uponce.db exists, and uponce overwrites nothing" in refused.stderr) == (1, True)


def test_a_backup_goes_into_no_folder_of_other_things(server: Server, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(samples.jpeg(1))
    for folder in (tmp_path, server.data_dir):
        done = beside(server, "backup", folder)
        assert (done.code, "holds other files than a backup" in done.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.usefixtures("few_places")
def test_two_backups_into_one_folder_do_not_meet(server: Server, tmp_path: Path) -> None:
    as_json(server, "backup", tmp_path / "backup")
    with Archive(tmp_path / "backup", database=server.data_dir / "uponce.db", secret_key=None).writing():
        done = beside(server, "backup", tmp_path / "backup")
        assert (done.code, "Another backup into" in done.stderr) == (1, True)
    as_json(server, "backup", tmp_path / "backup")


@pytest.mark.proof
def test_the_name_of_a_backup_is_durable_and_may_be_no_utf_8(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: set[int] = set()
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", lambda descriptor: synced.add(os.fstat(descriptor).st_ino))
        as_json(server, "backup", tmp_path / "new" / "backup")
    assert {folder.stat().st_ino for folder in (tmp_path, tmp_path / "new")} <= synced
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    for _ in range(2):
        made = as_json(server, "backup", folder)
        assert made["folder"] == str(tmp_path / "caf\N{REPLACEMENT CHARACTER}")


@pytest.mark.usefixtures("few_places")
def test_a_damaged_last_copy_stops_a_backup_with_a_cure(server: Server, tmp_path: Path) -> None:
    last = tmp_path / "backup" / "uponce.db"
    for _ in range(2):
        as_json(server, "backup", last.parent)
    (before,) = last.parent.glob("uponce.db.2*Z")
    rot(last, "api_keys")
    done = beside(server, "backup", last.parent)
    assert (done.code, f"{last} is damaged" in done.stderr) == (1, True)
    assert f"Rename {before.name} to uponce.db, and run it again." in done.stderr
    before.rename(last)
    rot(last, "api_keys")
    assert "Name another folder, and run it again." in beside(server, "backup", last.parent).stderr


@pytest.mark.usefixtures("few_places")
def test_a_disk_that_is_full_when_a_row_of_the_copy_changes(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = b"deleted" * 100_000
    put(server, "deleted", data)
    (blob,) = (path for path in blobs(server.data_dir / "media") if path.read_bytes() == data)

    def full(*_: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    away = blob.rename(blob.with_suffix(".away"))
    with monkeypatch.context() as patched:
        patched.setattr(snapshot, "_renew", full)
        done = beside(server, "backup", tmp_path / "backup")
    away.rename(blob)
    assert (done.code, "database or disk is full. Check the disk there." in done.stderr) == (1, True)
    as_json(server, "backup", tmp_path / "backup")


@pytest.mark.usefixtures("few_places")
def test_nobody_serves_on_a_backup(server: Server, tmp_path: Path) -> None:
    """It would accept what was used since."""
    as_json(server, "backup", tmp_path / "backup")
    done = in_a_process("serve", "--port", "0", "--data", tmp_path / "backup")
    assert (done.code, "uponce: The database is frozen: it is a backup" in done.stderr) == (1, True)


def test_postgresql_has_its_own(tmp_path: Path) -> None:
    done = uponce("backup", tmp_path / "backup", env={"UPONCE_DATABASE": "postgresql://localhost/uponce"})
    assert (done.code, "For PostgreSQL use pg_dump" in done.stderr) == (1, True)
