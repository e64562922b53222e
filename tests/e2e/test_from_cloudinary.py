"""The script of the guide that brings assets, against a small server that answers as Cloudinary's Admin API does."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.e2e.commands import printed, uponce
from tests.e2e.test_readme import block
from tests.server import Server

pytestmark = pytest.mark.xdist_group("node sdk")

ASSETS = {
    "image": ["cats/tabby", "logo", "contract", "torn", "dogs/rex"],
    "video": ["walk"],
    "raw": ["notes/note.txt"],
}
NOT_COPIED = {
    "logo": "Upload it as raw",  # as an image in a format that uponce does not take
    "contract": "HTTP Error 401",  # the account does not deliver it
    "torn": "the download broke off",
}
FILES = {
    "cats/tabby": "cat.jpg",
    "logo": "note.txt",
    "torn": "cat.jpg",
    "dogs/rex": "dance.gif",
    "walk": "walk.mp4",
    "notes/note.txt": "note.txt",
}


class Account(ThreadingHTTPServer):
    """An account with seven assets, listed one a page; `/files/<public_id>` has their bytes."""

    daemon_threads = True

    def __init__(self, media: Path) -> None:
        super().__init__(("127.0.0.1", 0), AccountHandler)
        self.media = media
        self.delivered = 0
        self.base = f"http://127.0.0.1:{self.server_port}"


class AccountHandler(BaseHTTPRequestHandler):
    server: Account

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/files/contract":
            self.send_error(401)
            return
        if parts.path.startswith("/files/"):
            self.server.delivered += 1
            name = parts.path.removeprefix("/files/")
            self._send((self.server.media / FILES[name]).read_bytes(), torn=name == "torn")
            return
        assert self.headers["Authorization"].startswith("Basic ")
        kind, type_ = parts.path.removeprefix("/v1_1/old/resources/").split("/")
        assert type_ == "upload"
        place = int(parse_qs(parts.query).get("next_cursor", ["0"])[0])
        public_id = ASSETS[kind][place]
        page: dict[str, object] = {"resources": [{"public_id": public_id, "secure_url": self._url(public_id)}]}
        if kind == "image":
            page["resources"][0] |= {"tags": ["pet"], "context": {"custom": {"alt": "a | pet"}}}  # type: ignore[index]
        if place + 1 < len(ASSETS[kind]):
            page["next_cursor"] = str(place + 1)
        self._send(json.dumps(page).encode())

    def _url(self, public_id: str) -> str:
        return f"{self.server.base}/files/{public_id}"

    def _send(self, body: bytes, *, torn: bool = False) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if torn else body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def account(media: Path) -> Iterator[Account]:
    with Account(media) as account:
        serving = threading.Thread(target=account.serve_forever, args=(0.01,))
        serving.start()
        yield account
        account.shutdown()
        serving.join()


def copy_account(account: Account, to: str) -> subprocess.CompletedProcess[str]:
    """Run the script of the guide."""
    script = block("docs/guide/from-cloudinary.md", "python", "OLD_CLOUDINARY_URL")
    old = f"cloudinary://key:secret@old?upload_prefix={account.base}"
    return subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "OLD_CLOUDINARY_URL": old, "CLOUDINARY_URL": to},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_without_a_server_no_further_file_is_fetched(server: Server, account: Account) -> None:
    """The account may bill each of them."""
    done = copy_account(account, server.urls[1].replace(server.base, "http://127.0.0.1:1"))
    assert (done.returncode, account.delivered) == (1, 1), done.stderr


def test_every_asset_is_brought_under_its_name(server: Server, account: Account, media: Path) -> None:
    done = copy_account(account, server.urls[1])
    assert (done.returncode, done.stderr) == (1, "files not copied: 3\n")
    brought = [(kind, name) for kind, names in ASSETS.items() for name in names if name not in NOT_COPIED]
    lines = done.stdout.splitlines()
    for name, why in NOT_COPIED.items():
        (line,) = (line for line in lines if line.startswith(f"not copied: image {name} "))
        assert why in line
        lines.remove(line)
    assert lines == [f"{kind} {name}" for kind, name in brought]
    for kind, name in brought:
        extension = "" if kind == "raw" else "." + FILES[name].partition(".")[2]
        delivered = server.get(f"/{server.cloud}/{kind}/upload/v1/{name}{extension}")
        assert delivered.data == (media / FILES[name]).read_bytes(), name


def test_commands_find_the_imported_keys(tmp_path: Path) -> None:
    """With the setting of the guide, also in another shell. Without it, a new key has a new cloud, and a warning."""
    shown = block("docs/guide/from-cloudinary.md", "sh", "keys import")
    setting, command, *keys, end = shown.replace(":SECRET", ":secret-of-20-letters").splitlines()
    assert (command, end) == ("uponce keys import << 'END'", "END")
    data, cloud = tmp_path / "data", setting.removeprefix("export UPONCE_CLOUD=")
    words = ("--data", data)
    secrets = "\n".join(keys).replace("OTHER_SECRET", "other-of-20-letters-")
    assert printed(uponce("keys", "import", *words, stdin=secrets)) == "imported 2 of 2 keys\n"

    warning = f"uponce: media is a new cloud. The other keys are of {cloud}. "
    assert warning in uponce("keys", "create", *words).stderr
    assert "new cloud" not in uponce("keys", "create", "--cloud", "shop", *words).stderr
    with Server(data, env={"UPONCE_CLOUD": cloud}):
        made = uponce("keys", "create", *words)
        assert f"@{cloud}?" in printed(made)
        assert made.stderr == ""
        assert f"/{cloud}/" in printed(uponce("sign", *words))
