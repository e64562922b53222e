"""A lost or foreign secret.key: no command makes a second one, all of them say what to do, and no backup loses it."""

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.commands import Done, in_a_process, printed, uponce
from tests.postgres import shared
from tests.server import Key, Server
from tests.upstreams import StubUpstream
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.core.errors import StorageFull
from uponce.core.values import ApiKey

pytestmark = [pytest.mark.xdist_group("operator"), pytest.mark.usefixtures("few_places")]

POSTGRES = "postgresql"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data folder with two API keys; no server runs on it."""
    folder = tmp_path / "data"
    for name in ("browser", "server"):
        printed(uponce("keys", "create", "--name", name, "--data", folder))
    return folder


@pytest.fixture
def key(data: Path) -> bytes:
    return (data / "secret.key").read_bytes()


def keys_of(data: Path) -> list[str]:
    return [row["api_key"] for row in json.loads(printed(uponce("keys", "list", "--data", data, "--json")))]


def states(data: Path) -> dict[str, str]:
    done = uponce("doctor", "--data", data, "--json")
    return {finding["name"]: f"{finding['state']} {finding['detail']}" for finding in json.loads(done.stdout)}


def refused(done: Done, *parts: str) -> None:
    assert done.code == 1, done
    for part in parts:
        assert part in done.stderr


def test_a_key_is_made_beside_one_of_another_cloud_that_cannot_be_read(data: Path) -> None:
    """The warning of a new cloud needs no secret."""
    printed(uponce("keys", "create", "--cloud", "b", "--data", data))
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("UPDATE api_keys SET secret = x'00' WHERE cloud = 'b'")
    assert "@media?" in printed(uponce("keys", "create", "--data", data))
    made = uponce("keys", "create", "--data", data, env={"UPONCE_CLOUD": "c"})
    assert "@c?" in printed(made)
    assert "c is a new cloud. The other keys are of b, media." in made.stderr


@pytest.mark.parametrize("kind", ["sqlite", POSTGRES])
def test_no_command_makes_a_key_beside_a_database_that_has_keys(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "data"
    env = {"UPONCE_DATA": str(folder)} | ({"UPONCE_DATABASE": shared().fresh_schema()} if kind == POSTGRES else {})
    printed(uponce("keys", "create", env=env))
    (secret := folder / "secret.key").unlink()
    for words in (
        ("serve", "--port", "0"),
        ("keys", "create"),
        ("keys", "list"),
        ("sign",),
        ("keys", "renew"),
    ):
        run = in_a_process if words[0] == "serve" else uponce
        refused(run(*words, env=env), f"{secret} is missing", "secrets in the database cannot be read", "from a backup")
        assert not secret.exists()
    for words in (("migrate",), ("sweep",), ("fence",), ("doctor",), ("fsck",)):
        uponce(*words, env=env)
        assert not secret.exists()


def test_a_second_machine_with_an_empty_folder_gets_no_key_of_its_own(tmp_path: Path) -> None:
    """Without UPONCE_SECRET_KEY on both, its keys would be readable on one machine only."""
    env = {"UPONCE_DATABASE": shared().fresh_schema()}
    printed(uponce("keys", "create", "--data", tmp_path / "one", env=env))
    refused(
        uponce("keys", "create", "--data", tmp_path / "two", env=env), f"{tmp_path / 'two' / 'secret.key'} is missing"
    )
    assert not (tmp_path / "two" / "secret.key").exists()


@pytest.mark.parametrize("kind", ["sqlite", POSTGRES])
def test_no_command_encrypts_with_another_key_than_the_server(tmp_path: Path, kind: str) -> None:
    """No server of that database could start again."""
    env = {"UPONCE_DATA": str(tmp_path / "data")}
    env |= {"UPONCE_DATABASE": shared().fresh_schema()} if kind == POSTGRES else {}
    printed(uponce("keys", "create", env=env))
    before = uponce("clouds", "list", "--json", env=env)
    key, account = "cloudinary://123:a-secret-of-some-backend@media", "cloudinary://a:b@c"
    other = env | {"UPONCE_SECRET_KEY": bytes(32).hex()}
    for words, stdin in (
        (("keys", "create"), ""),
        (("keys", "import"), key),
        (("clouds", "create", "cats"), ""),
        (("clouds", "relay", "media", "-"), account),
    ):
        refused(uponce(*words, env=other, stdin=stdin), "cannot be decrypted with UPONCE_SECRET_KEY", "from a backup")
        assert uponce("clouds", "list", "--json", env=env) == before


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "another key"])
def test_doctor_and_fsck_name_every_key_that_cannot_be_read(data: Path, key: bytes, lost: bool) -> None:
    assert states(data)["secrets"].startswith("ok ")
    names = keys_of(data)
    if lost:
        (data / "secret.key").unlink()
    else:
        (data / "secret.key").write_bytes(bytes(32))
    found = states(data)["secrets"]
    assert found.startswith("broken ") and all(name in found for name in names) and "from a backup" in found
    done = uponce("fsck", "--data", data, "--json")
    report = json.loads(done.stdout)
    assert (done.code, report["counts"]["secret"]) == (1, 2)
    assert [finding["subject"] for finding in report["findings"] if finding["kind"] == "secret"] == names
    (data / "secret.key").write_bytes(key)
    (data / "secret.key").chmod(0o600)
    assert states(data)["secrets"].startswith("ok ")
    assert uponce("fsck", "--data", data).code == 0


def test_one_damaged_secret_is_found_among_good_ones(data: Path) -> None:
    name = keys_of(data)[1]
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("UPDATE api_keys SET secret = x'01' WHERE api_key = ?", (name,))
    report = json.loads(uponce("fsck", "--data", data, "--json").stdout)
    assert [finding["subject"] for finding in report["findings"]] == [name]


def test_a_damaged_secret_that_was_rotated_is_found(data: Path) -> None:
    name = keys_of(data)[1]
    printed(uponce("keys", "rotate", name, "--data", data))
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("UPDATE api_keys SET previous_secret = x'01' WHERE api_key = ?", (name,))
    report = json.loads(uponce("fsck", "--data", data, "--json").stdout)
    assert [finding["subject"] for finding in report["findings"]] == [name]


@pytest.mark.parametrize("lost", [True, False], ids=["lost", "another key"])
def test_a_backup_does_not_lose_the_good_key(data: Path, tmp_path: Path, key: bytes, lost: bool) -> None:
    folder = tmp_path / "backup"
    printed(uponce("backup", folder, "--data", data))
    before = (folder / "uponce.db").read_bytes()
    (data / "secret.key").unlink() if lost else (data / "secret.key").write_bytes(bytes(32))
    refused(uponce("backup", folder, "--data", data), "Nothing is backed up", *keys_of_database(data))
    assert ((folder / "secret.key").read_bytes(), (folder / "uponce.db").read_bytes()) == (key, before)
    printed(uponce("restore", folder, "--data", tmp_path / "restored"))
    assert keys_of(tmp_path / "restored") == keys_of_database(data)


def keys_of_database(data: Path) -> list[str]:
    with closing(sqlite3.connect(data / "uponce.db")) as database:
        return [name for (name,) in database.execute("SELECT api_key FROM api_keys ORDER BY rowid")]


def test_a_backup_never_replaces_a_secret_key(data: Path, tmp_path: Path, key: bytes) -> None:
    """Also not by a key that reads all secrets, as after `keys renew`."""
    folder = tmp_path / "backup"
    printed(uponce("backup", folder, "--data", data))
    (data / "secret.key").unlink()
    printed(uponce("keys", "renew", "--yes", "--data", data))
    refused(uponce("backup", folder, "--data", data), "never replaces a secret key", "Name a new folder")
    other = {"UPONCE_SECRET_KEY": (data / "secret.key").read_bytes().hex()}
    refused(uponce("backup", folder, "--data", data, env=other), "another key than UPONCE_SECRET_KEY")
    assert (folder / "secret.key").read_bytes() == key
    printed(uponce("backup", tmp_path / "new", "--data", data))


def test_a_backup_is_not_replaced_by_that_of_another_database(data: Path, tmp_path: Path) -> None:
    """An empty server in place of a lost one has the same folders and settings, and may have the same secret key."""
    folder, names = tmp_path / "backup", keys_of(data)
    printed(uponce("backup", folder, "--data", data))
    before = (folder / "uponce.db").read_bytes()
    for path in data.glob("uponce.db*"):
        path.unlink()
    shutil.rmtree(data / "media")
    printed(uponce("keys", "create", "--data", data))
    refused(
        uponce("backup", folder, "--data", data), "is the backup of another database", "move this folder away", *names
    )
    assert (folder / "uponce.db").read_bytes() == before


def test_a_backup_keeps_the_database_of_the_one_before(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "backup"
    printed(uponce("backup", folder, "--data", data))
    for _ in range(2):
        before = (folder / "uponce.db").read_bytes()
        printed(uponce("keys", "create", "--data", data))
        made = json.loads(printed(uponce("backup", folder, "--data", data, "--json")))
        assert Path(made["before"]).read_bytes() == before != (folder / "uponce.db").read_bytes()
        assert [str(path) for path in folder.glob("uponce.db.*")] == [made["before"]]


def test_a_restore_checks_the_key_before_it_writes_anything(data: Path, tmp_path: Path, key: bytes) -> None:
    folder, target = tmp_path / "backup", tmp_path / "restored"
    printed(uponce("backup", folder, "--data", data))
    (folder / "secret.key").write_bytes(bytes(32))
    refused(uponce("restore", folder, "--data", target), "cannot be decrypted", str(folder / "secret.key"))
    assert not target.exists()
    (folder / "secret.key").unlink()
    refused(uponce("restore", folder, "--data", target), "Set UPONCE_SECRET_KEY")
    assert not target.exists()
    printed(uponce("restore", folder, "--data", target, env={"UPONCE_SECRET_KEY": key.hex()}))
    assert not (target / "secret.key").exists()


@pytest.mark.parametrize("kept", ["none", "cut off", "another", "setting"])
def test_a_backup_without_its_key_is_restored_and_gets_new_secrets(
    data: Path, tmp_path: Path, key: bytes, kept: str
) -> None:
    folder, target = tmp_path / "backup", tmp_path / "restored"
    names = keys_of(data)
    printed(uponce("backup", folder, "--data", data))
    (folder / "secret.key").unlink()
    if kept in ("cut off", "another"):
        (folder / "secret.key").write_bytes(key[:9] if kept == "cut off" else bytes(32))
    env = {"UPONCE_SECRET_KEY": "ab" * 32} if kept == "setting" else {}
    refused(uponce("restore", folder, "--data", target, env=env), "add --lost-key")
    assert not target.exists()
    done = uponce("restore", folder, "--lost-key", "--data", target, env=env)
    printed(done)
    assert "`uponce keys renew`" in done.stderr
    refused(uponce("keys", "renew", "--data", target, env=env), *names)
    urls = printed(uponce("keys", "renew", "--yes", "--data", target, env=env)).splitlines()
    assert [url.split("//")[1].split(":")[0] for url in urls] == names
    assert (target / "secret.key").exists() == (kept != "setting")
    assert uponce("doctor", "--data", target, "--json", env=env).stdout.count('"error"') == 0


def test_a_restore_that_need_not_look_for_the_key_still_takes_it(data: Path, tmp_path: Path, key: bytes) -> None:
    printed(uponce("backup", tmp_path / "backup", "--data", data))
    printed(uponce("restore", tmp_path / "backup", "--lost-key", "--data", tmp_path / "restored"))
    assert (tmp_path / "restored/secret.key").read_bytes() == key


def test_the_last_resort_gives_new_secrets_to_the_keys_that_cannot_be_read(data: Path) -> None:
    names = keys_of(data)
    assert "nothing was changed" in printed(uponce("keys", "renew", "--yes", "--data", data))
    (data / "secret.key").unlink()
    refused(uponce("keys", "renew", "--data", data), "add --yes", *names)
    assert not (data / "secret.key").exists()
    urls = printed(uponce("keys", "renew", "--yes", "--data", data)).splitlines()
    assert [url.split("//")[1].split(":")[0] for url in urls] == names
    assert keys_of(data) == names
    assert states(data)["secrets"].startswith("ok ")


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_a_key_that_cannot_be_renewed_hides_no_earlier_one(
    data: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    """No command shows a secret again, and the next run renews only the rest."""
    (data / "secret.key").unlink()
    first, second = keys_of_database(data)
    rotate = SqliteDatabase.rotate_key

    async def fail_at_the_second(database: SqliteDatabase, api_key: str, *more: Any) -> ApiKey | None:
        if api_key == second:
            raise StorageFull("Send it again later.", detail="[Errno 28] No space left on device")
        return await rotate(database, api_key, *more)

    with monkeypatch.context() as patched:
        patched.setattr(SqliteDatabase, "rotate_key", fail_at_the_second)
        failed = uponce("keys", "renew", "--yes", "--data", data, *words)
    assert (failed.code, "No space left" in failed.stderr) == (1, True)
    rest = printed(uponce("keys", "renew", "--yes", "--data", data, *words))
    for shown, name in ((failed.stdout, first), (rest, second)):
        assert re.findall(r"cloudinary://(\d+):\w{32}@media\?", shown) == [name]


def test_a_running_server_accepts_the_secrets_that_renew_has_made(data: Path) -> None:
    """It keeps the lost key in memory, so it accepts uploads until then."""
    with Server(data) as server:
        (data / "secret.key").unlink()
        renewed = printed(uponce("keys", "renew", "--yes", "--data", data))
        key, server.cloud = Key(*re.findall("//(.*?):(.*?)@", renewed)[0]), "media"
        assert server.post(server.signed(key=key), b"bytes", resource_type="raw").status == 200


def test_a_relay_with_a_lost_key_refuses_uploads_until_its_account_is_set_again(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with StubUpstream().in_thread() as account:
        key, prefix = account.upstream.api_key, account.upstream.prefix
        url = f"cloudinary://{key}:{account.upstream.secret}@{account.upstream.cloud}?upload_prefix={prefix}"
        printed(uponce("clouds", "create", "media", "--relay", "-", "--data", data, stdin=url))
        (data / "secret.key").unlink()
        refused(uponce("clouds", "relay", "media", "-", "--data", data, stdin=url), "`uponce keys renew`")
        refused(uponce("keys", "renew", "--data", data), "add --yes", f"{key}@{account.upstream.cloud}")
        renewed = uponce("keys", "renew", "--yes", "--data", data)
        assert "uponce clouds relay media URL" in renewed.stderr
        browser = Key(*re.findall("//(.*?):(.*?)@", printed(renewed))[0])
        with Server(data, env={"UPONCE_CLOUD": "media"}) as server:
            server.cloud, fields = "media", server.signed(key=browser)
            answer = server.post(fields, b"bytes", resource_type="raw")
            assert (answer.status, answer.json()["error"]["code"]) == (503, "upstream_unavailable")
            assert account.requests == []
            assert "uponce clouds relay" in states(data)["relay of media"]
            printed(uponce("clouds", "relay", "media", "-", "--data", data, stdin=url))
            assert server.post(fields, b"bytes", resource_type="raw").status == 200
        assert len(account.store) == 1


def test_a_relay_with_a_lost_key_can_be_ended(tmp_path: Path) -> None:
    data = tmp_path / "data"
    printed(uponce("clouds", "create", "media", "--relay", "-", "--data", data, stdin="cloudinary://a:b@c"))
    (data / "secret.key").unlink()
    printed(uponce("clouds", "relay", "media", "--off", "--data", data))
    assert len(printed(uponce("keys", "renew", "--yes", "--data", data)).splitlines()) == 2


def test_no_first_start_beside_media_of_a_lost_database(data: Path, tmp_path: Path) -> None:
    """The sweeper would delete them after the grace time."""
    blob = data / "media" / "blobs" / "00" / ("0" * 32)
    blob.write_bytes(b"bytes of a stored asset")
    for path in data.glob("uponce.db*"):
        path.unlink()
    refused(in_a_process("serve", "--port", "0", "--data", data), "STORAGE belongs to another database", "backup")
    assert keys_of_database(data) == []
