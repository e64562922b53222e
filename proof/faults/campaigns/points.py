"""SIGKILL before every system call with which a step changes anything on the disk.

Steps are: an upload, one that may be sent again, an overwrite, a recovery sweep, a revocation, a purge, the rotation of
a key, a deletion. Others are the first, a middle and the last chunk of an upload; its creation by tus, and the first, a
middle and the last PATCH.

A point is a path, a call and a number. The call itself never happens, so the points before and after it are two. Each
kill starts from a copy of one folder and ends with a recovery, an audit and another try.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from proof.faults.audit import Findings, examine
from proof.faults.control import Attempt, until_red
from proof.faults.one_upload import BLOB_KEY
from proof.faults.operator import check, recover
from proof.faults.report import Report
from proof.faults.scenes import IN_ONE_REQUEST, Point, Scene, deleting, grouping, overwriting, repeating
from proof.faults.scenes_in_parts import IN_PARTS, middle_chunk
from proof.faults.strace import ABSENT, can_trace, highest_counts, touched_paths
from proof.faults.tally import Tally

CALLS = (
    "openat write writev pwrite64 pwritev fsync fdatasync ftruncate fallocate rename renameat renameat2 unlink "
    "unlinkat link mkdir chmod fchmod"
).split()
# By mutant: what a kill must show of it.
MUTANTS = {"commit_before_publish": "hollow: asset", "answer_before_commit": "lost: acknowledged asset"}
DELETING_MUTANTS = {"bytes_before_row": "hollow: asset", "deleted_before_commit": "the asset is still there"}
SCENES: tuple[Callable[[Path], Scene], ...] = (*IN_ONE_REQUEST, *IN_PARTS)
JOBS = 2
FEWEST = 8  # points of each lane, however late it is


def run(seconds: float, seed: int) -> Report:
    """Points of all scenes in a seeded order, until the time or the points are used up."""
    if not can_trace():
        pytest.skip(ABSENT)
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-points-") as name:
        folder = Path(name)
        for mutant in MUTANTS:
            control(folder, mutant, chance, tally)
        control_groups(folder, chance, tally)
        control_repeats(folder, tally)
        control_parts(folder, chance, tally)
        for mutant in DELETING_MUTANTS:
            control_deletes(folder, mutant, chance, tally)
        scenes = [make(folder / f"scene-{number}") for number, make in enumerate(SCENES)]
        jobs = [(scene, point) for scene in scenes for point in points(scene, folder / "watched")]
        tally.counts["known kill points"] += len(jobs)
        chance.shuffle(jobs)
        strike_all(folder, jobs, tally, deadline)
    return tally.report("points", seed)


def control(folder: Path, mutant: str, chance: random.Random, tally: Tally) -> None:
    """Uploads that take a step too early: a point at the blob has to show it."""
    scene = overwriting(folder / mutant, f"proof.faults.mutants.{mutant}")
    at_blob = [point for point in points(scene, folder / "watched") if BLOB_KEY in point.path]
    chance.shuffle(at_blob)
    until_red(tally, mutant.replace("_", " "), each(scene, folder, at_blob, MUTANTS[mutant]))


def control_groups(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Find an upload of a group that is answered before the commit, by a kill before a write of the commit."""
    scene = grouping(folder / "arrival_answered_first", "proof.faults.mutants.arrival_answered_first")
    of_commit = [point for point in points(scene, folder / "watched") if point.path.startswith("uponce.db-wal")]
    chance.shuffle(of_commit)
    until_red(tally, "arrival answered first", each(scene, folder, of_commit, "lost: acknowledged asset"))


def control_repeats(folder: Path, tally: Tally) -> None:
    """Find an upload that stores its answer after the commit: a kill between the two leaves a use without an answer.

    The last writes to the log come first, because the answer is among them.
    """
    scene = repeating(folder / "reply_after_commit", "proof.faults.mutants.reply_after_commit")
    in_database = [point for point in points(scene, folder / "watched") if point.path.startswith("uponce.db")]
    in_database.sort(key=lambda point: (point.path == "uponce.db-wal", point.call, point.number), reverse=True)
    until_red(tally, "reply after commit", each(scene, folder, in_database, "the repeat got ('signature_used'"))


