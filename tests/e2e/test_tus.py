"""tus by the clients that people have: tus-js-client in Node, tuspy, curl; broken off, restarted, over bad networks."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from tusclient import client as tuspy
from tusclient.exceptions import TusCommunicationError

from proof.faults.proxy import Fault, FaultProxy, Kind
from tests.e2e.conftest import NODE
from tests.e2e.test_large_files import MB, data, folder
from tests.e2e.test_readme import block
from tests.server import Server

__all__ = ["data", "folder"]  # the fixtures of the neighbour

pytestmark = pytest.mark.xdist_group("tus")

GUIDE = "docs/guide/tus.md"
CHUNKS = {"chunkSize": 6 * MB}
Json = dict[str, Any]


def endpoint(server: Server, base: str | None = None) -> str:
    return f"{base or server.base}/tus/{server.cloud}/"


class Node:
    """tus-js-client, uploading film.mp4 in a separate process."""

    def __init__(
        self,
        node: str,
        server: Server,
        folder: Path,
        *,
        base: str | None = None,
        fields: Mapping[str, str] | None = None,
        **how: Any,
    ) -> None:
        told = {"endpoint": endpoint(server, base), "fields": fields or server.signed({"folder": "tus"}), **how}
        self._process = subprocess.Popen(
            [node, NODE / "tus.cjs", folder / "film.mp4"],
            env={**os.environ, "TUS": json.dumps(told)},
            stdout=subprocess.PIPE,
            text=True,
        )

    def lines(self) -> Iterator[Json]:
        """What it prints, as it comes."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            yield json.loads(line)
        assert self._process.wait(120) == 0
        self._process.stdout.close()

    def run(self) -> Json:
        """Its last word."""
        return list(self.lines())[-1]


def assert_stored(server: Server, url: str, data: bytes) -> Json:
    """The upload at this address became one asset, of the right bytes, and the address shows the asset."""
    told: Json = server.get(f"/tus/{url.split('/tus/')[1]}").json()
    assert told["done"] is True
    assert told["etag"] == hashlib.md5(data).hexdigest()
    assert server.get(told["secure_url"]).data == data
    return told


@pytest.mark.proof
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"options": CHUNKS},
        {"options": {**CHUNKS, "uploadDataDuringCreation": True}},
        {"options": {"uploadDataDuringCreation": True}},
        {"stream": True, "options": CHUNKS},
        {"options": {**CHUNKS, "overridePatchMethod": True}},
        {"pause": True, "options": CHUNKS},
    ],
    ids=["at once", "in parts", "with the creation", "all with the creation", "of unknown size", "by POST", "paused"],
)
def test_tus_js_client(server: Server, node: str, folder: Path, data: bytes, how: Json) -> None:
    fields = server.signed({"folder": "tus", "nonce": json.dumps(how)})
    done = Node(node, server, folder, fields=fields, **how).run()
    assert "error" not in done, done
    told = assert_stored(server, done["url"], data)
    assert (told["original_filename"], told["resource_type"]) == ("film", "video")
    assert done["asset"] == told["secure_url"]
    refused = Node(node, server, folder, fields=fields).run()
    assert json.loads(refused["body"])["error"]["code"] == "signature_used"


@pytest.mark.proof
def test_tus_js_client_cannot_send_parts_in_parallel(server: Server, node: str, folder: Path) -> None:
    """Each part would be a separate upload, and one signature is for one upload."""
    done = Node(node, server, folder, options={"parallelUploads": 2}).run()
    assert "Upload-Concat is not supported" in done["error"]


@pytest.mark.proof
def test_tus_js_client_goes_on_in_another_process(
    server: Server, node: str, folder: Path, data: bytes, tmp_path: Path
) -> None:
    """It remembers the address alone; nothing is signed again."""
    how: Json = {"storage": str(tmp_path / "urls.json"), "options": CHUNKS}
    (first,) = Node(node, server, folder, leave=True, **how).lines()
    assert first == {"chunk": 6 * MB}
    done = Node(node, server, folder, fields={"signature": "none"}, **how).run()
    assert_stored(server, done["url"], data)
    assert [method for method, _ in done["requests"]] == ["HEAD", *["PATCH"] * 4]


