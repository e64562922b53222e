"""docs/guide/one-box.md: its commands are run, in order, except those that install a package or ask systemd."""

import re
import shutil
import sys
from pathlib import Path

import pytest

from tests.deployment import Caddy
from tests.deployment.test_guide import Machine
from tests.e2e.commands import code_of
from tests.server import Server

pytestmark = [
    pytest.mark.xdist_group("deployment"),
    pytest.mark.skipif(shutil.which("caddy") is None, reason="ABSENT: caddy is not installed"),
]

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide/one-box.md").read_text()


def test_every_command_of_the_guide(tmp_path: Path) -> None:
    """Served, asked through Caddy, backed up by the unit's own command, restored and fenced."""
    caddy, units, private = Caddy(), tmp_path / "units", tmp_path / "private"
    for folder in (units, private, tmp_path / "caddy"):
        folder.mkdir()
    install, settings, service, commands, front, look, backup, restore, upgrade = re.findall(
        r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL
    )
    assert "pip install ." in install
    with Server(private / "uponce") as box:
        spent = box.signed({"nonce": "spent"})
        assert code_of(box, spent) == ""
        machine = Machine(
            tmp_path,
            {
                "/etc/uponce.env": str(tmp_path / "uponce.env"),
                "/etc/systemd/system": str(units),
                "/opt/uponce/bin/uponce": f"{sys.executable} -m uponce",
                "/var/lib/private": str(private),
                "/var/lib/uponce-backup": str(private / "uponce-backup"),
                "/var/lib/uponce": str(box.data_dir),
                "/etc/caddy": str(tmp_path / "caddy"),
                "https://media.example": caddy.url,
                "UPONCE_SITE=media.example": f"UPONCE_SITE={caddy.url}",
                "127.0.0.1:8000": f"127.0.0.1:{box.port}",
                "git pull\n": "",
                "/opt/uponce/bin/pip install .\n": "",
            },
        )
        machine.run(settings)
        assert (tmp_path / "uponce.env").stat().st_mode & 0o777 == 0o600
        machine.run(service)
        assert f"sqlite:///{box.data_dir}/uponce.db" in machine.run(commands)
        machine.run(front)
        (given,) = re.findall(r"^Environment=(.*)$", (units / "caddy.service.d/uponce.conf").read_text(), re.MULTILINE)
        validate = f"caddy validate --config {tmp_path}/caddy/Caddyfile --adapter caddyfile"
        machine.run(f"env {given} {validate}", HOME=str(tmp_path))
        caddy.run([box])
        try:
            assert '"status":"ok"' in machine.run(look)
        finally:
            caddy.stop()

        machine.run(backup)
        (command,) = re.findall(r"^ExecStart=(.*)$", (units / "uponce-backup.service").read_text(), re.MULTILINE)
        machine.run(command, UPONCE_DATA=str(box.data_dir))
        machine.run(upgrade, UPONCE_DATA=str(box.data_dir))
        assert box.stop() == 0
        machine.run(restore, UPONCE_DATA=str(box.data_dir))
        assert (private / "uponce.before" / "uponce.db").exists()
        box.start()
        assert code_of(box, spent) in ("signature_used", "stale_request")
    assert (machine.programs / "systemctl.log").read_text().splitlines() == [
        "enable --now uponce",
        "daemon-reload",
        "enable caddy",
        "restart caddy",
        "enable --now uponce-backup.timer",
        "start uponce-backup",
        "daemon-reload",
        "restart uponce",
        "stop uponce uponce-backup.timer uponce-backup.service",
        "start uponce uponce-backup.timer",
    ]
