"""A server process in its own folder, on free ports."""

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.server import lasting_port

_START_SECONDS = 120  # two cores, shared with the rest of the suite


class Service:
    """One process. Its `command` listens on `ports`, which stay the same over a restart."""

    def __init__(self, name: str, ports: int) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=f"uponce-{name}-"))
        self.ports = free_ports(ports)
        self._process: subprocess.Popen[bytes] | None = None
        atexit.register(self.stop)

    def start(self, command: Sequence[str], is_ready: Callable[[], bool]) -> None:
        """Return when it is ready."""
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)
        until = time.monotonic() + _START_SECONDS
        while not _quietly(is_ready):
            assert self._process.poll() is None, (self.folder / "log").read_text()[-4000:]
            assert time.monotonic() < until, (self.folder / "log").read_text()[-4000:]
            time.sleep(0.05)

    def pause(self, paused: bool) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP if paused else signal.SIGCONT)

    def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """Gone, with its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """All different."""
    return [lasting_port() for _ in range(count)]


def _quietly(is_ready: Callable[[], bool]) -> bool:
    with suppress(OSError):
        return is_ready()
    return False
