"""The shipped Caddyfile and nginx site file: what a stranger sends, and a server that dies, costs no honest request."""

import http.client
import shutil
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode, urlsplit

import pytest
import urllib3

from tests.deployment import NGINX, Caddy, Nginx
from tests.server import Server
from tests.tus import VERSION, metadata

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("deployment")]

ROUNDS = 6  # at most: other work on the machine only adds time, and a front adds it in every round
INSTALLED = {"caddy": shutil.which("caddy"), "nginx": NGINX}


class Front(NamedTuple):
    """`servers` are two separate servers, each with its own keys. Both answer every request here alike."""

    name: str
    url: str
    servers: tuple[Server, Server]
    log: Path

    def raw(self, data: bytes, source: str = "127.0.0.1", silence: float = 1) -> bytes:
        """Send these bytes; all that comes back until the front closes or is silent for so many seconds."""
        at = urlsplit(self.url)
        with socket.create_connection((at.hostname or "", at.port or 0), 20, (source, 0)) as client:
            client.sendall(data)
            client.settimeout(silence)
            received = b""
            try:
                while block := client.recv(65_536):
                    received += block
            except TimeoutError:
                pass
            return received

    def ask(self, method: str, path: str) -> tuple[int, float]:
        """Status and seconds of one honest request on a new connection."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=30)
        begun = time.monotonic()
        try:
            connection.request(method, path, b"bytes" if method == "PUT" else None)
            status = connection.getresponse().status
        finally:
            connection.close()
        return status, time.monotonic() - begun


RESUMED = f"/tus/cloud/{'a' * 64}/{'b' * 32}"


@pytest.fixture(scope="module", params=["caddy", "nginx"])
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    if INSTALLED[request.param] is None:
        pytest.skip(f"ABSENT: {request.param} is not installed")
    folder, program = tmp_path_factory.mktemp("fronts"), Caddy() if request.param == "caddy" else Nginx()
    settings = {"UPONCE_TRUSTED_PROXIES": "127.0.0.1"}
    with ExitStack() as stack:
        one, two = (stack.enter_context(Server(folder / name, env=settings)) for name in ("one", "two"))
        stack.callback(program.stop)
        program.run([one, two])
        log = program.folder / {"caddy": "log", "nginx": "access.log"}[request.param]
        yield Front(request.param, program.url, (one, two), log)


def host_of(front: Front) -> str:
    return urlsplit(front.url).netloc


def broken(front: Front) -> dict[str, bytes]:
    """Requests that end badly between the front and a server, in one way or another."""
    upload = f"/v1_1/{front.servers[0].cloud}/raw/upload"
    head = f"POST {upload} HTTP/1.1\r\nHost: {host_of(front)}\r\nContent-Type: multipart/form-data; boundary=b\r\n"
    many = "X: y\r\n" * 4000
    chunked = f"{head}Transfer-Encoding: chunked\r\n\r\n".encode()
    upgrade = f"GET /healthz HTTP/1.1\r\nHost: {host_of(front)}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    return {
        "a malformed chunk": chunked + b"ZZ\r\n",
        "a torn chunk": chunked + b"5\r\nab",
        "a torn body": f"{head}Content-Length: 100\r\n\r\n--b".encode(),
        "a body that is no form": f"{head}Content-Length: 5\r\n\r\nhello".encode(),
        "too many headers": f"{head}{many}\r\n".encode(),
        "an upgrade": upgrade.encode(),
        "half a head": head.encode(),
    }


def test_broken_requests_take_no_server_out(front: Front) -> None:
    """After each of them every honest request is answered at once, on whichever server."""
    assert broken(front)["too many headers"].count(b"\r\n") > 4000
    assert [] in (slow_after_broken(front) for _ in range(ROUNDS))


def slow_after_broken(front: Front) -> list[str]:
    """The kinds of broken requests after which an honest one is slow. All honest ones are answered."""
    slow = []
    for kind, data in broken(front).items():
        front.raw(data)
        answers = [front.ask("GET", "/healthz") for _ in range(10)]
        assert {status for status, _ in answers} == {200}, (kind, answers)
        if any(seconds > 1 for _, seconds in answers):
            slow.append(kind)
    return slow


def forged(front: Front) -> str:
    """An upload that either server refuses, for its api_key is no key of theirs."""
    return f"/v1_1/{front.servers[0].cloud}/raw/upload?api_key=a&signature=b&timestamp=1&public_id=c"


def test_a_dead_server_costs_no_request(front: Front) -> None:
    """nginx sends uploads to the other server too. Caddy cannot before its first check fails: it asks to wait."""
    dead = front.servers[1]
    dead.kill()
    try:
        answers = [(method, front.ask(method, path)) for _ in range(8) for method, path in requests(front)]
    finally:
        dead.start()
    seen = {(method, status) for method, (status, _) in answers}
    assert seen - ({("PUT", 503)} if front.name == "caddy" else set()) == {("GET", 200), ("PUT", 401)}


@pytest.mark.parametrize("front", ["caddy", "nginx"], indirect=True)
def test_without_any_server_the_front_asks_to_wait(front: Front) -> None:
    """Caddy tries for 10 seconds before it answers."""
    for server in front.servers:
        server.kill()
    begun = len(front.log.read_text())
    try:
        with ThreadPoolExecutor() as threads:
            asked = [
                threads.submit(urllib3.request, method, front.url + path, retries=False, timeout=30)
                for method, path in (("PUT", forged(front)), ("GET", "/cloud/image/upload/cat.jpg"), ("HEAD", RESUMED))
            ]
            preflight = threads.submit(ask_preflight, front)
            *answers, resumed = [answer.result() for answer in asked]
            assert_permitted(preflight.result())
    finally:
        for server in front.servers:
            server.start()
    for answer in answers:
        assert (answer.status, answer.headers["retry-after"]) == (503, "2")
        assert answer.json()["error"]["code"] == "server_unavailable"
        assert_readable(answer)
    assert_resumable(resumed, seconds="2")
    log = front.log.read_text()[begun:]
    assert {"caddy": '"logger":"http.log.error"', "nginx": " 503 "}[front.name] in log
    assert [secret for secret in ("signature", "api_key", "a" * 64) if secret in log] == []


def assert_resumable(answer: urllib3.BaseHTTPResponse, seconds: str) -> None:
    """After any other failure of a HEAD, tus-js-client gives its address up and begins a new upload."""
    assert (answer.status, answer.headers["retry-after"]) == (423, seconds)
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"] == "X-Cld-Error, Retry-After"
    assert answer.headers["x-cld-error"]


def ask_preflight(front: Front) -> urllib3.BaseHTTPResponse:
    """Ask what a browser asks before a page of another origin sends a part of an upload by tus."""
    headers = {
        "Origin": "https://page.example",
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "tus-resumable,upload-offset",
    }
    return urllib3.request("OPTIONS", front.url + RESUMED, headers=headers, retries=False, timeout=60)


def assert_permitted(answer: urllib3.BaseHTTPResponse) -> None:
    """The browser sends the request itself, and the page can read its refusal."""
    assert answer.status == 204
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "PATCH" in answer.headers["access-control-allow-methods"].split(", ")
    assert answer.headers["access-control-allow-headers"] == "tus-resumable,upload-offset"


def assert_readable(answer: urllib3.BaseHTTPResponse) -> None:
    """A page of another origin reads a refusal of a front as one of uponce, whatever the end of the path."""
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["access-control-expose-headers"] == "X-Cld-Error, Retry-After"
    assert answer.headers["x-cld-error"] == answer.json()["error"]["message"]


@pytest.mark.skipif(NGINX is None, reason="ABSENT: nginx is not installed")
def test_nginx_bounds_the_requests_of_one_address(tmp_path: Path) -> None:
    """Uploads that do not end count. Another address is served."""
    nginx = Nginx()
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "one"))
        stack.callback(nginx.stop)
        nginx.run([server], limit=2)
        front = Front("nginx", nginx.url, (server, server), nginx.folder / "access.log")
        for number in range(2):
            grant = urlencode(server.signed({"nonce": number}))
            held = stack.enter_context(socket.create_connection(("127.0.0.1", urlsplit(nginx.url).port or 0), 20))
            head = f"PUT /v1_1/{server.cloud}/raw/upload?{grant} HTTP/1.1\r\nHost: {host_of(front)}\r\n"
            held.sendall(f"{head}Content-Length: 100\r\n\r\nbytes".encode())
        asked = f"GET /healthz HTTP/1.1\r\nHost: {host_of(front)}\r\nConnection: close\r\n\r\n".encode()
        deadline = time.monotonic() + 60
        while not front.raw(asked, silence=20).startswith(b"HTTP/1.1 503 ") and time.monotonic() < deadline:
            pass
        refused = urllib3.request("GET", f"{nginx.url}/cloud/image/upload/cat.jpg", retries=False, timeout=60)
        assert (refused.status, refused.headers["retry-after"]) == (503, "5")
        assert refused.json()["error"]["code"] == "server_busy"
        assert_readable(refused)
        assert_resumable(urllib3.request("HEAD", nginx.url + RESUMED, retries=False, timeout=60), seconds="5")
        assert_permitted(ask_preflight(front))
        assert front.raw(asked, "127.0.0.2", silence=20).startswith(b"HTTP/1.1 200 ")


@pytest.mark.skipif(NGINX is None, reason="ABSENT: nginx is not installed")
def test_nginx_counts_the_addresses_of_one_network_of_ipv6_together(tmp_path: Path) -> None:
    """A client has 2^64 of them. Here a header says the address."""
    nginx = Nginx()
    with ExitStack() as stack:
        server = stack.enter_context(Server(tmp_path / "one"))
        stack.callback(nginx.stop)
        nginx.run([server], limit=2, also="set_real_ip_from 127.0.0.1;\nreal_ip_header X-Address;\n")

        def ask(address: str) -> int:
            return urllib3.request(
                "GET", f"{nginx.url}/healthz", headers={"X-Address": address}, retries=False, timeout=60
            ).status

        for address in ("2001:db8::1", "2001:db8::5:4:3:2", "10.32.1.2", "10.32.1.2"):
            grant = urlencode(server.signed({"nonce": time.monotonic_ns()}))
            held = stack.enter_context(socket.create_connection(("127.0.0.1", urlsplit(nginx.url).port or 0), 20))
            head = f"PUT /v1_1/{server.cloud}/raw/upload?{grant} HTTP/1.1\r\nHost: a\r\nX-Address: {address}\r\n"
            held.sendall(f"{head}Content-Length: 100\r\n\r\nbytes".encode())
        deadline = time.monotonic() + 60
        while {ask("2001:db8:0:0:9::"), ask("10.32.1.2")} != {503} and time.monotonic() < deadline:
            pass
        asked = ("2001:db8:0:0:ffff:ffff:ffff:ffff", "2001:db8:0:1::1", "2001:db8::", "10.32.1.2", "10.32.1.3")
        assert [ask(address) for address in asked] == [503, 200, 503, 503, 200]


def test_the_answer_to_a_tus_upload_may_repeat_long_parameters(front: Front) -> None:
    server = front.servers[0]
    fields = server.signed({"nonce": "long", "context": "a=" + "\u56f3" * 1000, "tags": ",".join(["t" * 200] * 150)})
    sent = {**VERSION, "Upload-Length": "9", "Upload-Metadata": metadata(fields)}
    url = f"{front.url}/tus/{server.cloud}/"
    answers = (urllib3.request("POST", url, headers=sent, retries=False, timeout=60) for _ in range(TRIES))
    assert next(answer.status for answer in answers if answer.status != 401) == 201


@pytest.mark.parametrize("front", ["nginx"], indirect=True)
@pytest.mark.parametrize(("in_query", "in_header"), [(70_000, 1), (1, 70_000)])
def test_a_page_reads_that_a_line_of_its_head_is_too_large(front: Front, in_query: int, in_header: int) -> None:
    """A page that cannot read the refusal would repeat the request. Caddy leaves it to uponce."""
    sent = {**VERSION, "Upload-Length": "9", "Upload-Metadata": metadata({"tags": "t" * in_header})}
    url = f"{front.url}/tus/{front.servers[0].cloud}/?tags={'t' * in_query}"
    refused = urllib3.request("POST", url, headers=sent, retries=False, timeout=60)
    assert (refused.status, refused.json()["error"]["code"]) == (431, "malformed_request")
    assert_readable(refused)


def requests(front: Front) -> tuple[tuple[str, str], ...]:
    return ("GET", "/healthz"), ("PUT", forged(front))


def test_a_dead_server_is_left_out_within_seconds(front: Front) -> None:
    assert any(longest_wait_beside_a_dead_server(front) < 1 for _ in range(ROUNDS))


def longest_wait_beside_a_dead_server(front: Front) -> float:
    """Seconds of an honest request, 5 seconds after the death of a server that the front had sent requests to."""
    dead, deadline = front.servers[1], time.monotonic() + 60
    while not takes_uploads_for(front, dead):
        assert time.monotonic() < deadline
    dead.kill()
    try:
        time.sleep(5)
        return max(front.ask(method, path)[1] for _ in range(10) for method, path in requests(front))
    finally:
        dead.start()


def takes_uploads_for(front: Front, server: Server) -> bool:
    fields = server.signed({"nonce": time.monotonic_ns()})
    url = f"{front.url}/v1_1/{server.cloud}/raw/upload"
    return (
        urllib3.request("POST", url, fields={**fields, "file": ("a", b"bytes")}, retries=False, timeout=60).status
        == 200
    )


# The other server has other keys and refuses. The front chooses by chance: so many misses in a row do not happen.
TRIES = 40

SPOOFED = ["6.6.6.6", "6.6.6.6, 7.7.7.7", "evil<script>", "a" * 7000, "127.0.0.1", "", ",", "::1", "unix:"]


@pytest.mark.parametrize("value", SPOOFED, ids=lambda value: value[:12] or "empty")
def test_the_audit_names_the_address_that_called_the_front(front: Front, value: str) -> None:
    server = front.servers[0]
    fields = server.signed({"nonce": value[:40]})
    assert server.post(fields, b"bytes").status == 200
    head = f"PUT /v1_1/{server.cloud}/raw/upload?{urlencode(fields)} HTTP/1.1\r\nHost: {host_of(front)}"
    forwarded = f"X-Forwarded-For: {value}\r\nForwarded: for=6.6.6.6\r\nX-Real-IP: 6.6.6.6"
    seen, tries = {"127.0.0.1"}, 0
    while seen == {"127.0.0.1"} and tries < TRIES:
        front.raw(f"{head}\r\n{forwarded}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode(), "127.0.0.2")
        seen, tries = addresses(server, fields), tries + 1
    assert seen == {"127.0.0.1", "127.0.0.2"}


def addresses(server: Server, fields: dict[str, str]) -> set[str]:
    headers = urllib3.make_headers(basic_auth=":".join(server.browser))
    url = f"{server.base}/v1_1/{server.cloud}/signatures/status"
    answer = urllib3.request("POST", url, json=fields, headers=headers, timeout=60)
    return {line["address"] for line in answer.json()["history"]}


@pytest.mark.parametrize("scheme", ["https", "wss", "javascript", "http, https"])
def test_no_client_chooses_the_scheme(front: Front, scheme: str) -> None:
    server = front.servers[0]
    fields = server.signed({"nonce": f"scheme {scheme}"})
    sent = {"X-Forwarded-Proto": scheme, "X-Forwarded-Host": "evil.example", "Forwarded": "host=evil.example"}
    url = f"{front.url}/v1_1/{server.cloud}/raw/upload"
    answers = (
        urllib3.request("POST", url, fields={**fields, "file": ("a", b"bytes")}, headers=sent, timeout=60)
        for _ in range(TRIES)
    )
    stored = next(answer for answer in answers if answer.status == 200)
    assert stored.json()["url"].startswith(f"{front.url}/")
