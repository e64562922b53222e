"""The reference deployment under uploads: servers that come and go, a database and a store that do."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import urllib3

from tests.deployment import Deployment
from tests.e2e.commands import code_of
from tests.e2e.traffic import Traffic
from tests.scrape import BEARER, Scraped
from tests.server import Key, Server, asked
from tests.tus import BYTES, VERSION, metadata

ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.proof,
    pytest.mark.xdist_group("deployment"),
    pytest.mark.skipif(shutil.which("caddy") is None, reason="ABSENT: caddy is not installed"),
]


@pytest.fixture(scope="module")
def deployment() -> Iterator[Deployment]:
    with Deployment() as deployment:
        yield deployment


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ready(deployment: Deployment) -> tuple[int, ...]:
    """What the front says, and each server behind it."""
    return tuple(server.get("/readyz").status for server in (deployment.front, *deployment.servers))


def uploads_work(deployment: Deployment) -> bool:
    """If no server is available, the balancer's own answer has no body."""
    return deployment.front.post(deployment.front.signed({"nonce": time.time()}), b"bytes").status == 200


def test_both_servers_work_and_a_signature_works_once_on_either(deployment: Deployment) -> None:
    """What one server stored the other delivers; its log says which server wrote it."""
    front = deployment.front
    fields = front.signed({"public_id": "cat", "nonce": "once"})
    answer = front.post(fields, b"a cat", resource_type="raw")
    assert str(answer.json()["url"]).startswith(deployment.caddy.url)
    for server in deployment.servers:
        server.cloud, server.browser = front.cloud, front.browser
        assert code_of(server, fields) == "signature_used"
        assert server.get(f"/{front.cloud}/raw/upload/cat").data == b"a cat"
        name = server.data_dir.name
        line = rf"^[-\dT:.]+Z INFO {name}/\d+ \w{{32}} refused .*public_id=cat .*code=signature_used "
        assert re.search(line, server.output, re.M)
    assert front.get(f"/{front.cloud}/raw/upload/cat").data == b"a cat"


def test_each_server_tells_its_own_metrics_and_the_balancer_none(deployment: Deployment) -> None:
    for server in deployment.servers:
        scraped = Scraped(server.get("/metrics", headers=BEARER).data.decode())
        assert scraped.value("uponce_build_info", server=server.data_dir.name) == 1
        assert scraped.value("uponce_http_requests_total", route="/readyz", status="200") > 0
    for path in (
        "/metrics",
        "/metrics?a",
        "/METRICS",
        "/%6detrics",
        "//metrics",
        "/metrics/",
        "/x/../metrics",
        "/metrics%0A",
    ):
        for method in ("GET", "HEAD", "POST"):
            answer = raw(deployment.front.base, method, path)
            assert answer.startswith(b"HTTP/1.1 404 "), (method, path, answer)
            assert b"uponce_" not in answer


def raw(base: str, method: str, path: str) -> bytes:
    """The answer to a request whose path no client has tidied up."""
    url = urlsplit(base)
    assert url.hostname is not None and url.port is not None
    with socket.create_connection((url.hostname, url.port), timeout=20) as connection:
        told = f"Host: {url.netloc}\r\nAuthorization: {BEARER['authorization']}\r\nConnection: close\r\n"
        connection.sendall(f"{method} {path} HTTP/1.1\r\n{told}Content-Length: 0\r\n\r\n".encode())
        return b"".join(iter(lambda: connection.recv(65536), b""))


PARTS = [bytes([number]) * (5 * 1024 * 1024) for number in range(3)]
WHOLE = b"".join(PARTS)


def test_chunks_of_one_upload_come_to_any_server(deployment: Deployment) -> None:
    """Each to another one, the last to whomever the balancer chooses."""
    front = deployment.front
    fields = front.signed({"public_id": "film", "nonce": "film"})
    for number, (server, part) in enumerate(zip((*deployment.servers, front), PARTS, strict=True)):
        server.cloud, first = front.cloud, number * len(part)
        told = {
            "X-Unique-Upload-Id": "film",
            "Content-Range": f"bytes {first}-{first + len(part) - 1}/{len(WHOLE)}",
        }
        answer = server.post(fields, part, resource_type="raw", headers=told)
        assert answer.status == 200, answer.data
        assert answer.json()["bytes"] == first + len(part)
    assert front.get(f"/{front.cloud}/raw/upload/film").data == WHOLE


