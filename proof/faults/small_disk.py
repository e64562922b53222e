"""A real server on a disk that fills up: a small tmpfs for all of its data, for the media, or for the database.

Reads go on, uploads are refused, and /readyz shows it. A server that stops then starts again. When there is space
again, the same signatures that were refused work.
"""

import random
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from proof.faults.audit import Receipt
from proof.faults.clients import Reply
from proof.faults.tally import Tally
from tests.server import Server

RECOVERY_SECONDS = 5.0
UNUSED_SECONDS = 20.0
REFUSED = {503: {"storage_unavailable", "database_unavailable"}, 507: {"storage_full"}}

_REFUSALS = 4
_MOST_UPLOADS = 400
_LARGEST = 300_000


@dataclass(frozen=True, slots=True)
class Disk:
    """What is on the small tmpfs, its mount options, and what fills it up: bytes or files."""

    name: str
    options: str
    variables: Mapping[str, str] = field(default_factory=dict)
    by_files: bool = False


_FILES_ONLY = {"UPONCE_PACK_BYTES": "0"}  # packs need hardly any inodes

DISKS = (
    Disk("all data", "size=6m"),
    Disk("storage", "size=3m", {"UPONCE_STORAGE": "file://{mount}/media"}),
    Disk("database", "size=6m", {"UPONCE_DATABASE": "sqlite:///{mount}/uponce.db"}),
    Disk(
        "inodes of the storage",
        "size=64m,nr_inodes=560",
        {**_FILES_ONLY, "UPONCE_STORAGE": "file://{mount}/media"},
        True,
    ),
)


def can_mount(folder: Path) -> bool:
    """Only root, and not in every container."""
    if shutil.which("mount") is None:
        return False
    with suppress(subprocess.CalledProcessError), mounted(folder, "size=64k"):
        return True
    return False


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[Path]:
    folder.mkdir(exist_ok=True, parents=True)
    _run("mount", "-t", "tmpfs", "-o", options, "none", str(folder))
    try:
        yield folder
    finally:
        when_unused("umount", str(folder))


def fill_and_free(folder: Path, disk: Disk, chance: random.Random, tally: Tally) -> None:
    """Run one server until the disk is full, while it is full, and after."""
    with mounted(folder / "small", disk.options) as mount:
        data_dir = mount / "data" if not disk.variables else folder / "data"
        env = {name: value.format(mount=mount) for name, value in disk.variables.items()}
        with Server(data_dir, env=env) as server:
            story = Story(server, disk, mount, chance, tally)
            story.fill()
            story.look_around()
            story.restart()
            story.free()
            server.stop()
        _show_as_default(data_dir, mount, env)
        # Every refusal was a definite one, so nothing is left for a sweep.
        tally.audit(data_dir, story.receipts)
        tally.counts[f"full disks: {disk.name}"] += 1


