"""A stopped server starts on a full disk: SQLite gets the room that it needs from the reserve."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.contract.databases import PlainBox, SteppedClock
from uponce.adapters.database.sqlite import SqliteDatabase, reserve
from uponce.adapters.database.sqlite.connection import Connection, connect
from uponce.core.errors import SettingRefused

MIB = 1 << 20

# The server stops, another program takes what its files had taken, and the server starts: again and again.
ON_A_FULL_DISK = """
import os
import shutil
import sys
from pathlib import Path
from tests.contract.databases import open_sqlite, run

folder = Path(sys.argv[1])
open_sqlite(folder / "uponce.db").close()
if sys.argv[2] == "without":
    shutil.rmtree(folder / "uponce.reserve")
for turn in range(3):
    other = os.open(folder / "other", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        while sys.argv[3] == "room":
            os.write(other, bytes(4096))
        for number in range(10_000):
            (folder / f"{turn} {number}").touch()
    except OSError:
        os.close(other)
    database = open_sqlite(folder / "uponce.db")
    assert run(database.frozen()) is False
    database.close()
"""


@pytest.mark.parametrize("wanting", ["room", "inodes"])
@pytest.mark.parametrize("reserved", ["with", "without"])
def test_a_database_opens_on_a_full_disk(tmp_path: Path, reserved: str, wanting: str) -> None:
    """The one without a reserve is the control."""
    shell = ["unshare", "--mount", "sh", "-euc"]
    mount = f"mount -t tmpfs -o size=8m,nr_inodes=200 none {tmp_path}"
    if subprocess.run([*shell, mount], capture_output=True, check=False).returncode:
        pytest.skip("ABSENT: only root can mount a disk, and not in every container")
    command = f'{mount}; exec "$0" -c "$1" {tmp_path} {reserved} {wanting}'
    done = subprocess.run(
        [*shell, command, sys.executable, ON_A_FULL_DISK], capture_output=True, text=True, check=False
    )
    if reserved == "with":
        assert (done.returncode, done.stderr) == (0, "")
    elif wanting == "room":
        assert "disk I/O error. Check the disk and its free space" in done.stderr
    else:
        assert "unable to open database file. No inodes are left there (df -i)" in done.stderr


@dataclass
class Disk:
    """A disk with so much free room, which refuses connections while the reserve is larger than `most`."""

    folder: Path
    free: int = 64 * MIB
    is_used_up: bool = False
    most: int = 64 * MIB
    code: int = sqlite3.SQLITE_IOERR_SHMSIZE

    def size(self) -> int:
        return sum(file.stat().st_size for file in self.folder.glob("uponce.reserve/*"))

    def connect(self, path: Path) -> Connection:
        if self.size() > self.most:
            error = sqlite3.OperationalError("refused")
            error.sqlite_errorcode = self.code
            raise error
        return connect(path)

    def open(self, name: str = "uponce.db") -> None:
        path = self.folder / name
        with closing(SqliteDatabase(path, clock=SteppedClock(), secrets=PlainBox(), connect=self.connect)) as database:
            database.open()


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Disk:
    disk = Disk(tmp_path)
    monkeypatch.setattr(reserve, "_room", lambda _: disk.free)
    monkeypatch.setattr(reserve, "has_no_room", lambda _: disk.is_used_up)
    return disk


@pytest.mark.parametrize("code", ["SQLITE_FULL", "SQLITE_IOERR_SHMSIZE", "SQLITE_CANTOPEN"])
def test_the_reserve_gives_up_as_little_as_needed_and_is_whole_again_with_room(disk: Disk, code: str) -> None:
    disk.open()
    assert disk.size() == MIB
    disk.code = getattr(sqlite3, code)
    disk.free, disk.most = 0, MIB - 100_000
    disk.open()
    assert disk.size() == MIB - 2 * 65_536
    disk.free, disk.most = 64 * MIB, MIB
    disk.open()
    assert disk.size() == MIB


def test_the_reserve_gives_up_room_if_a_quota_is_used_up(disk: Disk) -> None:
    """The free room of the disk does not show it."""
    disk.open()
    disk.is_used_up, disk.most = True, MIB - 1
    disk.open()
    assert disk.size() == MIB - 65_536


def test_a_reserve_that_is_used_up_refuses_the_start(disk: Disk) -> None:
    disk.open()
    disk.free, disk.most = 0, -1
    with pytest.raises(SettingRefused, match="free space"):
        disk.open()
    assert disk.size() == 0


@pytest.mark.parametrize(("code", "free"), [("SQLITE_IOERR_SHMSIZE", 64 * MIB), ("SQLITE_NOTADB", 0)])
def test_another_failure_leaves_the_reserve_whole(disk: Disk, code: str, free: int) -> None:
    disk.open()
    disk.code, disk.free, disk.most = getattr(sqlite3, code), free, 0
    with pytest.raises(SettingRefused):
        disk.open()
    assert disk.size() == MIB


def test_a_small_disk_gets_no_reserve(disk: Disk) -> None:
    disk.free = 3 * MIB
    disk.open()
    assert disk.size() == 0


@pytest.mark.parametrize(("left", "size"), [(63, 0), (64, MIB)])
def test_a_disk_with_few_inodes_gets_no_reserve(
    disk: Disk, left: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = SimpleNamespace(f_files=1000, f_favail=left)
    monkeypatch.setattr("os.statvfs", lambda _: facts)
    reserve.fill(disk.folder / "uponce.db")
    assert disk.size() == size


def test_a_file_that_a_power_cut_left_empty_is_written_again(disk: Disk) -> None:
    disk.open()
    (disk.folder / "uponce.reserve" / "7").write_bytes(b"")
    disk.open()
    assert disk.size() == MIB


def test_the_reserve_is_on_the_disk_of_the_database(disk: Disk, tmp_path: Path) -> None:
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "uponce.db").symlink_to(tmp_path / "uponce.db")
    disk.open("links/uponce.db")
    assert disk.size() == MIB
    assert [path.name for path in (tmp_path / "links").iterdir()] == ["uponce.db"]
