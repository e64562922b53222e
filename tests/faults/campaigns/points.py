"""SIGKILL before every system call with which a step changes anything on the disk: an upload, one that may be asked
for again, an overwrite, a recovery sweep, a revocation, a purge, the rotation of a key.

A point is a path, a call and a number; the call itself never happens, so that the points before and after it are
two. Each kill starts from a copy of one folder and ends with a recovery, an audit and another try.
"""

import asyncio
import hashlib
import json
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from tests.faults.audit import Findings, Receipt, count, examine
from tests.faults.one_upload import BLOB_KEY, FIRST, SECOND, THIRD, ask_again, send, services_of, try_again
from tests.faults.operator import check, recover, settings
from tests.faults.report import Report
from tests.faults.strace import ABSENT, STRACE, can_trace, highest_counts, touched_paths
from tests.faults.tally import Tally
from uponce.adapters.clock import RandomIds
from uponce.app.manage_keys import set_up
from uponce.app.services import Services
from uponce.app.sign import mint
from uponce.core.values import ApiKey
from uponce.wiring import opened

CALLS = (
    "openat write writev pwrite64 pwritev fsync fdatasync ftruncate fallocate rename renameat renameat2 unlink "
    "unlinkat link mkdir chmod fchmod"
).split()
ROOT = Path(__file__).parents[3]
UPLOAD, STEP = "tests.faults.one_upload", "tests.faults.one_step"
MUTANTS = ("commit_before_publish", "answer_before_commit")
KEY = "an-idempotency-key"
JOBS = 2

Fields = dict[str, str]
Judge = Callable[["Scene", Path, str], Iterator[str]]
"""(scene, folder after recovery, what was acknowledged) → one sentence for each broken promise."""


