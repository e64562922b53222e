"""System calls of one upload that fail: by strace, one chosen call on one path; by a file size limit, in mid-write.

strace counts a call per thread and per path. Each fault starts from a copy of one folder, and ends with a recovery,
an audit and a second try with the same signature.
"""

import hashlib
import json
import random
import re
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from proof.faults.audit import Receipt, count
from proof.faults.failing_upload import content
from proof.faults.one_upload import BLOB_KEY, THIRD, prepare, try_again
from proof.faults.operator import recover
from proof.faults.tally import Tally

ROOT = Path(__file__).parents[2]
STREAMED, GATHERED = "proof.faults.failing_upload", "proof.faults.failing_arrival"
IGNORES_FSYNC = "proof.faults.mutants.ignores_fsync"
IGNORES_FDATASYNC = "proof.faults.mutants.ignores_fdatasync"
SWALLOWS_SHORT_WRITES = "proof.faults.mutants.swallows_short_writes"

ERRORS = {
    "openat": ("EIO", "EMFILE", "ENOSPC"),
    "write": ("EIO", "ENOSPC", "EDQUOT"),
    "writev": ("EIO", "ENOSPC", "EDQUOT"),
    "pwrite64": ("EIO", "ENOSPC", "EDQUOT"),
    "fsync": ("EIO", "ENOSPC", "EDQUOT"),
    "fdatasync": ("EIO", "ENOSPC", "EDQUOT"),
    "ftruncate": ("EIO", "ENOSPC"),
    "fallocate": ("EIO", "ENOSPC"),
    "mmap": ("ENOMEM",),
    "rename": ("EIO", "ENOSPC"),
    "unlink": ("EIO",),
    "mkdir": ("ENOSPC",),
}
SYNCS = ("fsync", "fdatasync")
UNSYNCED = "acknowledged after a failed sync"

DEFINITE = ("storage_full", "storage_unavailable", "database_unavailable", "setting_refused")
"""Nothing is spent. `setting_refused` is what a server says that cannot even start."""

SMALL, LARGE = 6_000, 300_000
_SHARED_MEMORY = 32_768  # SQLite's; with less than that nothing starts
_LIMITS = {SMALL: (_SHARED_MEMORY, 110_000), LARGE: (_SHARED_MEMORY, LARGE)}


class Fault(NamedTuple):
    """The `number`-th `call` on `path` (of the data folder) ends with `error`; all later ones too, if it lasts."""

    path: str
    call: str
    number: int
    error: str
    lasts: bool


@dataclass(frozen=True, slots=True)
class Scene:
    """A folder that holds one asset, and the signed fields of an upload that overwrites it.

    `subject` is the module that uploads: its bytes stream in, or are there and go into a pack.
    """

    folder: Path
    origin: Path
    fields: dict[str, str]
    asset_id: str
    subject: str = STREAMED

    def run(self, prefix: Sequence[str], size: int, *more: str, module: str = "") -> tuple[str, str]:
        """Its answer and what it complained of, on the copy that `lay_out` made."""
        words = (module or self.subject, str(self.data_dir), json.dumps(self.fields), str(size), *more)
        command = [*prefix, sys.executable, "-m", *words]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
        return ended.stdout.strip(), ended.stderr

    @property
    def data_dir(self) -> Path:
        return self.folder / "run"

    @property
    def log(self) -> Path:
        return self.folder / "strace.log"

    def lay_out(self) -> None:
        shutil.rmtree(self.data_dir, ignore_errors=True)
        shutil.copytree(self.origin, self.data_dir)


def overwriting(folder: Path, subject: str = STREAMED) -> Scene:
    origin = folder / "origin"
    fields = prepare(origin)
    with closing(sqlite3.connect(origin / "uponce.db")) as database:
        ((asset_id,),) = database.execute("SELECT asset_id FROM assets")
    return Scene(folder, origin, fields, asset_id, subject)


def can_trace() -> bool:
    """Containers may forbid it."""
    command = ("strace", "-qq", "-o", "/dev/null", "true")
    return shutil.which("strace") is not None and subprocess.run(command, check=False).returncode == 0


def faults(scene: Scene) -> list[Fault]:
    """Every fault there is: the calls of one undisturbed run, each with each of its errors."""
    paths = [part for path in _paths(scene) for part in ("-P", str(scene.data_dir / path))]
    scene.lay_out()
    options = ("-y", "-e", f"trace={','.join(ERRORS)}", "-o", str(scene.log))
    outcome, complaints = scene.run((*_STRACE, *paths, *options), SMALL)
    assert outcome == "ok", complaints
    highest: dict[tuple[str, str], int] = {}
    for (_, call, path), times in Counter(_seen(scene)).items():
        highest[path, call] = max(highest.get((path, call), 0), times)
    return [
        Fault(path, call, number, error, lasts)
        for (path, call), times in highest.items()
        for number in range(1, times + 1)
        for error in ERRORS[call]
        for lasts in (False, True)
    ]


def in_turns(every: Sequence[Fault], chance: random.Random) -> list[Fault]:
    """In a random order in which every call on every path has its turn before one has a second turn."""
    turns: Counter[tuple[str, str]] = Counter()
    order = {}
    for fault in chance.sample(every, len(every)):
        turns[fault.path, fault.call] += 1
        order[fault] = turns[fault.path, fault.call]
    return sorted(order, key=order.__getitem__)


