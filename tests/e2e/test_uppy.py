"""Uppy with @uppy/tus in Chromium: paused, the server restarted, the page reloaded, the network broken."""

import hashlib
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, Route

from proof.faults.proxy import Fault, FaultProxy, Kind
from tests.e2e.conftest import NODE
from tests.e2e.test_browser import Site, browser
from tests.e2e.test_large_files import MB, data, folder
from tests.e2e.test_readme import block
from tests.server import Server

__all__ = ["browser", "data", "folder"]  # the fixtures of the neighbours

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

GUIDE = "docs/guide/tus.md"
RATE = 8 * MB  # of the slow network, so that there is a midst to break off in


@pytest.fixture(scope="module")
def bundle(node: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Uppy as one script, and the function of the guide."""
    built = tmp_path_factory.mktemp("bundle") / "uppy.js"
    command = ["node_modules/.bin/esbuild", "uppy.mjs", "--bundle", "--format=iife", f"--outfile={built}"]
    subprocess.run(command, cwd=NODE, check=True, capture_output=True, timeout=120)
    imports, function = block(GUIDE, "js", "makeUppy").split("\n\n", 1)
    assert "@uppy/tus" in imports
    _, plain = block("docs/guide/browser.md", "js", "makeXhrUppy").split("\n\n", 1)
    return built.read_text() + block(GUIDE, "js", "function assetOf") + function + plain


class Visit:
    """A page with the guide's Uppy, whose uploads go to `base`; what it says is in `window.told`."""

    def __init__(self, page: Page, server: Server, bundle: str, film: Path) -> None:
        self.page = page
        self.methods: list[str] = []  # of all its requests
        page.on("request", lambda request: self.methods.append(request.method))
        self._server = server
        self._bundle = bundle
        self._film = film

    def begin(self, base: str, target: str = "uppy") -> None:
        """Load the page, pick the file, start. The signature names the folder `target`."""
        self.page.goto(self.page.url)
        self.page.add_script_tag(content=self._bundle)
        fields = self._server.signed({"folder": target, "nonce": time.time_ns()})
        self.page.evaluate(
            """([endpoint, fields]) => {
              window.told = { uploads: 0, resumed: false };
              window.uppy = makeUppy(async () => (told.signed = true, { endpoint, fields }));
              uppy.on("upload-progress", (file, progress) => { told.bytes = progress.bytesUploaded; });
              uppy.on("asset", (asset) => { told.asset = asset; });
              uppy.on("upload-error", (file, error) => { told.error = String(error); });
            }""",
            [f"{base}/tus/{self._server.cloud}/", fields],
        )
        self.page.set_input_files("#picked", self._film)
        self.page.evaluate(
            """() => {
              const [data] = document.querySelector("#picked").files;
              uppy.addFile({ name: data.name, type: data.type, data });
              uppy.upload();
            }"""
        )

    def wait_for(self, condition: str) -> dict[str, Any]:
        self.page.wait_for_function(f"() => told.error || ({condition})", timeout=60_000)
        told: dict[str, Any] = self.page.evaluate("told")
        assert "error" not in told, told
        return told


@pytest.fixture
def visits(browser: Browser, bundle: str, folder: Path, tmp_path: Path) -> Iterator[Callable[[Server], Visit]]:
    """Opens the page of a site that uploads to this server."""
    opened: list[Callable[[], Any]] = []

    def visit(server: Server) -> Visit:
        site = Site(server)
        serving = threading.Thread(target=site.serve_forever, args=(0.01,))
        serving.start()
        page = browser.new_context().new_page()
        page.goto(site.origin("localhost"))
        opened.extend([page.context.close, site.shutdown, serving.join, site.server_close])
        return Visit(page, server, bundle, folder / "film.mp4")

    yield visit
    for close in opened:
        close()


def assert_asset(server: Server, told: dict[str, Any], data: bytes) -> None:
    asset = told["asset"]
    assert (asset["done"], asset["etag"]) == (True, hashlib.md5(data).hexdigest())
    assert asset["original_filename"] == "film"
    assert server.get(urlsplit(asset["secure_url"]).path).data == data


def test_paused_and_resumed(server: Server, visits: Callable[[Server], Visit], data: bytes) -> None:
    with FaultProxy(server.port, lambda _: Fault(rate=RATE), most=12 * MB) as slow:
        visit = visits(server)
        visit.begin(slow.base)
        visit.wait_for(f"told.bytes > {3 * MB}")
        visit.page.evaluate("uppy.pauseAll()")
        visit.page.evaluate("uppy.resumeAll()")
        slow.go_on()
        assert_asset(server, visit.wait_for("told.asset"), data)
    assert "HEAD" in visit.methods


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_the_server_is_restarted(tmp_path: Path, visits: Callable[[Server], Visit], data: bytes, ending: str) -> None:
    with (
        Server(tmp_path / "data", env={"UPONCE_RECORD_BYTES": str(MB)}) as server,
        FaultProxy(server.port, lambda _: Fault(rate=RATE), most=12 * MB) as slow,
    ):
        visit = visits(server)
        visit.begin(slow.base)
        visit.wait_for(f"told.bytes > {3 * MB}")
        if ending == "kill":
            server.kill()
        else:
            server.stop()
        server.start()
        slow.go_on()
        assert_asset(server, visit.wait_for("told.asset"), data)
    assert "HEAD" in visit.methods


def test_the_page_is_reloaded(server: Server, visits: Callable[[Server], Visit], data: bytes) -> None:
    """The browser remembers the address. If the user picks the same file again, the upload goes on there."""
    with FaultProxy(server.port, lambda _: Fault(rate=RATE), most=12 * MB) as slow:
        visit = visits(server)
        visit.begin(slow.base)
        visit.wait_for(f"told.bytes > {6 * MB}")
        visit.begin(slow.base)
        slow.go_on()
        assert_asset(server, visit.wait_for("told.asset"), data)
    assert visit.methods.count("POST") == 1


def test_the_same_file_again_is_a_new_upload(server: Server, visits: Callable[[Server], Visit], data: bytes) -> None:
    """A complete upload is not resumed: the second asset is in the folder that the second signature names."""
    visit = visits(server)
    for target in ("uppy/first", "uppy/second"):
        visit.begin(server.base, target)
        told = visit.wait_for("told.asset")
        assert_asset(server, told, data)
        assert told["asset"]["public_id"].rpartition("/")[0] == target


def test_the_network_breaks(server: Server, visits: Callable[[Server], Visit], data: bytes) -> None:
    """Four times during the file, and when the last reply is due."""
    with FaultProxy(server.port, lambda number: Fault(Kind.RESET, after=5 * MB)) as bad:
        visit = visits(server)
        visit.begin(bad.base)
        told = visit.wait_for("told.asset")
        assert bad.struck[Kind.RESET] >= 3
    assert_asset(server, told, data)


UPLOAD_WITH_XHR = """async ([url, names, fields]) => {
  const uppy = makeXhrUppy(url, async () => fields ?? (await sign("folder=uppy&nonce=" + crypto.randomUUID())).fields);
  for (const name of names) uppy.addFile({ name, type: "text/plain", data: new Blob([name]) });
  const { successful, failed } = await uppy.upload();
  return { stored: successful.map((file) => file.response.body), failed: failed.map((file) => file.error) };
}"""


def test_three_files_at_once_without_tus(server: Server, visits: Callable[[Server], Visit], bundle: str) -> None:
    """Each file gets its own signature, so none of them is refused."""
    page = visits(server).page
    page.add_script_tag(content=bundle)
    names = ["a.txt", "b.txt", "c.txt"]
    done = page.evaluate(UPLOAD_WITH_XHR, [server.upload_url(), names, None])

    assert done["failed"] == []
    stored = sorted(server.get(urlsplit(body["secure_url"]).path).data for body in done["stored"])
    assert stored == [name.encode() for name in names]


def test_uppy_waits_as_the_server_asks(server: Server, visits: Callable[[Server], Visit], bundle: str) -> None:
    """Uppy's own pauses are shorter than a second. Its timer of a stalled upload is longer: it shows no warning."""
    page = visits(server).page
    page.add_script_tag(content=bundle)
    exposed = {"Access-Control-Allow-Origin": "*", "Access-Control-Expose-Headers": "Retry-After"}
    busy = {"status": 503, "json": {"error": {"message": "Busy."}}, "headers": exposed | {"Retry-After": "77"}}
    page.route("**/v1_1/**", lambda route: route.fulfill(**busy), times=2)
    page.evaluate(
        """(() => {
          window.waits = [];
          const { setTimeout } = window;
          window.setTimeout = (work, ms) => (waits.push(ms), setTimeout(work, ms === 77_000 ? 0 : ms));
        })()"""
    )
    done = page.evaluate(UPLOAD_WITH_XHR, [server.upload_url(), ["a.txt"], None])
    assert (len(done["stored"]), done["failed"]) == (1, [])
    assert page.evaluate("waits.filter((ms) => ms === 77_000).length") == 2
    assert page.evaluate("waits.filter((ms) => ms > 10_000 && ms < 77_000)") == []


def test_a_retry_after_lost_replies_gets_the_stored_answer(
    server: Server, visits: Callable[[Server], Visit], bundle: str
) -> None:
    """The user presses Retry. A second signature would make a second asset."""
    page = visits(server).page
    page.add_script_tag(content=bundle)

    def lose(route: Route) -> None:
        assert route.fetch().status == 200
        route.abort()

    page.route("**/v1_1/**", lose)
    assert page.evaluate(
        """async (url) => {
          window.signed = 0;
          window.uppy = makeXhrUppy(url, async () => {
            signed += 1;
            return (await sign("folder=uppy&nonce=" + crypto.randomUUID())).fields;
          });
          uppy.addFile({ name: "lost.txt", type: "text/plain", data: new Blob(["lost"]) });
          return (await uppy.upload()).failed.length;
        }""",
        server.upload_url(),
    )
    page.unroute_all()
    stored = page.evaluate("uppy.retryAll().then(({ successful }) => successful.map((file) => file.response.body))")
    assert [server.get(urlsplit(body["secure_url"]).path).data for body in stored] == [b"lost"]
    assert page.evaluate("signed") == 1


def test_a_final_refusal_is_not_repeated(server: Server, visits: Callable[[Server], Visit], bundle: str) -> None:
    """A used signature: one POST with XHRUpload and one with tus, where Uppy's defaults would send four."""
    page = visits(server).page
    page.add_script_tag(content=bundle)
    fields = server.signed({"nonce": "final"})
    assert server.post(fields, b"first").status == 200
    posts: list[str] = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    done = page.evaluate(UPLOAD_WITH_XHR, [server.upload_url(), ["a.txt"], fields])
    assert (done["stored"], len(done["failed"]), len(posts)) == ([], 1, 1)

    failed = page.evaluate(
        """async ([endpoint, fields]) => {
          const uppy = makeUppy(async () => ({ endpoint, fields }));
          uppy.addFile({ name: "b.txt", type: "text/plain", data: new Blob(["b"]) });
          return (await uppy.upload()).failed.length;
        }""",
        [f"{server.base}/tus/{server.cloud}/", fields],
    )
    assert (failed, len(posts)) == (1, 2)
