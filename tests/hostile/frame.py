"""Tools of the battery: raw sockets, honest uploads after and beside an attack, budgets of servers and decoders."""

import re
import resource
import secrets
import shutil
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Literal
from urllib.parse import urlsplit

import psutil
import pytest
import urllib3

from proof.faults.processes import peak_memory
from tests import samples
from tests.adapters.media.pools import decoder_pids, run
from tests.server import Server
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.process import DecoderTimeUsed
from uponce.core.errors import UponceError
from uponce.core.values import ResourceType

MIB = 1024 * 1024
PICTURE = samples.png(7, 64, 64)

_SAMPLE_SECONDS = 0.01
_ROUNDS = 5
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})")


@dataclass(frozen=True, slots=True)
class Heard:
    """All bytes that came back, and whether the peer closed the connection."""

    data: bytes
    closed: bool

    @property
    def statuses(self) -> list[int]:
        """Of every response in the stream, in order."""
        return [int(status) for status in _STATUS.findall(self.data)]


def dial(base: str) -> socket.socket:
    """A new connection to the server at this URL."""
    url = urlsplit(base)
    assert url.hostname == "127.0.0.1" and url.port is not None, "attack loopback only"
    return socket.create_connection((url.hostname, url.port), timeout=60)


def raw(
    base: str,
    *pieces: bytes,
    pause: float = 0.0,
    wait: float = 60.0,
    then: Literal["listen", "half-close", "reset"] = "listen",
) -> Heard:
    """Send the pieces with `pause` seconds between them, and return what came back.

    Listens until the peer closes the connection or is silent for `wait` seconds. `half-close` says first that nothing
    more will come. `reset` does not listen: it drops the connection with a RST.
    """
    data = b""
    with dial(base) as connection:
        connection.settimeout(wait)
        try:
            for number, piece in enumerate(pieces):
                time.sleep(pause if number else 0)
                connection.sendall(piece)
            if then == "reset":
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return Heard(b"", closed=True)
            if then == "half-close":
                connection.shutdown(socket.SHUT_WR)
            while received := connection.recv(65536):
                data += received
        except TimeoutError:
            return Heard(data, closed=False)
        except OSError:
            with suppress(OSError):  # the answer may have come before the reset
                data += connection.recv(65536)
    return Heard(data, closed=True)


class Slow(AssertionError):
    """Honest uploads were all stored, but one waited longer than it may, or too few ran."""


@dataclass(slots=True)
class Waits:
    """What honest uploads beside an attack met: seconds of each, and every answer that was not 200."""

    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def check(self, *, worst: float, p50: float | None = None, least: int = 3) -> None:
        """Raise unless at least `least` uploads ran, all were stored, and none waited longer than `worst` seconds.

        Raises Slow if too few ran, or if the seconds are all that is wrong.
        """
        assert not self.failures, self.failures[:5]
        if len(self.seconds) < least:
            raise Slow(f"only {len(self.seconds)} honest uploads ran beside the attack")
        longest, middle = max(self.seconds), median(self.seconds)
        seen = f"{len(self.seconds)} honest uploads: p50 {middle:.3f} s, worst {longest:.3f} s"
        print(seen)
        if longest > worst or (p50 is not None and middle > p50):
            raise Slow(seen)


def check_beside(
    attack: Callable[[], Waits], *, worst: float, p50: float | None = None, least: int = 3, rounds: int = _ROUNDS
) -> None:
    """Attack, and check the waits of honest uploads beside that attack.

    Other work on the machine only adds time, so a slow round is measured again, up to so many `rounds`. A server that
    an attack holds up is slow in every round. An upload that is not stored fails at once.
    """
    for _ in range(rounds - 1):
        with suppress(Slow):
            return attack().check(worst=worst, p50=p50, least=least)
    return attack().check(worst=worst, p50=p50, least=least)


