"""`uponce doctor` and `uponce serve` agree: what keeps a server from starting is broken, and room is counted where it
is used."""

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests import postgres
from tests.e2e.commands import in_a_process, printed, uponce
from tests.server import Server
from uponce.cli import disks, serve
from uponce.config import Settings, load
from uponce.wiring import opened

pytestmark = pytest.mark.xdist_group("operator")

SECRET = "a-secret-of-some-backend"


def findings(done: Any) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in json.loads(done.stdout)}


BROKEN = {
    "keys that are no URLs": {"UPONCE_KEYS": "123:secret"},
    "a file of keys that is not there": {"UPONCE_KEYS_FILE": "/no/such/file"},
    "no keys": {"UPONCE_KEYS": ""},
    "a file without keys": {"UPONCE_KEYS_FILE": "/dev/null"},
    "a short secret": {"UPONCE_KEYS": "cloudinary://123:short@media"},
    "a relay that is no URL": {"UPONCE_RELAY": "https://api.cloudinary.com"},
    "a relay of a cloud without keys": {"UPONCE_RELAY": "cloudinary://1:2@acme", "UPONCE_CLOUD": "cats"},
    "a name that is no address": {"UPONCE_HOST": f"{'a' * 64}.invalid"},
    "an address of another machine": {"UPONCE_HOST": "192.0.2.1"},
}


@pytest.mark.parametrize("env", BROKEN.values(), ids=BROKEN)
def test_what_stops_the_server_is_broken(data: Path, env: dict[str, str]) -> None:
    done = uponce("doctor", "--json", "--data", data, env=env)
    assert done.code == 1
    last = json.loads(done.stdout)[-1]
    assert (last["name"], last["state"]) == ("start", "broken")
    served = in_a_process("serve", "--port", "0", "--data", data, env=env)
    assert (served.code, served.stderr) == (1, f"uponce: {last['detail']}\n")


NEW = {
    "a short secret": {"UPONCE_KEYS": "cloudinary://123:short@media"},
    "a relay of a cloud without keys": {
        "UPONCE_KEYS": f"cloudinary://123:{SECRET}@media",
        "UPONCE_RELAY": "cloudinary://1:2@acme",
        "UPONCE_CLOUD": "cats",
    },
    "a cloud that no key can have": {"UPONCE_CLOUD": "black cats"},
}


@pytest.mark.parametrize("env", NEW.values(), ids=NEW)
def test_what_stops_the_first_start_is_broken(tmp_path: Path, env: dict[str, str]) -> None:
    done = uponce("doctor", "--json", "--data", tmp_path / "new", env=env)
    assert done.code == 1
    assert not (tmp_path / "new").exists()
    served = in_a_process("serve", "--port", "0", "--data", tmp_path / "new", env=env)
    assert (served.code, served.stderr) == (1, f"uponce: {findings(done)['start']['detail']}\n")


def test_a_storage_that_a_new_database_does_not_get_is_broken(data: Path, tmp_path: Path) -> None:
    """As if the disk of the database were not mounted. A server does not start either."""
    with Server(data):
        pass
    for path in data.glob("uponce.db*"):
        path.rename(tmp_path / path.name)
    done = uponce("doctor", "--data", data)
    assert (done.code, "UPONCE_STORAGE belongs to another database" in done.stdout) == (1, True)
    assert list(data.glob("uponce.db*")) == []


def test_what_the_server_would_take_is_not_broken(data: Path, tmp_path: Path) -> None:
    relay = {"UPONCE_RELAY": "cloudinary://1:2@acme", "UPONCE_CLOUD": "media"}
    env = {"UPONCE_KEYS": f"cloudinary://123:{SECRET}@media"} | relay
    printed(uponce("doctor", "--data", tmp_path / "new", env=env))
    before = json.loads(printed(uponce("clouds", "list", "--json", "--data", data)))
    printed(uponce("doctor", "--data", data, env=env))
    assert json.loads(printed(uponce("clouds", "list", "--json", "--data", data))) == before


def test_a_key_that_differs_from_the_database_is_a_warning(data: Path) -> None:
    """As `serve` says it."""
    (key,) = json.loads(printed(uponce("keys", "list", "--json", "--data", data)))
    env = {"UPONCE_KEYS": f"cloudinary://{key['api_key']}:{SECRET}@media"}
    found = findings(uponce("doctor", "--json", "--data", data, env=env))["keys"]
    assert found["state"] == "warning"
    assert f"API key {key['api_key']} differs between settings and database: secret." in found["detail"]


