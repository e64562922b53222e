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
    caddy, units = Caddy(), tmp_path / "units"
    units.mkdir()
    install, settings, service, front, look, backup, restore = re.findall(
        r"^```sh\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL
    )
    assert "pip install ." in install
    with Server(tmp_path / "box") as box:
        spent = box.signed({"nonce": "spent"})
        assert code_of(box, spent) == ""
        machine = Machine(
            tmp_path,
            {
                "/etc/uponce.env": str(tmp_path / "uponce.env"),
                "/etc/systemd/system": str(units),
                "/opt/uponce/bin/uponce": f"{sys.executable} -m uponce",
                "/var/lib/uponce-backup": str(tmp_path / "mnt"),
                "/var/lib/uponce": str(box.data_dir),
                "/srv/restored": str(tmp_path / "restored"),
                "https://media.example": caddy.url,
                "UPONCE_SITE=media.example": f"UPONCE_SITE={caddy.url}",
                "127.0.0.1:8000": f"127.0.0.1:{box.port}",
                "caddy start": "caddy validate",  # it would outlive the test
            },
        )
        machine.run(settings)
        assert (tmp_path / "uponce.env").stat().st_mode & 0o777 == 0o600
        machine.run(service)
        machine.run(front, HOME=str(tmp_path))
        caddy.run([box])
        try:
            assert '"status":"ok"' in machine.run(look)
        finally:
            caddy.stop()

        machine.run(backup)
        assert (machine.programs / "systemctl.log").read_text().splitlines() == [
            "enable --now uponce",
            "enable --now uponce-backup.timer",
        ]
        (command,) = re.findall(r"^ExecStart=(.*)$", (units / "uponce-backup.service").read_text(), re.MULTILINE)
        machine.run(command, UPONCE_DATA=str(box.data_dir))
        machine.run(restore)
    with Server(tmp_path / "restored") as restored:
        restored.cloud, restored.browser = box.cloud, box.browser
        assert code_of(restored, spent) in ("signature_used", "stale_request")
