"""Chromium, with a page on another origin that asks its own small back end to sign, and posts the file itself."""

import json
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cloudinary.utils import api_sign_request
from playwright.sync_api import Browser, Page, Route, sync_playwright

from tests import samples
from tests.e2e.conftest import DOCS
from tests.e2e.lossy import LossyProxy
from tests.e2e.test_readme import block
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

PAGE = Path(__file__).parent / "browser" / "page.html"
MB = 1_000_000
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class Site(ThreadingHTTPServer):
    """The web site that people upload from: one page, and a back end that signs what its query says."""

    daemon_threads = True

    def __init__(self, uponce: Server) -> None:
        super().__init__(("127.0.0.1", 0), SiteHandler)
        self.uponce = uponce

    def origin(self, host: str) -> str:
        return f"http://{host}:{self.server_port}"

    def sign(self, wanted: dict[str, str]) -> dict[str, Any]:
        """As any back end does it, with the SDK and the browser key; `kind` is the resource type to post to."""
        kind = wanted.pop("kind", "auto")
        params = {"timestamp": int(time.time()), **wanted}
        signature = api_sign_request(params, self.uponce.browser.secret)
        fields = params | {"signature": signature, "api_key": self.uponce.browser.key}
        return {"url": self.uponce.upload_url(kind), "fields": fields}


class SiteHandler(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        parts = urlsplit(self.path)
        if parts.path == "/sign":
            answer = json.dumps(self.server.sign(dict(parse_qsl(parts.query)))).encode()
            self._send(200, "application/json", answer)
        elif parts.path == "/":
            self._send(200, "text/html", PAGE.read_bytes())
        else:
            self._send(404, "text/plain", b"")

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        # The strictest page there is: it shows nothing of other origins that does not allow it.
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def site(server: Server) -> Iterator[Site]:
    with Site(server) as site:
        serving = threading.Thread(target=site.serve_forever, args=(0.01,))
        serving.start()
        yield site
        site.shutdown()
        serving.join()


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, site: Site, media: Path) -> Iterator[Page]:
    """The site's page at `localhost`, another origin and another site than the server's 127.0.0.1."""
    page = browser.new_page()
    page.goto(site.origin("localhost"))
    page.set_input_files("#picked", media / "cat.jpg")
    yield page
    page.close()


def slow_down(page: Page) -> None:
    """8 MB/s upwards: a local upload would be over before the browser's first report, 50 ms after its start."""
    conditions = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 8 * MB}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", conditions)


def is_signature_used(got: dict[str, Any]) -> bool:
    """The page could read the whole refusal: status, JSON and headers."""
    refusal = got["body"]["error"]
    assert refusal["message"].startswith("This signature was already used by an upload that completed at 20")
    assert got["error"] == refusal["message"]
    assert len(got["requestId"]) == 32
    return bool(got["status"] == 400 and refusal["code"] == "signature_used")


@pytest.mark.parametrize("via", ["viaFetch", "viaXhr"])
def test_post_twice_and_see_the_picture(server: Server, page: Page, media: Path, via: str) -> None:
    """The story of the project: the first POST is stored and shown, the second is refused and says why."""
    page.evaluate(f"sign('folder={via}').then((signed) => {{ window.signed = signed }})")

    first = page.evaluate(f"{via}(signed, picked())")
    assert (first["status"], first["error"]) == (200, None)
    assert first["body"]["public_id"].startswith(f"{via}/")
    assert first["body"]["original_filename"] == "cat"
    assert server.get(first["body"]["secure_url"]).data == (media / "cat.jpg").read_bytes()
    assert page.evaluate("show", first["body"]["secure_url"]) == [640, 480]

    page.set_input_files("#picked", media / "dance.gif")
    assert is_signature_used(page.evaluate(f"{via}(signed, picked())"))


