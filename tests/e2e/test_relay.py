"""Two real servers: one plays the account of a team, the other one is the relay in front of it."""

import asyncio
import hashlib
import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from cloudinary import api, uploader
from cloudinary.exceptions import BadRequest, NotFound

from tests.contract.databases import relay as relay_of
from tests.e2e.commands import in_a_process, printed, uponce
from tests.e2e.test_node_sdk import run
from tests.server import Key, Server, lasting_port
from uponce.config import load
from uponce.core.signature import dated
from uponce.core.values import Grant
from uponce.wiring import opened

Json = dict[str, Any]
_OF_THE_SERVER = {"request_id", "api_key", "signature", "asset_id", "version", "version_id", "created_at", "public_id"}


@dataclass(frozen=True, slots=True)
class Pair:
    account: Server
    relay: Server

    @property
    def url(self) -> str:
        """The account as the relay's operator writes it: its second key works any number of times."""
        key = self.account.server
        return f"cloudinary://{key.key}:{key.secret}@{self.account.cloud}?upload_prefix={self.account.base}"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("relay")
    with Server(folder / "account", env={"UPONCE_MAX_UNVERIFIED_PER_ADDRESS": "32"}) as account:
        setting = {"UPONCE_RELAY": Pair(account, account).url, "UPONCE_LOG_LEVEL": "info"}
        with Server(folder / "relay", env=setting) as relay:
            yield Pair(account, relay)


def options(server: Server, key: Key) -> Json:
    return {"cloud_name": server.cloud, "api_key": key.key, "api_secret": key.secret, "upload_prefix": server.base}


def shape(answer: Json) -> Json:
    """An answer without what differs from upload to upload, and without its host."""
    kept = {name: value for name, value in answer.items() if name not in _OF_THE_SERVER}
    return {name: re.sub(r"https?://\S+", "URL", value) if "url" in name else value for name, value in kept.items()}