class Point(NamedTuple):
    """Before the `number`-th `call` on `path`, which is relative to the data folder."""

    path: str
    call: str
    number: int


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder to begin with, what runs on a copy of it, and what must be true however that ended.

    `fields` are the signed ones that are tried after it, `assets` how many there are in the end, and `blind` which
    findings of the audit mean nothing here.
    """

    name: str
    origin: Path
    fields: Fields
    command: tuple[str, ...]
    judge: Judge
    assets: int = 1
    blind: tuple[str, ...] = ()

    def lay_out(self, where: Path) -> Path:
        shutil.rmtree(where, ignore_errors=True)
        return Path(shutil.copytree(self.origin, where))

    def run(self, data_dir: Path, paths: Sequence[str], *options: str) -> subprocess.CompletedProcess[str]:
        watched = [part for path in paths for part in ("-P", str(data_dir / path))]
        module, *arguments = self.command
        return subprocess.run(
            [*STRACE, *watched, *options, sys.executable, "-m", module, str(data_dir), *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def run(seconds: float, seed: int) -> Report:
    """Points of all scenes in a seeded order, until the time or the points are used up."""
    if not can_trace():
        pytest.skip(ABSENT)
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-points-") as name:
        folder = Path(name)
        for mutant in MUTANTS:
            control(folder, mutant, chance, tally)
        control_repeats(folder, tally)
        scenes = [make(folder / f"scene-{number}") for number, make in enumerate(SCENES)]
        jobs = [(scene, point) for scene in scenes for point in points(scene, folder / "watched")]
        tally.counts["known kill points"] += len(jobs)
        chance.shuffle(jobs)
        strike_all(folder, jobs, tally, deadline)
    return tally.report("points", seed)


def control(folder: Path, mutant: str, chance: random.Random, tally: Tally) -> None:
    """Uploads that take a step too early: a point at the blob has to show it."""
    scene = overwriting(folder / mutant, f"tests.faults.mutants.{mutant}")
    at_blob = [point for point in points(scene, folder / "watched") if BLOB_KEY in point.path]
    chance.shuffle(at_blob)
    broken = (violations(scene, folder / "control", point) for point in at_blob)
    tally.controls[mutant.replace("_", " ")] += len(next(filter(None, broken), ()))


def control_repeats(folder: Path, tally: Tally) -> None:
    """An upload that stores its answer after the commit: a kill between the two leaves a use that nobody is told of."""
    scene = repeating(folder / "reply_after_commit", "tests.faults.mutants.reply_after_commit")
    in_database = [point for point in points(scene, folder / "watched") if point.path.startswith("uponce.db")]
    broken = (violations(scene, folder / "control", point) for point in reversed(in_database))
    tally.controls["reply after commit"] += len(next(filter(None, broken), ()))


def points(scene: Scene, where: Path) -> list[Point]:
    """All that there are, by one undisturbed run."""
    log, data_dir = where.with_suffix(".log"), scene.lay_out(where)
    names = touched_paths(scene.origin)
    outcome = scene.run(data_dir, names, "-y", "-e", f"trace={','.join(CALLS)}", "-o", str(log))
    assert outcome.returncode == 0, outcome.stderr
    return [
        Point(path, call, number)
        for (path, call), times in highest_counts(log.read_text(), data_dir).items()
        for number in range(1, times + 1)
    ]


def strike_all(folder: Path, jobs: Sequence[tuple[Scene, Point]], tally: Tally, deadline: float) -> None:
    """Several at a time, each in a folder of its own."""
    pending = iter(jobs)

    def lane(number: int) -> None:
        for scene, point in pending:
            broken = violations(scene, folder / f"lane-{number}", point)
            tally.counts[f"kills in {scene.name}"] += 1
            tally.inside += 1
            tally.expect(not broken, f"broken by a kill in {scene.name}", f"{point}: {broken}")
            if time.monotonic() >= deadline:
                return

    with ThreadPoolExecutor(JOBS) as pool:
        list(pool.map(lane, range(JOBS)))


def violations(scene: Scene, data_dir: Path, point: Point) -> list[str]:
    """Of one kill: after the recovery, and once more after the other try."""
    acknowledged = kill_at(scene, data_dir, point)
    recover(data_dir)
    found = list(_seen(scene, examine(data_dir, _receipts(scene, acknowledged))))
    found += scene.judge(scene, data_dir, acknowledged)
    return [*found, *_seen(scene, examine(data_dir)), *check(data_dir)]


def kill_at(scene: Scene, data_dir: Path, point: Point) -> str:
    """What was acknowledged before the end."""
    inject = f"inject={point.call}:signal=KILL:when={point.number}"
    outcome = scene.run(scene.lay_out(data_dir), [point.path], "-e", inject, "-o", "/dev/null")
    assert outcome.returncode in (-signal.SIGKILL, 128 + signal.SIGKILL), f"{point} was not reached: {outcome}"
    return outcome.stdout.strip()


def uploading(folder: Path) -> Scene:
    fields, _ = _origin(folder, "dog")
    return Scene("an upload", folder, fields, (UPLOAD, json.dumps(fields)), _judge_upload, assets=2)


def repeating(folder: Path, module: str = UPLOAD) -> Scene:
    fields, _ = _origin(folder, "dog")
    command = (module, json.dumps(fields), KEY)
    return Scene("an upload that is repeated", folder, fields, command, _judge_repeat, assets=2)


def overwriting(folder: Path, module: str = UPLOAD) -> Scene:
    fields, _ = _origin(folder, "cat")
    return Scene("an overwrite", folder, fields, (module, json.dumps(fields)), _judge_upload)


def sweeping(folder: Path) -> Scene:
    """After a kill between the commit of an overwrite and the deletion of the replaced bytes."""
    crashed = folder.with_name(f"{folder.name}-crashed")
    scene = overwriting(folder)
    (replaced,) = (str(path.relative_to(folder)) for path in folder.glob("media/blobs/*/*"))
    kill_at(scene, crashed, Point(replaced, "unlink", 1))
    return Scene("a sweep", crashed, scene.fields, (UPLOAD,), _judge_upload)


def revoking(folder: Path) -> Scene:
    fields, _ = _origin(folder, "dog")
    return Scene("a revocation", folder, fields, (STEP, "revoke", json.dumps(fields)), _judge_revocation)


def purging(folder: Path) -> Scene:
    """The row of a spent grant whose time is over; the audit outlives it, which the auditor would call double."""
    _, spent = _origin(folder, "cat")
    with closing(sqlite3.connect(folder / "uponce.db", isolation_level=None)) as database:
        database.execute("UPDATE grants SET keep_until = 1")
    return Scene("a purge", folder, spent, (STEP, "purge"), _judge_purge, blind=("double",))


def rotating(folder: Path) -> Scene:
    fields, _ = _origin(folder, "dog")
    return Scene("a key rotation", folder, fields, (STEP, "rotate", fields["api_key"]), _judge_rotation)


SCENES = (uploading, repeating, overwriting, sweeping, revoking, purging, rotating)


def _origin(data_dir: Path, public_id: str) -> tuple[Fields, Fields]:
    """A folder with keys and the asset `cat`; the fields of the upload to come, and those of the one that was."""
    with opened(settings(data_dir), create=True) as backend:
        services = services_of(backend, RandomIds())

        async def make() -> tuple[Fields, Fields]:
            key, _ = await set_up(services, backend.settings.cloud)
            spent = _mint(services, key, "cat")
            await send(services, key.cloud, spent, FIRST)
            return _mint(services, key, public_id), spent

        return asyncio.run(make())


def _mint(services: Services, key: ApiKey, public_id: str) -> Fields:
    return mint(key, {"public_id": public_id}, clock=services.clock, ids=services.ids)


def _receipts(scene: Scene, acknowledged: str) -> list[Receipt]:
    is_upload = acknowledged and scene.command[0] != STEP
    return [Receipt(scene.fields["public_id"], acknowledged, _digest(SECOND))] if is_upload else []


def _seen(scene: Scene, findings: Findings) -> Iterator[str]:
    for name in Findings.__dataclass_fields__:
        if name not in scene.blind:
            yield from (f"{name}: {finding}" for finding in getattr(findings, name))


def _judge_upload(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """The same signature again works, or it was used; and the asset is what that means."""
    answer = try_again(data_dir, scene.fields)
    if answer not in ("ok", "signature_used") or (acknowledged and answer == "ok"):
        yield f"the other try got {answer}"
    expected = _digest(THIRD if answer == "ok" else SECOND)
    if count(data_dir, f"assets WHERE sha256 = '{expected}'") != 1 or count(data_dir, "assets") != scene.assets:
        yield f"the asset is not what {answer} means"
    if count(data_dir, "grants WHERE uses = 1") != 2:
        yield "the signatures of two uploads must be used, and no other"


def _judge_repeat(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """The same again gets an answer, whatever became of the first: the first one's, or its own that is told again."""
    told = [ask_again(data_dir, scene.fields, SECOND, KEY) for _ in range(2)]
    first = told[0][0]
    if first not in ("ok", "replayed") or (acknowledged and told[0] != ("replayed", acknowledged)):
        yield f"after {acknowledged or 'no answer'} the repeat got {told[0]}"
    if told[1] != ("replayed", told[0][1]):
        yield f"after {told[0]} one more got {told[1]}"
    if count(data_dir, "grants WHERE uses = 1") != 2 or count(data_dir, "assets") != scene.assets:
        yield "the repeats are not one upload"