def test_xhr_reports_progress(page: Page) -> None:
    """Progress listeners make the browser ask first (a preflight), and report until all is sent."""
    slow_down(page)
    got = page.evaluate(f"sign('kind=raw&folder=progress').then((signed) => viaXhr(signed, large({64 * MB})))")
    assert (got["outcome"], got["status"], got["body"]["bytes"]) == ("load", 200, 64 * MB)
    loaded = [step[0] for step in got["progress"]]
    assert len(loaded) >= 3
    assert loaded == sorted(loaded)
    assert got["progress"][-1][0] == got["progress"][-1][1] > 64 * MB


@pytest.mark.parametrize("make", [samples.mp4, samples.webm, samples.mp3, samples.wav])
def test_a_video_or_sound_plays_at_its_own_address(
    server: Server, browser: Browser, make: Callable[[int], bytes]
) -> None:
    """The browser makes a page around the file, and the headers of the file rule this page."""
    stored = server.post(server.signed({"nonce": secrets.token_hex(8)}), make(1))
    assert stored.status == 200, stored.data

    page = browser.new_page()
    page.goto(stored.json()["secure_url"])
    page.wait_for_function("document.querySelector('video, audio').readyState >= 2", timeout=30_000)
    page.close()


@pytest.mark.parametrize("via", ["viaFetch", "viaXhr"])
def test_a_large_replay_gets_the_refusal_and_no_network_error(page: Page, via: str) -> None:
    """The server answers long before the 20 MB are sent; a reset connection would hide the answer from the page."""
    page.evaluate(f"sign('kind=raw&folder=large-{via}').then((signed) => {{ window.signed = signed }})")
    assert page.evaluate(f"{via}(signed, picked())")["status"] == 200
    for _ in range(3):
        assert is_signature_used(page.evaluate(f"{via}(signed, large({20 * MB}))"))


def test_an_upload_that_the_page_breaks_off_spends_nothing(page: Page) -> None:
    page.evaluate("sign('kind=raw&folder=aborted').then((signed) => { window.signed = signed })")
    slow_down(page)
    aborted = page.evaluate(f"viaXhr(signed, large({64 * MB}), {{ abortAfter: {MB} }})")
    assert aborted["outcome"] == "abort"
    assert page.evaluate("viaFetch(signed, picked())")["status"] == 200
    assert is_signature_used(page.evaluate("viaFetch(signed, picked())"))


def test_a_page_that_lost_its_reply_asks_again(server: Server, page: Page, lossy: LossyProxy, media: Path) -> None:
    """With the code of the guide, over a connection that breaks when the upload is stored and not yet answered."""
    (code,) = re.findall(r"```js\n(.*?)```", (DOCS / "guide/lost-replies.md").read_text(), re.DOTALL)
    page.add_script_tag(content=code)
    got = page.evaluate(
        """async (base) => {
          const { url, fields } = await sign("public_id=in-the-tunnel");
          const response = await uploadOnce(base + new URL(url).pathname, fields, picked(), { pause: 10 });
          const replayed = response.headers.get("Idempotent-Replayed");
          return { status: response.status, replayed, body: await response.json() };
        }""",
        lossy.base,
    )
    assert (got["status"], got["replayed"]) == (200, "true"), got
    assert lossy.uploads == 2
    asset = server.get(f"/{server.cloud}/image/upload/v{got['body']['version']}/in-the-tunnel.jpg")
    assert asset.data == (media / "cat.jpg").read_bytes()
    assert "overwritten" not in got["body"]


@pytest.mark.parametrize(
    ("page_of_guide", "function"), [("lost-replies", "uploadOnce"), ("large-files", "uploadInChunks")]
)
def test_a_page_sends_again_after_a_gateway_failed(page: Page, page_of_guide: str, function: str) -> None:
    """A proxy's 502 without Retry-After says nothing about the upload."""
    page.add_script_tag(content=block(f"docs/guide/{page_of_guide}.md", "js", function))
    requests: list[str] = []

    def fail_first(route: Route) -> None:
        requests.append(route.request.url)
        if len(requests) > 1:
            return route.fallback()
        return route.fulfill(status=502, body="Bad Gateway", headers={"Access-Control-Allow-Origin": "*"})

    page.route("**/v1_1/**", fail_first)
    stored = page.evaluate(
        """async (name) => {
          const { url, fields } = await sign("kind=raw&nonce=" + name);
          const answer = await window[name](url, fields, picked(), { pause: 10 });
          return answer.json?.() ?? answer;
        }""",
        function,
    )
    assert stored["secure_url"]
    assert len(requests) == 2