def test_the_sdk_gets_the_same_answer_as_from_the_account(pair: Pair, media: Path) -> None:
    for file, kind in (("cat.jpg", "image"), ("dance.gif", "image"), ("walk.mp4", "video")):
        path = media / file
        params = {"tags": f"a,{file}", "context": "alt=A cat", "resource_type": kind, "folder": "pets"}
        direct = uploader.upload(path, **options(pair.account, pair.account.server), **params)
        relayed = uploader.upload(path, **options(pair.relay, pair.relay.browser), **params)
        assert shape(relayed) == shape(direct)
        assert relayed["secure_url"].startswith(pair.account.base)
        assert relayed["public_id"].startswith("pets/")
        assert relayed["etag"] == hashlib.md5(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("package", ["cloudinary-2-1-0", "cloudinary-newest"])
def test_npms_sdk_gets_the_same_answers_as_from_the_account(pair: Pair, node: str, media: Path, package: str) -> None:
    """A path, a data URI, a stream, and a large file in chunks."""
    for name in ("cat.jpg", "walk.mp4"):
        direct, relayed = (
            run(node, server.urls[1], "uploader.cjs", package, media / name) for server in (pair.account, pair.relay)
        )
        del relayed["uri"]["original_filename"]  # a data URI has no name: the relay calls its file `file`
        assert {kind: shape(answer) for kind, answer in relayed.items()} == {
            kind: shape(answer) for kind, answer in direct.items()
        }


@pytest.mark.parametrize("package", ["cloudinary-2-1-0", "cloudinary-newest"])
@pytest.mark.parametrize("place", ["last", "first"])
def test_a_signature_of_npms_sdk_works_once(pair: Pair, node: str, media: Path, package: str, place: str) -> None:
    first, second = run(node, pair.relay.urls[0], "sign_and_post.cjs", package, media / "dance.gif", place)
    assert (first["status"], first["error"]) == (200, None)
    assert first["body"]["secure_url"].startswith(pair.account.base)
    assert (second["status"], second["body"]["error"]["code"]) == (400, "signature_used")
    assert second["error"] == second["body"]["error"]["message"]


def test_one_signature_makes_one_asset_in_the_account(pair: Pair) -> None:
    fields = pair.relay.signed({"public_id": "once"})
    first = pair.relay.post(fields, b"the first file", resource_type="raw")
    assert (first.status, first.json()["etag"]) == (200, hashlib.md5(b"the first file").hexdigest())
    again = pair.relay.post(fields, b"another file", resource_type="raw")
    assert (again.status, again.json()["error"]["code"]) == (400, "signature_used")
    found = api.resource("once", resource_type="raw", media_metadata=True, **options(pair.account, pair.account.server))
    assert found["etag"] == first.json()["etag"]


def test_a_refusal_of_the_account_reaches_the_sdk_and_spends_nothing(pair: Pair) -> None:
    fields = pair.relay.signed({"public_id": "no-picture"})
    refused = pair.relay.post(fields, b"no picture at all", resource_type="image")
    assert (refused.status, refused.json()["error"]["code"]) == (400, "invalid_media")
    assert pair.relay.post(fields, b"no picture at all", resource_type="raw").status == 200


@pytest.mark.parametrize("params", [{}, {"use_filename": "1"}, {"use_filename": "1", "unique_filename": "0"}])
def test_documents_to_auto_keep_their_extension(pair: Pair, params: Json) -> None:
    """So two documents of one name stay two assets, as they do in the account itself."""
    for server in (pair.account, pair.relay):
        stored = [
            server.post(
                server.signed({**params, "folder": f"of-{server.base[-5:]}"}), name.encode(), filename=name
            ).json()
            for name in ("report.docx", "report.xlsx")
        ]
        assert [each["public_id"][-5:] for each in stored] == [".docx", ".xlsx"]
        assert not any(each.get("overwritten") for each in stored)


@pytest.mark.parametrize("size", [300_000, 24_000_000], ids=["one request", "two chunks"])
def test_a_large_file_arrives_whole(pair: Pair, size: int, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(bytes(range(256)) * (size // 256))
    setting = {"UPONCE_RELAY_WHOLE_BYTES": "1000000"}
    with Server(tmp_path / "relay", env={"UPONCE_RELAY": pair.url, **setting}) as relay:
        answer = uploader.upload(path, resource_type="raw", **options(relay, relay.browser))
    assert answer["etag"] == hashlib.md5(path.read_bytes()).hexdigest()
    assert answer["bytes"] == path.stat().st_size


def test_the_sdk_sends_a_large_file_in_chunks_through_the_relay(pair: Pair, tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"0123456789abcdef" * 700_000)
    sent = options(pair.relay, pair.relay.browser)
    answer = uploader.upload_large(path, resource_type="raw", chunk_size=6_000_000, **sent)
    assert answer["etag"] == hashlib.md5(path.read_bytes()).hexdigest()


def test_the_sdk_of_a_server_manages_the_account_through_the_relay(pair: Pair, media: Path) -> None:
    server, browser = (options(pair.relay, key) for key in (pair.relay.server, pair.relay.browser))
    made = uploader.upload(media / "cat.jpg", public_id="managed", **browser)
    assert api.resource("managed", **server)["version"] == made["version"]
    assert uploader.destroy("managed", **server)["result"] == "ok"
    with pytest.raises(NotFound):
        api.resource("managed", **server)
    with pytest.raises(BadRequest):
        uploader.rename("managed", "other", **server)  # which the account of this test lacks


def test_the_secret_of_the_account_stays_in_the_server(pair: Pair) -> None:
    secret = pair.account.server.secret
    assert secret not in pair.relay.output
    for file in pair.relay.data_dir.rglob("*"):
        with suppress(FileNotFoundError):  # the server has just deleted it
            assert not file.is_file() or secret.encode() not in file.read_bytes(), file
    for words in (["clouds", "list"], ["clouds", "list", "--json"], ["settings"]):
        assert secret not in printed(uponce(*words, "--data", pair.relay.data_dir, env={"UPONCE_RELAY": pair.url}))


def test_doctor_asks_the_account(pair: Pair, tmp_path: Path) -> None:
    assert re.search(r"ok +relay of media +http\S+ accepts", printed(uponce("doctor", "--data", pair.relay.data_dir)))
    cases = {
        pair.url.replace(pair.account.server.secret, "wrong-secret-of-the-account"): "it answered 401",
        "cloudinary://k:s@c?upload_prefix=http://127.0.0.1:9": "Check upload_prefix",
    }
    for number, (url, problem) in enumerate(cases.items()):
        data = tmp_path / str(number)
        printed(uponce("clouds", "create", "shop", "--relay", "-", "--data", data, stdin=url + "\n"))
        found = uponce("doctor", "--data", data)
        assert found.code == 1
        assert problem in found.stdout


def test_clouds_are_made_listed_and_passed_on_by_commands(pair: Pair, tmp_path: Path) -> None:
    data = tmp_path / "data"
    made = uponce("clouds", "create", "shop", "--relay", pair.url, "--same-keys", "--data", data)
    assert made.code == 0
    assert pair.account.server.secret not in made.stderr
    assert "standard input" in made.stderr
    assert f"CLOUDINARY_URL=cloudinary://{pair.account.server.key}:" in made.stdout
    (cloud,) = json.loads(printed(uponce("clouds", "list", "--json", "--data", data)))
    assert (cloud["cloud"], pair.account.base in cloud["upstream"]) == ("shop", True)
    assert "stored here" in printed(uponce("clouds", "relay", "shop", "--off", "--data", data))
    assert json.loads(printed(uponce("clouds", "list", "--json", "--data", data)))[0]["upstream"] is None
    assert "passed on" in printed(uponce("clouds", "relay", "shop", "-", "--data", data, stdin=pair.url))
    renewed = uponce("clouds", "relay", "shop", "-", "--data", data, stdin="cloudinary://new:secret@up")
    assert f"API key {pair.account.server.key} still accepts a former secret" in renewed.stderr
    for words in (["create", "shop"], ["relay", "none", "-"], ["create", "other", "--same-keys"]):
        assert uponce("clouds", *words, "--data", data, stdin=pair.url).code == 1, words
    assert uponce("clouds", "relay", "shop", "--data", data).code == 2
    wrong = uponce("clouds", "create", "x", "--relay", "cloudinary://a:topsecret@", "--data", data)
    assert wrong.code == 1 and "topsecret" not in wrong.stderr


def test_the_outbox_shows_what_is_pending_and_can_be_hastened(pair: Pair, tmp_path: Path) -> None:
    assert json.loads(printed(uponce("outbox", "list", "--json", "--data", pair.relay.data_dir))) == []
    assert "0 effects" in printed(uponce("outbox", "retry", "--data", pair.relay.data_dir))
    assert uponce("outbox", "retry", "7", "--data", pair.relay.data_dir).code == 1


def test_a_pending_upload_is_given_up_only_if_the_command_says_that_it_spends(tmp_path: Path) -> None:
    words = ("--data", tmp_path / "data")
    account = "cloudinary://k:s@c?upload_prefix=http://127.0.0.1:9"
    printed(uponce("clouds", "create", "shop", "--relay", "-", *words, stdin=account + "\n"))
    with opened(load(data=str(tmp_path / "data"))) as backend:
        database = backend.database
        (key, *_) = asyncio.run(database.list_keys("shop"))
        grant = Grant(dated(1_700_000_000, bytes(32)), "shop", key.api_key, 1_700_000_000, 1, 2**40)
        asyncio.run(database.begin_relay(replace(relay_of(grant), cloud="shop"), 60))
        (effect,) = asyncio.run(database.list_effects(10))
    number = str(effect.id)
    assert uponce("outbox", "drop", number, *words).code == 1
    assert uponce("outbox", "drop", "--spend", *words).code == 2
    assert uponce("outbox", "drop", str(effect.id + 1), "--spend", *words).code == 1
    assert "is given up and its signature is spent" in printed(uponce("outbox", "drop", number, "--spend", *words))
    assert json.loads(printed(uponce("outbox", "list", "--json", *words))) == []
    (listed,) = json.loads(printed(uponce("signatures", "list", "--json", "--cloud", "shop", *words)))
    assert listed["status"] == "used"
    assert "given_up" in printed(uponce("signatures", "show", listed["id"], *words))


def test_an_account_that_is_an_uponce_notifies_its_relay(tmp_path: Path) -> None:
    port = lasting_port()
    notified = {
        "UPONCE_NOTIFICATION_URL": f"http://127.0.0.1:{port}/relay/media/notifications",
        "UPONCE_NOTIFICATION_NETWORKS": "127.0.0.0/8",
    }
    with Server(tmp_path / "account", env=notified) as account:
        setting = {"UPONCE_RELAY": Pair(account, account).url, "UPONCE_LOG_LEVEL": "debug"}
        with Server(tmp_path / "relay", port=port, env=setting) as relay:
            assert relay.post(relay.signed(), b"bytes").status == 200
            line = re.compile(r"route=/relay/\{cloud\}/notifications\b")
            deadline = time.monotonic() + 60
            while not (found := [each for each in relay.output.splitlines() if line.search(each)]):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert "status=200" in found[0]


def test_a_relay_of_a_cloud_without_keys_does_not_start(tmp_path: Path) -> None:
    """Its uploads would be stored here, under the cloud that has the keys."""
    data, keys = tmp_path / "data", "cloudinary://browserkey:0123456789abcdefghijklmno@my-cloud"
    printed(uponce("keys", "import", "--data", data, stdin=keys))
    env = {"UPONCE_RELAY": "cloudinary://k:s@c", "UPONCE_DECODERS": "1"}
    done = in_a_process("serve", "--port", "0", "--data", data, env=env)
    assert done.code == 1
    assert "cloud c has no API key" in done.stderr and "UPONCE_CLOUD to one of: my-cloud." in done.stderr
    with Server(data, env=env | {"UPONCE_CLOUD": "my-cloud"}) as server:
        assert "uploads of cloud my-cloud are passed on to cloudinary://k@c" in server.output


def test_each_start_names_the_accounts_of_the_database(tmp_path: Path) -> None:
    data = tmp_path / "data"
    printed(uponce("clouds", "create", "shop", "--relay", "-", "--data", data, stdin="cloudinary://k:s@c"))
    with Server(data) as server:
        assert "uploads of cloud shop are passed on to cloudinary://k@c" in server.output


def test_a_cloud_with_an_account_and_no_key_is_listed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    printed(uponce("clouds", "create", "shop", "--relay", "-", "--data", data, stdin="cloudinary://k:s@c"))
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("DELETE FROM api_keys")
    listed = json.loads(printed(uponce("clouds", "list", "--json", "--data", data)))
    assert listed == [{"cloud": "shop", "api_keys": [], "revoked_api_keys": [], "upstream": "cloudinary://k@c"}]
    printed(uponce("clouds", "relay", "shop", "--off", "--data", data))
    assert json.loads(printed(uponce("clouds", "list", "--json", "--data", data))) == []


@pytest.mark.parametrize(
    ("words", "env", "cloud"),
    [
        ((), {}, "acct"),
        ((), {"UPONCE_CLOUD": "cats"}, "cats"),
        ((), {"UPONCE_RELAY": "cloudinary://k:s@next"}, "next"),
        (("--cloud", "dogs"), {"UPONCE_CLOUD": "cats"}, "dogs"),
    ],
)
def test_commands_in_another_shell_use_the_cloud_of_the_server(
    tmp_path: Path, words: tuple[str, ...], env: dict[str, str], cloud: str
) -> None:
    """Files of another cloud would stay here and never reach the account."""
    data, brought = ("--data", tmp_path / "data"), Key("brought", "0123456789abcdefghijklmno")
    with Server(tmp_path / "data", env={"UPONCE_RELAY": "cloudinary://k:s@acct"}) as server:
        made = json.loads(printed(uponce("keys", "create", "--json", *words, *data, env=env)))
        assert made["cloud"] == cloud
        printed(uponce("keys", "import", *data, stdin=f"cloudinary://{brought.key}:{brought.secret}@{cloud}"))
        clouds = {key["api_key"]: key["cloud"] for key in json.loads(printed(uponce("keys", "list", "--json", *data)))}
        assert clouds[brought.key] == cloud
        assert set(clouds.values()) == {"acct", cloud}
        fields = [f"{name}={value}" for name, value in server.signed(key=brought).items()]
        revoked = json.loads(printed(uponce("signatures", "revoke", *fields, "--json", *data)))
        listed = json.loads(printed(uponce("signatures", "list", "--json", *words, *data, env=env)))
        assert [row["id"] for row in listed] == [revoked["id"]]
        if not words:
            signed = json.loads(printed(uponce("sign", "--json", *data, env=env)))
            assert f"/v1_1/{cloud}/" in signed["upload_url"]
