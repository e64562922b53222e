"""The SQLite file: how it comes to be, what is refused at the start, what it looks like on disk."""

import asyncio
import errno
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.contract.databases import KEY, PlainBox, SteppedClock, open_sqlite, publish
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.database.sqlite import file as module
from uponce.adapters.database.sqlite.connection import Connection, check_durable, connect
from uponce.adapters.database.sqlite.file import refuse_network
from uponce.adapters.database.statements import load_migrations
from uponce.adapters.system import file_system
from uponce.core.errors import DatabaseUnavailable, SettingRefused

COLUMNS = {
    "owner": "one name",
    "noted_settings": "name value",
    "fences": "one moment mark",
    "api_keys": "id api_key cloud name secret previous_secret previous_until uses scope window_seconds allow_v1 "
    "algorithms created_at revoked_at watermark",
    "upstreams": "cloud url url_secret",
    "grants": "grant_key cloud api_key timestamp max_uses uses pending keep_until spent_at revoked_at",
    "assets": "id cloud resource_type type public_id asset_id version version_id created_at blob_key bytes md5 sha256 "
    "facts tags context original_filename",
    "condemned": "blob_key at",
    "audit": "id at grant_key cloud api_key event code asset_id public_id address request_id count",
    "replies": "grant_key key_hash sha256 answer keep_until",
    "series": "id cloud api_key upload_id requested parameters algorithm filename blob_key created_at total shared "
    "arrived spans signatures parts",
    "series_parts": "series_id start stop name sha256",
    "series_grants": "series_id grant_key timestamp max_uses keep_until",
    "relays": "relay_id cloud target bytes md5 sha256 address request_id key_hash pending_at misses bound",
    "relay_grants": "relay_id grant_key api_key timestamp max_uses keep_until",
    "outbox": "id name receiver subject details due_at tries error created_at dead",
}
INDEXES = {
    *("api_keys_cloud", "grants_purge", "grants_page", "audit_grant", "audit_age", "audit_refusals"),
    *("series_age", "series_grants_key", "replies_purge"),
    *("grants_key_page", "grants_unused", "grants_revoked", "grants_pending", "assets_context"),
    *("relay_grants_key", "outbox_due", "outbox_named", "outbox_order", "outbox_receivers"),
}
UNIQUE = {("cloud", "resource_type", "type", "public_id"), ("asset_id",), ("blob_key",)}


def tables(path: Path) -> dict[str, str]:
    with closing(sqlite3.connect(path)) as connection:
        ours = "type = 'table' AND name NOT GLOB 'sqlite_*'"
        names = [row[0] for row in connection.execute(f"SELECT name FROM sqlite_schema WHERE {ours}")]
        return {n: " ".join(row[1] for row in connection.execute(f"PRAGMA table_info({n})")) for n in names}