class Story:
    """What clients of one server live through."""

    def __init__(self, server: Server, disk: Disk, mount: Path, chance: random.Random, tally: Tally) -> None:
        self._server = server
        self._disk = disk
        self._mount = mount
        self._chance = chance
        self._tally = tally
        self._refused: list[tuple[dict[str, str], bytes]] = []
        self._sent = 0
        self.receipts: list[Receipt] = []

    def fill(self) -> None:
        """Uploads until the disk has no room for them: at first there is some, then a ballast takes the last of it."""
        while len(self._refused) < _REFUSALS and self._sent < _MOST_UPLOADS:
            if self._sent == 3:
                self._load_ballast()
            self._upload_new()
        self._tally.expect(len(self._refused) == _REFUSALS, "full disks that took everything", self._disk.name)

    def look_around(self) -> None:
        """Reads go on; readiness is refused."""
        self._read()
        ready = self._server.get("/readyz").status
        self._tally.expect(ready == 503, "full disks that looked ready", f"{self._disk.name}: {ready}")
        asked = self._server.get("/readyz?for=balancer").status
        self._tally.expect(asked == 200, "full disks that end deliveries", f"{self._disk.name}: {asked}")

    def restart(self) -> None:
        """Reads go on, although another program takes what the log of the stopped database frees."""
        self._server.stop()
        self._load_ballast()
        try:
            self._server.start("/readyz?for=balancer")
        except AssertionError as error:
            self._tally.expect(False, "full disks that stop a start", f"{self._disk.name}: {error}")
            self._unload_ballast()
            self._server.start()
        self._tally.counts["starts on full disks"] += 1
        self._read()

    def free(self) -> None:
        """Delete the ballast. What was refused works within the promised time, each once."""
        self._unload_ballast()
        deadline = time.monotonic() + RECOVERY_SECONDS
        for fields, data in self._refused:
            asked, reply = time.monotonic(), self._send(fields, data)
            while reply.status != 200 and not self._was_spent(reply, fields) and asked < deadline:
                time.sleep(0.1)
                asked, reply = time.monotonic(), self._send(fields, data)
            late = f"{self._disk.name}: {reply.verdict} {RECOVERY_SECONDS} seconds after space was freed"
            self._tally.expect(reply.status == 200 or self._was_spent(reply, fields), "recoveries too late", late)
            again = self._send(fields, data)
            self._tally.expect(again.verdict == "signature_used", "wrong answers", f"{late}, then {again.verdict}")
        ready = self._server.get("/readyz").status
        self._tally.expect(ready == 200, "recoveries too late", f"{self._disk.name}: /readyz says {ready}")

    def _read(self) -> None:
        for receipt in self._chance.sample(self.receipts, min(5, len(self.receipts))):
            self._expect_served(receipt)

    def _upload_new(self) -> None:
        self._sent += 1
        data = self._chance.randbytes(1 if self._disk.by_files else self._chance.randrange(1, _LARGEST))
        fields = self._server.signed({"public_id": f"{self._disk.name.replace(' ', '-')}-{self._sent}"})
        reply = self._send(fields, data)
        if reply.status == 200:
            return
        self._tally.inside += 1
        definite = reply.verdict in REFUSED.get(reply.status, ())
        self._tally.expect(definite, "no definite answer", f"{self._disk.name}: {reply.status} {reply.body}")
        self._refused.append((fields, data))

    def _send(self, fields: dict[str, str], data: bytes) -> Reply:
        response = self._server.post(fields, data, resource_type="raw")
        reply = Reply(response.status, response.json())
        self._tally.counts[f"answered {reply.verdict}"] += 1
        if reply.status == 200:
            self.receipts.append(reply.receipt(data))
        return reply

    def _was_spent(self, reply: Reply, fields: dict[str, str]) -> bool:
        """Return whether a commit of unknown outcome has happened: then its asset is there."""
        return reply.verdict == "signature_used" and self._get(fields["public_id"]) == 200

    def _expect_served(self, receipt: Receipt) -> None:
        status = self._get(receipt.public_id)
        self._tally.counts["reads from full disks"] += 1
        self._tally.expect(status == 200, "reads refused", f"{self._disk.name}: {receipt.public_id} is {status}")

    def _get(self, public_id: str) -> int:
        return self._server.get(f"/{self._server.cloud}/raw/upload/{public_id}").status

    def _load_ballast(self) -> None:
        ballast = self._mount / "ballast"
        ballast.mkdir(exist_ok=True)
        with suppress(OSError):
            if self._disk.by_files:
                for number in range(10_000):
                    (ballast / str(number)).touch()
            with (ballast / "bytes").open("wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    def _unload_ballast(self) -> None:
        shutil.rmtree(self._mount / "ballast", ignore_errors=True)


def _show_as_default(data_dir: Path, mount: Path, env: Mapping[str, str]) -> None:
    """Link the folders as in the default layout: the auditor knows no other."""
    links = {"UPONCE_STORAGE": "media", "UPONCE_DATABASE": "uponce.db"}
    for variable in env.keys() & links.keys():
        (data_dir / links[variable]).symlink_to(mount / links[variable])


def when_unused(*command: str) -> None:
    """Change a mount. A killed process may take a moment to close its files there."""
    deadline = time.monotonic() + UNUSED_SECONDS
    while True:
        try:
            return _run(*command)
        except subprocess.CalledProcessError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
