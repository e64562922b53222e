"""docs/guide/production.md: each of its commands is run, in order, on the machine of a box that moves."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.deployment import Caddy
from tests.deployment.machine import ROOT, Machine, blocks
from tests.e2e.commands import as_json, code_of
from tests.postgres import Postgres
from tests.server import Server
from tests.stores import seaweedfs

pytestmark = pytest.mark.xdist_group("deployment")

OF_THE_BOX = "UPONCE_PUBLIC_URL='https://old.example'\nUPONCE_AUDIT_DAYS='365'\n"
KEY = "5e" * 32


@pytest.fixture
def database() -> Iterator[Postgres]:
    server = Postgres()
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize("where", ["in a file", "in the settings", "nowhere"])
def test_the_new_settings_keep_those_of_the_box_and_its_key(tmp_path: Path, where: str) -> None:
    """Also if the steps are repeated. The server of the box still has its file: it may restart before the move."""
    data = tmp_path / "data"
    data.mkdir()
    machine = Machine(tmp_path, {"/var/lib/uponce": str(data)})
    before = OF_THE_BOX + f"UPONCE_SECRET_KEY='{KEY}'\n" * (where == "in the settings")
    if where != "nowhere":
        (tmp_path / "uponce.env").write_text(before)
    if where == "in a file":
        (data / "secret.key").write_bytes(bytes.fromhex(KEY))

    for _ in range(2):
        for block in blocks("production.md")[:2]:
            machine.run(block)
    settings = machine.settings("uponce.env.new")
    assert (tmp_path / "uponce.env.new").stat().st_mode & 0o777 == 0o600
    assert settings["UPONCE_DATABASE"].startswith("postgresql://")
    assert settings["UPONCE_PUBLIC_URL"] == "https://media.example"
    assert re.fullmatch("[0-9a-f]{64}", settings["UPONCE_SECRET_KEY"])
    if where == "nowhere":
        assert (tmp_path / "uponce.env").read_text() == ""
    else:
        assert (settings["UPONCE_SECRET_KEY"], settings["UPONCE_AUDIT_DAYS"]) == (KEY, "365")
        assert (tmp_path / "uponce.env").read_text() == before


@pytest.mark.proof
@pytest.mark.skipif(shutil.which("caddy") is None, reason="ABSENT: caddy is not installed")
def test_every_command_of_the_guide(tmp_path: Path, database: Postgres) -> None:
    store, caddy = seaweedfs.shared(), Caddy()
    with Server(tmp_path / "box", env={"UPONCE_SECRET_KEY": KEY}) as box:
        spent, fresh = box.signed({"nonce": 1}), box.signed({"nonce": 2})
        assert code_of(box, spent) == ""
        machine = Machine(
            tmp_path,
            {
                "postgresql://uponce:PASSWORD@db.example/uponce": database.url().replace(
                    "uponce@/postgres", "uponce_server@/uponce"
                ),
                "s3://my-bucket/media": store.fresh_url(),
                "AWS_REGION='eu-central-1'": f"AWS_REGION='us-east-1'\nAWS_ENDPOINT_URL='{store.endpoint}'",
                "AWS_ACCESS_KEY_ID='KEY'": f"AWS_ACCESS_KEY_ID='{store.environment['AWS_ACCESS_KEY_ID']}'",
                "AWS_SECRET_ACCESS_KEY='SECRET'": (
                    f"AWS_SECRET_ACCESS_KEY='{store.environment['AWS_SECRET_ACCESS_KEY']}'"
                ),
                "UPONCE_PUBLIC_URL='https://media.example'\n": "",  # the servers of tests say by it where they listen
                "/var/lib/uponce": str(box.data_dir),
                "https://media.example": caddy.url,
                "UPONCE_SITE=media.example": f"UPONCE_SITE={caddy.url}",
            },
        )
        (tmp_path / "uponce.env").write_text(f"UPONCE_SECRET_KEY='{KEY}'\n")
        (statements,) = blocks("production.md", "sql")
        with psycopg.connect(database.url(), autocommit=True) as connection:
            for statement in re.findall(r".+?;", statements.replace("uponce", "uponce_server", 1), re.DOTALL):
                connection.execute(statement.replace("OWNER uponce", "OWNER uponce_server"))
        settings, key, move, servers, balancer, look, *_ = blocks("production.md")

        machine.run(settings + key)
        assert "moved and compared" in machine.run(move)
        assert machine.asked() == ["disable --now uponce-backup.timer"]
        machine.run(servers)
        unit = (tmp_path / "units/uponce.service").read_text()
        assert "EnvironmentFile=/etc/uponce.env" in unit and "ExecStart=/opt/uponce/bin/uponce serve" in unit
        # The box runs since before the move, on a database that is frozen now. Only a restart helps.
        assert machine.asked() == ["daemon-reload", "enable uponce", "restart uponce"]
        assert code_of(box, fresh) == "database_unavailable"
        box.stop()

        with (
            Server(box.data_dir, env=machine.settings()) as one,
            Server(tmp_path / "two", env=machine.settings()) as two,
        ):
            machine.names["10.0.0.1:8000"] = f"127.0.0.1:{one.port}"
            machine.names["10.0.0.2:8000"] = f"127.0.0.1:{two.port}"
            machine.run(balancer)
            assert machine.asked() == ["daemon-reload", "enable caddy", "restart caddy"]
            validate = f"caddy validate --config {tmp_path}/caddy/Caddyfile --adapter caddyfile"
            machine.run(f"env {machine.given_to_caddy()} {validate}", HOME=str(tmp_path))
            caddy.run([one, two])
            try:
                seen = machine.run(look)
                assert "damage: 0" in seen and '"status":"ok"' in seen
                one.base, one.cloud, one.browser = caddy.url, box.cloud, box.browser
                assert [code_of(one, fields) for fields in (spent, fresh)] == ["signature_used", ""]
            finally:
                caddy.stop()


@pytest.mark.proof
def test_a_cancelled_move_brings_back_the_settings_of_the_box_and_its_backups(tmp_path: Path) -> None:
    """Without `uponce.env.box`, which a move makes at its end, the new settings stay."""
    *_, cancel = blocks("production.md")
    with Server(tmp_path / "box") as box:
        machine = Machine(tmp_path, {"/var/lib/uponce": str(box.data_dir)})
        of_the_new_store = "UPONCE_DATABASE='postgresql://uponce:PASSWORD@db.example/uponce'\n"
        (tmp_path / "uponce.env").write_text(of_the_new_store)
        new_store = ("--to-database", f"sqlite:///{tmp_path}/new.db", "--to-storage", f"file://{tmp_path}/new")
        as_json(box, "migrate-store", *new_store)
        assert code_of(box, box.signed()) == "database_unavailable"
        assert machine.paste(cancel) != 0
        assert (tmp_path / "uponce.env").read_text() == of_the_new_store
        assert machine.asked() == ["stop uponce"]

        (tmp_path / "uponce.env.box").write_text(OF_THE_BOX)
        # As in a shell with the present settings.
        machine.shell = f"export UPONCE_DATABASE=sqlite:///{tmp_path}/new.db UPONCE_STORAGE=file://{tmp_path}/new\n"
        assert "this store takes uploads again" in machine.run(cancel)
        assert (tmp_path / "uponce.env").read_text() == OF_THE_BOX
        assert machine.asked() == ["stop uponce", "enable --now uponce uponce-backup.timer"]


def test_a_way_back_to_one_box_keeps_the_key_and_the_other_settings(tmp_path: Path) -> None:
    """No other file may have the key, and a shorter UPONCE_AUDIT_DAYS deletes the audit."""
    *_, back, _ = blocks("production.md")
    machine = Machine(tmp_path, {"/var/lib/uponce": str(tmp_path)})
    (tmp_path / "uponce.env").write_text(f"{OF_THE_BOX}UPONCE_STORAGE_REDIRECT='60'\nAZURE_STORAGE_ACCOUNT_KEY='k'\n")
    for block in blocks("production.md")[:2]:
        machine.run(block)
    servers = (tmp_path / "uponce.env.new").rename(tmp_path / "uponce.env")
    before, mode = servers.read_text(), servers.stat().st_mode
    key = machine.settings()["UPONCE_SECRET_KEY"]
    machine.run(back)
    assert machine.settings() == {
        "UPONCE_PUBLIC_URL": "https://media.example",
        "UPONCE_AUDIT_DAYS": "365",
        "UPONCE_SECRET_KEY": key,
        "UPONCE_TRUSTED_PROXIES": "127.0.0.1",
    }
    assert (servers.stat().st_mode, (tmp_path / "uponce.env.servers").read_text()) == (mode, before)


def test_files_with_credentials_go_to_both_units_of_a_box() -> None:
    """The nightly backup reads the bucket too."""
    text = (ROOT / "docs/guide/production.md").read_text()
    (paragraph,) = re.findall(r"^- \*\*Files with credentials:\*\*(.*?)```ini", text, re.MULTILINE | re.DOTALL)
    assert re.findall(r"`systemctl edit ([\w-]+)`", paragraph) == ["uponce", "uponce-backup"]
