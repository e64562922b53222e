"""Files in chunks, by the clients that people have: both SDKs, ten at a time, a page, curl; and across a kill."""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cloudinary import uploader
from cloudinary.exceptions import BadRequest
from cloudinary.utils import api_sign_request

from tests import samples
from tests.asgi import END, FORM, part, parts_of
from tests.chunks import headers, noise, spans
from tests.e2e.conftest import NODE
from tests.e2e.test_python_sdk import delivered, options
from tests.e2e.test_readme import block
from tests.server import Server

pytestmark = pytest.mark.xdist_group("large files")

MB = 1_000_000
CHUNK = 6 * MB
GUIDE = "docs/guide/large-files.md"
Json = dict[str, Any]


def film(size: int) -> bytes:
    """A real film of that size: most of it is a box that players skip."""
    head = samples.mp4(3)
    rest = size - len(head)
    return head + rest.to_bytes(4, "big") + b"free" + noise(rest - 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4 of 25 MB."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "film.mp4").write_bytes(film(25 * MB))
    return folder


@pytest.fixture(scope="module")
def data(folder: Path) -> bytes:
    return (folder / "film.mp4").read_bytes()


def assert_stored(server: Server, answer: Json, data: bytes) -> None:
    assert answer["done"] is True
    assert answer["etag"] == hashlib.md5(data).hexdigest()
    assert delivered(server, answer) == data


@pytest.mark.parametrize("key", ["browser", "server"])
@pytest.mark.parametrize("as_stream", [False, True])
def test_the_python_sdk(server: Server, folder: Path, data: bytes, key: str, as_stream: bool) -> None:
    """The SDK signs each chunk again, with the public_id on the first one only.

    Without a public_id, chunks of two uploads into one folder would have one signature if signed in one second.
    """
    path = folder / "film.mp4"
    answer = uploader.upload_large(
        path.open("rb") if as_stream else str(path),
        resource_type="video",
        chunk_size=CHUNK,
        folder=f"large/{key}/{as_stream}",
        public_id="film",
        **options(server, getattr(server, key)),
    )
    assert answer["public_id"] == f"large/{key}/{as_stream}/film"
    assert answer["original_filename"] == "film"
    assert_stored(server, answer, data)


def test_the_python_sdk_without_a_public_id(server: Server, folder: Path, data: bytes) -> None:
    """It would copy the one of an interim answer and put the folder before it again."""
    named = {"folder": "once", "use_filename": True, "unique_filename": False}
    answer = uploader.upload_large(
        str(folder / "film.mp4"), chunk_size=CHUNK, **named, **options(server, server.server)
    )
    assert answer["public_id"] == "once/film.mp4"
    assert_stored(server, answer, data)


def test_small_chunks_are_refused_in_words(server: Server, folder: Path) -> None:
    with pytest.raises(BadRequest, match=r"^All parts except EOF-chunk must be larger than 5mb$"):
        uploader.upload_large(str(folder / "film.mp4"), chunk_size=MB, **options(server, server.server))


@pytest.mark.parametrize("package", ["cloudinary-2-1-0", "cloudinary-newest"])
def test_the_node_sdk(server: Server, node: str, folder: Path, data: bytes, package: str) -> None:
    """`upload_large` and `upload_chunked_stream`; the total is -1 until the last chunk."""
    done = subprocess.run(
        [node, NODE / "large.cjs", package, folder / "film.mp4"],
        env={**os.environ, "CLOUDINARY_URL": server.urls[1]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for answer in json.loads(done.stdout):
        assert_stored(server, answer, data)


@pytest.mark.parametrize("workers", [1, 2])
def test_ten_at_a_time_without_an_order(tmp_path: Path, data: bytes, workers: int) -> None:
    """Directus: SHA-256, a timestamp in milliseconds, one signature, the total on the last chunk only."""
    with Server(tmp_path / "data", workers=workers) as server:
        params = {"timestamp": int(time.time() * 1000), "public_id": "directus"}
        signature = api_sign_request(params, server.browser.secret, algorithm="sha256", signature_version=1)
        fields = {**{n: str(v) for n, v in params.items()}, "signature": signature, "api_key": server.browser.key}

        def send(span: tuple[int, int]) -> Json:
            first, last = span
            total = len(data) if last == len(data) - 1 else -1
            sent = headers(first, last, total, "1767225600123")
            answer = server.post(fields, data[first : last + 1], resource_type="video", headers=sent)
            assert answer.status == 200, answer.data
            found: Json = answer.json()
            return found

        with ThreadPoolExecutor(10) as pool:
            answers = list(pool.map(send, reversed(spans(len(data), 5_500_000))))
        (final,) = [answer for answer in answers if answer["done"]]
        assert_stored(server, final, data)
        assert server.post(fields, b"again", resource_type="raw").json()["error"]["code"] == "signature_used"


def test_the_curl_of_the_guide(server: Server, curl: str, folder: Path, data: bytes) -> None:
    assert_stored(server, by_curl(folder, server.urls[0]), data)


def by_curl(folder: Path, cloudinary_url: str) -> Json:
    """Run the guide's program unchanged, in a shell whose `wc` pads its number, as on macOS. Return its last answer."""
    padding = folder / "bin/wc"
    padding.parent.mkdir(exist_ok=True)
    padding.write_text(f'#!/bin/sh\nprintf "%16s\\n" "$({shutil.which("wc")} "$@")"\n')
    padding.chmod(0o755)
    environment = {
        **os.environ,
        "CLOUDINARY_URL": cloudinary_url,
        "PATH": f"{padding.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        ["bash", "-e", "-c", block(GUIDE, "sh", "curl")],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    *interim, final = json.loads(f"[{done.stdout.replace('}{', '},{')}]")
    assert [answer["bytes"] for answer in interim] == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK]
    found: Json = final
    return found


def test_the_python_of_the_guide(server: Server, folder: Path, data: bytes) -> None:
    program = block(GUIDE, "python", "upload_large")
    environment = {**os.environ, "CLOUDINARY_URL": server.urls[1]}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    url, size = done.stdout.split()
    assert int(size) == len(data)
    assert server.get(url).data == data


def test_the_node_of_the_guide(server: Server, node: str, folder: Path, data: bytes) -> None:
    program = block(GUIDE, "js", "upload_large").replace('require("cloudinary")', 'require("cloudinary-newest")')
    done = subprocess.run(
        [node, "-e", program.replace("film.mp4", str(folder / "film.mp4"))],
        cwd=NODE,
        env={**os.environ, "CLOUDINARY_URL": server.urls[1]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert server.get(done.stdout.strip()).data == data


def test_the_page_of_the_guide(server: Server, node: str, folder: Path, data: bytes) -> None:
    """Its function with Node's fetch and Blob, under one signature of the browser key; then once more."""
    program = f"""
        {block(GUIDE, "js", "uploadInChunks")}
        const file = new File([require("fs").readFileSync("film.mp4")], "film.mp4");
        const url = {json.dumps(server.upload_url())}, fields = {json.dumps(server.signed())};
        const send = () => uploadInChunks(url, fields, file, {{ size: {CHUNK} }});
        send().then((answer) => send().catch((error) => console.log(JSON.stringify([answer, error.message]))));
    """
    done = subprocess.run([node, "-e", program], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    answer, refusal = json.loads(done.stdout)
    assert_stored(server, answer, data)
    assert refusal.startswith("This signature was already used by an upload that completed at 20")


def test_the_page_of_the_guide_says_that_a_slice_is_lost(server: Server, node: str, folder: Path) -> None:
    """The second slice is answered and never arrives. The answer to the last one is 200 and knows no asset."""
    program = f"""
        {block(GUIDE, "js", "uploadInChunks")}
        const file = new File([require("fs").readFileSync("film.mp4")], "film.mp4");
        const url = {json.dumps(server.upload_url())}, fields = {json.dumps(server.signed())};
        const send = fetch;
        let sent = 0;
        globalThis.fetch = (...request) => (++sent === 2 ? Promise.resolve(Response.json({{}})) : send(...request));
        uploadInChunks(url, fields, file, {{ size: {CHUNK} }})
            .then((answer) => console.log(JSON.stringify(answer)), (error) => console.log("refused:", error.message));
    """
    done = subprocess.run([node, "-e", program], cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "refused: Slices of this upload are lost. Send the file again.\n"


@pytest.mark.proof
@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_an_upload_goes_on_after_the_server_was_gone(tmp_path: Path, data: bytes, ending: str) -> None:
    """During a chunk: that chunk is lost, and nothing else."""
    with Server(tmp_path / "data") as server:
        fields = server.signed()
        first, second, *rest = spans(len(data), CHUNK)

        def send(span: tuple[int, int]) -> Json:
            sent = headers(*span, len(data), "film")
            answer = server.post(fields, data[span[0] : span[1] + 1], resource_type="raw", headers=sent)
            found: Json = answer.json()
            return found

        assert send(first)["bytes"] == CHUNK
        with half_sent(server, fields, second, data):
            if ending == "kill":
                server.kill()
        if ending == "stop":
            server.stop()
        server.start()
        assert send(first)["bytes"] == CHUNK
        answers = [send(span) for span in (second, *rest)]
        assert answers[0] == {"done": False, "bytes": 2 * CHUNK, "kind": "upload", "resource_type": "raw"}
        assert_stored(server, answers[-1], data)
        assert send(first)["error"]["code"] == "signature_used"


def half_sent(server: Server, fields: dict[str, str], span: tuple[int, int], data: bytes) -> socket.socket:
    """A connection on which the first half of a chunk has been sent, by a client whom the server asked for it."""
    first, last = span
    body = parts_of(fields) + part("file", data[first : last + 1], "film.mp4") + END
    head = {
        "host": f"127.0.0.1:{server.port}",
        "content-length": len(body),
        "expect": "100-continue",
        **FORM,
        **headers(first, last, len(data), "film"),
    }
    lines = [f"POST /v1_1/{server.cloud}/raw/upload HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    connection.sendall("\r\n".join([*lines, "", ""]).encode())
    assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")
    connection.sendall(body[: len(body) // 2])
    time.sleep(0.5)
    return connection
