"""The commands and the code of the guides for newcomers, run as a reader would run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.e2e.conftest import DOCS, NODE
from tests.e2e.test_readme import block
from tests.server import Key, Server
from tests.world import PNG

pytestmark = pytest.mark.xdist_group("node sdk")


def shell(server: Server, folder: Path, *programs: str, environment: dict[str, str] | None = None) -> list[str]:
    """Run the programs in one shell, with `uponce` on the PATH and the server's settings. Return what each printed."""
    settings = {"UPONCE_DATA": str(server.data_dir), "UPONCE_PORT": str(server.port)}
    plain = {name: value for name, value in os.environ.items() if not name.startswith(("UPONCE_", "CLOUDINARY_"))}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", "\necho; echo =====\n".join(programs)],
        env={**plain, "PATH": path, **settings, **(environment or {})},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n=====\n")


def commands(page: str) -> list[str]:
    """Every shell block of a guide, in its order."""
    return re.findall(r"^```sh\n(.*?)^```", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def test_the_first_upload(server: Server, curl: str, tmp_path: Path) -> None:
    """Stored, then refused, then shown: every command of the guide, in its order."""
    serve, upload, again, show = commands("guide/first-upload.md")
    assert (serve, curl) == ("uponce serve\n", curl)
    stored, refused, shown = shell(server, tmp_path, upload, again, show)

    url = json.loads(stored)["secure_url"]
    assert server.get(urlsplit(url).path).data == b"Hello.\n"
    assert json.loads(refused)["error"]["code"] == "signature_used"
    assert "used" in shown


def test_the_first_upload_guide_shows_what_a_first_start_prints(server: Server) -> None:
    """With the keys, the secrets and the port replaced by the guide's names."""
    shown = block("docs/guide/first-upload.md", "text", "listening on")
    printed = re.sub(r"cloudinary://\w+:\w+@", "cloudinary://KEY:SECRET@", server.output)
    printed = printed.replace(f"127.0.0.1:{server.port}", "127.0.0.1:8000")

    assert [line for line in shown.splitlines() if line not in printed] == []


def test_the_commands_of_the_curl_guide(server: Server, media: Path, tmp_path: Path, curl: str) -> None:
    url, sign, basic, look = commands("guide/curl.md")
    (tmp_path / "cat.gif").write_bytes((media / "dance.gif").read_bytes())
    sign, basic = (
        command.replace("KEY:SECRET", ":".join(server.browser)).replace("http://127.0.0.1:8000", server.base)
        for command in (sign, basic)
    )
    stored, signed, uploaded, shown = shell(server, tmp_path, url, sign, basic, look)

    assert json.loads(stored)["folder"] == json.loads(uploaded)["folder"] == "cats"
    assert "nonce" in json.loads(signed)["fields"]
    assert "revoked" in shown


def test_two_signatures_of_the_browser_guide_in_one_second_differ(server: Server, media: Path, node: str) -> None:
    """Its function for Node, called twice at once: both signatures work, each once."""
    program = f"""
        const cloudinary = require("cloudinary-newest").v2;
        const API_KEY = {json.dumps(server.browser.key)}, API_SECRET = {json.dumps(server.browser.secret)};
        {block("docs/guide/browser.md", "js", "api_sign_request")}
        console.log(JSON.stringify([sign("ducks"), sign("ducks")]));
    """
    done = subprocess.run([node, "-e", program], cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    file = (media / "cat.jpg").read_bytes()

    answers = [server.post({k: str(v) for k, v in fields.items()}, file) for fields in (first, second, first)]
    assert [answer.status for answer in answers] == [200, 200, 400]


def test_the_first_programs_of_the_sdk_guide(server: Server, node: str, media: Path, tmp_path: Path) -> None:
    """Each program in its own file: what Node takes with `-e`, it may refuse in a file."""
    (tmp_path / "cat.gif").write_bytes((media / "dance.gif").read_bytes())
    (tmp_path / "node_modules").symlink_to(NODE / "node_modules")
    javascript = block("docs/guide/sdk.md", "js", "uploader").replace('"cloudinary"', '"cloudinary-newest"')
    python = block("docs/guide/sdk.md", "python", "uploader.upload")
    for program, name, code in ((sys.executable, "upload.py", python), (node, "upload.js", javascript)):
        (tmp_path / name).write_text(code)
        (printed,) = shell(server, tmp_path, f"{program} {name}", environment={"CLOUDINARY_URL": server.urls[1]})
        assert server.get(printed.strip()).data == (media / "dance.gif").read_bytes()


def test_the_delivery_urls_of_the_sdk_guide(server: Server, node: str, media: Path) -> None:
    """The host is ours, in Python and in Node, by `secure_distribution` and by `cname`; the URL delivers the file."""
    guide = "docs/guide/sdk.md"
    file = (media / "cat.jpg").read_bytes()
    assert server.post(server.signed({"public_id": "cats/tabby"}), file).status == 200
    (exported,) = re.findall(r"'(\S+secure_distribution\S+)'", block(guide, "sh", "secure_distribution"))
    https = {"CLOUDINARY_URL": exported.replace("KEY:SECRET", ":".join(server.server))}
    http = {"CLOUDINARY_URL": server.urls[1]}

    python = block(guide, "python", "# https://media.example")
    shown = re.findall(r"# (https://\S+)", python)
    assert [urls(sys.executable, "-c", f"{python}print(url)", https)] == shown
    assert server.get(urlsplit(shown[0]).path).data == file

    python = f"from cloudinary.utils import cloudinary_url\n{block(guide, 'python', 'cname=')}print(url)"
    url = urls(sys.executable, "-c", python.replace("127.0.0.1:8000", urlsplit(server.base).netloc), http)
    assert server.get(url).data == file

    load = 'const cloudinary = require("cloudinary-newest").v2;'
    javascript = f"{load}\n{block(guide, 'js', 'cname:')}console.log(url)"
    url = urls(node, "-e", javascript.replace("127.0.0.1:8000", urlsplit(server.base).netloc), http)
    assert server.get(url).data == file
    plain = f'{load} console.log(cloudinary.url("cats/tabby", {{ format: "jpg" }}))'
    assert urls(node, "-e", plain, https).startswith(f"{shown[0]}?_a=")


def test_the_new_url_of_a_private_asset(server: Server) -> None:
    fields = server.signed({"public_id": "cats/tabby", "type": "private"})
    stored = server.post(fields, PNG, filename="cat.png").json()["secure_url"]
    python = f"{block('docs/guide/sdk.md', 'python', 'cloudinary.api')}print(url)"
    url = urls(sys.executable, "-c", python, {"CLOUDINARY_URL": server.urls[1]})
    assert url != stored  # signed with the secret of the key that asked
    assert server.get(url).data == PNG


def urls(program: str, option: str, code: str, environment: dict[str, str]) -> str:
    """Run a program of an SDK and return the URL that it prints."""
    done = subprocess.run(
        [program, option, code],
        cwd=NODE,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_an_asset_is_copied_to_an_account(server: Server, media: Path, tmp_path: Path) -> None:
    """With the function of the guide. A second server is in place of Cloudinary: it has the same call."""
    signed = server.signed({"public_id": "copy", "type": "private"})
    asset = server.post(signed, (media / "walk.mp4").read_bytes()).json()
    code = block("docs/guide/which-way.md", "python", "copy_to_cloudinary")
    program = f"{code}\nfor _ in range(2): answer = copy_to_cloudinary({asset!r})\nprint(answer['secure_url'])"
    with Server(tmp_path / "account") as account:
        url = urls(sys.executable, "-c", program, {"CLOUDINARY_URL": account.urls[1]})
        assert account.get(url).data == (media / "walk.mp4").read_bytes()
        assert "/video/private/s--" in url  # no public copy of a private file
        assert url.endswith("/copy.mp4")


def test_the_keys_of_an_account_are_imported(tmp_path: Path) -> None:
    """Both keys exist afterwards, with the secrets that the back ends have already."""
    imported = block("docs/guide/from-cloudinary.md", "sh", "keys import")
    imported = imported.replace(":SECRET", ":a-secret-of-cloudinary").replace("OTHER_SECRET", "another-of-cloudinary")
    with Server(tmp_path / "data", env={"UPONCE_KEYS": "cloudinary://1:the-first-secret-here@other"}) as server:
        _, listed = shell(server, tmp_path, imported, "uponce keys list --json")
        keys = {key["api_key"]: (key["cloud"], key["uses"], key["scope"]) for key in json.loads(listed)}
        assert keys["KEY"] == ("my-cloud", "once", "upload")
        assert keys["OTHER_KEY"] == ("my-cloud", "unlimited", "all")
        server.cloud = "my-cloud"
        signed = server.signed({"nonce": "1"}, Key("KEY", "a-secret-of-cloudinary"))
        assert [server.post(signed, b"bytes").status for _ in range(2)] == [200, 400]