@pytest.mark.parametrize(
    ("page_of_guide", "function"), [("lost-replies", "uploadOnce"), ("large-files", "uploadInChunks")]
)
def test_a_page_waits_as_the_server_asks_and_shows_its_reason(page: Page, page_of_guide: str, function: str) -> None:
    page.add_script_tag(content=block(f"docs/guide/{page_of_guide}.md", "js", function))

    def refuse(route: Route) -> None:
        error = {"code": "too_many_series", "message": "Too many uploads."}
        exposed = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After, X-Cld-Error"}
        headers = exposed | {"Retry-After": "60", "X-Cld-Error": error["message"]}
        route.fulfill(status=400, json={"error": error}, headers=headers)

    page.route("**/v1_1/**", refuse)
    seen = page.evaluate(
        """async (name) => {
          const waits = [];
          const { setTimeout } = window;
          window.setTimeout = (work, ms) => (waits.push(ms), setTimeout(work, 0));
          const { url, fields } = await sign("kind=raw&nonce=wait-" + name);
          const got = window[name](url, fields, picked(), { tries: 2, pause: 10 });
          const read = async (response) => (await response.json()).error.message;
          return { waits, reason: await got.then(read, (error) => error.message) };
        }""",
        function,
    )
    assert seen == {"waits": [60_000], "reason": "Too many uploads."}


def test_a_page_sends_a_file_in_chunks_under_one_signature(server: Server, page: Page) -> None:
    """With the function of the guide; each chunk is preflighted."""
    page.add_script_tag(content=block("docs/guide/large-files.md", "js", "uploadInChunks"))
    page.evaluate("sign('kind=raw&folder=chunks').then((signed) => { window.signed = signed })")
    answer = page.evaluate(f"uploadInChunks(signed.url, signed.fields, large({20 * MB}), {{ size: {6 * MB} }})")
    assert (answer["done"], answer["bytes"]) == (True, 20 * MB)
    assert len(server.get(answer["secure_url"]).data) == 20 * MB
    assert is_signature_used(page.evaluate("viaFetch(signed, picked())"))


def test_a_signed_origin_is_enforced(page: Page, site: Site, media: Path) -> None:
    """Good on the page it was signed for; refused, and not spent, on another."""
    home, elsewhere = site.origin("localhost"), site.origin("127.0.0.1")
    signed = site.sign({"origin": home})

    page.goto(elsewhere)
    page.set_input_files("#picked", media / "cat.jpg")
    refused = page.evaluate("(signed) => viaFetch(signed, picked())", signed)
    assert (refused["status"], refused["body"]["error"]["code"]) == (400, "origin_mismatch")
    assert f"uploads from {home}. The request came from {elsewhere}." in refused["error"]

    page.goto(home)
    page.set_input_files("#picked", media / "cat.jpg")
    assert page.evaluate("(signed) => viaFetch(signed, picked())", signed)["status"] == 200


def test_a_page_cannot_call_the_signature_endpoints(server: Server, page: Page) -> None:
    """They take the secret, which no page has business with; the upload endpoint next to them may be read."""
    reach = "([url, headers]) => fetch(url, { headers }).then(() => 'read', () => 'blocked')"
    signatures = f"{server.base}/v1_1/{server.cloud}/signatures"
    assert page.evaluate(reach, [server.upload_url(), {}]) == "read"
    assert page.evaluate(reach, [signatures, {}]) == "blocked"
    assert page.evaluate(reach, [signatures, {"Authorization": "Basic eDp5"}]) == "blocked"
