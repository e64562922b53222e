"""A browser that opens an address gets a page for each refusal. SDKs, programs and scripts get JSON as before."""

import base64
import hashlib
import json
import re
from html import unescape

import pytest

from tests.asgi import Answer
from tests.web.test_playground import serve
from tests.world import World

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"
REFUSED = {
    "/nothing": (404, "not_found", "There is nothing at this address."),
    "/playground": (404, "not_found", "There is nothing at this address."),
    "/v1_1/demo/nothing": (404, "not_found", "There is no such call."),
    "/v1_1/demo/image/upload": (405, "malformed_request", "This address receives uploads"),
    "/tus/demo/": (405, "malformed_request", "This address receives uploads by tus"),
    "/demo/image/upload/v1/none.jpg": (404, "not_found", "Resource not found - none.jpg"),
    "/v1_1/demo/usage": (400, "unsupported_call", "usage is not supported"),
}


def opened(world: World, path: str, method: str = "GET", accept: str = BROWSER) -> Answer:
    return world.request(method, path, headers={"accept": accept})


@pytest.mark.parametrize("path", REFUSED)
def test_a_browser_gets_a_page(shared: World, path: str) -> None:
    status, code, words = REFUSED[path]
    answer, plain = opened(shared, path), shared.get(path)
    page, policy = answer.body.decode(), answer.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (answer.status, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert (plain.status, plain.code) == (status, code)
    assert words in plain.message and plain.message in unescape(page)
    assert f"<code>{code}</code>" in page
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script|<img|<link|style=|\bon[a-z]+=|url\(|@import|src=", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {"/", "/guide"}
    for name in {"allow", "x-cld-error", "tus-resumable", "cache-control"} & set(plain.headers):
        assert answer.headers[name] == plain.headers[name]


def test_head_has_the_headers_and_no_body(shared: World) -> None:
    got, head = opened(shared, "/nothing"), opened(shared, "/nothing", "HEAD")
    assert (head.status, head.body) == (404, b"")
    assert {**head.headers, "x-request-id": ""} == {**got.headers, "x-request-id": ""}


@pytest.mark.parametrize(
    "accept", ["", "*/*", "application/json", "application/json, text/html", "image/avif,*/*;q=0.8"]
)
@pytest.mark.parametrize("path", REFUSED)
def test_others_get_json(shared: World, path: str, accept: str) -> None:
    answer = opened(shared, path, accept=accept)
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert answer.code == REFUSED[path][1]


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
def test_a_request_that_changes_something_gets_json(shared: World, method: str) -> None:
    for path in ("/nothing", "/v1_1/demo/image/upload", "/"):
        assert json.loads(opened(shared, path, method).body)["error"]["message"]


@pytest.mark.parametrize(
    "path",
    [
        "/<script>alert(1)</script>",
        "/%3Cscript%3Ealert(1)%3C/script%3E",
        '/"onmouseover=alert(1)//',
        "/v1_1/<img src=x onerror=alert(1)>/image/upload",
        "/demo/image/upload/v1/%3Cimg%20src=x%20onerror=alert(1)%3E.jpg",
        "/v1_1/demo/upload_presets/%3Cimg%20src=x%20onerror=alert(1)%3E",
    ],
)
def test_nothing_of_the_address_becomes_html(shared: World, path: str) -> None:
    answer = opened(shared, path)
    assert answer.headers["content-type"].startswith("text/html") and answer.status >= 400
    tags = set(re.findall(r"<(\w+)", answer.body.decode().partition("<body>")[2]))
    assert tags == {"main", "p", "a", "h1", "dl", "dt", "dd", "code"}


def test_a_message_is_text(shared: World) -> None:
    """The preset's name comes back in the message, which needs the key."""
    name = "%3Cimg%20src=x%20onerror=alert(1)%3E"
    user = base64.b64encode(f"{shared.server.api_key}:{shared.server.secrets[0]}".encode()).decode()
    headers = {"accept": BROWSER, "authorization": f"Basic {user}"}
    page = shared.request("GET", f"/v1_1/demo/upload_presets/{name}", headers=headers).body.decode()
    assert "&lt;img src=x onerror=alert(1)&gt;" in page and "<img" not in page


def test_a_repeated_header_is_refused_and_no_failure_of_the_program(shared: World) -> None:
    answer = shared.request("GET", "/", headers=[("accept", BROWSER), ("range", "a"), ("range", "b")])
    assert (answer.status, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")


def test_a_person_on_another_machine_reads_why_the_playground_is_closed(world: World) -> None:
    answer = opened(serve(world, address="192.0.2.7"), "/playground")
    assert answer.status == 403
    assert "This playground is only for browsers on the machine of the server." in answer.body.decode()
