"""Every stored type is delivered inert: no browser runs it, guesses another type, or opens what can hold a script."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
import urllib3

from tests import samples
from tests.deployment import Caddy, Nginx
from tests.hostile.frame import needed
from tests.server import Server, asked
from uponce.core.formats import BINARY, FORMATS

SCRIPT = b"<html><script>alert(document.domain)</script></html>"
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" onload="alert(1)"><script>alert(2)</script></svg>'
PDF = b"%PDF-1.4\n1 0 obj<</OpenAction<</S/JavaScript/JS(alert(1))>>>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"


class Stored(NamedTuple):
    """`type` is the media type that a browser may see; as a download it is saved and never opened."""

    data: Callable[[], bytes]
    route: str = "auto"
    filename: str = "x"
    type: str = BINARY
    download: bool = False


def download(data: bytes, route: str, filename: str, type_: str = BINARY) -> Stored:
    return Stored(lambda: data, route, filename, type_, download=True)


@cache
def sample(name: str) -> bytes:
    return samples.BY_FORMAT[name](1)


TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "gif": "image/gif",
    "webp": "image/webp",
    "avif": "image/avif",
    "tiff": "image/tiff",
    "bmp": "image/bmp",
    "ico": "image/vnd.microsoft.icon",
    "mp4": "video/mp4",
    "mov": "video/quicktime",
    "3gp": "video/3gpp",
    "webm": "video/webm",
    "mkv": "video/x-matroska",
    "avi": "video/x-msvideo",
    "flv": "video/x-flv",
    "wmv": "video/x-ms-wmv",
    "mpg": "video/mpeg",
    "ts": "video/mp2t",
    "m4a": "audio/mp4",
    "mp3": "audio/mpeg",
    "wav": "audio/wav",
    "ogg": "audio/ogg",
    "flac": "audio/flac",
    "aac": "audio/aac",
    "aiff": "audio/aiff",
    "amr": "audio/amr",
}
STORED = {
    **{name: Stored(partial(sample, name), type=type_) for name, type_ in TYPES.items()},
    "svg": download(SVG, "auto", "x.svg", "image/svg+xml"),
    "pdf": download(PDF, "auto", "x.pdf", "application/pdf"),
    "html": download(SCRIPT, "raw", "x.html"),
    "svg as raw": download(SVG, "raw", "x.svg"),
    "javascript": download(b"alert(1)", "raw", "x.js"),
    "a picture with a page behind it": Stored(lambda: sample("gif") + SCRIPT, type="image/gif"),
    "a picture as raw": Stored(lambda: sample("png"), "raw", "x.png", download=True),
    "a name with quotes": download(b"xyz", "raw", 'a";b.html'),
}


@contextmanager
def front(kind: str, server: Server) -> Iterator[str]:
    """The address at which clients see the server."""
    if kind == "the server itself":
        yield server.base
        return
    needed(kind)
    program = Caddy() if kind == "caddy" else Nginx()
    try:
        program.run([server])
        yield program.url
    finally:
        program.stop()


SETTINGS_OF = {"the server itself": {}, "caddy": {}, "nginx": {"UPONCE_STORAGE_ACCEL": "/_blobs/"}}


@pytest.fixture(scope="module", params=SETTINGS_OF)
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    folder = tmp_path_factory.mktemp("inert")
    with Server(folder / "data", env=SETTINGS_OF[request.param]) as server, front(request.param, server) as base:
        yield server, base


def assert_inert(answer: urllib3.BaseHTTPResponse, stored: Stored) -> None:
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-security-policy"] == "default-src 'none'; media-src 'self'; sandbox"
    assert headers["cross-origin-resource-policy"] == "cross-origin"
    assert "set-cookie" not in headers
    if answer.status == 304:
        return
    assert headers["content-type"] == stored.type or headers["content-type"].startswith("multipart/byteranges")
    assert headers.get("content-disposition", "").startswith("attachment;") is stored.download
    assert "\n" not in headers.get("content-disposition", "")


@pytest.mark.parametrize("kind", dict.fromkeys([*FORMATS, *STORED]))
def test_what_is_stored_is_delivered_inert(site: tuple[Server, str], kind: str) -> None:
    """In every answer that carries it, or a part of it, also by a URL with another version."""
    server, base = site
    stored, data = STORED[kind], STORED[kind].data()
    fields = server.signed({"nonce": secrets.token_hex(8), "public_id": f"p{secrets.token_hex(4)}"})
    uploaded = server.post(fields, data, filename=stored.filename, resource_type=stored.route)
    assert uploaded.status == 200, uploaded.data
    path = urlsplit(str(uploaded.json()["url"])).path
    other = path.replace(f"/v{uploaded.json()['version']}/", "/v1/")
    etag = asked("GET", base + path).headers["etag"]
    for method, target, more, status in (
        ("GET", path, {}, 200),
        ("HEAD", path, {}, 200),
        ("GET", other, {}, 200),
        ("GET", path, {"range": "bytes=0-0"}, 206),
        ("GET", path, {"range": "bytes=0-0,2-2"}, 206),
        ("GET", path, {"if-none-match": etag}, 304),
    ):
        answer = urllib3.request(method, base + target, headers=more, retries=False, timeout=30)
        assert answer.status == status, (method, target, more)
        assert_inert(answer, stored)
        if (method, status) == ("GET", 200):
            assert answer.data == data


def test_each_type_that_a_browser_opens_is_a_picture_a_film_or_a_sound() -> None:
    for name, format_ in FORMATS.items():
        assert format_.media_type.partition("/")[0] in ("image", "video", "audio") or name == "pdf"
