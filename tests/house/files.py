"""The files of this checkout."""

import os
from pathlib import Path


def files_below(folder: Path, suffix: str) -> list[Path]:
    """Return the files whose names end so, without the many thousand that benchmarks install in a `.cache`."""
    found = []
    for place, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name != ".cache"]
        found += [Path(place, name) for name in names if name.endswith(suffix)]
    return sorted(found)
