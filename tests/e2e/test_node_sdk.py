"""The `cloudinary` package from npm, unmodified, on Node: the release that most code pins, and the newest.

The programs in `node/` are what users write; each prints what it got.
"""

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import NODE
from tests.server import Server

pytestmark = pytest.mark.xdist_group("node sdk")

Json = dict[str, Any]


@pytest.fixture(params=["cloudinary-2-1-0", "cloudinary-newest"])
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def run(node: str, url: str, program: str, *arguments: str | Path) -> Any:
    """What a program printed. Its SDK reads CLOUDINARY_URL, exactly as a first start of the server printed it."""
    done = subprocess.run(
        [node, NODE / program, *arguments],
        env={**os.environ, "CLOUDINARY_URL": url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_lock_file_has_hashes_and_no_addresses() -> None:
    """So that it installs the same bytes from any mirror."""
    text = (NODE / "package-lock.json").read_text()
    packages = json.loads(text)["packages"]
    assert all(package["integrity"].startswith("sha512-") for name, package in packages.items() if name)
    assert {package["version"] for package in packages.values() if package.get("name") == "cloudinary"} == {
        "2.1.0",
        "2.11.0",
    }
    assert "://" not in text


@pytest.mark.parametrize("place", ["last", "first"])
def test_sign_and_post_twice(server: Server, node: str, package: str, media: Path, place: str) -> None:
    """`api_sign_request({timestamp, folder}, secret)`, fetch and FormData, with the file before or after the fields."""
    first, second = run(node, server.urls[0], "sign_and_post.cjs", package, media / "cat.jpg", place)

    assert (first["status"], first["error"]) == (200, None)
    assert first["body"]["folder"] == f"{package}-cat.jpg-{place}"
    assert server.get(first["body"]["secure_url"]).data == (media / "cat.jpg").read_bytes()

    refusal = second["body"]["error"]
    assert (second["status"], refusal["code"]) == (400, "signature_used")
    assert re.match(r"This signature was already used by an upload that completed at 20", refusal["message"])
    assert second["error"] == refusal["message"]


def test_a_large_replay_gets_the_refusal_and_no_broken_pipe(
    server: Server, node: str, package: str, tmp_path: Path
) -> None:
    """The server answers while fetch is still writing, and must not reset the connection under it."""
    (tmp_path / "large.bin").write_bytes(bytes(20_000_000))
    first, second = run(node, server.urls[0], "sign_and_post.cjs", package, tmp_path / "large.bin", "last")
    assert (first["status"], second["body"]["error"]["code"]) == (200, "signature_used")


@pytest.mark.parametrize("name", ["dance.gif", "walk.mp4", "note.txt"])
def test_the_uploader(server: Server, node: str, package: str, media: Path, name: str) -> None:
    """`upload` of a path and a data URI, `upload_stream`, and `upload_large` of one chunk, with the server's key."""
    answers: dict[str, Json] = run(node, server.urls[1], "uploader.cjs", package, media / name)

    assert list(answers) == ["path", "uri", "stream", "large"]
    for answer in answers.values():
        assert answer["folder"] == f"by {package}"
        assert answer["tags"] == ["one", "two"]
        assert answer["context"] == {"custom": {"alt": "a=b|c"}}
        assert server.get(answer["secure_url"]).data == (media / name).read_bytes()
    assert len({answer["public_id"] for answer in answers.values()}) == len(answers)


@pytest.mark.parametrize(
    ("name", "shown"), [("caf\xe9", "caf\xe9"), ("Bob\N{RIGHT SINGLE QUOTATION MARK}s cat", "Bobs cat")]
)
def test_the_uploader_takes_names_that_the_sdk_cuts_to_one_byte_a_letter(
    server: Server, node: str, package: str, media: Path, tmp_path: Path, name: str, shown: str
) -> None:
    file = tmp_path / f"{name}.gif"
    file.write_bytes((media / "dance.gif").read_bytes())
    answers: dict[str, Json] = run(node, server.urls[1], "uploader.cjs", package, file)
    assert (answers["path"]["original_filename"], answers["large"]["original_filename"]) == (shown, shown)
    assert server.get(answers["path"]["secure_url"]).data == file.read_bytes()


def test_an_old_sdk_that_signs_an_ampersand_is_told_to_upgrade(server: Server, node: str, media: Path) -> None:
    program = """
        const [, name, path] = process.argv;
        const { uploader } = require(name).v2;
        const told = (error) => (error.error || error).message;
        uploader.upload(path, { context: "caption=Tom & Jerry" }).then(({ context }) => context, told)
            .then((outcome) => console.log(JSON.stringify(outcome)));"""

    def outcome(package: str) -> Any:
        command = [node, "-e", program, package, str(media / "cat.jpg")]
        environment = {**os.environ, "CLOUDINARY_URL": server.urls[1]}
        return json.loads(subprocess.check_output(command, cwd=NODE, env=environment, text=True, timeout=60))

    assert "Upgrade the SDK that signs" in outcome("cloudinary-2-1-0")
    assert outcome("cloudinary-newest") == {"custom": {"caption": "Tom & Jerry"}}


def test_the_uploader_surfaces_the_refusal_of_a_used_signature(
    server: Server, node: str, package: str, media: Path
) -> None:
    signed = server.signed({"folder": f"presigned {package}"})
    got = run(node, server.urls[0], "presigned.cjs", package, media / "cat.jpg", json.dumps(signed))

    assert server.get(got["answer"]["secure_url"]).data == (media / "cat.jpg").read_bytes()
    assert (got["error"]["http_code"], got["error"]["code"]) == (400, "signature_used")
    assert got["error"]["message"].startswith("This signature was already used by an upload that completed at 20")


def test_a_presigned_stream_works_once(server: Server, node: str, package: str, media: Path) -> None:
    """`upload_stream` sends its own option `stream=true` along with what was signed."""
    signed = server.signed({"folder": f"presigned stream {package}"})
    first, second = run(node, server.urls[0], "presigned_stream.cjs", package, media / "cat.jpg", json.dumps(signed))

    assert first["error"] is None
    assert server.get(first["answer"]["secure_url"]).data == (media / "cat.jpg").read_bytes()
    assert (second["error"]["http_code"], second["error"]["code"]) == (400, "signature_used")


def test_destroy(server: Server, node: str, package: str, media: Path) -> None:
    """With the server's key: `ok`, then `not found`. With the browser's: refused, and the SDK says so."""
    got = run(node, server.urls[1], "destroy.cjs", package, media / "cat.jpg")
    assert got["told"] == [{"result": "ok"}, {"result": "not found"}]
    assert server.get(got["url"]).status == 404

    kept = run(node, server.urls[0], "destroy.cjs", package, media / "dance.gif")
    assert {told["error"]["http_code"] for told in kept["told"]} == {401}
    assert all("never delete" in told["error"]["message"] for told in kept["told"])
    assert server.get(kept["url"]).data == (media / "dance.gif").read_bytes()


def test_signed_delivery_urls(server: Server, node: str, package: str, media: Path) -> None:
    fields = server.signed({"type": "authenticated", "public_id": f"secret/{package}"})
    assert server.post(fields, (media / "cat.jpg").read_bytes()).status == 200
    for url in run(node, server.urls[0], "url.cjs", package, f"secret/{package}"):
        assert url.startswith(server.base)
        assert server.get(url).data == (media / "cat.jpg").read_bytes()