class Honest:
    """A client that does nothing wrong. It uploads to `base`, the server's own address unless a front is given."""

    def __init__(self, server: Server, base: str = "") -> None:
        self.server = server
        self.base = base or server.base
        self._pool = urllib3.PoolManager(retries=False, timeout=60)

    def post(self, content: bytes = PICTURE) -> urllib3.BaseHTTPResponse:
        """One multipart upload with a fresh signature, on whatever connection is open."""
        fields = self.server.signed({"nonce": secrets.token_hex(8)})
        url = f"{self.base}/v1_1/{self.server.cloud}/auto/upload"
        return self._pool.request("POST", url, fields=[*fields.items(), ("file", ("cat.png", content))])

    def upload(self) -> float:
        """Store one picture; the seconds it took. Raises unless the answer is 200."""
        begun = time.monotonic()
        answer = self.post()
        assert answer.status == 200, (answer.status, answer.data)
        return time.monotonic() - begun

    @contextmanager
    def beside(self, pause: float = 0.1, uploaders: int = 1, content: bytes = PICTURE) -> Iterator[Waits]:
        """Upload `content` again and again until the block ends; fill the waits as the uploads end."""
        waits, over = Waits(), threading.Event()

        def uploading() -> None:
            while not over.is_set():
                begun = time.monotonic()
                try:
                    answer = self.post(content)
                    if answer.status != 200:
                        waits.failures.append(f"{answer.status} {answer.data[:300]!r}")
                except (OSError, urllib3.exceptions.HTTPError) as error:
                    waits.failures.append(repr(error))
                waits.seconds.append(time.monotonic() - begun)
                over.wait(pause)

        threads = [threading.Thread(target=uploading) for _ in range(uploaders)]
        for thread in threads:
            thread.start()
        try:
            yield waits
        finally:
            over.set()
            for thread in threads:
                thread.join()


@dataclass(slots=True)
class Cost:
    """What a block took. `memory`: bytes that the processes grew by at most; `cpu` and `wall`: seconds."""

    cpu: float = 0.0
    memory: int = 0
    wall: float = 0.0
    verdict: str = ""
    cut_off: bool = False


@contextmanager
def budget(pid: int) -> Iterator[Cost]:
    """The cost of the block to a process and its descendants. It is complete when the block has ended."""
    cost, over = Cost(), threading.Event()
    first, cpu, begun = _memory(pid), _cpu(pid), time.monotonic()

    def watch() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            cost.memory = max(cost.memory, _memory(pid) - first)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        yield cost
    finally:
        over.set()
        watching.join()
        cost.cpu, cost.wall = _cpu(pid) - cpu, time.monotonic() - begun
        cost.memory = max(cost.memory, _memory(pid) - first)


def decoding(root: Path, content: bytes, requested: ResourceType | None = None, **options: float) -> Cost:
    """Give one file to one decoder. The verdict is the format, `raw`, or the code of the refusal.

    CPU is of every decoder that ran, with about 0.1 s for its start. Memory is the peak of the largest decoder.
    `cut_off` means that the file used all the time that a decoder gives.
    """
    path = root / "hostile"
    path.write_bytes(content)
    cost, over = Cost(), threading.Event()

    async def play(pool: DecoderPool) -> None:
        def look() -> None:
            cost.memory = max([cost.memory, *map(peak_memory, decoder_pids())])

        def watch() -> None:
            while not over.wait(_SAMPLE_SECONDS):
                look()

        watching, begun = threading.Thread(target=watch), time.monotonic()
        watching.start()
        try:
            facts = await pool.inspect(str(path), requested)
            cost.verdict = facts.format or "raw"
        except UponceError as error:
            cost.verdict = error.code
            cost.cut_off = isinstance(error.__cause__, DecoderTimeUsed)
        finally:
            cost.wall = time.monotonic() - begun
            over.set()
            watching.join()
            look()

    before = _children_cpu()
    run(root, play, workers=1, **options)  # which ends the decoders: only then does their CPU count
    cost.cpu = _children_cpu() - before
    return cost


def needed(program: str) -> str:
    """The path of a program that a laptop may lack. Skips the test there; CI fails on a skip."""
    path = shutil.which(program) or shutil.which(f"/usr/sbin/{program}")
    if path is None:
        pytest.skip(f"ABSENT: {program} is not installed")
    return path


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _family(pid: int) -> list[psutil.Process]:
    with suppress(psutil.Error):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def _memory(pid: int) -> int:
    """Resident bytes of the family."""
    total = 0
    for member in _family(pid):
        with suppress(psutil.Error):
            total += member.memory_info().rss
    return total


def _cpu(pid: int) -> float:
    """Seconds of the family, with those of its members that have ended."""
    total = 0.0
    for member in _family(pid):
        with suppress(psutil.Error):
            times = member.cpu_times()
            total += times.user + times.system
            total += times.children_user + times.children_system
    return total
