"""A wall clock for the processes of one server, which a test sets while they run (libfaketime; Linux only)."""

import os
from collections.abc import Mapping
from pathlib import Path

import pytest

_FOLDERS = ("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib", "/usr/local/lib")


class FakeClock:
    """A clock that differs from the machine's by so many seconds.

    The monotonic clock stays true, as it does on a machine. Files keep the machine's times, so a step makes the files
    on the disk older.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.env: Mapping[str, str] = {
            "LD_PRELOAD": _library(),
            "FAKETIME_TIMESTAMP_FILE": str(file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "NO_FAKE_STAT": "1",
        }
        self.step(0)

    def step(self, offset: float) -> None:
        """Set the clock for every process at once, and for those that start later."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{offset:+.3f}")
        os.replace(draft, self._file)  # a half-written file would be another time


def _library() -> str:
    for folder in _FOLDERS:
        for path in (Path(folder) / "faketime/libfaketimeMT.so.1", Path(folder) / "libfaketimeMT.so.1"):
            if path.exists():
                return str(path)
    pytest.skip("NOT TESTED: libfaketime is missing (apt-get install libfaketime)")
