"""nginx in front, with the site file that is shipped: nginx sends the bytes, uponce decides which client gets them."""

import os
import re
import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from tests import samples
from tests.deployment import DEPLOY, NGINX, Nginx
from tests.e2e.commands import in_a_process
from tests.scrape import BEARER, TOKEN
from tests.server import Server
from uponce.app.manage_keys import check_policy
from uponce.core.errors import InvalidParameter

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(NGINX is None, reason="NOT TESTED: nginx is missing; install it"),
    pytest.mark.xdist_group("front-server"),
]

PICTURE = samples.png(5, 64, 64)
INERT = ("x-content-type-options", "content-security-policy", "cross-origin-resource-policy", "timing-allow-origin")


class Site:
    """`get` asks nginx; `server` is behind it."""

    def __init__(self, server: Server, base: str) -> None:
        self.server = server
        self.base = base

    def get(self, path: str, method: str = "GET", **headers: str) -> urllib3.BaseHTTPResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return urllib3.request(method, self.base + path, headers=named, retries=False, timeout=30)

    def stored(self, data: bytes = PICTURE, resource_type: str = "auto", **params: str) -> str:
        """Uploaded through nginx; the path of its URL, which names nginx as its host."""
        fields = {**self.server.signed({"nonce": secrets.token_hex(8), **params}), "file": ("cat.png", data)}
        url = f"{self.base}/v1_1/{self.server.cloud}/{resource_type}/upload"
        answer = urllib3.request("POST", url, fields=fields, timeout=30)  # type: ignore[arg-type]
        assert answer.status == 200, answer.data
        told = str(answer.json()["url"])
        assert told.startswith(self.base)
        return urlsplit(told).path

    def file_of(self, path: str) -> Path:
        """The file whose bytes nginx sends for this path."""
        location = self.server.get(path).headers["x-accel-redirect"]
        return self.server.data_dir / "media/blobs" / location.removeprefix("/_blobs/")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder, nginx = tmp_path_factory.mktemp("front"), Nginx()
    with Server(folder / "data", env={"UPONCE_STORAGE_ACCEL": "/_blobs/", "UPONCE_METRICS_TOKEN": TOKEN}) as server:
        nginx.run([server])
        yield Site(server, nginx.url)
        nginx.stop()


def test_metrics_are_not_to_be_had_through_nginx(site: Site) -> None:
    assert site.server.get("/metrics", headers=BEARER).status == 200
    for path in ("/metrics", "/metrics?a=b", "/%6detrics", "//metrics", "/METRICS", "/metrics/"):
        answer = site.get(path, **BEARER)
        assert (answer.status, b"uponce_" in answer.data) == (404, False), path


def test_nginx_sends_the_bytes_with_the_headers_of_uponce(site: Site) -> None:
    path = site.stored()
    direct = site.server.get(path)
    assert (direct.status, direct.data) == (200, b"")
    assert direct.headers["x-accel-redirect"].startswith("/_blobs/")

    answer, head, part = site.get(path), site.get(path, "HEAD"), site.get(path, Range="bytes=0-9")
    assert (answer.status, answer.data) == (200, PICTURE)
    assert (head.status, head.data, head.headers["content-length"]) == (200, b"", str(len(PICTURE)))
    assert (part.status, part.data) == (206, PICTURE[:10])
    for seen in (answer, head, part):
        assert "x-accel-redirect" not in seen.headers
        assert seen.headers["cache-control"] == "public, no-transform, max-age=2592000"
        for name in ("content-type", "etag", "last-modified", "access-control-allow-origin", *INERT):
            assert seen.headers[name] == direct.headers[name], name


def test_a_request_without_host_gets_one_from_nginx(site: Site) -> None:
    """Such as one by HTTP/3, whose name of the server is `:authority`, or by HTTP/1.0."""
    path, at = site.stored(), urlsplit(site.base)
    with socket.create_connection((at.hostname or "", at.port or 0), 60) as client:
        client.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(PICTURE)


@pytest.mark.parametrize("damage", ["missing", "unreadable"])
def test_no_cache_keeps_an_error_in_place_of_a_file(site: Site, damage: str) -> None:
    """An overwrite deletes a file between the look-up and the opening. With a wrong user, nginx can open no file."""
    path = site.stored(public_id=damage)
    blob = site.file_of(path)
    blob.unlink()
    if damage == "unreadable":
        blob.symlink_to(blob)
    answer = site.get(path, Origin="https://app.example")
    assert (answer.status, answer.json()["error"]["code"]) == (503, "storage_unavailable")
    assert (answer.headers["cache-control"], answer.headers["retry-after"]) == ("no-store", "2")
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "etag" not in answer.headers and "last-modified" not in answer.headers


def test_a_page_of_another_origin_reads_as_much_as_from_uponce(site: Site) -> None:
    path, origin = site.stored(bytes(300_000), "raw"), "https://app.example"
    through, direct = site.get(path, Origin=origin), site.server.get(path, headers={"Origin": origin})
    assert "x-accel-redirect" in direct.headers
    for name in ("access-control-allow-origin", "access-control-expose-headers", "vary"):
        assert through.headers[name] == direct.headers[name], name


