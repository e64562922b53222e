"""A folder that all workers of one server count in: each into files of its own, and a scrape adds them up.

It lies in memory where the system has such a place. Numbers in mapped files of a disk hold up who counts while the disk
is busy writing, and a page that a full disk has no room for kills the process that touches it: so the files also have
their size before anybody counts in them.

A worker's files outlive it, since counters must not go down; the next worker takes them over and counts on.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import BinaryIO

from prometheus_client.multiprocess import mark_process_dead

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # by which workers and the library find the folder
PLACES = ("/dev/shm", gettempdir())  # noqa: S108 a folder of a random name is made there, which only we may enter
_PREFIX = "uponce-metrics-"
_ABANDONED_SECONDS = 60

# More than all values that labels can have take: a file that had to grow could find no room.
SIZES = {"counter": 1024 * 1024, "histogram": 1024 * 1024, "gauge_livesum": 16 * 1024, "gauge_max": 16 * 1024}


@contextmanager
def shared_folder() -> Iterator[None]:
    """For the processes that are started meanwhile. Where none can be made they find none."""
    os.environ.pop(VARIABLE, None)
    folder = _make()
    if folder is None:
        yield
        return
    with folder as path:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.environ[VARIABLE] = path
            yield
        finally:
            os.environ.pop(VARIABLE, None)
            os.close(descriptor)


def _make() -> TemporaryDirectory[str] | None:
    for place in PLACES:
        with suppress(OSError):
            _drop_abandoned(Path(place))
            return TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True)
    return None


def _drop_abandoned(place: Path) -> None:
    """Those of servers that were killed; one that lives, or that is starting, keeps its own."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                found = os.fstat(descriptor)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _ABANDONED_SECONDS:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(folder)
            finally:
                os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Place:
    """One worker's: the number in its files' names, and the lock that keeps others away for as long as it lives."""

    folder: Path
    number: int
    lock: BinaryIO


def take_place() -> Place:
    """The first that is free. OSError when there is no folder, or no room in it."""
    if not os.environ.get(VARIABLE):
        raise FileNotFoundError(f"no folder for them could be made in any of {', '.join(PLACES)}")
    folder = Path(os.environ[VARIABLE])
    for number in count():
        lock = (folder / f"{number}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]
        for kind, size in SIZES.items():
            _reserve(folder / f"{kind}_{number}.db", size)
        return Place(folder, number, lock)
    raise AssertionError("unreachable")


def _reserve(file: Path, size: int) -> None:
    """Whole or not at all, since somebody may be reading the folder."""
    if file.exists():
        return
    made = file.with_suffix(".new")
    made.write_bytes(bytes(size))
    made.replace(file)
