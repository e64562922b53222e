"""What /proc shows about a server and its children: their numbers, their use of resources, their connections."""

import os
import re
import signal
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PROC = Path("/proc")
_KIB = 1024
_ESTABLISHED = "01"


def family(pid: int) -> list[int]:
    """Return the process and all its descendants, also those in other sessions."""
    children: dict[int, list[int]] = {}
    for stat in _PROC.glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for member in found:
        found.extend(children.get(member, []))
    return found


def commands(pid: int) -> dict[int, bytes]:
    """Return the command lines of the family, with their arguments separated by NUL."""
    return {
        member: command
        for member in family(pid)
        for command in _each([_PROC / str(member) / "cmdline"], Path.read_bytes)
    }


def peak_memory(pid: int) -> int:
    """Bytes: the VmHWM of every living member of the family, summed."""
    return sum(_each(family(pid), _peak))


def open_files(pid: int) -> int:
    """Descriptors of the whole family."""
    return sum(_each(family(pid), lambda member: len(os.listdir(_PROC / str(member) / "fd"))))


def owners(pid: int, server_port: int, client_ports: Iterable[int]) -> dict[int, int]:
    """Client port → the member of the family that has accepted its connection, over IPv4."""
    wanted = set(client_ports)
    # The table may have ten thousand lines, nearly all of them of connections that have ended.
    established = rf"^ *\d+: \w+:{server_port:04X} \w+:(\w+) {_ESTABLISHED}(?: +\S+){{5}} +(\d+)"
    found = re.findall(established, (_PROC / "net/tcp").read_text(), re.MULTILINE)
    inodes = {f"socket:[{inode}]": int(port, 16) for port, inode in found if int(port, 16) in wanted}
    return {
        inodes[target]: member
        for member in family(pid)
        for target in _each((_PROC / str(member) / "fd").glob("*"), os.readlink)
        if target in inodes
    }


def freeze(group: int) -> None:
    """SIGSTOP to a process group; return when none of its threads will run another instruction of its program.

    One that is inside a system call may still finish that call.
    """
    os.killpg(group, signal.SIGSTOP)
    members = [pid for pid in _each(family(group), _in_group(group)) if pid]
    while any(state in "RS" for pid in members for state in _each(_PROC.glob(f"{pid}/task/*/stat"), _state)):
        time.sleep(0.0005)


def is_stopped(pid: int) -> bool:
    """Return whether a process has stopped."""
    return _state(_PROC / str(pid) / "stat") == "T"


def is_traced(pid: int) -> bool:
    """Return whether each thread of a process has a tracer."""
    statuses = _each((_PROC / str(pid)).glob("task/*/status"), Path.read_text)
    return all("\nTracerPid:\t0\n" not in status for status in statuses)


def _in_group(group: int) -> Callable[[int], int]:
    return lambda pid: pid if os.getpgid(pid) == group else 0


def _state(stat: Path) -> str:
    return stat.read_text().rpartition(")")[2].split()[0]


def _peak(pid: int) -> int:
    status = (_PROC / str(pid) / "status").read_text()
    return next((int(line.split()[1]) * _KIB for line in status.splitlines() if line.startswith("VmHWM:")), 0)


def _each(things: Iterable[object], look: Callable[..., T]) -> list[T]:
    """Leaves out what is gone by now."""
    found = []
    for thing in things:
        with suppress(OSError):
            found.append(look(thing))
    return found
