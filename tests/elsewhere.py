"""Run a Python program as on a system that has nothing of Linux alone: no Landlock, process descriptors or OFD locks.

`python tests/elsewhere.py -m pytest …` or `python tests/elsewhere.py -m uponce …`. Every Python that the program starts
by `sys.executable` runs in the same way. What is absent on macOS is taken out of the standard library before uponce is
imported; that the rest of macOS is like Linux is an assumption.
"""

import ctypes
import fcntl
import os
import runpy
import signal
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any

ABSENT_CALLS = ("prctl", "syscall", "sync_file_range", "mallopt")
_OPTIONS_WITHOUT_VALUE = frozenset("-I -E -s -B -u".split())


class PoorLibrary(ctypes.CDLL):
    """A C library without what only glibc on Linux has."""

    def __getattr__(self, name: str) -> Any:
        if name in ABSENT_CALLS:
            raise AttributeError(name)
        return super().__getattr__(name)


def take_away() -> None:
    """Remove what only Linux has, and have `uponce.adapters.system` see another system."""
    for module, names in (
        (os, ("pidfd_open", "fdatasync", "O_PATH", "posix_fadvise", "RWF_NOWAIT", "RWF_DSYNC")),
        (signal, ("pidfd_send_signal",)),
    ):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    # macOS has these locks under other numbers, with another `struct flock`.
    fcntl.F_OFD_SETLK, fcntl.F_OFD_SETLKW, fcntl.F_OFD_GETLK = 90, 91, 92  # type: ignore[misc]
    ctypes.CDLL = PoorLibrary  # type: ignore[misc]
    here, sys.platform = sys.platform, "darwin"
    try:
        import uponce.adapters.system  # noqa: F401 it looks at sys.platform once
    finally:
        sys.platform = here


def launcher(folder: Path) -> str:
    """Write a program that takes Python's own arguments and runs them elsewhere; return its path."""
    path = folder / "python-elsewhere"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{Path(__file__).resolve()}" "$0" "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def run(executable: str, arguments: list[str]) -> None:
    """Run Python's arguments; `executable` is what the program will find as sys.executable."""
    while arguments and arguments[0] in _OPTIONS_WITHOUT_VALUE:
        arguments.pop(0)
    sys.executable = executable
    option, *rest = arguments
    if option == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif option == "-c":
        sys.argv = ["-c", *rest[1:]]
        exec(rest[0], {"__name__": "__main__"})
    else:
        sys.argv = arguments
        runpy.run_path(option, run_name="__main__")


def main() -> None:
    take_away()
    first, *rest = sys.argv[1:]
    if first.endswith("python-elsewhere"):
        run(first, rest)
    else:
        with tempfile.TemporaryDirectory() as folder:
            run(launcher(Path(folder)), [first, *rest])


if __name__ == "__main__":
    main()
