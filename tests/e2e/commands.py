"""`uponce …` as a person types it, without a terminal."""

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from tests.server import Server
from uponce import cli

_SECONDS = 60
_OURS = ("UPONCE_", "CLOUDINARY_")


class Done(NamedTuple):
    """A command that came to its end."""

    code: int
    stdout: str
    stderr: str


def uponce(*words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None, stdin: str = "") -> Done:
    """In this process: it takes a tenth of the time, and a file left open fails the test."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    with (
        mock.patch.dict(os.environ, _environment(env), clear=True),
        mock.patch.object(sys, "argv", ["uponce", *map(str, words)]),
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode()), encoding="utf-8")),
        chdir(cwd or Path.cwd()),
        redirect_stdout(stdout),
        redirect_stderr(stderr),
    ):
        code = _exit_code()
    return Done(code, *(stream.buffer.getvalue().decode() for stream in (stdout, stderr)))


def in_a_process(*words: str | Path, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> Done:
    """In a separate process."""
    done = subprocess.run(
        [sys.executable, "-m", "uponce", *map(str, words)],
        env=_environment(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


_DIES_AMID_COPYING = """
import os, signal
from uponce import cli
from uponce.app.copy_media import _Copier

copied, real = 0, _Copier._copy

async def copy(self, key):
    global copied
    await real(self, key)
    copied += 1
    if copied == 3:
        os.kill(os.getpid(), signal.SIGKILL)

_Copier._copy = copy
cli.main()
"""


def killed_amid_copying(*words: str | Path, env: Mapping[str, str] | None = None) -> None:
    """Run a command in a process that kills itself when it has copied three blobs.

    A kill from outside may come after the command has ended.
    """
    done = subprocess.run(
        [sys.executable, "-c", _DIES_AMID_COPYING, *map(str, words)],
        env=_environment(env),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=_SECONDS,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL


def settings_of(server: Server) -> dict[str, str]:
    return {"UPONCE_DATA": str(server.data_dir), "UPONCE_PORT": str(server.port)}


def beside(server: Server, *words: str | Path, stdin: str = "") -> Done:
    """On the machine of a running server, with that server's settings."""
    return uponce(*words, env=settings_of(server), stdin=stdin)


def printed(done: Done) -> str:
    """What a command that succeeded wrote to its standard output."""
    assert done.code == 0, done.stderr
    return done.stdout


def as_json(server: Server, *words: str | Path) -> Any:
    return json.loads(printed(beside(server, *words, "--json")))


def code_of(server: Server, fields: dict[str, str]) -> str:
    """What the server says to an upload: a code, or nothing when it took it."""
    response = server.post(fields, b"bytes")
    return str(response.json().get("error", {}).get("code", ""))


def _environment(env: Mapping[str, str] | None) -> dict[str, str]:
    """The reader's own settings do not reach a command; `env` does."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
    return plain | {"COLUMNS": "200", "NO_COLOR": "1"} | dict(env or {})


def _exit_code() -> int:
    try:
        cli.main()
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0
