"""A real server whose database cannot be used for a while: locked by another process, read-only, or gone.

At that time uploads get a 503 with Retry-After, and nothing is spent. When the database works again, the same
signatures that were refused work, each once.
"""

import random
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

import urllib3

from proof.faults.audit import Receipt
from proof.faults.clients import Reply
from proof.faults.operator import recover
from proof.faults.small_disk import RECOVERY_SECONDS, mounted, when_unused
from proof.faults.tally import Tally
from tests.server import Server
from uponce.adapters.database.sqlite.connection import BUSY_SECONDS

UPLOADS = 6
_MOST_WAIT = 2 * BUSY_SECONDS + 3  # behind a batch that waits itself
_ROUNDS = 5  # at most: other work on the machine only adds time, and a fault adds it in every round
_LOCKS = 5
GONE_BUT_STORED = "uploads acknowledged without a database"
_CODES = {"database_unavailable", "outcome_unknown"}

Sent = list[tuple[dict[str, str], bytes, Reply]]
Disturbance = Callable[[Path], AbstractContextManager[None]]


@contextmanager
def locked(data_dir: Path) -> Iterator[None]:
    """Another process is in the middle of its transaction."""
    with closing(sqlite3.connect(data_dir / "uponce.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


@contextmanager
def read_only(data_dir: Path) -> Iterator[None]:
    """Make the file and its log immutable, also for descriptors that are open.

    Not the shared memory: if a process writes to a mapped page of an immutable file, the kernel kills it by SIGBUS.
    That death is like any other.
    """
    files = [str(path) for path in sorted(data_dir.glob("uponce.db*")) if not path.name.endswith("-shm")]
    subprocess.run(["chattr", "+i", *files], check=True)
    try:
        yield
    finally:
        subprocess.run(["chattr", "-i", *files], check=True)


@contextmanager
def gone(data_dir: Path, names: str = "uponce.db*") -> Iterator[None]:
    """Moved away, and back."""
    away = data_dir / "away"
    away.mkdir()
    moved = sorted(data_dir.glob(names))
    for path in moved:
        path.rename(away / path.name)
    try:
        yield
    finally:
        for path in moved:
            (away / path.name).rename(path)
        away.rmdir()


def only_the_file_gone(data_dir: Path) -> AbstractContextManager[None]:
    """Its log and its shared memory stay."""
    return gone(data_dir, "uponce.db")


DISTURBANCES: Mapping[str, Disturbance] = {
    "locked": locked,
    "read-only": read_only,
    "gone": gone,
    "gone without its log": only_the_file_gone,
}


def can_freeze(folder: Path) -> bool:
    """Only root, and not on every file system."""
    probe = folder / "uponce.db"
    probe.touch()
    with suppress(OSError, subprocess.CalledProcessError), read_only(folder):
        try:
            probe.open("wb").close()
        except PermissionError:
            return True
    return False


def disturb(
    folder: Path, chance: random.Random, tally: Tally, names: Sequence[str], program: Sequence[str] = ("-m", "uponce")
) -> None:
    """Run a server through each of these disturbances, in a random order."""
    folder.mkdir(parents=True, exist_ok=True)
    with Server(folder / "data", program=program) as server:
        patient = Patient(server, chance, tally)
        for name in chance.sample(names, len(names)):
            patient.suffer(name)
        patient.wait_for_lock(chance.uniform(0.05, BUSY_SECONDS / 2))
        server.stop()
    recover(folder / "data")
    tally.audit(folder / "data", patient.receipts)


def start_read_only(folder: Path, tally: Tally) -> None:
    """Check that a server on a disk that has become read-only does not start.

    After the disk is writable again, it starts.
    """
    with mounted(folder / "disk", "size=8m") as mount:
        server = Server(mount)
        with server:
            fields = server.signed({"public_id": "cat"})
            receipt = _reply(server.post(fields, b"cat", resource_type="raw")).receipt(b"cat")
            server.stop()
            when_unused("mount", "-o", "remount,ro", str(mount))
            with suppress(AssertionError):
                server.start()
                tally.expect(False, "servers that started without a database", "on a read-only disk")
            tally.expect("Traceback" not in server.output, "no definite answer", server.output)
            tally.inside += 1
            tally.counts["starts on a read-only disk"] += 1
            subprocess.run(["mount", "-o", "remount,rw", str(mount)], check=True)
            server.start()
            again = _reply(server.post(fields, b"dog", resource_type="raw"))
            tally.expect(again.verdict == "signature_used", "wrong answers", f"after a restart: {again.verdict}")
            server.stop()
        tally.audit(mount, [receipt])


class Patient:
    """A server, its clients, and the answers that they got."""

    def __init__(self, server: Server, chance: random.Random, tally: Tally) -> None:
        self._server = server
        self._chance = chance
        self._tally = tally
        self._sent = 0
        self.receipts: list[Receipt] = []

    def suffer(self, name: str) -> None:
        """Disturb the server, and again if its refusals were late."""
        for _ in range(_ROUNDS):
            took = self._suffer_once(name)
            if took < _MOST_WAIT:
                break
        self._tally.expect(took < _MOST_WAIT, "refusals too late", f"{name}: {took:.1f} s")

    def _suffer_once(self, name: str) -> float:
        """Return the seconds until all were refused."""
        self._expect_stored("before", self._send_several(1))
        with DISTURBANCES[name](self._server.data_dir), ThreadPoolExecutor(1) as pool:
            begun = time.monotonic()
            answer = pool.submit(self._server.get, "/readyz")
            self._expect_served(name)
            refused = self._send_several(UPLOADS)
            took = time.monotonic() - begun
            ready = answer.result().status
        self._tally.counts[f"times {name}"] += 1
        self._tally.expect(ready == 503, "servers that looked ready", f"{name}: {ready}")
        self._check_recovery(name, refused)
        return took

    def wait_for_lock(self, seconds: float) -> None:
        """Check that a lock shorter than the time that a writer waits makes no refusal.

        A machine that stands still may hold it for longer. Then another lock follows, and the last one counts.
        """
        for _ in range(_LOCKS):
            with ThreadPoolExecutor(1) as pool:
                with locked(self._server.data_dir):
                    begun = time.monotonic()
                    waiting = pool.submit(self._send_several, UPLOADS)
                    time.sleep(seconds)
                took = time.monotonic() - begun
                sent = waiting.result()
            if took < seconds + 1:
                break
        self._expect_stored(f"locked for {took:.1f} s", sent)
        self._tally.inside += UPLOADS
        self._tally.counts["short locks"] += 1

    def _send_several(self, number: int) -> Sent:
        """At once."""
        uploads = []
        for _ in range(number):
            self._sent += 1
            fields = self._server.signed({"public_id": f"upload-{self._sent}"})
            uploads.append((fields, self._chance.randbytes(self._chance.randrange(1, 100_000))))
        with ThreadPoolExecutor(number) as pool:
            replies = list(pool.map(lambda each: self._send(*each), uploads))
        return [(fields, data, reply) for (fields, data), reply in zip(uploads, replies, strict=True)]

    def _send(self, fields: dict[str, str], data: bytes) -> Reply:
        response = self._server.post(fields, data, resource_type="raw")
        reply = _reply(response)
        self._tally.counts[f"answered {reply.verdict}"] += 1
        if reply.status == 200:
            self.receipts.append(reply.receipt(data))
        if reply.status == 503:
            self._tally.expect("retry-after" in response.headers, "503 without Retry-After", reply.body)
        return reply

    def _expect_stored(self, when: str, sent: Sent) -> None:
        for _, _, reply in sent:
            self._tally.expect(reply.status == 200, "uploads refused without a reason", f"{when}: {reply.body}")

    def _expect_served(self, name: str) -> None:
        """Check reads: they fail without the file, and work in all other cases."""
        receipt = self._chance.choice(self.receipts)
        status = self._server.get(f"/{self._server.cloud}/raw/upload/{receipt.public_id}").status
        expected = 503 if name.startswith("gone") else 200
        self._tally.expect(status == expected, "wrong reads", f"{name}: {status}")

    def _check_recovery(self, name: str, refused: Sent) -> None:
        deadline = time.monotonic() + RECOVERY_SECONDS
        for fields, data, first in refused:
            self._tally.inside += 1
            self._tally.expect(first.status != 200, GONE_BUT_STORED, f"{name}: {first.body}")
            definite = first.status == 200 or (first.status == 503 and first.verdict in _CODES)
            self._tally.expect(definite, "no definite answer", f"{name}: {first.status} {first.body}")
            asked, reply = time.monotonic(), self._send(fields, data)
            while reply.status == 503 and asked < deadline:
                time.sleep(0.05)
                asked, reply = time.monotonic(), self._send(fields, data)
            expected = ("ok", "signature_used") if first.verdict == "outcome_unknown" else ("ok",)
            story = f"{name}: {first.verdict}, then {reply.verdict}"
            self._tally.expect(reply.verdict in expected, "wrong answers after recovery", story)
            again = self._send(fields, b"other bytes")
            self._tally.expect(again.verdict == "signature_used", "wrong answers", f"{story}, then {again.verdict}")


def _reply(response: urllib3.BaseHTTPResponse) -> Reply:
    return Reply(response.status, response.json())