def test_an_upload_by_tus_goes_on_at_any_server(deployment: Deployment) -> None:
    front = deployment.front
    fields = front.signed({"public_id": "tus", "nonce": "tus"})
    about = {"Upload-Metadata": metadata({**fields, "resource_type": "raw"}), "Upload-Length": str(len(WHOLE))}
    created = asked("POST", f"{front.base}/tus/{front.cloud}/", headers={**VERSION, **about})
    path, offset = urlsplit(created.headers["location"]).path, 0
    for server, part in zip((*deployment.servers, front), PARTS, strict=True):
        told = {**VERSION, **BYTES, "Upload-Offset": str(offset)}
        answer = asked("PATCH", server.base + path, headers=told, body=part)
        offset += len(part)
        assert (answer.status, answer.headers["upload-offset"]) == (204, str(offset)), answer.data
        for other in deployment.servers:
            assert asked("HEAD", other.base + path, headers=VERSION).headers["upload-offset"] == str(offset)
    assert front.get(f"/{front.cloud}/raw/upload/tus").data == WHOLE


def test_no_upload_fails_while_servers_restart_one_after_the_other(deployment: Deployment) -> None:
    with Traffic(deployment.front) as traffic:
        until(lambda: len(traffic.spent) > 10)
        deployment.restart_one_after_the_other()
        done = len(traffic.spent)
        until(lambda: len(traffic.spent) > done + 10)
    assert traffic.refused == []
    assert {code_of(deployment.front, fields) for fields in traffic.spent} == {"signature_used"}


def test_a_server_that_dies_is_left_out(deployment: Deployment) -> None:
    first, second = deployment.servers
    first.kill()
    until(lambda: all(uploads_work(deployment) for _ in range(5)))
    assert second.get("/readyz").status == 200
    first.start()
    until(lambda: ready(deployment) == (200, 200, 200))


@pytest.mark.parametrize("part", ["database", "store"])
def test_what_all_stand_on_is_gone(deployment: Deployment, part: str) -> None:
    """Every server says so, the balancer sends nothing any more, and all by themselves they come back."""
    unused = deployment.front.signed({"nonce": f"kept while the {part} is gone"})
    if part == "database":
        deployment.postgres.kill()
    else:
        deployment.store.kill()
    until(lambda: ready(deployment) == (503, 503, 503), 180)  # one look may take thirty seconds
    refused = deployment.front.post(unused, b"bytes")
    assert refused.status == 503
    if part == "database":
        deployment.postgres.start()
    else:
        deployment.store.run()
    until(lambda: ready(deployment) == (200, 200, 200))
    until(lambda: uploads_work(deployment))
    assert code_of(deployment.front, unused) == ""


def test_what_is_shipped_stands_in_the_folder() -> None:
    folder = ROOT / "deploy"
    units = {"uponce.service", "uponce-backup.service", "uponce-backup.timer"}
    fronts = {"Caddyfile", "nginx.conf", "connections.nft"}
    assert {path.name for path in folder.iterdir()} == {*fronts, "Dockerfile", "compose.yaml", *units}


def test_by_one_command() -> None:
    """`make fleet`: it says where, takes an upload, and is gone after Ctrl-C."""
    command = [sys.executable, "-m", "tests.deployment"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
        assert running.stdout is not None
        told = ""
        for line in running.stdout:
            told += line
            if line.startswith("listening on"):
                break
        key = re.search(r"^CLOUDINARY_URL=cloudinary://(\w+):(\w+)@(\w+)\?upload_prefix=(http://\S+)$", told, re.M)
        assert key is not None, told
        front = Server(Path("unused"))
        front.browser, front.cloud, front.base = Key(key[1], key[2]), key[3], key[4]
        assert code_of(front, front.signed()) == ""
        front.__exit__()
        running.send_signal(signal.SIGINT)
        assert running.wait(60) == 0
    with pytest.raises(urllib3.exceptions.HTTPError):
        front.get("/readyz")
    assert all(not Path(log).exists() for log in re.findall(r"its log: (\S+)", told))
