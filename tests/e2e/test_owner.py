"""A storage has one owner: no command takes the files of another database, and no sweep deletes them."""

import json
from pathlib import Path

import pytest

from tests.e2e.commands import Done, printed, uponce
from tests.e2e.commands import in_a_process as in_process

pytestmark = pytest.mark.xdist_group("operator")

IMPORTED = f"cloudinary://123456789012345:{'s' * 27}@media"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    """The media of a lost database, from before storages had a mark."""
    blob = tmp_path / "storage" / "blobs" / "00" / ("0" * 32)
    blob.parent.mkdir(parents=True)
    blob.write_bytes(b"bytes of a stored asset")
    return tmp_path / "storage"


def of(storage: Path) -> dict[str, str]:
    return {"UPONCE_STORAGE": f"file://{storage}"}


def blobs(storage: Path) -> list[str]:
    return [path.name for path in (storage / "blobs").rglob("*") if path.is_file()]


def refused(done: Done, *parts: str) -> None:
    assert done.code == 1, done
    for part in parts:
        assert part in done.stderr


@pytest.mark.parametrize("words", [("keys", "create"), ("keys", "import"), ("clouds", "create", "media")])
def test_no_new_database_takes_the_files_of_a_lost_one(tmp_path: Path, storage: Path, words: tuple[str, ...]) -> None:
    data = tmp_path / "data"
    refused(uponce(*words, "--data", data, env=of(storage), stdin=IMPORTED), "holds files already", "backup")
    assert json.loads(printed(uponce("keys", "list", "--data", data, "--json"))) == []
    refused(uponce("sweep", "--grace", "0", "--data", data, env=of(storage)), "holds files already", "backup")
    assert blobs(storage) == ["0" * 32]


def test_an_empty_database_file_deletes_nothing_and_doctor_names_it(tmp_path: Path, storage: Path) -> None:
    """As a failed `cp` leaves it."""
    data = tmp_path / "data"
    data.mkdir()
    (data / "uponce.db").touch()
    refused(uponce("sweep", "--grace", "0", "--data", data, env=of(storage)), "holds files already")
    found = json.loads(uponce("doctor", "--data", data, "--json", env=of(storage)).stdout)
    assert [row["name"] for row in found if row["state"] == "broken" and "holds files already" in row["detail"]]
    assert blobs(storage) == ["0" * 32]


def test_a_second_database_does_not_use_the_storage_of_the_first(tmp_path: Path) -> None:
    env = of(tmp_path / "storage")
    printed(uponce("keys", "create", "--data", tmp_path / "first", env=env))
    for words in (("serve", "--port", "0"), ("keys", "create")):
        refused(in_process(*words, "--data", tmp_path / "second", env=env), "belongs to another database", "restore")
    refused(uponce("sweep", "--data", tmp_path / "second", env=env), "belongs to another database")
    printed(uponce("keys", "create", "--data", tmp_path / "first", env=env))
    printed(uponce("sweep", "--data", tmp_path / "first", env=env))
