"""A hundred megabytes, or two gigabytes, by each client that sends parts, in flat memory of the server. -s shows it."""

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cloudinary import uploader

from proof.faults.processes import peak_memory
from tests.chunks import headers, noise, spans
from tests.e2e.conftest import NODE
from tests.e2e.test_large_files import MB, Json
from tests.e2e.test_python_sdk import options
from tests.e2e.test_tus import Node
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("very large files")]

SIZES = (pytest.param(100 * MB, id="100 MB"), pytest.param(2 * 1024**3, id="2 GB", marks=pytest.mark.full))
CHUNK = 20 * MB
ALLOWED = 64 * MB
PACKAGES = ("cloudinary-2-1-0", "cloudinary-newest")


@pytest.fixture(scope="module", params=SIZES)
def size(request: pytest.FixtureRequest) -> int:
    found: int = request.param
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, size: int) -> Iterator[Path]:
    """A folder with film.mp4, which is noise."""
    folder = tmp_path_factory.mktemp("very-large")
    with (folder / "film.mp4").open("wb") as file:
        for number in range(0, size, 2**26):
            file.write((noise(2**20, number) * 64)[: size - number])
    yield folder
    (folder / "film.mp4").unlink()


@pytest.fixture(scope="module")
def md5(folder: Path) -> str:
    with (folder / "film.mp4").open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the disk: these files may be larger than the memory."""
    return tmp_path_factory.mktemp("servers")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """Its media are gone afterwards: pytest keeps the folders of its last runs."""
    with Server(tmp_path / "data") as server:
        yield server
    for blob in (tmp_path / "data" / "media").rglob("*/*"):
        if blob.is_file():
            blob.unlink()


def check(server: Server, name: str, size: int, md5: str, upload: Callable[[], Json]) -> None:
    idle, begun = peak_memory(server.pid), time.monotonic()
    answer = upload()
    seconds, grown = time.monotonic() - begun, peak_memory(server.pid) - idle
    print(f"{name}: {size / seconds / MB:.0f} MB/s, memory +{grown / MB:.1f} MB over {idle / MB:.0f} MB")
    assert (answer["bytes"], answer["etag"]) == (size, md5)
    assert grown < ALLOWED


@pytest.mark.parametrize("whole", [True, False])
def test_puts(server: Server, folder: Path, size: int, md5: str, whole: bool) -> None:
    """One request, and chunks: what the protocol costs, without an SDK."""

    chunk = size if whole else CHUNK

    def upload() -> Json:
        target = f"/v1_1/{server.cloud}/raw/upload?{urlencode(server.signed({'nonce': chunk}))}"
        connection = HTTPConnection("127.0.0.1", server.port, timeout=300, blocksize=2**20)
        with (folder / "film.mp4").open("rb") as file:
            for first, last in spans(size, chunk):
                body = file if whole else file.read(chunk)
                sent = {**headers(first, last, size, "large"), "content-length": str(last + 1 - first)}
                connection.request("PUT", target, body, sent)
                answer: Json = json.loads(connection.getresponse().read())
        connection.close()
        return answer

    check(server, "one request" if whole else "chunks", size, md5, upload)


def test_the_python_sdk(server: Server, folder: Path, size: int, md5: str) -> None:
    def upload() -> Json:
        known = options(server, server.server)
        answer: Json = uploader.upload_large(
            str(folder / "film.mp4"), resource_type="raw", chunk_size=CHUNK, public_id="large", **known
        )
        return answer

    check(server, "PyPI's upload_large", size, md5, upload)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_node_sdk(server: Server, node: str, folder: Path, size: int, md5: str, package: str) -> None:
    def upload() -> Json:
        how = json.dumps({"resource_type": "raw", "chunk_size": CHUNK, "public_id": "large"})
        done = subprocess.run(
            [node, NODE / "large_again.cjs", package, folder / "film.mp4", how],
            env={**os.environ, "CLOUDINARY_URL": server.urls[1]},
            check=True,
            capture_output=True,
            text=True,
        )
        (answer,) = json.loads(done.stdout)
        found: Json = answer
        return found

    check(server, f"npm's upload_large, {package}", size, md5, upload)


def test_tus_js_client(server: Server, node: str, folder: Path, size: int, md5: str) -> None:
    def upload() -> Json:
        done = Node(node, server, folder, options={"chunkSize": CHUNK}).run()
        told: Json = server.get(f"/tus/{done['url'].split('/tus/')[1]}").json()
        return told

    check(server, "tus-js-client", size, md5, upload)


@pytest.mark.parametrize("whole", [True, False])
def test_a_relay(server: Server, folder: Path, size: int, md5: str, whole: bool, tmp_path: Path) -> None:
    """The bytes pass through: the relay's memory is flat, and the account has the file as it was."""
    account = server.server
    url = f"cloudinary://{account.key}:{account.secret}@{server.cloud}?upload_prefix={server.base}"
    with Server(tmp_path / "relay", env={"UPONCE_RELAY": url}) as relay:

        def upload() -> Json:
            sent = {"resource_type": "raw", "public_id": "large", **options(relay, relay.browser)}
            send = uploader.upload if whole else partial(uploader.upload_large, chunk_size=CHUNK)
            answer: Json = send(str(folder / "film.mp4"), **sent)
            return answer

        check(relay, "relay, one request" if whole else "relay, chunks", size, md5, upload)