def test_a_file_in_the_place_of_the_folder_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    done = uponce("doctor", "--json", "--data", file)
    assert done.code == 1
    assert f"{file} is not a folder" in findings(done)["start"]["detail"]


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_room_is_counted_on_each_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the folder, of the database and of the media. Two of them on one disk are counted once."""
    places = {name: tmp_path / name for name in ("data", "database", "media")}
    env = {
        "UPONCE_DATA": str(places["data"]),
        "UPONCE_DATABASE": f"sqlite:///{places['database']}/uponce.db",
        "UPONCE_STORAGE": f"file://{places['media']}",
    }
    printed(uponce("keys", "create", env=env))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 5 if "media" in str(path) else 5 << 30))
    assert [row["detail"] for row in rows_of_disks(env)] == [f"5 GiB free in {places['data']}"]

    real, disks = Path.stat, {places["database"]: 1, places["media"]: 2}

    def stat(path: Path, **options: Any) -> Any:
        facts = real(path, **options)
        return Disk(disks[path]) if path in disks else facts

    monkeypatch.setattr(Path, "stat", stat)
    assert [row["state"] for row in rows_of_disks(env)] == ["ok", "ok", "warning"]


class Disk(NamedTuple):
    st_dev: int
    st_mode: int = 0o40700
    st_uid: int = 0


def rows_of_disks(env: dict[str, str]) -> list[dict[str, str]]:
    done = uponce("doctor", "--json", env=env)
    return [row for row in json.loads(done.stdout) if row["name"] == "disk"]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        *((kind, f"is in memory, which a restart of this machine empties ({kind}).") for kind in ("tmpfs", "ramfs")),
        *(
            (kind, f"is in the layer of a container, which ends with the container ({kind}).")
            for kind in ("overlay", "fuse.fuse-overlayfs")
        ),
        ("ext4", None),
        ("ext4 without a journal", "is on ext4 without a journal. After a power cut"),
    ],
)
def test_doctor_and_server_warn_of_a_folder_that_does_not_last(
    data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: str, said: str | None
) -> None:
    monkeypatch.setattr(disks, "file_system_of", lambda folder: kind.split(maxsplit=1)[0])
    monkeypatch.setattr(disks, "lacks_journal", lambda folder: kind.endswith("journal"))
    done = uponce("doctor", "--json", "--data", data)
    settings = load({"UPONCE_DATA": str(data)})
    with opened(settings) as backend:
        asyncio.run(serve._prepare(backend.services, settings))
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    if said is None:
        assert ("volume" in findings(done), warned) == (False, [])
        return
    found = findings(done)["volume"]
    assert (done.code, found["state"], f"{data} {said}" in found["detail"]) == (0, "warning", True)
    assert warned == [found["detail"]]


def test_a_server_that_keeps_nothing_here_needs_no_folder_that_lasts(tmp_path: Path) -> None:
    settings = Settings(data=str(tmp_path), database="postgresql://db/x", storage="s3://bucket", secret_key="ab" * 32)
    assert disks.lasting(settings) == []


@pytest.mark.parametrize(("connections", "warned"), [(98, False), (99, True)])
def test_more_connections_than_postgresql_has_are_a_warning(tmp_path: Path, connections: int, warned: bool) -> None:
    """They would be missing under load only. The server of the tests has 200, of which 3 are for its owner."""
    env = {
        "UPONCE_DATA": str(tmp_path / "data"),
        "UPONCE_DATABASE": postgres.shared().fresh_schema(),
        "UPONCE_WORKERS": "2",
        "UPONCE_DATABASE_CONNECTIONS": str(connections),
    }
    printed(uponce("keys", "create", env=env))
    done = uponce("doctor", "--json", env=env)
    assert (done.code, "connections" in findings(done)) == (0, warned)
    if warned:
        found = findings(done)["connections"]
        assert found["state"] == "warning"
        assert found["detail"].startswith(
            "this server may open 198 connections (UPONCE_WORKERS=2 times UPONCE_DATABASE_CONNECTIONS=99), and "
            "PostgreSQL gives 197 to all servers together."
        )


def test_a_data_folder_that_nothing_needs_yet(tmp_path: Path) -> None:
    """The server makes it."""
    env = {
        "UPONCE_DATA": str(tmp_path / "data"),
        "UPONCE_DATABASE": postgres.shared().fresh_schema(),
        "UPONCE_STORAGE": f"file://{tmp_path}/media",
        "UPONCE_SECRET_KEY": bytes(32).hex(),
    }
    printed(uponce("keys", "create", env=env))
    shutil.rmtree(tmp_path / "data", ignore_errors=True)
    printed(uponce("doctor", env=env))
