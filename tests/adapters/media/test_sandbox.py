"""What a confined process can still do: tried by one that has applied the sandbox to itself."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PRISONER = """
import json, os, resource, signal, socket, sys
from uponce.adapters.media import sandbox
root, port, parent = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
attempts = {
    "read below the root": lambda: open(root + "/below/file").read(),
    "read a system file": lambda: open("/etc/passwd").read(),
    "read beside the root": lambda: open(root + "/../beside").read(),
    "read through a link": lambda: open(root + "/link").read(),
    "read its own memory map": lambda: open("/proc/self/maps").read(),
    "list the root": lambda: os.listdir(root),
    "write below the root": lambda: open(root + "/new", "w"),
    "delete below the root": lambda: os.unlink(root + "/below/file"),
    "run a program": lambda: os.execv("/bin/true", ["/bin/true"]),
    "connect": lambda: socket.create_connection(("127.0.0.1", port), 1).close(),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)).close(),
    "signal its parent": lambda: os.kill(parent, 0),
}
scopes = sandbox._landlock_version() >= sandbox._SCOPE_FROM  # Linux 6.12
confined = sandbox.confine([root])
outcome = {}
for name, attempt in attempts.items():
    try:
        attempt()
        outcome[name] = "done"
    except OSError as error:
        outcome[name] = type(error).__name__
sandbox.limit_resources(1 << 30)
try:
    bytearray(2 << 30)
    outcome["two GiB"] = "done"
except MemoryError:
    outcome["two GiB"] = "MemoryError"
outcome["core"] = resource.getrlimit(resource.RLIMIT_CORE)
print(json.dumps([confined, scopes, outcome]))
"""


def test_a_confined_process_reads_below_its_roots_and_nothing_else(tmp_path: Path) -> None:
    """Each row is a separate attempt, and its result."""
    root = tmp_path / "root"
    (root / "below").mkdir(parents=True)
    (root / "below" / "file").write_text("media")
    (tmp_path / "beside").write_text("secret")
    (root / "link").symlink_to(tmp_path / "beside")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        command = [sys.executable, "-c", PRISONER, str(root), str(port), str(os.getpid())]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    confined, scopes, outcome = json.loads(run.stdout)
    if not confined:
        pytest.skip("THIS KERNEL HAS NO LANDLOCK: decoders run under resource limits only, and that is not tested here")
    assert outcome == {
        "read below the root": "done",
        "read a system file": "PermissionError",
        "read beside the root": "PermissionError",
        "read through a link": "PermissionError",
        "read its own memory map": "PermissionError",
        "list the root": "PermissionError",
        "write below the root": "PermissionError",
        "delete below the root": "PermissionError",
        "run a program": "PermissionError",
        "connect": "PermissionError",
        "listen": "PermissionError",
        "signal its parent": "PermissionError" if scopes else "done",
        "two GiB": "MemoryError",
        "core": [0, 0],
    }
