"""uponce under the system call filter of a shipped unit: `python -m tests.deployment.confined UNIT WORD…`.

systemd-analyze names the system calls of each set, and libseccomp, which systemd uses too, makes the filter.
"""

import ctypes
import errno
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).parents[2] / "deploy"
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
_PR_SET_MDWE = 65


def absent() -> str:
    """Return what this machine lacks, or nothing."""
    if shutil.which("systemd-analyze") is None:
        return "ABSENT: systemd-analyze is not installed"
    try:
        ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return "ABSENT: libseccomp is not installed"
    return ""


def allowed(unit: str) -> set[str]:
    """Return the system calls that the unit's lines let through. Each `~` line takes some of them away."""
    plain = os.environ | {"SYSTEMD_COLORS": "0"}
    listed = subprocess.check_output(["systemd-analyze", "syscall-filter"], env=plain, text=True)
    sets = {
        name: re.findall(r"^    ([@\w-]+)$", lines, re.MULTILINE)
        for name, lines in re.findall(r"^(@[\w-]+)\n((?:    .*\n)*)", listed, re.MULTILINE)
    }

    def calls(name: str) -> set[str]:
        return set[str]().union(*map(calls, sets[name])) if name.startswith("@") else {name}

    found = calls("@default")  # systemd adds this set to a filter that allows
    for taken, names in re.findall(r"^SystemCallFilter=(~?)(.*)$", (DEPLOY / unit).read_text(), re.MULTILINE):
        named = set[str]().union(*map(calls, names.split()))
        found = found - named if taken else found | named
    return found


def confine(unit: str) -> None:
    """Install the filter for this process and all that it starts."""
    libc, seccomp = ctypes.CDLL(None), ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    filter_ = ctypes.c_void_p(seccomp.seccomp_init(_REFUSE))
    for name in allowed(unit):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # other machines' system calls have none
            assert seccomp.seccomp_rule_add(filter_, _ALLOW, number, 0) == 0, name
    libc.prctl(_PR_SET_MDWE, 1, 0, 0, 0)  # MemoryDenyWriteExecute; older kernels have no such thing
    assert seccomp.seccomp_load(filter_) == 0  # it sets NoNewPrivileges


if __name__ == "__main__":
    confine(sys.argv[1])
    os.execv(sys.executable, [sys.executable, "-m", "uponce", *sys.argv[2:]])
