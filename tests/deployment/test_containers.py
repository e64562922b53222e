"""docs/guide/containers.md: each of its commands is run, in order. Docker is replaced by `docker.py`."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from tests.server import asked, lasting_port
from uponce.config import load

pytestmark = pytest.mark.xdist_group("serve")

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide/containers.md").read_text()
START, BACKUP, RESTORE, COPY, UPGRADE, CONTINUE = re.findall(r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


class Host:
    """Where the commands run."""

    def __init__(self, folder: Path) -> None:
        self.port = lasting_port()
        self.base = f"http://127.0.0.1:{self.port}"
        self.pid = folder / "pid"
        self.cron = folder / "cron"
        self.data = folder / "data"
        self.names = {
            "/srv/uponce": f"{folder}/srv",
            "/etc/cron.d/uponce-backup": str(self.cron),
            "chown 10001": "test -d",
            "git pull": "true",
            "https://media.example": self.base,
            "127.0.0.1:8000:8000": f"127.0.0.1:{self.port}:8000",
        }
        fake = folder / "bin/docker"
        fake.parent.mkdir()
        fake.write_text(f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/deployment/docker.py "$@"\n')
        fake.chmod(0o755)
        plain = {name: value for name, value in os.environ.items() if not name.startswith("UPONCE_")}
        path = f"{fake.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        self.environment = plain | {"PATH": path, "FAKE_DOCKER": str(folder)}

    def run(self, block: str) -> str:
        """Run a block of the guide, and return what it prints. Each of its commands must succeed."""
        done = self._bash("-euc", block)
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def paste(self, block: str) -> int:
        """Run a block as in a reader's shell, which goes on after a command that fails. Return the last exit code."""
        return self._bash("-c", block).returncode

    def _bash(self, how: str, block: str) -> subprocess.CompletedProcess[str]:
        for name, here in self.names.items():
            block = block.replace(name, here)
        return subprocess.run(
            ["bash", how, block],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def uponce(self, words: str) -> str:
        return self.run(f"cd /srv/uponce; docker compose exec uponce uponce {words}")

    def upload(self, text: bytes) -> str:
        """Return the path at which the text is delivered."""
        url = self.uponce("sign --as url").strip()
        answer = asked("PUT", url, body=text)
        assert answer.status == 200, answer.data
        return str(urlsplit(answer.json()["url"]).path)

    def get(self, path: str) -> bytes:
        return asked("GET", self.base + path).data


@pytest.fixture
def host(tmp_path: Path) -> Iterator[Host]:
    host = Host(tmp_path)
    yield host
    if host.pid.exists():
        with suppress(ProcessLookupError):
            os.killpg(int(host.pid.read_text()), signal.SIGKILL)


@pytest.mark.proof
def test_the_commands_of_the_guide(host: Host) -> None:
    """After the restore the assets of the backup are there, and a new key signs. The last database stays.

    After an upgrade that was taken back, the nightly backup goes on.
    """
    assert host.run(START).count("CLOUDINARY_URL=cloudinary://") == 2
    path = host.upload(b"before")
    host.run(BACKUP)
    nightly = re.sub(r"^(\S+ ){5}root ", "", host.cron.read_text())
    host.run(nightly)
    later = host.upload(b"later")

    host.run(RESTORE)
    assert host.get(path) == b"before"
    assert b"later" not in host.get(later)
    assert (host.data / ".before/uponce.db").exists()
    host.uponce("keys create")

    host.run(COPY + UPGRADE)
    assert host.get(path) == b"before"
    assert host.run("ls /srv/uponce/backup").split() == ["before-upgrade", "latest"]

    host.uponce("keys create")
    host.run(nightly)
    host.run("cd /srv/uponce; docker compose stop")
    host.data.rename(host.data.with_name("lost"))  # a new machine has an empty volume
    restore = RESTORE.replace("/latest", "/before-upgrade")
    host.run("".join(line for line in restore.splitlines(keepends=True) if "mkdir" not in line))
    assert host.get(path) == b"before"
    host.run(CONTINUE)
    host.run(nightly)


@pytest.mark.proof
def test_a_refused_restore_starts_no_server(host: Host) -> None:
    """An empty server would accept spent signatures again. Then the lines from `uponce restore` on do all."""
    host.run(START)
    path = host.upload(b"before")
    host.run(re.sub(r"^(\S+ ){5}root ", "", BACKUP.split("\n")[1]))
    assert host.paste(RESTORE.replace("/latest", "/lost")) == 1
    assert not host.pid.exists()
    host.run("cd /srv/uponce\n" + RESTORE[RESTORE.index("docker compose run --rm uponce uponce restore") :])
    assert host.get(path) == b"before"


def test_a_new_machine_gets_the_settings_of_the_lost_one() -> None:
    """Step 1 writes a file with two settings. A shorter UPONCE_AUDIT_DAYS deletes the audit."""
    (paragraph,) = re.findall(r"^On a new machine do .*?\n\n", GUIDE, re.MULTILINE | re.DOTALL)
    assert "your copy of `compose.yaml`" in paragraph


def test_a_long_upgrade_of_the_database_is_not_killed() -> None:
    """Until it ends, no probe is answered. The defaults of Kubernetes kill a server after half a minute."""
    (probes,) = re.findall(r"^- \*\*Probes\.\*\* (.*?)^- ", GUIDE, re.MULTILINE | re.DOTALL)
    ((path, failures),) = re.findall(r"`(\S+)` for startup, with `failureThreshold: (\d+)`", probes)
    assert path == "/healthz" and int(failures) * 10 >= 3600


def test_only_root_reads_the_settings(host: Host) -> None:
    host.run(START)
    folder = host.data.with_name("srv")
    assert [path.stat().st_mode & 0o777 for path in (folder, folder / "compose.yaml")] == [0o700, 0o600]


(COMPOSE,) = re.findall(r"compose.yaml\) <<'END'\n(.*?)END\n", START, re.DOTALL)


def test_the_container_sees_a_disk_for_backups_that_is_mounted_after_its_start() -> None:
    """As at a boot, where nothing waits for that disk. Without `rslave`, the container keeps the folder below it."""
    _, backup = yaml.safe_load(COMPOSE)["services"]["uponce"]["volumes"]
    assert backup == "/srv/uponce/backup:/backup:rslave"


def test_the_service_has_time_to_stop_and_settings_that_exist() -> None:
    service = yaml.safe_load(COMPOSE)["services"]["uponce"]
    assert load(service["environment"]).drain_seconds + 30 + 5 + 5 <= int(
        service["stop_grace_period"].removesuffix("s")
    )
