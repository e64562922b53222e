"""What depends on the operating system, by Linux's own means and by the ways out for other systems."""

import fcntl
import os
import string
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from uponce.adapters import system
from uponce.adapters.spool.locks import KernelLocks, ProcessLocks
from uponce.adapters.system import RandomIds
from uponce.config import Settings
from uponce.core.errors import SettingRefused
from uponce.core.spans import Span
from uponce.wiring import build

Locks = KernelLocks | ProcessLocks


@pytest.fixture(params=[KernelLocks, ProcessLocks])
def locks(request: pytest.FixtureRequest) -> Locks:
    made: Locks = request.param()
    return made


@pytest.fixture
def descriptors(tmp_path: Path) -> Iterator[tuple[int, int, int]]:
    """Two of one file, and one of another."""
    (tmp_path / "a").touch()
    (tmp_path / "b").touch()
    with ExitStack() as stack:
        files = [stack.enter_context((tmp_path / name).open("r+b")) for name in "aab"]
        one, two, other = (file.fileno() for file in files)
        yield one, two, other


@pytest.mark.parametrize(("task", "lacks"), [("<none>\n", True), ("77\n", False), (None, False)])
def test_a_disk_without_a_journal_is_known_by_its_journal_task(tmp_path: Path, task: str | None, lacks: bool) -> None:
    device = tmp_path.stat().st_dev
    (tmp_path / "devices/sda1").mkdir(parents=True)
    (tmp_path / "dev/block").mkdir(parents=True)
    (tmp_path / f"dev/block/{os.major(device)}:{os.minor(device)}").symlink_to(tmp_path / "devices/sda1")
    (tmp_path / "fs/ext4/sda1").mkdir(parents=True)
    if task is not None:
        (tmp_path / "fs/ext4/sda1/journal_task").write_text(task)
    assert system.lacks_journal(tmp_path, tmp_path) == lacks


def test_where_the_system_shows_no_disks_none_lacks_a_journal(tmp_path: Path) -> None:
    assert not system.lacks_journal(tmp_path, tmp_path)


def test_a_lock_keeps_other_descriptors_out(locks: Locks, descriptors: tuple[int, int, int]) -> None:
    one, two, other = descriptors
    assert locks.lock(one, Span(10, 20))
    assert not locks.lock(two, Span(19, 30))
    assert locks.lock(two, Span(20, 30)), "bytes beside it are free"
    assert locks.lock(other, Span(10, 20)), "another file is free"
    assert locks.locked(two, Span(0, 11))
    assert not locks.locked(two, Span(0, 10))
    assert not locks.locked(one, Span(10, 20)), "its own lock does not count"


def test_an_empty_span_locks_its_first_byte(locks: Locks, descriptors: tuple[int, int, int]) -> None:
    one, two, _ = descriptors
    assert locks.lock(one, Span(5, 5))
    assert not locks.lock(two, Span(0, 6))
    assert locks.lock(two, Span(6, 7))


def test_shared_locks_meet_and_exclude_others(locks: Locks, descriptors: tuple[int, int, int]) -> None:
    one, two, _ = descriptors
    assert locks.lock(one, Span(0, 9), shared=True)
    assert locks.lock(two, Span(0, 9), shared=True)
    assert locks.locked(two, Span(0, 9))
    locks.release(one)
    locks.release(two)


def test_a_lock_ends_with_its_descriptor(locks: Locks, tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    one, two = (os.open(tmp_path / "a", os.O_RDWR) for _ in range(2))
    assert locks.lock(one, Span(0, 9))
    locks.release(one)
    os.close(one)
    assert locks.lock(two, Span(0, 9))
    os.close(two)


def test_a_process_ends_with_its_parent_without_a_signal_of_the_kernel(tmp_path: Path) -> None:
    orphan = (
        "import os, signal, sys, time\n"
        "from uponce.adapters import system\n"
        "system._LIBC, system._PARENT_LOOK_SECONDS = None, 0.01\n"
        "system.die_with(int(sys.argv[1]), signal.SIGKILL)\n"
        "print('ready', flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE)\n"
        "assert child.stdout.readline() == b'ready\\n'\n"
    )
    # The pipe of the parent's output is also its child's: it ends when both have ended.
    subprocess.run([sys.executable, "-c", parent, orphan], stderr=subprocess.PIPE, timeout=120, check=True)


def test_a_file_is_synced_through_the_cache_of_the_drive(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[int] = []
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda descriptor, command: asked.append(command))
    with (tmp_path / "a").open("wb") as file:
        system.sync_file(file.fileno())
        system.sync_data(file.fileno())
    system.sync_folder(tmp_path)
    assert asked == [51, 51, 51]


def test_several_workers_need_locks_between_processes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("uponce.wiring.LOCKS", ProcessLocks())
    with pytest.raises(SettingRefused, match="UPONCE_WORKERS is 2"):
        build(Settings(data=str(tmp_path), workers=2))


def test_more_files_may_be_open_than_the_system_allows_at_first() -> None:
    code = (
        "import resource; from uponce.adapters.system import allow_files\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard)); allow_files(200)\n"
        "allow_files(50); print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "200\n"


def test_each_letter_of_a_name_is_equally_likely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each value of a byte comes equally often, and the values beyond the last whole alphabet count for nothing."""
    monkeypatch.setattr(os, "urandom", lambda size: bytes(range(256)) * (size // 256))
    found = RandomIds().base36(2 * 252)  # 252 is 7 · 36
    assert {found.count(letter) for letter in string.digits + string.ascii_lowercase} == {14}


def test_no_id_comes_twice() -> None:
    """Threads share the random bytes that were drawn, and a forked process draws new ones."""
    ids = RandomIds()

    def made(_: int) -> list[str]:
        return [ids.hex(32) for _ in range(2000)]

    with ThreadPoolExecutor(8) as pool:
        found = [each for some in pool.map(made, range(8)) for each in some]
    assert len({*found}) == len(found)
    assert {len(ids.hex(7)), len(ids.base36(26)), len(ids.dated_hex())} == {7, 26, 32}

    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, f"{ids.hex(32)} {ids.base36(31)}".encode())
        os._exit(0)
    assert not {*os.read(reading, 64).decode().split()} & {ids.hex(32), ids.base36(31)}
    os.waitpid(child, 0)  # another child of this process may have ended, too
    os.close(reading)
    os.close(writing)
