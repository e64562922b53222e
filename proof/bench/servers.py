"""Servers as separate processes: started on a free port, watched, stopped."""

import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
import urllib3

from tests.server import lasting_port

_URL = re.compile(r"^CLOUDINARY_URL=cloudinary://(\w+):(\w+)@([\w-]+)\?", re.MULTILINE)
_START_SECONDS = 60
_STOP_SECONDS = 20
_POLL_SECONDS = 0.005
MIB = 1024 * 1024

T = TypeVar("T")


class BenchmarkError(Exception):
    """A benchmark could not be run, or its server did not do what is measured."""


class Key(NamedTuple):
    """An API key and its cloud, as a first start prints it."""

    api_key: str
    secret: str
    cloud: str


@dataclass(frozen=True, slots=True)
class Program:
    """How a server is started: `{port}` and `{data}` in words and environment are filled in.

    `prepare` runs before the start, on the data folder; `ready` is a path that answers 200 once it serves. `beside`
    opens what else it needs, such as a database, in the folder above its data, and yields its settings for that.
    """

    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: str | None = None
    prepare: Callable[[Path, int], None] | None = None
    beside: Callable[[Path], AbstractContextManager[Mapping[str, str]]] | None = None


def uponce(python: str, workers: int = 1, **settings: str | int) -> Program:
    """Return `uponce serve` with the defaults that a user gets, except the named settings."""
    words = (python, "-m", "uponce", "serve", "--data", "{data}", "--port", "{port}", "--workers", str(workers))
    env = {f"UPONCE_{name.upper()}": str(value) for name, value in settings.items()}
    return Program(words, env | {"PYTHONUNBUFFERED": "1"}, "/readyz")


class Server:
    """A running program; leaving the context ends its process group."""

    def __init__(self, program: Program, data: Path) -> None:
        self.data = data
        self.port = lasting_port()
        self.start_seconds = 0.0
        self._program = program
        self._log = data.with_suffix(".log")
        self._beside = ExitStack()

    def __enter__(self) -> "Server":
        program, begun = self._program, time.perf_counter()
        self.data.mkdir(parents=True, exist_ok=True)
        if program.prepare is not None:
            program.prepare(self.data, self.port)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UPONCE_")}
        if program.beside is not None:
            environment |= self._beside.enter_context(program.beside(self.data.parent))
        with self._log.open("wb") as log:
            self._process = psutil.Popen(
                [self._filled(word) for word in program.command],
                env=environment | {name: self._filled(value) for name, value in program.env.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait(begun + _START_SECONDS)
        except BaseException:
            self._kill()
            raise
        self.start_seconds = time.perf_counter() - begun
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(psutil.NoSuchProcess, psutil.TimeoutExpired):
            self._process.terminate()
            self._process.wait(_STOP_SECONDS)
        self._kill()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def output(self) -> str:
        return self._log.read_text(errors="replace")

    def keys(self) -> tuple[Key, Key]:
        """Return two keys of an uponce: the signatures of one work once, those of the other work for ever."""
        known = self.data / "keys.json"
        if not known.exists():
            known.write_text(json.dumps(_URL.findall(self.output)))
        once, unlimited = json.loads(known.read_text())
        return Key(*once), Key(*unlimited)

    def check_alive(self) -> None:
        """BenchmarkError with its last words when it has ended."""
        if self._process.poll() is not None:
            raise BenchmarkError(
                f"The server died, with exit code {self._process.returncode}. Its last words:\n{self.output[-1000:]}"
            )

    def cpu(self) -> float:
        """Seconds that its processes have used."""
        return sum(times.user + times.system for times in self._each(psutil.Process.cpu_times))

    def resident(self) -> int:
        """Bytes of memory, summed over its processes; shared pages count for each."""
        return sum(self._each(lambda member: member.memory_info().rss))

    def proportional(self) -> int:
        """Return the bytes of memory.

        A page that several processes share counts once, with an equal part for each process.
        """
        return sum(self._each(lambda member: member.memory_full_info().pss))

    def forget_peak(self) -> None:
        """Make `peak` count from now on."""
        self._each(lambda member: Path(f"/proc/{member.pid}/clear_refs").write_text("5"))

    def peak(self) -> int:
        """Bytes: the highest resident memory of each process, summed."""
        return sum(self._each(_high_water))

    def _each(self, look: Callable[[psutil.Process], T]) -> list[T]:
        found = []
        for member in [self._process, *self._process.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
                found.append(look(member))
        return found

    def _filled(self, text: str) -> str:
        return text.replace("{port}", str(self.port)).replace("{data}", str(self.data))

    def _wait(self, deadline: float) -> None:
        while not self._answers():
            if self._process.poll() is not None or time.perf_counter() > deadline:
                raise BenchmarkError(f"{self._program.command[0]} did not start:\n{self.output[-2000:]}")
            time.sleep(_POLL_SECONDS)

    def _answers(self) -> bool:
        if self._program.ready is None:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) == 0
        with suppress(urllib3.exceptions.HTTPError):
            return urllib3.request("GET", self.base + self._program.ready, retries=False, timeout=5).status == 200
        return False

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._beside.close()


def _high_water(member: psutil.Process) -> int:
    status = Path(f"/proc/{member.pid}/status").read_text()
    return next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM:")), 0)
