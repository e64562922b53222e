"""strace as the campaigns use it: whether it may be used, and which calls touch which of a data folder's paths.

strace counts calls per thread and per path that is named (`-P`). The functions that read its logs count in the same
way.
"""

import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from proof.faults.one_upload import BLOB_KEY, SECOND_KEY
from proof.faults.processes import is_traced

# The names that NumberedIds gives where a blob goes into a pack, after three of its draft: for the probe, and the pack.
NEW_PACK = tuple(f"media/packs/{name}" for name in (f"probe-{4:010x}", f"{5:010x}"))
STRACE = ("strace", "-f", "-qq", "--seccomp-bpf", "-e", "signal=none")
ABSENT = "NOT TESTED: strace is missing or forbidden; allow it"


def can_trace() -> bool:
    """Containers may forbid it."""
    command = ("strace", "-qq", "-o", "/dev/null", "true")
    return shutil.which("strace") is not None and subprocess.run(command, check=False).returncode == 0


def touched_paths(origin: Path) -> list[str]:
    """Return all paths that an upload touches: folders, the database's files, the present blobs and the new one."""
    shard = f"media/blobs/{BLOB_KEY[:2]}"
    keys = (BLOB_KEY, SECOND_KEY)
    spooled = sorted(str(path.relative_to(origin)) for path in origin.glob("media/spool/*"))
    present = sorted(str(path.relative_to(origin)) for path in origin.glob("media/blobs/*/*"))
    database = ("uponce.db", "uponce.db-wal", "uponce.db-shm", "uponce.db-journal")
    folders = (".", "media", "media/blobs", "media/spool", "media/packs", shard)
    packs = sorted(str(path.relative_to(origin)) for path in origin.glob("media/packs/*"))
    to_come = [path for key in keys for path in (f"media/spool/{key}", f"{shard}/{key}")]
    return list(dict.fromkeys([*folders, *database, *to_come, *NEW_PACK, *packs, *spooled, *present]))


def highest_counts(log: str, data_dir: Path) -> dict[tuple[str, str], int]:
    """(path, call) → how often the thread that makes it most often makes it, by a log with `-y`. Of a rename the old
    path counts. Two threads that make one call on one path share their numbers."""
    seen: Counter[tuple[str, str, str]] = Counter()
    for line in log.splitlines():
        call = re.match(r"(\d+) +(\w+)\(", line)
        path = re.search(rf"[\"<]{re.escape(str(data_dir))}/?([^\">]*)[\">]", line)
        if call and path and not line.endswith("= ?"):
            seen[call[1], path[1] or ".", call[2]] += 1
    highest: dict[tuple[str, str], int] = {}
    for (_, path_, call_), times in seen.items():
        highest[path_, call_] = max(highest.get((path_, call_), 0), times)
    return highest


@contextmanager
def attached(pid: int, *options: str) -> Iterator[None]:
    """strace on all threads of a process that runs: its numbers begin here, and it lets go at the end."""
    tracer = subprocess.Popen(["strace", "-f", "-qq", "-e", "signal=none", "-p", str(pid), *options])
    try:
        while not is_traced(pid):
            assert tracer.poll() is None, "strace has ended before it was attached"
            time.sleep(0.005)
        yield
    finally:
        tracer.terminate()
        tracer.wait()


def highest_by_call(log: str) -> Counter[str]:
    """Return, for each call, how often the thread that makes it most often makes it.

    The log has the numbers of threads.
    """
    by_thread = Counter(re.findall(r"^(\d+) +(\w+)\(", log, re.MULTILINE))
    highest: Counter[str] = Counter()
    for (_, call), times in by_thread.items():
        highest[call] = max(highest[call], times)
    return highest
