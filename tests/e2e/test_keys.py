"""`uponce keys` beside a running server: create, list, revoke, rotate, and import what a backend signs with."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import urllib3

from tests.e2e.commands import as_json, beside, code_of, in_a_process, printed, settings_of, uponce
from tests.server import Key, Server
from uponce.cli.credentials import credentials_of
from uponce.cli.store import on_store
from uponce.config import load
from uponce.core.signature import utc
from uponce.core.values import ApiKey, KeyScope, KeyUses
from uponce.prove.site import Site

pytestmark = pytest.mark.xdist_group("command line")

URL = re.compile(
    r"CLOUDINARY_URL=cloudinary://(\d{15}):([a-z0-9]{32})@([\w-]+)\?upload_prefix=([^\s&]+)(?:&signature_algorithm=sha256)?\n"
)


def test_no_playground_opens_beside_a_tenant_of_its_name(data: Path) -> None:
    """It would delete the files of the tenant. An older release accepted the name."""
    key = ApiKey("333", "playground", ("x" * 32,), KeyUses.ONCE, KeyScope.UPLOAD, 600)
    on_store(load(data=str(data)), lambda services: services.database.add_key(key, new=True))
    done = in_a_process("serve", "--playground", "--data", data, "--port", "0")
    assert (done.code, "listening" in done.stdout) == (1, False)
    assert "not the playground's: 333. A server with the playground would delete their files." in done.stderr


def new_key(server: Server, *words: str) -> Key:
    """`keys create`, read as a person would copy it."""
    made = URL.fullmatch(printed(beside(server, "keys", "create", *words)))
    assert made is not None
    assert (made[3], made[4]) == (server.cloud, server.base)
    return Key(made[1], made[2])


def test_a_created_key_works_at_once_in_the_running_server(server: Server) -> None:
    key = new_key(server, "--name", "newsletter")
    fields = server.signed(key=key)
    assert [code_of(server, fields) for _ in range(2)] == ["", "signature_used"]


def test_a_key_with_another_policy(server: Server) -> None:
    key = new_key(server, "--uses", "unlimited", "--window", "60", "--sha256-only")
    listed = next(row for row in as_json(server, "keys", "list") if row["api_key"] == key.key)
    assert (listed["uses"], listed["scope"], listed["window"], listed["algorithms"]) == (
        "unlimited",
        "upload",
        60,
        ["sha256"],
    )
    assert code_of(server, server.signed(key=key)) == "invalid_signature"


def test_the_line_of_a_key_for_sha256_names_the_algorithm(server: Server) -> None:
    """SDKs read it from there, and `uponce prove` too."""
    line = printed(beside(server, "keys", "create", "--sha256-only")).strip()
    assert line.endswith(f"?upload_prefix={server.base}&signature_algorithm=sha256")
    key = credentials_of(line.removeprefix("CLOUDINARY_URL=")).key
    fields = Site(server.base, key, 60).new_signature()
    assert code_of(server, dict(fields)) == ""


def test_keys_are_listed_without_secrets(server: Server) -> None:
    table = printed(beside(server, "keys", "list"))
    rows = as_json(server, "keys", "list")
    assert [row["name"] for row in rows[:2]] == ["browser", "server"]
    for row in rows:
        assert re.search(rf"^ *{row['api_key']} .*{row['uses']}.*{row['scope']}", table, re.MULTILINE)
    for secret in (server.browser.secret, server.server.secret):
        assert secret not in table + json.dumps(rows)


def test_a_revoked_key_is_refused_at_once(server: Server) -> None:
    key = new_key(server)
    assert printed(beside(server, "keys", "revoke", key.key)) == f"revoked {key.key}\n"
    assert code_of(server, server.signed(key=key)) == "unknown_api_key"
    assert re.search(rf"{key.key}.*revoked 20", printed(beside(server, "keys", "list")))
    (cloud,) = json.loads(printed(beside(server, "clouds", "list", "--json")))
    assert key.key in cloud["revoked_api_keys"] and key.key not in cloud["api_keys"]
    assert f"{key.key} (revoked)" in printed(beside(server, "clouds", "list"))


def test_a_rotated_key_takes_its_old_secret_for_a_while(server: Server) -> None:
    """Until the key is rotated again: two secrets count, never three."""
    old = new_key(server)
    made = URL.fullmatch(printed(beside(server, "keys", "rotate", old.key)))
    assert made is not None
    new = Key(made[1], made[2])
    assert (new.key, new.secret != old.secret) == (old.key, True)
    once = [code_of(server, server.signed({"tags": f"once {tag}"}, key)) for tag, key in (("old", old), ("new", new))]
    assert once == ["", ""]
    listed = next(row for row in as_json(server, "keys", "list") if row["api_key"] == old.key)
    assert abs(listed["old_secret_until"] - time.time() - 3600) < 60
    until = utc(listed["old_secret_until"])
    table = printed(beside(server, "keys", "list"))
    assert re.search(rf"{old.key}.*active, old secret valid until {re.escape(until)}", table)

    refused = beside(server, "keys", "rotate", old.key)
    assert (refused.code, refused.stdout) == (1, "")
    assert "the last rotation of API key" in refused.stderr and "add --yes" in refused.stderr
    assert until in refused.stderr
    assert code_of(server, server.signed({"tags": "kept"}, old)) == ""
    printed(beside(server, "keys", "rotate", old.key, "--yes"))
    twice = [code_of(server, server.signed({"tags": f"twice {tag}"}, key)) for tag, key in (("old", old), ("new", new))]
    assert twice == ["invalid_signature", ""]
    at_once = URL.fullmatch(printed(beside(server, "keys", "rotate", old.key, "--overlap", "0")))
    assert at_once is not None
    newest = Key(at_once[1], at_once[2])
    assert code_of(server, server.signed({"tags": "late"}, new)) == "invalid_signature"
    assert code_of(server, server.signed({"tags": "late"}, newest)) == ""
    listed = next(row for row in as_json(server, "keys", "list") if row["api_key"] == old.key)
    assert listed["old_secret_until"] is None


@pytest.mark.parametrize("words", [("rotate", "--overlap", "0"), ("revoke",)], ids=" ".join)
def test_stored_urls_of_private_assets_end_with_the_secret_and_the_command_says_so(
    server: Server, words: tuple[str, ...]
) -> None:
    key, name = new_key(server), words[0]
    stored = server.post(server.signed({"type": "private", "public_id": name}, key), b"bytes").json()["secure_url"]
    assert "delivery URLs" not in beside(server, "keys", "list").stderr
    assert "delivery URLs" in printed(beside(server, "keys", name, "--help"))
    printed(beside(server, "keys", "rotate", key.key))
    assert server.get(stored).status == 200
    for option in ((), ("--json",)):
        warning = beside(server, "keys", *words, key.key, *option).stderr
        assert "delivery URLs of private and authenticated assets" in warning
        assert "`resource` of the Admin API" in warning
    assert server.get(stored).status == 401

    basic = urllib3.make_headers(basic_auth=":".join(server.server))
    again = server.get(f"/v1_1/{server.cloud}/resources/raw/private/{name}", headers=basic).json()["secure_url"]
    assert again != stored
    assert server.get(again).data == b"bytes"


def test_a_new_secret_that_cannot_be_printed_replaces_no_other_one(server: Server) -> None:
    """No command shows it again."""
    key, words = new_key(server), (sys.executable, "-m", "uponce", "keys", "rotate")
    for _ in range(2):
        with Path("/dev/full").open("w") as full:
            done = subprocess.run([*words, key.key], env=os.environ | settings_of(server), stdout=full, check=False)
        assert done.returncode == 1
    assert code_of(server, server.signed(key=key)) == ""


@pytest.mark.parametrize("action", ["revoke", "rotate"])
def test_a_key_that_does_not_exist(server: Server, action: str) -> None:
    done = beside(server, "keys", action, "1")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "uponce: API key 1 does not exist. `uponce keys list` shows all keys.\n"


@pytest.mark.parametrize("words", ["keys rotate", "sign --key"])
def test_a_revoked_key_is_not_rotated_and_signs_nothing(server: Server, words: str) -> None:
    """The new secret would work no better than the old one."""
    url = URL.fullmatch(printed(beside(server, "keys", "create")))
    assert url is not None
    printed(beside(server, "keys", "revoke", url[1]))
    done = beside(server, *words.split(), url[1])
    assert (done.code, done.stdout) == (1, "")
    assert f"API key {url[1]} was revoked at " in done.stderr and "`uponce keys create`" in done.stderr


# --- keys of a backend


IMPORTED = "cloudinary://987654321098765:Zz-secret_of_a_backend-01@media?uses=unlimited&window=60&name=shop"


def test_an_imported_key_keeps_its_secret_and_its_policy(server: Server) -> None:
    key = Key("987654321098765", "Zz-secret_of_a_backend-01")
    done = beside(server, "keys", "import", stdin=IMPORTED + "\n")
    assert printed(done) == "imported 1 of 1 keys\n"
    assert [code_of(server, server.signed(key=key)) for _ in range(2)] == ["", ""]
    (row,) = [row for row in as_json(server, "keys", "list") if row["api_key"] == key.key]
    assert (row["uses"], row["scope"], row["window"], row["name"]) == ("unlimited", "upload", 60, "shop")
    again = beside(server, "keys", "import", stdin=IMPORTED)
    assert printed(again) == "imported 0 of 1 keys; the others exist already, with the same secret\n"
    other = beside(server, "keys", "import", stdin=IMPORTED.replace(key.secret, "y" * 30))
    assert (other.code, other.stdout) == (1, "")
    assert other.stderr == f"uponce: API key {key.key} exists already and differs: secret. It was not changed.\n"
    assert code_of(server, server.signed({"nonce": 1}, key)) == ""


def test_an_imported_key_of_sha256_refuses_sha1(server: Server) -> None:
    made = printed(beside(server, "keys", "create", "--sha256-only")).strip().removeprefix("CLOUDINARY_URL=")
    assert printed(beside(server, "keys", "import", stdin=made)).startswith("imported 0 of 1 keys;")
    url = "cloudinary://256256256256256:Zz-secret_of_a_backend-02@media?signature_algorithm=sha256"
    assert printed(beside(server, "keys", "import", stdin=url)) == "imported 1 of 1 keys\n"
    key = credentials_of(f"{url}&upload_prefix={server.base}").key
    assert code_of(server, server.signed(key=Key(key.api_key, key.secrets[0]))) == "invalid_signature"
    assert code_of(server, dict(Site(server.base, key, 60).new_signature())) == ""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "The standard input has no key."),
        (
            "\n" + IMPORTED + "\n123",
            "uponce: line 3 must have keys like cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload.",
        ),
        ("cloudinary://1:hidden@media", "The secret of API key 1 has 6 characters. Use 20 to 128"),
        ("cloudinary://1:hidden-hidden-hidden-hidden@me.dia", "Cloud name 'me.dia'"),
        ("cloudinary://1:hidden-hidden-hidden-hidden@media?window=9999999", "A window of 9999999 seconds"),
        (
            "cloudinary://1:hidden-hidden-hidden-hidden@media?uses=twice",
            "line 1, key 1: uses must be once or unlimited",
        ),
        ("cloudinary://1:hidden-hidden-hidden-hidden@media?user=once", "there is no option user."),
        ("cloudinary://a b:hidden-hidden-hidden-hidden@media", "must have keys like"),
        ("cloudinary://a%20b:hidden-hidden-hidden-hidden@media", "API key 'a b' is not valid."),
    ],
)
def test_a_key_that_cannot_be_imported(server: Server, line: str, message: str) -> None:
    done = beside(server, "keys", "import", stdin=line)
    assert (done.code, done.stdout) == (1, "")
    assert message in done.stderr
    assert "hidden" not in done.stderr


def test_two_keys_never_share_the_end_of_a_secret(server: Server) -> None:
    """A signature hashes the parameters and then the secret: one signature would be good for both keys."""
    for secret in (server.browser.secret, "x" + server.browser.secret, server.browser.secret[3:]):
        done = beside(server, "keys", "import", stdin=f"cloudinary://twin:{secret}@media")
        assert done.code == 1
        assert f"API keys twin and {server.browser.key} have the same secret, or one secret ends with" in done.stderr


def test_a_shell_without_the_servers_settings_makes_no_second_database(tmp_path: Path) -> None:
    """Its keys would not be known to the server, and then `fence` and `backup` would succeed there."""
    with Server(tmp_path / "data", env={"UPONCE_DATABASE": f"sqlite:///{tmp_path}/elsewhere.db"}) as server:
        for words in (["keys", "create"], ["clouds", "create", "dogs"], ["migrate"]):
            done = uponce(*words, "--data", server.data_dir)
            assert (done.code, done.stdout) == (1, "")
            assert (
                f"The server at {server.base} runs on {server.data_dir} with another database than sqlite:"
                in done.stderr
            )
        assert not (server.data_dir / "uponce.db").exists()


def test_an_address_with_a_secret_is_not_printed(tmp_path: Path) -> None:
    printed(uponce("keys", "create", "--data", tmp_path))
    done = uponce("upload", "--data", tmp_path, "--url", "cloudinary://1234:the-secret@cats", __file__)
    assert (done.code, "the-secret" in done.stderr) == (1, False)
    assert "@cats is not an address." in done.stderr
