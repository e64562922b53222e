"""Every example, started by the commands of its README, in Chromium: it stores, shows and refuses."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import urllib3
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.e2e.conftest import install_packages
from tests.e2e.looks import found_by_axe, looks, shoot
from tests.e2e.test_browser import FLAGS
from tests.e2e.test_readme import block
from tests.server import Server, lasting_port

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
SECONDS = 120
HOSTS = {"localhost", "127.0.0.1"}
Open = Callable[[str], "Example"]


class Example:
    """The page of a running example, with what it signed, and what it complained of."""

    def __init__(self, name: str, page: Page, server: Server, port: int) -> None:
        self.name = name
        self.page = page
        self.server = server
        self.signed: list[dict[str, Any]] = []
        self.problems: list[str] = []
        page.on("console", lambda message: self._complain(message.type, message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._host(request.url))
        page.on("response", lambda response: self._keep(response) if response.url.endswith("/sign") else None)
        page.goto(f"http://localhost:{port}/")

    def _complain(self, kind: str, text: str) -> None:
        # Chromium itself reports every refusal.
        if kind in ("error", "warning") and "status of 400" not in text:
            self.problems.append(text)

    def _host(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme.startswith("http") and parts.hostname not in HOSTS:
            self.problems.append(f"request to {url}")

    def _keep(self, response: Any) -> None:
        self.signed.append(response.json())

    def shows(self, path: Path, count: int = 1) -> None:
        """Wait until this many media are visible, the newest of them with the bytes of the file."""
        media = ":is(img, video)[src*='/media/']"
        self.page.wait_for_function(
            f"""(count) => {{
              const shown = [...document.querySelectorAll("{media}")];
              return shown.length === count && shown.every((each) => (each.naturalWidth ?? each.videoWidth) > 0);
            }}""",
            arg=count,
            timeout=60_000,
        )
        urls = self.page.eval_on_selector_all(media, "all => all.map((each) => each.src)")
        assert path.read_bytes() in [self.server.get(url).data for url in urls]

    def spent(self) -> None:
        """Every signature that the page got uploads nothing more."""
        assert self.signed
        for signed in self.signed:
            fields = {name: str(value) for name, value in signed["fields"].items()}
            assert self.server.post(fields, b"GIF89a again").json()["error"]["code"] == "signature_used"

    def close(self) -> None:
        for look in looks(self.page):
            shoot(self.page, f"example-{self.name}-{look}")
            assert found_by_axe(self.page) == [], look
        self.page.context.close()
        assert self.problems == []


def commands(name: str) -> str:
    """The commands of a README that start the example, without the installation of Python packages."""
    blocks = re.findall(r"^```sh\n(.*?)^```", (EXAMPLES / name / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert blocks[0] == "uponce serve\n"
    return str(re.sub(r"^(python3 -m venv|\. \.venv|pip install).*\n", "", blocks[1], flags=re.MULTILINE))


@contextmanager
def started(name: str, server: Server) -> Iterator[int]:
    """The port of the example, as soon as it answers."""
    script, changed = re.subn("cloudinary://KEY:SECRET@media.*?(?=')", server.urls[0], commands(name))
    assert changed == 1
    if "npm ci\n" in script:  # which takes the packages away from other runs of this example
        install_packages(EXAMPLES / name)
        script = script.replace("npm ci\n", "")
    with running(script, EXAMPLES / name) as port:
        yield port


@contextmanager
def running(script: str, folder: Path) -> Iterator[int]:
    """Run the script with a free port as PORT; that port, as soon as a page is there."""
    port = lasting_port()
    program = subprocess.Popen(
        ["bash", "-euc", script],
        cwd=folder,
        env={**os.environ, "PORT": str(port), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        deadline = time.monotonic() + SECONDS
        while not answers(port):
            assert program.poll() is None and time.monotonic() < deadline, script
            time.sleep(0.1)
        yield port
    finally:
        with suppress(ProcessLookupError):  # it has ended, and its output says why
            os.killpg(program.pid, signal.SIGKILL)
        output, _ = program.communicate()
        print(output.decode())


def answers(port: int) -> bool:
    try:
        return urllib3.request("GET", f"http://127.0.0.1:{port}/", retries=False, timeout=10).status == 200
    except urllib3.exceptions.HTTPError:
        return False


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def example(server: Server, browser: Browser, node: str) -> Iterator[Open]:
    """Start an example by its name, and open its page. `node` has axe."""
    with ExitStack() as running:

        def start(name: str) -> Example:
            port = running.enter_context(started(name, server))
            opened = Example(name, browser.new_context().new_page(), server, port)
            running.callback(opened.close)
            return opened

        yield start


def test_express_and_plain_html(example: Open, media: Path) -> None:
    """The forum question: the second upload with one signature is refused, and the page shows why."""
    seen = example("express-cloudinary")
    seen.page.set_input_files("input", media / "cat.jpg")
    seen.page.click("form button:first-of-type")
    seen.shows(media / "cat.jpg")
    seen.page.set_input_files("input", media / "dance.gif")
    seen.page.click("[name=again]")
    refused = seen.page.locator("li.refused").inner_text()
    assert refused.startswith("Refused: signature_used. This signature was already used by an upload that completed at")
    assert len(seen.signed) == 1
    seen.page.click("form button:first-of-type")
    seen.shows(media / "dance.gif", 2)
    seen.spent()


def test_the_widget_with_fastapi(example: Open, media: Path) -> None:
    seen = example("widget-fastapi")
    seen.page.set_input_files("uponce-upload input", [media / "cat.jpg", media / "dance.gif", media / "walk.mp4"])
    seen.shows(media / "walk.mp4", 3)
    assert len(seen.signed) == 3
    seen.spent()


def test_the_widget_in_react(example: Open, media: Path) -> None:
    seen = example("react")
    seen.page.set_input_files("uponce-upload input", [media / "cat.jpg", media / "dance.gif"])
    seen.shows(media / "dance.gif", 2)
    assert len(seen.signed) == 2
    seen.spent()


def test_the_widget_in_a_django_form(example: Open, media: Path) -> None:
    seen = example("widget-django-form")
    seen.page.set_input_files("uponce-upload input", media / "cat.jpg")
    seen.page.wait_for_function("new FormData(document.forms[0]).get('photo')")
    seen.page.fill("[name=title]", "Cats & friends")
    seen.page.click("text=Save")
    expect(seen.page.locator("h1")).to_have_text("Cats & friends", timeout=60_000)
    seen.shows(media / "cat.jpg")
    seen.spent()


def test_the_django_form_accepts_no_address_of_another_server(example: Open) -> None:
    seen = example("widget-django-form")
    seen.page.evaluate(
        """() => {
          const [form] = document.forms;
          form.querySelector("uponce-upload").remove();
          form.insertAdjacentHTML("beforeend", "<input name='photo' value='http://localhost/media/image/upload/v1/a'>");
          form.title.value = "Theirs";
        }"""
    )
    seen.page.click("text=Save")
    seen.name += "-refused"
    assert seen.page.inner_text(".errorlist") == "Upload a photo."
    assert seen.page.input_value("[name=title]") == "Theirs"


def test_uppy(example: Open, media: Path) -> None:
    """Two files are stored. A third one is refused: Uppy sends it once, and shows the reason."""
    seen = example("uppy")
    files = seen.page.locator(".uppy-Dashboard-input").first
    files.set_input_files([media / "cat.jpg", media / "dance.gif"])
    seen.page.click(".uppy-StatusBar-actionBtn--upload")
    seen.shows(media / "dance.gif", 2)
    seen.spent()
    posts: list[str] = []
    seen.page.on("request", lambda request: posts.append(request.url) if "/upload" in request.url else None)
    seen.page.click(".uppy-DashboardContent-addMore")
    files.set_input_files(media / "note.txt")
    seen.page.click(".uppy-StatusBar-actionBtn--upload")
    reason = seen.page.locator(".uppy-Dashboard-Item-errorDetails")
    reason.wait_for()
    assert "not allowed" in str(reason.get_attribute("aria-label"))
    assert len(posts) == 1
    # Uppy itself writes the reason on the console.
    seen.problems = [problem for problem in seen.problems if "not allowed" not in problem]


def test_filepond(example: Open, media: Path) -> None:
    """Two files are stored. A third one is refused, and FilePond shows the reason."""
    seen = example("filepond")
    seen.page.set_input_files(".filepond--browser", [media / "cat.jpg", media / "dance.gif"])
    seen.shows(media / "dance.gif", 2)
    values = seen.page.eval_on_selector_all("[name=photos][type=hidden]", "all => all.map((each) => each.value)")
    assert len(values) == 2
    seen.spent()
    seen.page.set_input_files(".filepond--browser", media / "note.txt")
    reason = seen.page.locator("[data-filepond-item-state=processing-error] .filepond--file-status-main")
    reason.wait_for()
    assert "not allowed" in reason.inner_text()


FORBIDDEN = {"error": {"code": "scope_denied", "message": "Please sign in."}}
PLACES = {
    "express-cloudinary": ("input", "form button:first-of-type", "li.refused"),
    "uppy": (".uppy-Dashboard-input", ".uppy-StatusBar-actionBtn--upload", ".uppy-Dashboard-Item-errorDetails"),
    "filepond": (".filepond--browser", "", "[data-filepond-item-state=processing-error] .filepond--file-status-main"),
}


@pytest.mark.parametrize("name", PLACES)
def test_a_page_shows_why_its_back_end_signs_nothing(example: Open, media: Path, name: str) -> None:
    files, button, place = PLACES[name]
    seen = example(name)
    seen.name += "-forbidden"
    seen.page.route("**/sign", lambda route: route.fulfill(status=403, json=FORBIDDEN))
    seen.page.locator(files).first.set_input_files(media / "cat.jpg")
    if button:
        seen.page.click(button)
    seen.page.locator(place).first.wait_for()
    said = seen.page.locator(place).first
    assert "Please sign in." in f"{said.get_attribute('aria-label')} {said.inner_text()}"
    # Chromium itself reports the status, and Uppy the reason.
    seen.problems = [problem for problem in seen.problems if not re.search("403|Please sign in", problem)]


RETRIES = {
    "uppy": (".uppy-Dashboard-input", ".uppy-StatusBar-actionBtn--upload", ".uppy-StatusBar-actionBtn--retry"),
    "filepond": (".filepond--browser", "", ".filepond--action-retry-item-processing"),
}


@pytest.mark.parametrize("name", RETRIES)
def test_a_retry_after_a_lost_answer_stores_nothing_twice(example: Open, media: Path, name: str) -> None:
    """A proxy loses the answers of uploads that were stored. A press on retry keeps the signature and its key."""
    files, button, again = RETRIES[name]
    seen = example(name)
    stored: list[dict[str, Any]] = []

    def lose(route: Route) -> None:
        answer = route.fetch()
        stored.append(answer.json())
        route.fulfill(status=502, body="<h1>Bad Gateway</h1>", headers={"Access-Control-Allow-Origin": "*"})

    seen.page.route("**/v1_1/**", lose)
    # Chromium shows a route the bytes of a file that is in memory, and none of a file on disk.
    data = (media / "cat.jpg").read_bytes()
    seen.page.locator(files).first.set_input_files({"name": "cat.jpg", "mimeType": "image/jpeg", "buffer": data})
    if button:
        seen.page.click(button)
    seen.page.locator(again).first.wait_for()
    seen.page.unroute_all()
    seen.page.locator(again).first.click()
    seen.shows(media / "cat.jpg")
    (shown,) = seen.page.eval_on_selector_all(":is(img, video)[src*='/media/']", "all => all.map((each) => each.src)")
    assert {answer["secure_url"] for answer in stored} == {shown}
    assert len(seen.signed) == 1
    seen.name += "-retried"
    seen.problems = []


PROGRAM = """from fastapi import FastAPI
from fastapi.responses import HTMLResponse
from uponce.contrib.starlette import sign_endpoint

app = FastAPI()
authorise = lambda request: True
TOP = '<!doctype html><html lang="en"><title>Photos</title><link rel="icon" href="data:,"><main><h1>Photos</h1>'
app.get("/", response_class=HTMLResponse)(lambda: TOP + PAGE)
"""


def test_the_three_lines_of_the_readme(
    server: Server, browser: Browser, node: str, media: Path, tmp_path: Path
) -> None:
    """Two lines of HTML and one of Python upload a photo."""
    html = block("README.md", "html", "uponce-upload").replace("http://127.0.0.1:8000", server.base)
    python = block("README.md", "python", "sign_endpoint")
    assert (html.count("\n"), python.count("\n")) == (2, 1)
    (tmp_path / "readme.py").write_text(f"PAGE = {html!r}\n{PROGRAM}{python}")
    script = f"export CLOUDINARY_URL='{server.urls[0]}'\nuvicorn readme:app --port $PORT"
    with running(script, tmp_path) as port:
        seen = Example("readme", browser.new_context().new_page(), server, port)
        seen.page.set_input_files("uponce-upload input", media / "cat.jpg")
        seen.page.wait_for_selector("uponce-upload [part~=item-done]")
        seen.spent()
        seen.close()
