"""The rights that a decoder process gives up before it reads a stranger's file.

Resource limits always. Landlock (https://docs.kernel.org/userspace-api/landlock.html) if the kernel has it, through raw
system calls: their numbers are the same on x86-64 and aarch64.
"""

import ctypes
import os
import platform
import resource
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from uponce.adapters.system import LINUX, closing_file

_LIBC = ctypes.CDLL(None, use_errno=True)
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_MACHINES = frozenset({"x86_64", "aarch64"})
_PR_SET_NO_NEW_PRIVS = 38
_VERSION_FLAG = 1
_RULE_PATH_BENEATH = 1
_READ_FILE = 1 << 2
_OPEN_FILES = 32

# Every right that each version of the interface can take away: one bit more means one more right.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_FROM, _TCP_RIGHTS = 4, 0b11  # bind, connect
_SCOPE_FROM, _SCOPES = 6, 0b11  # abstract unix sockets, signals


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("tcp", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def die_first() -> None:
    """Let the kernel's out-of-memory killer end this process before the server and its database."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def limit_resources(memory_bytes: int) -> None:
    """Limit memory and open files. Forbid core dumps, file writes, new processes and threads.

    RLIMIT_DATA counts what the libraries allocate. It does not count the program, its libraries or a mapped file.
    """
    for what, limit in (
        (resource.RLIMIT_DATA, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        try:
            resource.setrlimit(what, (limit, limit))
        except (ValueError, OSError):
            if LINUX:  # macOS refuses to limit memory
                raise


def confine(roots: Sequence[str]) -> bool:
    """Let this process read files below `roots`, and open, run, connect to or signal nothing else.

    Return False, and do nothing, if the kernel has no Landlock. The rule holds for the calling thread and the threads
    that it starts later, so call it while there is only one. Raise OSError if a root does not exist or the kernel
    refuses.
    """
    version = _landlock_version()
    if version < 1:
        return False
    ruleset = _Ruleset(
        files=_FILE_RIGHTS[min(version, max(_FILE_RIGHTS))],
        tcp=_TCP_RIGHTS if version >= _TCP_FROM else 0,
        scoped=_SCOPES if version >= _SCOPE_FROM else 0,
    )
    rules = _syscall(_CREATE_RULESET, ctypes.byref(ruleset), ctypes.c_size_t(ctypes.sizeof(ruleset)), 0)
    with closing_file(rules):
        for root in roots:
            _allow_reading(rules, root)
        if _LIBC.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "PR_SET_NO_NEW_PRIVS")
        _syscall(_RESTRICT_SELF, rules, 0)
    return True


def _landlock_version() -> int:
    if not LINUX or platform.machine() not in _MACHINES or len(list(Path("/proc/self/task").iterdir())) > 1:
        return 0
    return int(_LIBC.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION_FLAG))


def _allow_reading(rules: int, root: str) -> None:
    with closing_file(os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
        rule = _PathBeneath(_READ_FILE, directory)
        _syscall(_ADD_RULE, rules, _RULE_PATH_BENEATH, ctypes.byref(rule), 0)


def _syscall(number: int, *arguments: object) -> int:
    result = int(_LIBC.syscall(number, *arguments))
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, f"landlock system call {number}: {os.strerror(error)}")
    return result
