"""The `cloudinary` package from PyPI, unmodified, configured as its users configure it."""

import base64
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cloudinary
import pytest
from cloudinary import uploader
from cloudinary.exceptions import AuthorizationRequired, BadRequest
from cloudinary.utils import api_sign_request, cloudinary_url, verify_api_response_signature

from tests import samples
from tests.server import Key, Server

Json = dict[str, Any]

# What a user's program does; the environment says the rest.
PROGRAM = "import cloudinary.uploader, json, sys; print(json.dumps(cloudinary.uploader.upload(sys.argv[1])))"


def options(server: Server, key: Key) -> Json:
    """The configuration, per call."""
    return {"cloud_name": server.cloud, "api_key": key.key, "api_secret": key.secret, "upload_prefix": server.base}


@pytest.fixture(params=["browser", "server"])
def key(request: pytest.FixtureRequest, server: Server) -> Key:
    """Each of the two keys of a first start."""
    found: Key = getattr(server, request.param)
    return found


def delivered(server: Server, answer: Json) -> bytes:
    response = server.get(answer["secure_url"])
    assert response.status == 200
    return response.data


@pytest.mark.parametrize("number", [0, 1])
def test_the_printed_line_is_all_the_configuration_there_is(server: Server, media: Path, number: int) -> None:
    """CLOUDINARY_URL exactly as a first start prints it, for both keys."""
    environment = {**os.environ, "CLOUDINARY_URL": server.urls[number]}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, media / "cat.jpg"], env=environment, capture_output=True, check=True, timeout=60
    )
    answer = json.loads(done.stdout)
    assert delivered(server, answer) == (media / "cat.jpg").read_bytes()
    assert answer["api_key"] == (server.browser, server.server)[number].key


def test_a_path(server: Server, key: Key, media: Path) -> None:
    answer = uploader.upload(str(media / "cat.jpg"), public_id=f"path-{key.key}", **options(server, key))
    assert (answer["format"], answer["width"], answer["height"]) == ("jpg", 640, 480)
    assert answer["original_filename"] == "cat"
    assert delivered(server, answer) == (media / "cat.jpg").read_bytes()


def test_an_open_stream(server: Server, key: Key, media: Path) -> None:
    with (media / "dance.gif").open("rb") as stream:
        answer = uploader.upload(stream, public_id=f"stream-{key.key}", **options(server, key))
    assert (answer["format"], answer["pages"]) == ("gif", 12)
    assert delivered(server, answer) == (media / "dance.gif").read_bytes()


def test_a_data_uri(server: Server, key: Key) -> None:
    picture = samples.png(5)
    uri = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    answer = uploader.upload(uri, public_id=f"uri-{key.key}", **options(server, key))
    assert answer["format"] == "png"
    assert delivered(server, answer) == picture


@pytest.mark.parametrize(
    ("name", "asked", "given"),
    [
        ("walk.mp4", "video", "video"),
        ("walk.mp4", "auto", "video"),
        ("song.mp3", "auto", "video"),
        ("note.txt", "raw", "raw"),
        ("note.txt", "auto", "raw"),
    ],
)
def test_other_media(server: Server, media: Path, name: str, asked: str, given: str) -> None:
    answer = uploader.upload(str(media / name), resource_type=asked, **options(server, server.server))
    assert answer["resource_type"] == given
    assert delivered(server, answer) == (media / name).read_bytes()


def test_what_is_signed_is_kept(server: Server, key: Key, media: Path) -> None:
    """Tags, context with the characters that the SDK escapes, folder, public_id."""
    answer = uploader.upload(
        str(media / "cat.jpg"),
        folder="cats/tabby",
        public_id=f"sleeping, purring {key.key}",
        tags=["pet", "grey & white"],
        context={"caption": "a=b|c", "alt": "ein müder Kater"},
        **options(server, key),
    )
    assert answer["public_id"] == f"cats/tabby/sleeping, purring {key.key}"
    assert answer["folder"] == "cats/tabby"
    assert answer["tags"] == ["pet", "grey & white"]
    assert answer["context"] == {"custom": {"caption": "a=b|c", "alt": "ein müder Kater"}}
    assert delivered(server, answer) == (media / "cat.jpg").read_bytes()