@pytest.mark.proof
@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_tus_js_client_goes_on_after_the_server_was_gone(
    tmp_path: Path, node: str, folder: Path, data: bytes, ending: str
) -> None:
    """During a request, on a connection that takes a second for 8 MB."""
    with (
        Server(tmp_path / "data", env={"UPONCE_RECORD_BYTES": str(MB)}) as server,
        FaultProxy(server.port, lambda _: Fault(rate=8 * MB), most=12 * MB) as slow,
    ):
        options = {"chunkSize": 3 * MB, "retryDelays": [500] * 120}  # a machine may take long to start a server
        lines = Node(node, server, folder, base=slow.base, options=options).lines()
        assert next(lines) == {"chunk": 3 * MB}
        if ending == "kill":
            server.kill()
        else:
            server.stop()
        server.start()
        slow.go_on()
        done = list(lines)[-1]
        assert_stored(server, done["url"], data)
        assert "HEAD" in [method for method, _ in done["requests"]]


@pytest.mark.proof
@pytest.mark.parametrize("kind", [Kind.CUT, Kind.RESET, Kind.SWALLOW])
def test_tus_js_client_over_a_bad_network(server: Server, node: str, folder: Path, data: bytes, kind: Kind) -> None:
    """Each connection breaks after 4 MB more than the one before: during requests, and after the last one."""
    with FaultProxy(server.port, lambda number: Fault(kind, after=number * 4 * MB)) as bad:
        done = Node(node, server, folder, base=bad.base, fields=server.signed({"nonce": kind})).run()
        assert "error" not in done, done
        assert bad.struck[kind] >= (1 if kind is Kind.SWALLOW else 2)
    assert_stored(server, done["url"], data)


@pytest.mark.parametrize("checksum", [False, True])
def test_tuspy(server: Server, folder: Path, data: bytes, checksum: bool) -> None:
    """In parts of 6 MB; broken off after two of them, resumed by its address, and refused when it comes again."""
    metadata = server.signed({"public_id": f"tuspy/{checksum}"}) | {"filename": "film.mp4"}
    client = tuspy.TusClient(endpoint(server))
    with (folder / "film.mp4").open("rb") as file:
        options: Json = {"file_stream": file, "chunk_size": 6 * MB, "upload_checksum": checksum}
        first = client.uploader(metadata=metadata, **options)
        first.upload(stop_at=12 * MB)
        assert first.offset == 12 * MB
        second = client.uploader(url=first.url, **options)
        assert second.offset == 12 * MB
        second.upload()
        with pytest.raises(TusCommunicationError) as refused:
            client.uploader(metadata=metadata, **options).upload()
    assert assert_stored(server, str(first.url), data)["public_id"] == f"tuspy/{checksum}"
    assert b"signature_used" in refused.value.response_content


@pytest.mark.proof
def test_tuspy_over_a_bad_network(server: Server, folder: Path, data: bytes) -> None:
    """Every third of its connections breaks during a part."""
    breaks = Fault(Kind.RESET, after=MB)
    with (
        FaultProxy(server.port, lambda number: Fault() if number % 3 else breaks) as bad,
        (folder / "film.mp4").open("rb") as file,
    ):
        uploader = tuspy.TusClient(endpoint(server, bad.base)).uploader(
            file_stream=file,
            metadata=server.signed({"public_id": "tuspy/bad"}),
            chunk_size=3 * MB,
            retries=10,
            retry_delay=0,
        )
        uploader.upload()
        assert bad.struck[Kind.RESET] > 1
    assert_stored(server, str(uploader.url), data)


@pytest.mark.proof
def test_tuspy_that_lost_the_last_reply(server: Server, folder: Path, data: bytes) -> None:
    """It asks for the offset, and then sends a request without bytes from the end."""
    lost = Fault(Kind.SWALLOW, after=len(data) - MB)
    with (
        FaultProxy(server.port, lambda number: lost if number == 2 else Fault()) as bad,
        (folder / "film.mp4").open("rb") as file,
    ):
        uploader = tuspy.TusClient(endpoint(server, bad.base)).uploader(
            file_stream=file, metadata=server.signed({"public_id": "tuspy/lost"}), retries=3, retry_delay=0
        )
        uploader.upload()
        assert (bad.struck[Kind.SWALLOW], bad.connections) == (1, 4)
    assert_stored(server, str(uploader.url), data)


def test_tuspy_keeps_the_reason_of_a_refusal(server: Server, folder: Path) -> None:
    """As the guide says. Its own error comes from the tries after it."""
    with (folder / "film.mp4").open("rb") as file:
        uploader: Any = tuspy.TusClient(endpoint(server)).uploader(
            file_stream=file, metadata=server.signed({"allowed_formats": "png"}), retries=2, retry_delay=0
        )
        with pytest.raises(TusCommunicationError, match="Attempt to retrieve offset fails with status 404"):
            uploader.upload()
    assert b"format_not_allowed" in uploader.request.response_content