def state(path: Path) -> tuple[int, int, list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        changes = connection.execute("PRAGMA schema_version").fetchone()[0]
        return version, changes, connection.execute("SELECT * FROM sqlite_schema ORDER BY name").fetchall()


def test_an_empty_file_becomes_the_expected_schema(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folders" / "uponce.db"
    open_sqlite(path).close()
    assert tables(path) == COLUMNS
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == len(load_migrations("sqlite"))
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        strict = connection.execute("SELECT count(*) FROM pragma_table_list WHERE strict AND schema = 'main'")
        assert strict.fetchone() == (len(COLUMNS),)
        named = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL")
        assert {row[0] for row in named} == INDEXES
        unique = [row[1] for row in connection.execute("PRAGMA index_list(assets)") if row[2]]
        assert {tuple(r[2] for r in connection.execute(f"PRAGMA index_info({name})")) for name in unique} == UNIQUE


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "uponce.db"
    open_sqlite(path).close()
    before = state(path)
    open_sqlite(path).close()
    assert state(path) == before


def _open_and_add(path: Path, api_key: str) -> None:
    database = open_sqlite(path)
    asyncio.run(database.add_key(replace(KEY, api_key=api_key)))
    database.close()


def test_four_processes_may_open_a_new_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "new" / "uponce.db"
    names = [str(number) for number in range(8)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        for opened in [pool.submit(_open_and_add, path, name) for name in names]:
            opened.result(timeout=240)
    database = open_sqlite(path)
    assert sorted(key.api_key for key in asyncio.run(database.list_keys())) == names
    database.close()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "uponce.db"
    steps: Sequence[str] = ["CREATE TABLE a (x);", "CREATE TABLE b (x);\nCREATE TABLE broken (;"]
    monkeypatch.setattr(module, "load_migrations", lambda _: steps)
    with pytest.raises(SettingRefused, match="syntax error"):
        open_sqlite(path)
    assert tables(path) == {}
    steps = ["CREATE TABLE a (x);", "CREATE TABLE b (x); -- fine\n"]
    open_sqlite(path).close()
    assert tables(path) == {"a": "x", "b": "x"}


def test_later_migrations_run_once_on_an_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "uponce.db"
    first = list(load_migrations("sqlite"))
    open_sqlite(path).close()
    monkeypatch.setattr(module, "load_migrations", lambda _: [*first, "CREATE TABLE later (x);"])
    for _ in range(2):
        open_sqlite(path).close()
    assert tables(path) == {**COLUMNS, "later": "x"}


def test_a_frozen_file_of_an_earlier_release_opens_and_stays_frozen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step that writes must not be refused: the move that froze it could neither go on nor be undone."""
    path = tmp_path / "uponce.db"
    database = open_sqlite(path)
    asyncio.run(database.add_key(KEY))
    asyncio.run(database.freeze())
    database.close()
    steps = [*load_migrations("sqlite"), "UPDATE api_keys SET name = 'from a step';"]
    monkeypatch.setattr(module, "load_migrations", lambda _: steps)
    database = open_sqlite(path)
    assert [key.name for key in asyncio.run(database.list_keys())] == ["from a step"]
    assert asyncio.run(database.frozen())
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(database.add_key(replace(KEY, api_key="222")))
    database.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uponce.db"
    open_sqlite(path).close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 99")
    with pytest.raises(SettingRefused, match="schema version 99, but this release supports"):
        open_sqlite(path)


def test_an_older_schema_is_upgraded_only_by_who_means_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "uponce.db"
    database = SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox())
    database.open(upgrade=False)  # a new file has no older schema
    database.close()
    steps = [*load_migrations("sqlite"), "CREATE TABLE later (x);"]
    monkeypatch.setattr(module, "load_migrations", lambda _: steps)
    before = state(path)
    with pytest.raises(SettingRefused, match=f"schema version {len(steps) - 1}, and this release needs {len(steps)}"):
        SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox()).open(upgrade=False)
    assert state(path) == before


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uponce.db"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(SettingRefused, match="cannot be opened: file is not a database"):
        open_sqlite(path)


def test_the_cause_and_the_cure_of_a_file_that_cannot_serve(tmp_path: Path) -> None:
    """Each of these is found when the server starts, not by its first client."""
    folder, foreign, corrupt = tmp_path / "folder", tmp_path / "foreign.db", tmp_path / "corrupt.db"
    folder.mkdir()
    with closing(sqlite3.connect(foreign)) as connection, connection:
        connection.execute("CREATE TABLE invoices (x)")
        connection.execute("PRAGMA user_version = 1")  # as many programs have it
    open_sqlite(corrupt).close()
    with corrupt.open("r+b") as file:
        file.seek(100)
        file.write(b"\xff" * 4000)
    for path, cause in (
        (folder, "is a folder"),
        (foreign, "belongs to another program.*invoices"),
        (corrupt, "backup"),
    ):
        for upgrade in (True, False):
            with pytest.raises(SettingRefused, match=cause):
                SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox()).open(upgrade=upgrade)
    with closing(sqlite3.connect(foreign)) as connection:
        assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("invoices",)]


def test_a_file_that_cannot_be_written_is_found_at_the_start(tmp_path: Path) -> None:
    path = tmp_path / "uponce.db"
    open_sqlite(path).close()

    def read_only(path: Path) -> Connection:
        connection = connect(path)
        connection.execute("PRAGMA query_only = ON")  # fails as a read-only file does
        return connection

    database = SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox(), connect=read_only)
    with pytest.raises(SettingRefused, match=r"uponce\.db cannot be opened.*readonly.*write this file and its folder"):
        database.open()
    database.close()


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SettingRefused, match="cannot be opened"):
        open_sqlite(tmp_path / "file" / "uponce.db")


def test_a_journal_other_than_wal_is_refused() -> None:
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(SettingRefused, match="mode is memory"):
        check_durable(connection)


def test_synchronous_below_full_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "uponce.db"
    open_sqlite(path).close()
    with closing(connect(path)) as connection:
        check_durable(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        with pytest.raises(SettingRefused, match=r"level is 1, below FULL"):
            check_durable(connection)


def test_a_mac_syncs_through_the_cache_of_its_drive(tmp_path: Path) -> None:
    path = tmp_path / "uponce.db"
    open_sqlite(path).close()
    with closing(connect(path)) as connection:
        for name in ("fullfsync", "checkpoint_fullfsync"):
            assert tuple(connection.execute(f"PRAGMA {name}").fetchone()) == (1,)


def test_an_sqlite_without_strict_tables_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with closing(sqlite3.connect(":memory:")) as connection, pytest.raises(SettingRefused, match="too old"):
        check_durable(connection)


MOUNTS = (
    r"""
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:30 / /srv rw shared:5 master:2 - nfs4 server:/export rw,vers=4.2
31 22 0:31 / /srv/local rw - xfs /dev/vdb rw
32 22 0:32 / /home/me/with\040space rw - fuse.sshfs me@host: rw
33 22 0:33 / /covered rw - ext4 /dev/vdc rw
34 33 0:34 / /covered rw - cifs //server/share rw
35 22 0:35 / /merged rw - fuse.fuse-overlayfs fuse-overlayfs rw
""".lstrip()
    + "".join(f"36 22 0:36 / /odd{end}name rw - fuse odd rw\n" for end in "\r\f\v\x1c\x85\u2028")
)


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/data", "nfs4"),
        ("/srvdata", "ext4"),
        ("/srv/local/data", "xfs"),
        ("/home/me/with space/x", "fuse.sshfs"),
        ("/covered/x", "cifs"),
        ("/merged", "fuse.fuse-overlayfs"),
        ("/odd\fname", "fuse"),
    ],
)
def test_the_file_system_of_a_path_is_that_of_its_innermost_mount(path: str, kind: str) -> None:
    assert file_system(Path(path), MOUNTS) == kind


@pytest.mark.parametrize(
    ("kind", "refused"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs", "fuse.s3fs", "fuse")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "zfs", "overlay", "tmpfs", "fuse.fuse-overlayfs")),
    ],
)
def test_network_file_systems_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, refused: bool
) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(f"22 1 254:1 / / rw - {kind} source rw\n")
    monkeypatch.setattr(module, "refuse_network", lambda folder: refuse_network(folder, mountinfo))
    if refused:
        with pytest.raises(SettingRefused, match=rf"network file system \({kind}\)"):
            open_sqlite(tmp_path / "uponce.db")
    else:
        open_sqlite(tmp_path / "uponce.db").close()


def test_a_symbolic_link_does_not_hide_where_the_folder_is(tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    (tmp_path / "link").symlink_to("remote")
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(
        f"22 1 254:1 / / rw - ext4 source rw\n23 22 0:1 / {tmp_path.resolve()}/remote rw - nfs source rw\n"
    )
    with pytest.raises(SettingRefused):
        refuse_network(tmp_path / "link", mountinfo)
    refuse_network(tmp_path / "link", tmp_path / "no-proc-here")


def test_the_files_are_for_their_owner_only(tmp_path: Path) -> None:
    database = open_sqlite(tmp_path / "uponce.db")
    asyncio.run(database.add_key(KEY))
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    database.close()
    assert modes.pop("uponce.reserve") == 0o700
    assert modes == dict.fromkeys(("uponce.db", "uponce.db-wal", "uponce.db-shm"), 384)


def test_no_secret_stands_in_the_file_as_it_is(tmp_path: Path) -> None:
    database = open_sqlite(tmp_path / "uponce.db")
    asyncio.run(database.add_key(KEY))
    asyncio.run(database.rotate_key(KEY.api_key, "the-newer-secret", 100))
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir() if path.is_file())
    database.close()
    assert KEY.name.encode() in written
    assert b"the-secret" not in written
    assert b"the-newer-secret" not in written


def test_the_names_of_new_folders_are_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(module, "sync_folder", synced.append)
    module.make_private(tmp_path / "a" / "b" / "uponce.db")
    assert set(synced) == {tmp_path, tmp_path / "a", tmp_path / "a" / "b"}


def test_a_lost_file_is_not_replaced_by_an_empty_one(tmp_path: Path) -> None:
    """An empty ledger would accept every spent signature again."""
    path = tmp_path / "uponce.db"
    database = open_sqlite(path)
    for file in tmp_path.glob("uponce.db*"):
        os.unlink(file)
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(publish(database, "a"))
    with pytest.raises(DatabaseUnavailable):
        asyncio.run(database.find_key("111"))
    database.close()
    assert not path.exists()


def test_a_folder_with_odd_characters_is_a_folder(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory#%41 é&x" / ":memory:"
    open_sqlite(path).close()
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("number", "cure"),
    [
        (errno.EROFS, "mount the disk read-write"),
        (errno.EACCES, "Let the user of the server read and write"),
        (errno.ENOSPC, "Free disk space"),
    ],
)
def test_what_the_system_refuses_has_its_own_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, cure: str
) -> None:
    def refused(_: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(module, "make_private", refused)
    with pytest.raises(SettingRefused, match=f"{os.strerror(number)}.*{cure}"):
        open_sqlite(tmp_path / "uponce.db")


def test_a_link_to_a_file_on_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mountinfo, share = tmp_path / "mountinfo", tmp_path / "share"
    share.mkdir()
    mountinfo.write_text(f"1 0 0:1 / / rw - ext4 /dev/sda rw\n2 1 0:2 / {share} rw - nfs4 host:/ rw\n")
    monkeypatch.setattr(module, "refuse_network", lambda folder: refuse_network(folder, mountinfo))
    path = tmp_path / "uponce.db"
    path.symlink_to(share / "uponce.db")
    with pytest.raises(SettingRefused, match=f"{share} is on a network file system"):
        open_sqlite(path)
