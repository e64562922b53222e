"""Groups of small blobs on a real disk, as files and in packs: the order of the system calls, and their failures."""

import asyncio
import functools
import json
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.adapters.one_group import GROUPS, MUTANTS, SIZES, Outcome, body, different, group
from tests.adapters.packing import sweep
from tests.adapters.test_local_blobs import ROOT, needs_strace
from tests.contract.stores import local_of
from uponce.adapters.store import local
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.ports import Body

CALLS = "trace=openat,write,writev,pwrite64,pwritev,fsync,fdatasync"
KINDS = {"files": 0, "packs": 100_000}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def store_of(root: Path, kind: str) -> Blobs:
    store = LocalBlobs(root, ids=RandomIds(), pack_bytes=KINDS[kind])
    store.open_store()
    return store


def one_group(root: Path, kind: str, *arguments: str, strace: Sequence[str] = ()) -> Outcome:
    return Outcome(**json.loads(lines_of(root, kind, *arguments, strace=strace)[-1]))


def lines_of(root: Path, kind: str, *arguments: str, strace: Sequence[str] = (), killed: bool = False) -> list[str]:
    traced = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", *strace) if strace else ()
    done = subprocess.run(
        [*traced, sys.executable, "-m", "tests.adapters.one_group", str(root), str(KINDS[kind]), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=not killed,
    )
    assert done.returncode == (-signal.SIGKILL if killed else 0)
    return done.stdout.splitlines()


@functools.cache
def names_of(kind: str, place: Path) -> Sequence[Path]:
    """The files of a run without failures below `place`: each run on its file system makes the same ones."""
    with tempfile.TemporaryDirectory(dir=place) as folder:
        one_group(Path(folder), kind)
        return [path.relative_to(folder) for path in Path(folder).rglob("*") if path.is_file()]


@pytest.mark.parametrize("type_", [bytes, bytearray, memoryview])
def test_a_group_comes_back_in_its_order(tmp_path: Path, kind: str, type_: type) -> None:
    bodies: list[Body] = [(type_(data), digest) for data, digest in group(1)]
    store = store_of(tmp_path / "media", kind)
    keys = local_of(store).put_group(bodies)
    assert len(set(keys)) == len(SIZES)
    assert asyncio.run(different(store, keys, bodies)) == []
    assert local_of(store).put_group([]) == []
    store.close()


def test_a_group_syncs_only_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A group in a pack has nothing in the folders of files."""
    synced: list[Path] = []
    for kind, count in (("packs", 0), ("files", 1)):
        store = store_of(tmp_path / kind, kind)
        local_of(store).put_group([body(b"abc")])  # the first group of a pack also makes the pack's name durable
        with monkeypatch.context() as patch:
            patch.setattr(local, "sync_folder", synced.append)
            local_of(store).put_group([body(b"def")])
        assert len(synced) == count
        store.close()


def test_blobs_of_a_group_are_deleted_one_by_one(tmp_path: Path, kind: str) -> None:
    bodies = [body(b"abc"), body(b"def")]
    store = store_of(tmp_path / "media", kind)

    async def scenario() -> None:
        gone, kept = local_of(store).put_group(bodies)
        await store.delete(gone)
        assert await store.open(gone) is None
        assert [blob.key async for blob in store.published()] == [kept]
        assert await different(store, [kept], bodies[1:]) == []

    asyncio.run(scenario())
    store.close()


# What a power cut would find.


def disorder(tmp_path: Path, kind: str, *arguments: str) -> str:
    """How a power cut could lose a group that was reported as stored; empty when it could not."""
    log = tmp_path / "calls.strace"
    outcome = one_group(tmp_path / "media", kind, *arguments, strace=("-y", "-e", CALLS, "-o", str(log)))
    assert (outcome.codes, outcome.wrong, outcome.listed) == (["ok"] * GROUPS, [], GROUPS * len(SIZES))
    lines, reports, dirty = log.read_text().splitlines(), 0, set[str]()
    ours = [line for line in lines if f"/{_FOLDERS[kind]}/" in line]
    assert not [line for line in ours if "unfinished" in line], "two threads at once: the order is not certain"
    for line in lines:
        made = re.match(r'\d+ +openat\([^"]*"[^"]*".*O_CREAT.*= \d+<([^>]+)>', line)
        done = re.match(r"\d+ +(\w+)\(\d+<([^>]+)>.* = \d+$", line)
        if made and f"/{_FOLDERS[kind]}/" in made[1]:
            dirty |= {made[1], str(Path(made[1]).parent)}
        elif done and f"/{_FOLDERS[kind]}" in done[2]:
            dirty = dirty - {done[2]} if "sync" in done[1] else dirty | {done[2]}
        elif re.match(r'\d+ +write\(1<[^>]*>, "\[', line):
            reports += 1
            if lost := {path for path in dirty if "probe" not in path}:
                return f"not durable at report {reports}: {sorted(lost)}"
    assert reports == GROUPS
    return ""


_FOLDERS = {"files": "blobs", "packs": "packs"}


@needs_strace
def test_bytes_and_names_of_a_group_are_durable_when_it_is_stored(tmp_path: Path, kind: str) -> None:
    assert disorder(tmp_path, kind) == ""


@needs_strace
@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_check_of_the_order_sees_each_mutant(tmp_path: Path, kind: str, mutant: str) -> None:
    assert disorder(tmp_path, kind, mutant) != ""


# What the operating system refuses.


FAILURES = {
    "files": {
        # The first file of the first group has no bytes, so the second write is that of the third file.
        "the disk is full": ("writev:error=ENOSPC:when=2", "storage_full"),
        "a write fails": ("writev:error=EIO:when=2", "storage_unavailable"),
        "the bytes cannot be synced": ("fsync:error=EIO:when=2", "storage_unavailable"),
        "the folder cannot be synced": ("fsync:error=EIO:when=4", "storage_unavailable"),
    },
    "packs": {
        "the pack cannot be made": ("openat:error=EMFILE:when=1", "storage_unavailable"),
        "the disk is full": ("writev:error=ENOSPC:when=1", "storage_full"),
        "a write fails": ("writev:error=EIO:when=1", "storage_unavailable"),
        "the bytes cannot be synced": ("fdatasync:error=EIO:when=1", "storage_unavailable"),
    },
}


@needs_strace
@pytest.mark.parametrize(("kind", "failure"), [(kind, failure) for kind in KINDS for failure in FAILURES[kind]])
def test_a_failure_spoils_its_group_and_no_other(tmp_path: Path, kind: str, failure: str) -> None:
    inject, code = FAILURES[kind][failure]
    root = tmp_path / "media"
    paths = {
        root / path for name in names_of(kind, tmp_path.parent) for path in (name, name.parent) if path.name != "packs"
    }
    only = [argument for path in paths for argument in ("-P", str(path))]
    outcome = one_group(root, kind, strace=(*only, "-e", f"inject={inject}", "-o", "/dev/null"))
    assert (outcome.codes, outcome.wrong) == ([code, "ok", "ok"], [])
    assert (outcome.listed, outcome.descriptors) == (len(SIZES) * (GROUPS - 1), 0)


# What a kill leaves.


def watched(root: Path, names: Sequence[Path]) -> list[str]:
    return [
        word for path in {root / path for name in names for path in (name, name.parent)} for word in ("-P", str(path))
    ]


@pytest.mark.proof
@pytest.mark.timeout(1200)  # a process for each of many steps
@needs_strace
def test_a_kill_at_any_step_loses_no_stored_group(tmp_path: Path, kind: str) -> None:
    """Before each system call that touches what is stored; the store that comes next spoils nothing either."""
    log = tmp_path / "calls.strace"
    names = names_of(kind, tmp_path.parent)
    traced = watched(tmp_path / "traced", names)
    one_group(tmp_path / "traced", kind, strace=(*traced, "-e", f"{CALLS},unlink,fallocate", "-o", str(log)))
    calls = Counter(line.split()[1].partition("(")[0] for line in log.read_text().splitlines())
    del calls["openat"]  # of the folders, also by the start
    points = [(call, number) for call, times in calls.items() for number in range(1, times + 1)]
    assert {"writev", "fsync"} <= calls.keys()
    stored = 0
    for call, number in points:
        root = tmp_path / f"{call}-{number}"
        inject = f"inject={call}:signal=KILL:when={number}"
        lines = lines_of(root, kind, strace=(*watched(root, names), "-e", inject, "-o", "/dev/null"), killed=True)
        groups = [(json.loads(line), group(which)) for which, line in enumerate(lines)]
        for _ in range(2):
            store = store_of(root, kind)
            for keys, bodies in groups:
                assert asyncio.run(different(store, keys, bodies)) == [], (call, number)
            groups.append((local_of(store).put_group(group(7)), group(7)))
            assert sweep(store) == 0
            store.close()
        stored += len(lines)
    assert stored > 0