def shell(server: Server, folder: Path, program: str, *words: str) -> str:
    environment = {
        **os.environ,
        "CLOUDINARY_URL": server.urls[0],
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    done = subprocess.run(
        [*words, program], cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_curl_of_the_guide(server: Server, curl: str, folder: Path, data: bytes) -> None:
    """The guide's program unchanged, in a shell."""
    told = json.loads(shell(server, folder, block(GUIDE, "sh", "curl"), "bash", "-e", "-c"))
    assert told["etag"] == hashlib.md5(data).hexdigest()
    assert server.get(told["secure_url"]).data == data


def test_the_curl_of_the_guide_ends_after_a_final_refusal(server: Server, curl: str, folder: Path) -> None:
    """The signature is spent elsewhere after the first 5 MB, so no later request succeeds."""
    spend = """tail() { command tail "$@" | head -c 5000000; }
    curl() {
        [ "$offset:$2" != 0:-I ] || command curl -sS -o spent.json -T film.mp4 "$GRANT"
        command curl "$@"
    }
    """
    told = shell(server, folder, spend + block(GUIDE, "sh", "curl"), "bash", "-e", "-c")
    assert json.loads((folder / "spent.json").read_bytes())["bytes"] == 25 * MB
    assert '"code":"signature_used"' in told
    assert '"done":false,"bytes":5000000' in told


@pytest.mark.parametrize("broken", ["echo 503", "echo 000; return 7", "echo 100; return 56"])
def test_the_curl_of_the_guide_pauses_before_it_tries_again(
    server: Server, curl: str, folder: Path, data: bytes, tmp_path: Path, broken: str
) -> None:
    once = f"""curl() {{
        if [[ "$*" != *PATCH* || -e {tmp_path}/pauses ]]; then command curl "$@"; else {broken}; fi
    }}
    sleep() {{ echo "$1" >> {tmp_path}/pauses; }}
    """
    told = json.loads(shell(server, folder, once + block(GUIDE, "sh", "curl"), "bash", "-e", "-c"))
    assert told["etag"] == hashlib.md5(data).hexdigest()
    assert (tmp_path / "pauses").read_text() == "5\n"


def test_the_python_of_the_guide(server: Server, folder: Path, data: bytes) -> None:
    url = shell(server, folder, block(GUIDE, "python", "tusclient"), sys.executable, "-c").strip()
    assert server.get(url).data == data


def guide_in_node(node: str, folder: Path, remembered: Path, signed: list[Json]) -> list[Json]:
    """The assets that `uploadResumably` of the guide returns: one file, under each of these signatures in turn.

    tus-js-client is the same in Node as in browsers, except that it remembers addresses in a file. It says that an
    upload has succeeded before that file is written without it.
    """
    code = block(GUIDE, "js", "uploadResumably").replace("import * as tus from", "const tus = require(")
    program = f"""
        {block(GUIDE, "js", "function assetOf")}
        {code.replace('client";', 'client");')}
        tus.defaultOptions.urlStorage = new tus.FileUrlStorage({json.dumps(str(remembered))});
        const file = () => require("fs").createReadStream({json.dumps(str(folder / "film.mp4"))});
        (async () => {{
          for (const grant of {json.dumps(signed)}) {{
            const asset = await uploadResumably(Object.assign(file(), {{ name: "film.mp4" }}), grant);
            console.log(JSON.stringify(asset));
            while ((await tus.defaultOptions.urlStorage.findAllUploads()).length)
              await new Promise((resolve) => setTimeout(resolve, 20));
          }}
        }})();
    """
    done = subprocess.run([node, "-e", program], cwd=NODE, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_the_node_of_the_guide(server: Server, node: str, folder: Path, data: bytes, tmp_path: Path) -> None:
    """One file twice, under two signatures: two assets, each in the folder that its signature names."""
    folders = ["guide/first", "guide/second"]
    signed = [{"endpoint": endpoint(server), "fields": server.signed({"folder": name})} for name in folders]
    assets = guide_in_node(node, folder, tmp_path / "urls.json", signed)
    assert [asset["public_id"].rpartition("/")[0] for asset in assets] == folders
    for asset in assets:
        assert server.get(asset["secure_url"]).data == data
