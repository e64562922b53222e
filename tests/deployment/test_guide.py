"""docs/guide/production.md: each of its commands is run, in order, on the machine of a box that moves."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.deployment import Caddy
from tests.e2e.commands import code_of
from tests.postgres import Postgres
from tests.server import Server
from tests.stores import seaweedfs

pytestmark = [
    pytest.mark.proof,
    pytest.mark.xdist_group("deployment"),
    pytest.mark.skipif(shutil.which("caddy") is None, reason="ABSENT: caddy is not installed"),
]

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs/guide/production.md").read_text()
SYSTEMCTL = '#!/bin/sh\necho "$@" >> "$0.log"\n'


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


class Machine:
    """Where the commands run: the guide's names stand for what is there. systemd is asked and only remembers it."""

    def __init__(self, folder: Path, names: dict[str, str]) -> None:
        self.folder = folder
        self.names = names
        self.programs = folder / "bin"
        self.programs.mkdir()
        (self.programs / "systemctl").write_text(SYSTEMCTL)
        (self.programs / "systemctl").chmod(0o755)

    def run(self, block: str, **environment: str) -> str:
        for name, here in self.names.items():
            block = block.replace(name, here)
        path = f"{self.programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        plain = {name: value for name, value in os.environ.items() if not name.startswith(("UPONCE_", "AWS_"))}
        done = subprocess.run(
            ["bash", "-euc", block],
            cwd=ROOT,
            env=plain | {"PATH": path} | environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    def settings(self) -> dict[str, str]:
        """As systemd reads them from the file."""
        found = re.findall(r'^(\w+)="(.*)"$', (self.folder / "uponce.env").read_text(), re.MULTILINE)
        return dict(found)


@pytest.fixture
def database() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


def test_every_command_of_the_guide(tmp_path: Path, database: Postgres) -> None:
    store, caddy = seaweedfs.shared(), Caddy()
    units = tmp_path / "units"
    units.mkdir()
    with Server(tmp_path / "box") as box:
        spent, fresh = box.signed({"nonce": 1}), box.signed({"nonce": 2})
        assert code_of(box, spent) == ""
        machine = Machine(
            tmp_path,
            {
                "postgresql://uponce:PASSWORD@db.example/uponce": database.url().replace(
                    "uponce@/postgres", "uponce_server@/uponce"
                ),
                "s3://my-bucket/media": store.fresh_url(),
                'AWS_REGION="eu-central-1"': f'AWS_REGION="us-east-1"\nAWS_ENDPOINT_URL="{store.endpoint}"',
                'AWS_ACCESS_KEY_ID="KEY"': f'AWS_ACCESS_KEY_ID="{store.environment["AWS_ACCESS_KEY_ID"]}"',
                'AWS_SECRET_ACCESS_KEY="SECRET"': (
                    f'AWS_SECRET_ACCESS_KEY="{store.environment["AWS_SECRET_ACCESS_KEY"]}"'
                ),
                'UPONCE_PUBLIC_URL="https://media.example"\n': "",  # the servers of tests say by it where they listen
                "/etc/uponce.env": str(tmp_path / "uponce.env"),
                "/etc/systemd/system": str(units),
                "/var/lib/uponce": str(box.data_dir),
                "https://media.example": caddy.url,
                "UPONCE_SITE=media.example": f"UPONCE_SITE={caddy.url}",
            },
        )
        (statements,) = blocks("sql")
        with psycopg.connect(database.url(), autocommit=True) as connection:
            for statement in re.findall(r".+?;", statements.replace("uponce", "uponce_server", 1), re.DOTALL):
                connection.execute(statement.replace("OWNER uponce", "OWNER uponce_server"))
        settings, move, servers, balancer, look = blocks("sh")

        machine.run(settings)
        assert (tmp_path / "uponce.env").stat().st_mode & 0o777 == 0o600
        assert "moved and compared" in machine.run(move)
        machine.run(servers)
        assert (machine.programs / "systemctl.log").read_text() == "enable --now uponce\n"
        unit = (units / "uponce.service").read_text()
        assert "EnvironmentFile=/etc/uponce.env" in unit and "ExecStart=/opt/uponce/bin/uponce serve" in unit

        with (
            Server(tmp_path / "one", env=machine.settings()) as one,
            Server(tmp_path / "two", env=machine.settings()) as two,
        ):
            machine.names["10.0.0.1:8000"] = f"127.0.0.1:{one.port}"
            machine.names["10.0.0.2:8000"] = f"127.0.0.1:{two.port}"
            machine.names["caddy start"] = "caddy validate"  # it would outlive the test
            machine.run(balancer, HOME=str(tmp_path))
            caddy.run([one, two])
            try:
                machine.names["/var/lib/uponce"] = str(one.data_dir)
                seen = machine.run(look)
                assert "damage: 0" in seen and '"status":"ok"' in seen
                one.base, one.cloud, one.browser = caddy.url, box.cloud, box.browser
                assert [code_of(one, fields) for fields in (spent, fresh)] == ["signature_used", ""]
            finally:
                caddy.stop()