def test_use_filename(server: Server, media: Path) -> None:
    unique, plain = (
        uploader.upload(
            str(media / "cat.jpg"), use_filename=True, unique_filename=wish, **options(server, server.browser)
        )
        for wish in (True, False)
    )
    assert unique["public_id"].startswith("cat_")
    assert plain["public_id"] == "cat"


def test_a_second_upload_with_one_signature_raises_bad_request(
    server: Server, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two uploads in one second have one signature, which is how people meet the refusal. The SDK reads the clock."""
    now = str(int(time.time()))
    monkeypatch.setattr(cloudinary.utils, "now", lambda: now)
    same = {"folder": "twice", **options(server, server.browser)}
    first = uploader.upload(str(media / "cat.jpg"), **same)
    with pytest.raises(BadRequest, match=r"^This signature was already used by an upload that completed at 20"):
        uploader.upload(str(media / "dance.gif"), **same)
    returned = uploader.upload(str(media / "cat.jpg"), return_error=True, **same)["error"]
    assert (returned["http_code"], returned["code"]) == (400, "signature_used")
    assert returned["request_id"]
    assert delivered(server, first) == (media / "cat.jpg").read_bytes()


def test_the_server_key_may_upload_twice_in_one_second(
    server: Server, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = str(int(time.time()))
    monkeypatch.setattr(cloudinary.utils, "now", lambda: now)
    same = options(server, server.server)
    first, second = (uploader.upload(str(media / name), **same) for name in ("cat.jpg", "dance.gif"))
    assert first["public_id"] != second["public_id"]


@pytest.mark.parametrize("file_first", [False, True])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_a_form_signed_with_api_sign_request(server: Server, media: Path, algorithm: str, file_first: bool) -> None:
    """What a back end does for its page; then the page's second POST."""
    params = {"timestamp": int(time.time()), "folder": f"{algorithm}-{file_first}", "tags": "grey & white"}
    signature = api_sign_request(params, server.browser.secret, algorithm=algorithm)
    fields = {name: str(value) for name, value in params.items()}
    fields |= {"signature": signature, "api_key": server.browser.key}
    picture = (media / "cat.jpg").read_bytes()

    first = server.post(fields, picture, filename="cat.jpg", file_first=file_first)
    assert first.status == 200, first.data
    assert delivered(server, first.json()) == picture

    second = server.post(fields, samples.gif(9), filename="other.gif", file_first=file_first)
    assert second.status == 400
    assert second.json()["error"]["code"] == "signature_used"
    assert second.headers["X-Cld-Error"] == second.json()["error"]["message"]


def test_a_nonce_is_dropped_by_upload_and_counts_when_it_is_signed(
    server: Server, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the guide says of all parameters of uponce's own. Upload drops a timestamp too: the SDK reads the clock."""
    now = int(time.time())
    monkeypatch.setattr(cloudinary.utils, "now", lambda: str(now))
    same = {"timestamp": now, "folder": "nonce"}
    account = options(server, server.browser)
    uploader.upload(str(media / "cat.jpg"), nonce="1", **same, **account)
    with pytest.raises(BadRequest, match="or use a key of unlimited uses"):
        uploader.upload(str(media / "cat.jpg"), nonce="2", **same, **account)
    for nonce in ("3", "4"):
        params = {**same, "nonce": nonce}
        signature = api_sign_request(params, server.browser.secret)
        fields = {**params, "signature": signature, "api_key": server.browser.key}
        assert server.post({name: str(value) for name, value in fields.items()}, samples.gif(9)).status == 200
    for _ in range(2):
        uploader.upload(str(media / "cat.jpg"), **same, **options(server, server.server))


def test_the_answer_is_signed(server: Server, key: Key, media: Path) -> None:
    """With SHA-1, which is what the SDK checks with by default."""
    answer = uploader.upload(str(media / "cat.jpg"), folder="signed", **options(server, key))
    parts = answer["public_id"], answer["version"]
    cloudinary.config(api_secret=key.secret)
    try:
        assert verify_api_response_signature(*parts, answer["signature"])
        assert not verify_api_response_signature(answer["public_id"], answer["version"] + 1, answer["signature"])
    finally:
        cloudinary.reset_config()


@pytest.mark.parametrize("type_", ["private", "authenticated"])
def test_a_signed_url_delivers_what_is_not_public(server: Server, media: Path, type_: str) -> None:
    answer = uploader.upload(str(media / "cat.jpg"), type=type_, folder="secret", **options(server, server.browser))
    assert delivered(server, answer) == (media / "cat.jpg").read_bytes()

    where = {"type": type_, "format": "jpg", "secure": False, "cname": server.base.removeprefix("http://")}
    where |= {"cloud_name": server.cloud, "api_secret": server.browser.secret}
    for long in (False, True):
        signed, _ = cloudinary_url(answer["public_id"], sign_url=True, long_url_signature=long, **where)
        assert signed.startswith(server.base)
        assert server.get(signed).data == (media / "cat.jpg").read_bytes()
    unsigned, _ = cloudinary_url(answer["public_id"], **where)
    refused = server.get(unsigned)
    assert (refused.status, refused.json()["error"]["code"]) == (401, "delivery_denied")


def test_upload_large_of_a_file_of_one_chunk(server: Server, key: Key, media: Path) -> None:
    where = {"folder": "one chunk", "resource_type": "video"}
    answer = uploader.upload_large(str(media / "walk.mp4"), **where, **options(server, key))
    assert answer["resource_type"] == "video"
    assert delivered(server, answer) == (media / "walk.mp4").read_bytes()


@pytest.mark.parametrize(("name", "kind"), [("cat.jpg", "image"), ("walk.mp4", "video"), ("note.txt", "raw")])
def test_destroy(server: Server, media: Path, name: str, kind: str) -> None:
    """`ok` and the bytes are gone, `not found` the second time; the name can be used again."""
    with_server, where = options(server, server.server), {"resource_type": kind, "type": "upload"}
    answer = uploader.upload(str(media / name), public_id=f"doomed-{name}", **where, **with_server)
    told = [uploader.destroy(answer["public_id"], invalidate=True, **where, **with_server) for _ in range(2)]
    assert [answer["result"] for answer in told] == ["ok", "not found"]
    assert server.get(answer["secure_url"]).status == 404
    again = uploader.upload(str(media / name), public_id=f"doomed-{name}", **where, **with_server)
    assert delivered(server, again) == (media / name).read_bytes()


def test_a_key_for_browsers_destroys_nothing(server: Server, media: Path) -> None:
    answer = uploader.upload(str(media / "cat.jpg"), public_id="indestructible", **options(server, server.browser))
    with pytest.raises(AuthorizationRequired, match=r"upload scope: its signatures upload, and never delete"):
        uploader.destroy(answer["public_id"], **options(server, server.browser))
    assert delivered(server, answer) == (media / "cat.jpg").read_bytes()


def test_a_wrong_secret_says_what_had_to_be_signed(server: Server, media: Path) -> None:
    wrong = options(server, server.browser) | {"api_secret": "wrong"}
    with pytest.raises(AuthorizationRequired, match=r"^Invalid Signature [0-9a-f]{40}\. String to sign - 'folder=x&"):
        uploader.upload(str(media / "cat.jpg"), folder="x", **wrong)


def test_an_unsupported_option_is_refused_by_name(server: Server, media: Path) -> None:
    """Rather than ignored."""
    with pytest.raises(BadRequest, match=r"^Parameter eager is not supported by this server yet\."):
        uploader.upload(str(media / "cat.jpg"), eager={"width": 100}, **options(server, server.browser))
