"""Data folders that appear and disappear without slowing down the next measurement.

ext4 does not use the inode of a deleted file again for some minutes, and each create searches past such inodes. After a
run, deleting ten thousand files halves the rate of the next run. So the folder of a run is emptied and moved aside, and
deleted when all runs are done.
"""

import itertools
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_NUMBERS = itertools.count()


@contextmanager
def scratch(cache: Path) -> Iterator[Path]:
    """Yield a folder for the data folders of one invocation, and delete it at the end."""
    folder = cache / f"run-{os.getpid()}"
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fresh(scratch: Path) -> Path:
    return scratch / str(next(_NUMBERS))


def put_aside(folder: Path, scratch: Path) -> None:
    """Give the disk space back; the names stay until the end of the run."""
    if not folder.exists():
        return
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink() and file.stat().st_nlink == 1:
            os.truncate(file, 0)
    folder.rename(scratch / f"aside-{next(_NUMBERS)}")
