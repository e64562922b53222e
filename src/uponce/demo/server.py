"""A real `uponce serve` in a separate process, which the demo can kill like a power cut."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from uponce.core.account import Account, read_account

_KEY = re.compile(r"^CLOUDINARY_URL=(\S+)", re.MULTILINE)
_LISTENING = re.compile(r"^listening on (http://\S+:(\d+))\s*$", re.MULTILINE)
_START_SECONDS = 60
_STOP_SECONDS = 30
_POLL_SECONDS = 0.02


class ServerFailed(RuntimeError):
    """The server did not start. The message ends with its output."""


class Server:
    """Starts, dies and starts again on one port and one data folder. Leaving the context ends it for good.

    It leads a process group, so that its decoders end with it. Its output goes into `folder` too.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str] | None = None) -> None:
        """`settings` are further variables of its environment."""
        self.folder = folder
        self._settings = dict(settings or {})
        self._data = folder / "data"
        self._log = folder / "server.log"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""
        self.keys: tuple[Account, ...] = ()

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Return when the server listens, later on its first port. Raise ServerFailed after 60 seconds."""
        command = [sys.executable, "-m", "uponce", "serve", "--data", str(self._data), "--port", str(self._port)]
        # The user's own settings must not reach the demo, neither from the environment nor from a .env file.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UPONCE_")}
        # Into a file: if no process reads a pipe, a server that prints much would stall.
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment | self._settings | {"PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        printed, listening = self._wait_until_listening(self._process)
        self.url, self._port = listening[1], int(listening[2])
        self.keys = self.keys or tuple(map(read_account, _KEY.findall(printed)))
        if len(self.keys) != 2:
            raise ServerFailed(f"The server printed {len(self.keys)} keys at its first start instead of 2.")

    def kill(self) -> None:
        """Send SIGKILL to the server and its decoders: no clean-up, like a power cut."""
        self._end(signal.SIGKILL)
        deadline = time.monotonic() + _STOP_SECONDS
        while _accepts(self._port) and time.monotonic() < deadline:  # its decoders have the same socket, and end later
            time.sleep(_POLL_SECONDS)

    def stop(self) -> bool:
        """Ask the server to stop. Return whether it stopped within 30 seconds. If not, it is killed."""
        return self._end(signal.SIGTERM)

    def _end(self, how: signal.Signals) -> bool:
        process, self._process = self._process, None
        if process is None:
            return True
        _signal_group(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        in_time = process.returncode is not None
        _signal_group(process.pid, signal.SIGKILL)
        process.wait()
        return in_time

    def _wait_until_listening(self, process: subprocess.Popen[bytes]) -> tuple[str, re.Match[str]]:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            ended = process.poll() is not None
            printed = self._log.read_text(errors="replace")
            listening = _LISTENING.search(printed)
            if listening:
                return printed, listening
            if ended or time.monotonic() > deadline:
                what = f"ended with {process.returncode}" if ended else f"was not listening after {_START_SECONDS} s"
                raise ServerFailed(f"The server {what}. It printed:\n{_tail(printed)}")
            time.sleep(_POLL_SECONDS)


def _accepts(port: int) -> bool:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-12:]) or "nothing"
