"""A real `uponce serve` in its own process group, on a free port, for tests that speak HTTP or kill it."""

import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import urllib3
from cloudinary.utils import api_sign_request

_URL = re.compile(r"^CLOUDINARY_URL=cloudinary://(\w+):(\w+)@([\w-]+)\?", re.MULTILINE)
_LISTENING = re.compile(r"^listening on (http://\S+:(\d+))\s*$", re.MULTILINE)
# Below those that the kernel gives to outgoing connections: one of those could take the port of a server that is dead.
# A test process claims a block of ports: it has the first one as long as it lives, and gives the others to its servers.
_BLOCK = 50
_BLOCKS = range(12_000, 32_000, _BLOCK)
_ROOT = Path(__file__).parents[1]
_START_SECONDS = 120
_STOP_SECONDS = 60  # more than the 30 that a server gives to uploads
_ANSWER_SECONDS = 60


class Key(NamedTuple):
    """An API key as a first start prints it."""

    key: str
    secret: str


class Server:
    """Starts, dies and comes back on one data folder and one port, chosen if it is 0. Leaving the context kills its
    process group. It has one decoder unless `env` says otherwise: each one takes time to start.

    `base`, `cloud`, `browser` (once, upload) and `server` (unlimited, all) are known after the first start,
    and so are the `urls` (CLOUDINARY_URL) that were printed for them, in that order. `env`
    adds to an environment without UPONCE_ variables; `program` is what Python runs in place of `-m uponce`.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int = 0,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        program: Sequence[str] = ("-m", "uponce"),
    ) -> None:
        self.data_dir = data_dir
        self.port = port or lasting_port()
        self.workers = workers
        self.base = ""
        self.cloud = ""
        self.browser = self.server = Key("", "")
        self.urls: tuple[str, ...] = ()
        self._env = dict(env or {})
        self._program = tuple(program)
        self._log = data_dir.parent / f"{data_dir.name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> "Server":
        if self._process is None:
            self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        """Of the process that was started; also the number of its group."""
        assert self._process is not None
        return self._process.pid

    @property
    def output(self) -> str:
        """All that it has printed since its last start."""
        return self._log.read_text(errors="replace")

    def start(self, ready: str = "/readyz") -> None:
        """Return when it answers 200 to `ready`: database, storage and decoders answer."""
        options = ["serve", "--data", str(self.data_dir), "--port", str(self.port), "--workers", str(self.workers)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("UPONCE_")}
        if self._program[0].endswith(".py"):  # a broken variant, which may use modules of the proof
            places = filter(None, (str(_ROOT), environment.get("PYTHONPATH")))
            environment["PYTHONPATH"] = os.pathsep.join(places)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, *self._program, *options],
                env=environment | {"PYTHONUNBUFFERED": "1", "UPONCE_DECODERS": "1"} | self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._until(lambda: _LISTENING.search(self.output) is not None, "listen")
        listening = _LISTENING.search(self.output)
        assert listening is not None
        self.base, self.port = listening[1], int(listening[2])
        if found := _URL.findall(self.output):
            (*browser, self.cloud), (*server, _) = found
            self.browser, self.server = Key(*browser), Key(*server)
            self.urls = tuple(re.findall(r"^CLOUDINARY_URL=(\S+)$", self.output, re.MULTILINE))
        self._until(lambda: self._answers(ready), "become ready")

    def wait_for_all(self) -> None:
        """Return when all workers serve: `start` waits for one of them. Its log level is `info` for this."""
        self._until(lambda: f"all {self.workers} workers serve" in self.output, "start all workers")

    def stop(self) -> int:
        """Ask it to stop and wait for it; its exit code."""
        assert self._process is not None
        self._process.terminate()
        return self.wait()

    def wait(self) -> int:
        """Wait until it has ended; its exit code."""
        process = self._process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        in_time = process.returncode is not None
        self.kill()
        assert in_time, f"the server did not stop within {_STOP_SECONDS} seconds:\n{self.output[-2000:]}"
        return process.returncode

    def kill(self) -> None:
        """SIGKILL to every process of the group."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + _STOP_SECONDS
        while accepts(self.port) and time.monotonic() < deadline:  # its workers have the same socket, and die later
            time.sleep(0.005)

    def signed(
        self, params: Mapping[str, object] | None = None, key: Key | None = None, *, timestamp: int | None = None
    ) -> dict[str, str]:
        """The form fields of one upload, signed offline by the SDK (SHA-1) with the browser key, or `key`.

        Each call gives another signature: without a nonce, two tests of one second would have the same one.
        """
        key = key or self.browser
        stamp = int(time.time()) if timestamp is None else timestamp
        own = {"timestamp": stamp, "nonce": secrets.token_hex(8)}
        fields = {name: str(value) for name, value in {**own, **(params or {})}.items()}
        return fields | {"signature": api_sign_request(fields, key.secret), "api_key": key.key}

    def upload_url(self, resource_type: str = "auto") -> str:
        return f"{self.base}/v1_1/{self.cloud}/{resource_type}/upload"

    def post(
        self,
        fields: Mapping[str, str],
        file: bytes,
        *,
        filename: str = "file.bin",
        resource_type: str = "auto",
        file_first: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> urllib3.BaseHTTPResponse:
        """One multipart upload; the answer's body is read (`.json()`, `.data`)."""
        parts: list[tuple[str, str | tuple[str, bytes]]] = [*fields.items()]
        parts.insert(0 if file_first else len(parts), ("file", (filename, file)))
        return asked("POST", self.upload_url(resource_type), fields=parts, headers=headers)

    def get(
        self, url: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
    ) -> urllib3.BaseHTTPResponse:
        """A path of this server, or a whole URL."""
        return asked(method, url if "://" in url else self.base + url, headers=headers)

    def _answers(self, path: str) -> bool:
        with suppress(urllib3.exceptions.HTTPError):
            return self.get(path).status == 200
        return False

    def _until(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not condition():
            assert self._process is not None
            ended = self._process.poll()
            if ended is not None or time.monotonic() > deadline:
                self.kill()
                raise AssertionError(f"the server did not {what} (exit code {ended}):\n{self.output[-4000:]}")
            time.sleep(0.02)


def asked(method: str, url: str, **more: Any) -> urllib3.BaseHTTPResponse:
    """Ask on a new connection. A server may close a kept one just as it is used: idle, too many, or at its end."""
    with urllib3.PoolManager(retries=False, timeout=_ANSWER_SECONDS) as pool:
        return pool.request(method, url, **more)


def accepts(port: int) -> bool:
    """Whether a connection to this machine is accepted, also one that no process serves."""
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def lasting_port() -> int:
    """One that is free now, and that no other test process and no outgoing connection gets while this process lives."""
    with _drawing:
        return next(_ports)


def _claimed_ports() -> Iterator[int]:
    """Each port once."""
    while True:
        first = random.SystemRandom().choice(_BLOCKS)  # which no test has seeded
        with suppress(OSError):
            _bound(first).detach()  # it stays open as long as this process lives
            for port in range(first + 1, first + _BLOCK):
                if _is_free(port):
                    yield port


def _is_free(port: int) -> bool:
    with suppress(OSError), _bound(port):
        return True
    return False


def _bound(port: int) -> socket.socket:
    """Raises OSError if another socket has the port."""
    bound = socket.socket()
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    return bound


_drawing, _ports = threading.Lock(), _claimed_ports()
