"""`uponce …` as a person types it: a process of its own, in a terminal's absence."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.server import Server

_SECONDS = 60
_OURS = ("UPONCE_", "CLOUDINARY_")


def uponce(
    *words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run it to its end. The reader's own settings do not reach it; `env` does."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return subprocess.run(
        [sys.executable, "-m", "uponce", *map(str, words)],
        env=environment | {"COLUMNS": "200", "NO_COLOR": "1"} | dict(env or {}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )


def beside(server: Server, *words: str | Path) -> subprocess.CompletedProcess[str]:
    """On the machine of a running server, with that server's settings."""
    return uponce(*words, env={"UPONCE_DATA": str(server.data_dir), "UPONCE_PORT": str(server.port)})


def printed(done: subprocess.CompletedProcess[str]) -> str:
    """What a command that succeeded wrote to its standard output."""
    assert done.returncode == 0, done.stderr
    return done.stdout
