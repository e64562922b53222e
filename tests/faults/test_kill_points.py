"""SIGKILL before every system call with which one upload, or a recovery, changes anything on the disk.

strace counts a call per thread and per path it is told of, so a point is a path, a call and a number; the call itself
never happens, so that the points before and after it are two.
"""

import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.faults.audit import Receipt, count, examine
from tests.faults.one_upload import BLOB_KEY, FIRST, SECOND, THIRD, prepare, recover, try_again

CALLS = (
    "openat write writev pwrite64 pwritev fsync fdatasync ftruncate fallocate rename renameat renameat2 unlink "
    "unlinkat link mkdir chmod fchmod"
).split()
ROOT = Path(__file__).parents[2]
SUBJECT = "tests.faults.one_upload"
JOBS = 2


def can_trace() -> bool:
    """Containers may forbid it."""
    command = ("strace", "-qq", "-o", "/dev/null", "true")
    return shutil.which("strace") is not None and subprocess.run(command, check=False).returncode == 0


pytestmark = pytest.mark.skipif(not can_trace(), reason="NOT TESTED: strace is missing or forbidden; allow it")


class Point(NamedTuple):
    """Before the `number`-th `call` on `path`, which is relative to the data folder."""

    path: str
    call: str
    number: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder to begin with, and what runs on a copy of it."""

    origin: Path
    fields: dict[str, str]
    command: tuple[str, ...]

    def lay_out(self, where: Path) -> Path:
        shutil.rmtree(where, ignore_errors=True)
        return Path(shutil.copytree(self.origin, where))

    def run(self, data_dir: Path, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        strace = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none", "-P", str(data_dir / path), *options)
        module, *arguments = self.command
        return subprocess.run(
            [*strace, sys.executable, "-m", module, str(data_dir), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def paths(origin: Path) -> list[str]:
    """All that an upload touches: folders, the database's files, the blobs that are there and the one to come."""
    shard = f"media/blobs/{BLOB_KEY[:2]}"
    present = sorted(str(path.relative_to(origin)) for path in origin.glob("media/blobs/*/*"))
    database = ("uponce.db", "uponce.db-wal", "uponce.db-shm", "uponce.db-journal")
    folders = (".", "media", "media/blobs", "media/staging", shard)
    return list(dict.fromkeys([*folders, *database, f"media/staging/{BLOB_KEY}", f"{shard}/{BLOB_KEY}", *present]))


def points(scene: Scene, where: Path, names: Sequence[str]) -> list[Point]:
    """Watch it once for each path. Two threads that make one call on one path share a point: the earlier one dies."""
    log = where.with_suffix(".log")
    found = []
    for name in names:
        outcome = scene.run(scene.lay_out(where), name, "-e", f"trace={','.join(CALLS)}", "-o", str(log))
        assert outcome.returncode == 0, outcome.stderr
        seen = Counter(re.findall(r"^(\d+) +(\w+)\(", log.read_text(), re.MULTILINE))
        highest: Counter[str] = Counter()
        for (_, call), times in seen.items():
            highest[call] = max(highest[call], times)
        found += [Point(name, call, number) for call, times in highest.items() for number in range(1, times + 1)]
    return found


def kill_at(scene: Scene, data_dir: Path, point: Point) -> list[Receipt]:
    """What was acknowledged before the end."""
    inject = f"inject={point.call}:signal=KILL:when={point.number}"
    outcome = scene.run(scene.lay_out(data_dir), point.path, "-e", inject, "-o", "/dev/null")
    assert outcome.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{point} was not reached: {outcome}"
    return [Receipt("cat", asset_id, digest(SECOND)) for asset_id in outcome.stdout.split()]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def violations(scene: Scene, data_dir: Path, receipts: Sequence[Receipt]) -> list[str]:
    """After recovery: four zeros. Then the same signature again: it works, or it was used, and four zeros."""
    recover(data_dir)
    findings = [examine(data_dir, receipts)]
    answer = try_again(data_dir, scene.fields)
    expected = digest(THIRD if answer == "ok" else SECOND)
    findings.append(examine(data_dir))
    found = [str(finding) for finding in findings if finding]
    if answer not in ("ok", "signature_used") or (receipts and answer == "ok"):
        found.append(f"the second try got {answer}")
    if count(data_dir, f"assets WHERE sha256 = '{expected}'") != 1 or count(data_dir, "assets") != 1:
        found.append(f"the asset is not what {answer} means")
    if count(data_dir, "grants WHERE uses = 1") != 2:
        found.append("the signatures of two uploads must be used, and no other")
    return found


def campaign(scene: Scene, folder: Path, all_points: Sequence[Point]) -> dict[Point, list[str]]:
    """The points that broke a promise, and how. Several at a time, each in a folder of its own."""

    def attempt(job: tuple[int, Point]) -> tuple[Point, list[str]]:
        data_dir = folder / f"run-{job[0]}"
        receipts = kill_at(scene, data_dir, job[1])
        found = violations(scene, data_dir, receipts)
        shutil.rmtree(data_dir)
        return job[1], found

    with ThreadPoolExecutor(JOBS) as pool:
        return {point: found for point, found in pool.map(attempt, enumerate(all_points)) if found}


def overwriting(folder: Path, module: str = SUBJECT) -> Scene:
    origin = folder / "origin"
    fields = prepare(origin)
    assert count(origin, f"assets WHERE sha256 = '{digest(FIRST)}'") == 1
    return Scene(origin, fields, (module, json.dumps(fields)))


def report(name: str, all_points: Sequence[Point], broken: dict[Point, list[str]]) -> None:
    calls = dict(Counter(point.call for point in all_points))
    print(f"{name}: {len(all_points)} kill points {calls}, {len(broken)} with violations")


def test_an_upload_killed_at_every_step(tmp_path: Path) -> None:
    scene = overwriting(tmp_path)
    every = points(scene, tmp_path / "watched", paths(scene.origin))
    broken = campaign(scene, tmp_path, every)
    report("upload", every, broken)
    assert not broken
    assert {"writev", "fsync", "rename", "pwrite64", "fdatasync", "unlink"} <= {point.call for point in every}


def test_a_recovery_killed_at_every_step(tmp_path: Path) -> None:
    """Begun after a kill between the commit and the deletion of the replaced bytes; recovered once more after that."""
    scene = overwriting(tmp_path)
    (replaced,) = (path for path in paths(scene.origin) if (scene.origin / path).is_file() and "blobs" in path)
    kill_at(scene, tmp_path / "crashed", Point(replaced, "unlink", 1))
    recovery = Scene(tmp_path / "crashed", scene.fields, (SUBJECT,))
    every = points(recovery, tmp_path / "watched", paths(recovery.origin))
    broken = campaign(recovery, tmp_path, every)
    report("recovery", every, broken)
    assert not broken
    assert "unlink" in {point.call for point in every if point.path == replaced}


@pytest.mark.parametrize(
    ("mutant", "expected"),
    [("commit_before_publish", "has no or other bytes"), ("answer_before_commit", "acknowledged")],
)
def test_the_points_find_steps_in_the_wrong_order(tmp_path: Path, mutant: str, expected: str) -> None:
    """The same campaign, at the steps of the blob alone, on uploads that take a step too early."""
    scene = overwriting(tmp_path, f"tests.faults.mutants.{mutant}")
    every = points(scene, tmp_path / "watched", [path for path in paths(scene.origin) if BLOB_KEY in path])
    broken = campaign(scene, tmp_path, every)
    report(mutant, every, broken)
    assert any(expected in line for found in broken.values() for line in found), broken