def control_deletes(folder: Path, mutant: str, chance: random.Random, tally: Tally) -> None:
    """Deletions that take a step too early: a kill before a write of the commit has to show it."""
    scene = deleting(folder / mutant, f"proof.faults.mutants.{mutant}")
    of_commit = [point for point in points(scene, folder / "watched") if point.path.startswith("uponce.db-wal")]
    chance.shuffle(of_commit)
    until_red(tally, mutant.replace("_", " "), each(scene, folder, of_commit, DELETING_MUTANTS[mutant]))


def control_parts(folder: Path, chance: random.Random, tally: Tally) -> None:
    """Find a chunk that is recorded before it is written: a kill between the two leaves a row without bytes."""
    scene = middle_chunk(folder / "record_before_write", "proof.faults.mutants.record_before_write")
    written = [point for point in points(scene, folder / "watched") if point.call == "pwrite64" and is_staged(point)]
    chance.shuffle(written)
    until_red(tally, "record before write", each(scene, folder, written, "hollow: the unfinished upload"))


def each(scene: Scene, folder: Path, some: Sequence[Point], loss: str) -> Iterator[Attempt]:
    """Yield a try for every point. The fault is at one of them, so no chance is left. Only this loss counts."""

    def attempt(point: Point) -> int:
        return sum(loss in found for found in violations(scene, folder / "control", point))

    return (partial(attempt, point) for point in some)


def is_staged(point: Point) -> bool:
    return "media/spool/" in point.path


def points(scene: Scene, where: Path) -> list[Point]:
    """Return all points that exist, found by one undisturbed run."""
    log, data_dir = where.with_suffix(".log"), scene.lay_out(where)
    names = touched_paths(scene.origin)
    outcome = scene.run(data_dir, names, "-y", "-e", f"trace={','.join(CALLS)}", "-o", str(log))
    assert outcome.returncode == 0, outcome.stderr
    return [
        Point(path, call, number)
        for (path, call), times in highest_counts(log.read_text(), data_dir).items()
        for number in range(1, times + 1)
    ]


def sampled(every: Sequence[Point], most: int | None) -> list[Point]:
    """Return one point of each system call, then others at random, until there are `most` of them. None: return all."""
    if most is None:
        return list(every)
    mixed = random.Random(most).sample(every, len(every))
    first_of_each = {point.call: point for point in mixed}.values()
    return [*first_of_each, *(point for point in mixed if point not in first_of_each)][:most]


def strike_all(folder: Path, jobs: Sequence[tuple[Scene, Point]], tally: Tally, deadline: float) -> None:
    """Strike several points at a time, each in a separate folder."""
    pending = iter(jobs)

    def lane(number: int) -> None:
        for done, (scene, point) in enumerate(pending, 1):
            broken = violations(scene, folder / f"lane-{number}", point)
            tally.counts[f"kills in {scene.name}"] += 1
            tally.inside += 1
            tally.expect(not broken, f"broken by a kill in {scene.name}", f"{point}: {broken}")
            if done >= FEWEST and time.monotonic() >= deadline:
                return

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lane, range(JOBS)))


def violations(scene: Scene, data_dir: Path, point: Point) -> list[str]:
    """Return the violations of one kill: after the recovery, and once more after the other try."""
    acknowledged = scene.kill_at(data_dir, point)
    recover(data_dir)
    found = list(_seen(scene, examine(data_dir, scene.receipts(acknowledged))))
    found += scene.judge(scene, data_dir, acknowledged)
    return [*found, *_seen(scene, examine(data_dir)), *check(data_dir)]


def _seen(scene: Scene, findings: Findings) -> Iterator[str]:
    for name in Findings.__dataclass_fields__:
        if name not in scene.blind:
            yield from (f"{name}: {finding}" for finding in getattr(findings, name))