def _judge_revocation(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    answer = try_again(data_dir, scene.fields)
    if answer not in ("ok", "signature_revoked") or (acknowledged and answer == "ok"):
        yield f"after {acknowledged or 'no answer'} the signature got {answer}"
    if count(data_dir, "assets") != 1 + (answer == "ok"):
        yield f"the assets are not what {answer} means"


def _judge_purge(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """By now a purge is through, and what it forgot must not come back."""
    answer = try_again(data_dir, scene.fields)
    if answer != "stale_request":
        yield f"after the purge a spent signature got {answer}"
    if count(data_dir, "grants") or count(data_dir, f"assets WHERE sha256 = '{_digest(FIRST)}'") != 1:
        yield "the purge left its row, or touched the asset"


def _judge_rotation(scene: Scene, data_dir: Path, acknowledged: str) -> Iterator[str]:
    """The old secret still counts, and whatever is the newest one signs."""
    with opened(settings(data_dir)) as backend:
        key = asyncio.run(backend.database.find_key(scene.fields["api_key"]))
        assert key is not None
        newest = _mint(backend.services, key, "bird")
    if acknowledged and len(key.secrets) != 2:
        yield f"after {acknowledged} there are {len(key.secrets)} secrets"
    answers = [try_again(data_dir, fields) for fields in (scene.fields, newest)]
    if answers != ["ok", "ok"]:
        yield f"the old and the newest secret got {answers}"


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
