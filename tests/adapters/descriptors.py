"""The open files of a test, and of no other test of its process."""

import gc
import os
from contextlib import suppress
from pathlib import Path


def descriptors(folder: Path) -> list[str]:
    """Return the files below the folder that this process has open, also the deleted ones, after the garbage is gone.

    Never count all descriptors: garbage of an earlier test may close its own at any time.
    """
    gc.collect()
    return links(folder)


def links(path: Path) -> list[str]:
    """Return what is open of the file, or of the folder and below, now."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing, and what another thread closes
            found.append(os.readlink(link))
    whole = str(path.resolve())
    return sorted(link for link in found if link.removesuffix(" (deleted)") == whole or link.startswith(f"{whole}/"))