def test_ranges_and_validators(site: Site) -> None:
    path = site.stored()
    whole = site.get(path)
    part = site.get(path, Range="bytes=10-19", If_Range=whole.headers["etag"])
    assert (part.status, part.data) == (206, PICTURE[10:20])
    part = site.get(path, Range="bytes=10-19", If_Match=whole.headers["etag"])
    assert (part.status, part.data) == (206, PICTURE[10:20])
    part = site.get(path, Range="bytes=10-19", If_Unmodified_Since=whole.headers["last-modified"])
    assert (part.status, part.data) == (206, PICTURE[10:20])
    assert site.get(path, If_Match='"other"').status == 412
    beyond = site.get(path, Range=f"bytes={len(PICTURE)}-", Origin="https://app.example")
    assert (beyond.status, beyond.json()["error"]["code"]) == (416, "range_not_satisfiable")
    assert beyond.headers["content-range"] == f"bytes */{len(PICTURE)}"
    assert beyond.headers["cache-control"].endswith("no-store")
    assert beyond.headers["access-control-allow-origin"] == "*"
    assert site.get(path, If_None_Match=whole.headers["etag"]).status == 304
    assert site.get(path, If_Modified_Since=whole.headers["last-modified"]).status == 304


def test_files_of_one_size_and_one_second_are_never_confused(site: Site) -> None:
    """nginx's own tag is the time of the file, in seconds, and its size."""
    older, newer = bytes(300_000), bytes(range(200)) * 1500
    path = site.stored(older, "raw", public_id="twin")
    os.utime(site.file_of(path), (0, 0))
    before = site.get(path)
    site.stored(newer, "raw", public_id="twin")
    os.utime(site.file_of(path), (0, 0))
    after = site.get(path)
    assert after.headers["etag"] != before.headers["etag"]
    assert site.get(path, If_None_Match=before.headers["etag"]).status == 200
    assert site.get(path, If_Match=before.headers["etag"]).status == 412
    assert site.get(path, If_Modified_Since=before.headers["last-modified"]).status == 200
    for condition in (before.headers["etag"], before.headers["last-modified"]):
        whole = site.get(path, Range="bytes=10-19", If_Range=condition)
        assert (whole.status, whole.data) == (200, newer)
    part = site.get(path, Range="bytes=10-19", If_Range=after.headers["etag"])
    assert (part.status, part.data) == (206, newer[10:20])


def test_no_cloud_can_have_the_name_of_the_files() -> None:
    (location,) = re.findall(r"location /(\S+)/ \{\s+internal;", (DEPLOY / "nginx.conf").read_text())
    with pytest.raises(InvalidParameter):
        check_policy(location, 3600)


def test_the_guide_names_every_location_that_an_own_site_file_needs() -> None:
    """`nginx -t` does not look for the locations of `error_page`, and nginx answers 500 without them."""
    location = (DEPLOY / "nginx.conf").read_text().partition("location /_blobs/ {")[2].partition("\t}")[0]
    needed = {"/_blobs/", *re.findall(r"error_page .* (@\w+);", location)}
    assert len(needed) == 3
    guide = (DEPLOY.parent / "docs/guide/one-box.md").read_text()
    section = guide.partition("## Let nginx send large media")[2].partition("\n## ")[0]
    assert {name for name in needed if f"`{name}`" not in section} == set()


def test_what_is_no_medium_is_a_download(site: Site) -> None:
    answer = site.get(site.stored(b"<script>alert(1)</script>", "raw"))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"].startswith("attachment")


def test_nobody_gets_round_uponce(site: Site) -> None:
    """No file by its own name, no private one without a signature, none that was never there."""
    path = site.stored()
    location = site.server.get(path).headers["x-accel-redirect"]
    own = site.get(location)
    assert (own.status, own.headers["cache-control"], "retry-after" in own.headers) == (404, "no-store", False)

    signed = site.stored(type="private", public_id="mine")
    unsigned = re.sub("/s--[^/]+--", "", signed)
    assert unsigned != signed
    assert site.get(signed).data == PICTURE
    assert site.get(unsigned).status == 401
    assert site.get(path.replace(".png", "x.png")).status == 404


def test_an_overwritten_file_is_never_sent_again(site: Site) -> None:
    path = site.stored(public_id="changing")
    other = samples.png(6, 64, 64)
    newer = site.stored(other, public_id="changing")
    assert {site.get(path).data, site.get(newer).data} == {other}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"UPONCE_STORAGE_ACCEL": "blobs"},
            "UPONCE_STORAGE_ACCEL=blobs (environment) is not valid: it must be empty, or like",
        ),
        (
            {"UPONCE_STORAGE_ACCEL": "/_blobs/", "UPONCE_STORAGE": "s3://bucket"},
            "UPONCE_STORAGE_ACCEL=/_blobs/ needs a folder that nginx can read, but UPONCE_STORAGE is s3://bucket",
        ),
    ],
)
def test_what_cannot_be_left_to_nginx_is_refused_at_the_start(
    tmp_path: Path, settings: dict[str, str], said: str
) -> None:
    told = in_a_process("serve", "--data", tmp_path / "data", env=settings)
    assert told.code == 1
    assert said in told.stderr