def suffer(scene: Scene, fault: Fault, tally: Tally, module: str = "") -> str:
    """Make one upload with this fault, and return its answer. Violations, at once or later, are added to the tally."""
    scene.lay_out()
    when = f"{fault.number}{'+' if fault.lasts else ''}"
    inject = f"inject={fault.call}:error={fault.error}:when={when}"
    path = str(scene.data_dir / fault.path)
    answer, complaints = scene.run((*_STRACE, "-P", path, "-e", inject, "-o", str(scene.log)), SMALL, module=module)
    if "(INJECTED)" not in scene.log.read_text():
        tally.counts["system calls not reached"] += 1
        return answer
    tally.inside += answer != "setting_refused"
    tally.counts["system calls refused"] += 1
    tally.counts["system calls of packs refused"] += fault.path.startswith(_PACKS)
    tally.counts[f"{fault.error} at {fault.call}"] += 1
    if fault.call in SYNCS and fault.path != ".":
        tally.expect(answer != "ok", UNSYNCED, fault)
    settle(scene, answer, SMALL, tally, f"{fault} {complaints[-600:]}")
    return answer


def cut_short(scene: Scene, chance: random.Random, tally: Tally, module: str = "") -> str:
    """Limit the file size. The kernel writes a part of the write that crosses the limit, and no byte after that."""
    size = LARGE if module else chance.choice((SMALL, LARGE))
    limit = chance.randrange(*_LIMITS[size])
    scene.lay_out()
    answer, complaints = scene.run(("prlimit", f"--fsize={limit}"), size, module=module)
    tally.counts["size limits"] += 1
    tally.inside += answer not in ("ok", "setting_refused")
    settle(scene, answer, size, tally, f"limit {limit} for {size} bytes: {complaints[-600:]}")
    return answer


def write_little(scene: Scene, chance: random.Random, tally: Tally) -> None:
    """Every write of the blob is a short one, which is no reason to fail."""
    most = chance.randrange(1, 4000)
    scene.lay_out()
    answer, complaints = scene.run((), SMALL, str(most))
    tally.counts["uploads of short writes"] += 1
    tally.inside += 1
    tally.expect(answer == "ok", "short writes that failed", f"at most {most} bytes at a time: {complaints[-600:]}")
    settle(scene, answer, SMALL, tally, f"at most {most} bytes at a time")


def settle(scene: Scene, answer: str, size: int, tally: Tally, note: str) -> None:
    """Check that the answer was definite and true, and that after a recovery the signature works or was spent.

    The recovery must leave four zeros.
    """
    data_dir = scene.data_dir
    tally.counts[f"answered {answer or 'nothing'}"] += 1
    tally.expect(answer in ("ok", "outcome_unknown", *DEFINITE), "no definite answer", f"{answer!r} at {note}")
    receipts = [Receipt("cat", scene.asset_id, _sha256(content(size)))] if answer == "ok" else []
    tally.audit(data_dir, receipts, ("lost", "double", "hollow"))
    recover(data_dir)
    tally.audit(data_dir, receipts)
    again = try_again(data_dir, scene.fields)
    tally.audit(data_dir)
    expected = {"ok": ("signature_used",), "outcome_unknown": ("ok", "signature_used")}.get(answer, ("ok",))
    tally.expect(again in expected, "wrong answers", f"{answer!r}, then {again!r} at {note}")
    kept = THIRD if again == "ok" else content(size)
    is_kept = count(data_dir, f"assets WHERE sha256 = '{_sha256(kept)}'") == 1
    tally.expect(is_kept, "wrong bytes", f"{answer!r}, then {again!r} at {note}")
    tally.expect(count(data_dir, "grants WHERE uses = 1") == 2, "signatures spent otherwise than once", note)


_PACKS = "media/packs"
_STRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none")


def _paths(scene: Scene) -> list[str]:
    """Return all paths that an upload touches: folders, the database's files, the new blob and the replaced one."""
    scene.lay_out()
    outcome, complaints = scene.run((*_STRACE, "-e", "trace=openat", "-o", str(scene.log)), SMALL)
    assert outcome == "ok", complaints
    packs = sorted({path for _, _, path in _seen(scene) if path.startswith(_PACKS)})
    shard, origin = f"media/blobs/{BLOB_KEY[:2]}", scene.origin
    present = sorted(str(path.relative_to(origin)) for path in origin.glob("media/blobs/*/*"))
    database = ("uponce.db", "uponce.db-wal", "uponce.db-shm")
    folders = (".", "media", "media/blobs", "media/spool", shard)
    return list(
        dict.fromkeys([*folders, *database, f"media/spool/{BLOB_KEY}", f"{shard}/{BLOB_KEY}", *present, *packs])
    )


def _seen(scene: Scene) -> Iterator[tuple[str, str, str]]:
    """Thread, call, path: of a rename the old one."""
    for line in scene.log.read_text().splitlines():
        call = re.match(r"(\d+) +(\w+)\(", line)
        path = re.search(rf"[\"<]{re.escape(str(scene.data_dir))}/?([^\">]*)[\">]", line)
        if call and path and not line.endswith("= ?"):
            yield call[1], call[2], path[1] or "."


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
