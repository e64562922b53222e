"""Commands that root runs in the folder of a service: what they make belongs to the user of the service."""

import json
import os
import shutil
from pathlib import Path

import pytest

from tests import samples
from tests.e2e.commands import printed, uponce
from tests.server import Server

pytestmark = pytest.mark.usefixtures("few_places")

SERVICE = 65_534


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with a file in its storage."""
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: only root may give files to another user")
    with Server(tmp_path_factory.mktemp("stored") / "data", env={"UPONCE_PACK_BYTES": "0"}) as server:
        assert server.post(server.signed(), samples.png(1)).status == 200
        assert server.stop() == 0
    return server.data_dir


@pytest.fixture
def data(stored: Path, tmp_path: Path) -> Path:
    """The data folder of a service with a file in its storage, and no backup of it yet."""
    folder = tmp_path / "data"
    shutil.copytree(stored, folder)
    give(folder)
    return folder


def give(folder: Path) -> None:
    for path in (folder, *folder.rglob("*")):
        os.chown(path, SERVICE, SERVICE)


def foreign(folder: Path) -> set[str]:
    """The names of all files and folders that belong to another user than the service."""
    found = {path: path.stat() for path in (folder, *folder.rglob("*"))}
    return {path.name for path, facts in found.items() if (facts.st_uid, facts.st_gid) != (SERVICE, SERVICE)}


def test_a_new_secret_key(data: Path) -> None:
    (data / "secret.key").unlink()
    printed(uponce("keys", "renew", "--yes", "--data", data))
    assert foreign(data) == set()


def test_what_a_restore_puts_beside_the_media_that_are_left(data: Path, tmp_path: Path) -> None:
    printed(uponce("backup", tmp_path / "backup", "--data", data))
    (blob,) = (path for path in (data / "media" / "blobs").rglob("*") if path.is_file())
    for path in (blob, data / "secret.key", *data.glob("uponce.db*")):
        path.unlink()
    blob.parent.rmdir()
    printed(uponce("restore", tmp_path / "backup", "--reuse-storage", "--data", data))
    assert blob.exists()
    assert foreign(data) == set()


def test_what_a_restore_puts_into_a_new_folder_of_the_service(data: Path, tmp_path: Path) -> None:
    printed(uponce("backup", tmp_path / "backup", "--data", data))
    new = tmp_path / "new"
    new.mkdir()
    give(new)
    printed(uponce("restore", tmp_path / "backup", "--data", new))
    assert (new / "uponce.db").exists()
    assert foreign(new) == set()


def test_a_backup_into_the_folder_of_an_earlier_one(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    printed(uponce("backup", folder, "--data", data))
    give(folder)
    printed(uponce("backup", folder, "--data", data))
    assert foreign(folder) == set()


def test_a_folder_that_root_makes_stays_its_own(data: Path) -> None:
    """Root may keep a server in the home of another user."""
    new = data / "new"
    printed(uponce("keys", "create", "--data", new))
    assert foreign(data) == {"new", *(path.name for path in new.rglob("*"))}


def test_doctor_names_a_file_of_another_user(data: Path) -> None:
    """As `cp` by root leaves it. The folder that each ext4 disk has is no such file."""
    (data / "media" / "lost+found").mkdir()
    findings = json.loads(printed(uponce("doctor", "--json", "--data", data)))
    assert "owner" not in {finding["name"] for finding in findings}
    key = data / "secret.key"
    os.chown(key, 0, 0)
    findings = json.loads(printed(uponce("doctor", "--json", "--data", data)))
    (found,) = (finding for finding in findings if finding["name"] == "owner")
    assert found["state"] == "warning"
    assert f"chown -R --reference={data} {key}" in found["detail"]


@pytest.mark.parametrize("part", ["packs", "blobs"])
def test_doctor_names_a_folder_with_a_file_of_another_user(data: Path, part: str) -> None:
    """The service could not read that pack, and root can."""
    os.chown(next((data / "media" / part).iterdir(), None) or make(data / "media" / part / "0123456789"), 0, 0)
    findings = json.loads(printed(uponce("doctor", "--json", "--data", data)))
    (found,) = (each for each in findings if each["name"] == "owner")
    assert found["detail"].endswith(f"run: chown -R --reference={data} {data / 'media' / part}")


def make(path: Path) -> Path:
    path.touch()
    return path


@pytest.mark.usefixtures("stored")
def test_doctor_names_a_storage_elsewhere_that_the_service_cannot_write(tmp_path: Path) -> None:
    """As `mkdir` by root leaves it. Root itself, which runs the command, may write everywhere."""
    media, new = tmp_path / "media", tmp_path / "new"
    media.mkdir()

    def told() -> list[str]:
        done = uponce("doctor", "--json", "--data", new, env={"UPONCE_STORAGE": f"file://{media}"})
        return [finding["detail"] for finding in json.loads(printed(done)) if finding["name"] == "owner"]

    printed(uponce("keys", "create", "--data", new, env={"UPONCE_STORAGE": f"file://{media}"}))
    give(new)
    inside = " ".join(f"{media}/{name}" for name in ("blobs", "owner", "packs", "spool"))
    for_folder, for_files = told()
    assert for_folder.endswith(f"run: chown --reference={new} {media}")
    assert for_files.endswith(f"run: chown -R --reference={new} {inside}")
    os.chown(media, SERVICE, SERVICE)
    assert told() == [for_files]
    give(media)
    os.chown(media, 0, SERVICE)
    media.chmod(0o770)
    assert told() == []
