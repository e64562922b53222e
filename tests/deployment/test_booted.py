"""docs/guide/one-box.md under a real systemd, with nginx, disks, user and permissions as they are there.

`tests/deployment/test_one_box.py` runs the same blocks in seconds, without systemd.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.deployment.booted import Booted, absent
from tests.deployment.machine import blocks

pytestmark = [pytest.mark.full, pytest.mark.skipif(bool(absent()), reason=absent())]

GUIDE = blocks("one-box.md")
INSTALL, SETTINGS, SERVICE, COMMANDS, FRONT, LOOK, CONNECTIONS, BACKUP, NEW_MACHINE, RESTORE, *OTHERS = GUIDE
AGAIN, KEEP, UPGRADE, CONTINUE, NGINX, DISK, RESTORE_DISK, TO_BUCKET, IN_BUCKET = OTHERS

READY = "curl --fail --silent --show-error --retry 60 --retry-connrefused --retry-delay 1 http://127.0.0.1:8000/readyz"
OWNER = "stat --format '%U %a' /var/lib/uponce"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Booted]:
    booted = Booted(tmp_path / "box")
    try:
        booted.run(INSTALL)
        booted.run("systemctl disable caddy nginx")  # each wants port 80
        booted.boot()
        yield booted
    finally:
        booted.stop()


def test_every_step_of_the_guide_that_asks_systemd(machine: Booted) -> None:
    machine.names = {
        "https://media.example": "http://127.0.0.1",
        "UPONCE_SITE=media.example": "UPONCE_SITE=http://127.0.0.1",
        "LABEL=media /var/lib/uponce/media ext4": "tmpfs /var/lib/uponce/media tmpfs",
        "git pull\n": "",
        "/opt/uponce/bin/pip install .\n": "",  # the container has no network
        "python3 -m venv --clear /opt/uponce &&\n  /opt/uponce/bin/pip install . &&\n": "",
    }
    machine.run(SETTINGS)
    machine.run(SERVICE)
    serves(machine)
    assert machine.run(OWNER) == "uponce 700\n"
    assert "cloudinary://" in machine.run("journalctl --unit uponce")
    machine.shell = COMMANDS.removesuffix("uponce doctor\n")
    machine.run("uponce doctor")

    machine.run(FRONT)
    assert '"status":"ok"' in machine.run(LOOK.replace("curl", "curl --retry 30 --retry-connrefused"))
    stored = [store(machine, "small", 1_000), store(machine, "large", 3_000_000)]

    machine.run(BACKUP)
    backs_up(machine)
    machine.run(AGAIN)
    machine.run(KEEP)
    machine.run(UPGRADE)
    serves(machine)

    assert "damage: 0" in machine.run(DISK)
    serves(machine)
    stored.append(store(machine, "on-the-disk", 3_000_000))
    backs_up(machine)
    machine.run("rm -rf /var/lib/uponce.before /var/lib/uponce/media.before")
    machine.run(RESTORE_DISK)
    serves(machine)
    for path in stored:
        delivers(machine, path)

    machine.run(
        "systemctl stop uponce; umount /var/lib/uponce/media; rm -rf /var/lib/uponce.before"
    )  # the disk is lost
    machine.run(RESTORE)
    serves(machine)
    for path in stored:
        delivers(machine, path)

    machine.run(
        "systemctl disable --now uponce uponce-backup.timer\n"
        "rm -rf /etc/systemd/system/uponce*.{service,timer} /var/lib/uponce /var/lib/uponce.before"
    )  # as on a new machine
    machine.run(NEW_MACHINE)
    machine.run(RESTORE)
    serves(machine)
    for path in stored:
        delivers(machine, path)
    assert machine.run("systemctl is-enabled uponce uponce-backup.timer") == "enabled\nenabled\n"


def test_nginx_sends_the_media_as_the_user_of_uponce(machine: Booted) -> None:
    machine.names = {"media.example": "localhost"}
    machine.run(SETTINGS.replace("https:", "http:"))
    machine.run(SERVICE)
    serves(machine)
    machine.shell = COMMANDS.removesuffix("uponce doctor\n")
    machine.run(
        "sed 's/media.example/localhost/' deploy/nginx.conf > /etc/nginx/conf.d/uponce.conf\n"
        "rm -f /etc/nginx/sites-enabled/default\nsystemctl start nginx"
    )
    path = store(machine, "large", 3_000_000)
    machine.run(NGINX)
    serves(machine)
    delivers(machine, path, "http://localhost")
    assert "x-accel-redirect: /_blobs/" in machine.run(f"curl --silent --head http://127.0.0.1:8000{path}")


def serves(machine: Booted) -> None:
    assert '"status":"ok"' in machine.run(READY)
    assert machine.run("systemctl is-active uponce") == "active\n"


def backs_up(machine: Booted) -> None:
    machine.run("systemctl start uponce-backup")
    assert machine.run("systemctl show --property Result --value uponce-backup") == "success\n"


def store(machine: Booted, name: str, size: int) -> str:
    """Upload a file as an operator does, and return the path under which it is delivered."""
    printed = machine.run(
        f"head --bytes {size} /dev/urandom > /tmp/{name}\n"
        f"uponce upload --type raw --set public_id={name} --json /tmp/{name}"
    )
    (answer,) = json.loads(printed)
    return urlsplit(str(answer["secure_url"])).path


def delivers(machine: Booted, path: str, base: str = "http://127.0.0.1:8000") -> None:
    name = path.rpartition("/")[2]
    machine.run(f"curl --fail --silent --show-error {base}{path} | cmp - /tmp/{name}")
