"""The playground in Chromium: every button is pressed, by mouse and by keyboard, and hostile sites try to use it."""

import json
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.playground import ON, SAMPLES, Watched, press, until, upload
from tests.e2e.test_browser import slow_down
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


@pytest.fixture
def page(browser: Browser, playground: Server) -> Iterator[Page]:
    watched = Watched(browser, playground.base)
    watched.page.wait_for_selector("#fields dd")
    yield watched.page
    watched.close()


def answering(status: int, body: str) -> Callable[[Route], None]:
    return lambda route: route.fulfill(status=status, body=body)


def newest(page: Page) -> list[str]:
    """The titles of the attempts under the newest signature, and its state."""
    first = page.locator("#log > li").first
    return [*first.locator(".attempts strong").all_inner_texts(), first.locator(".pill").inner_text()]


def test_upload_and_see_it(page: Page, playground: Server) -> None:
    assert page.inner_text("#state") == "Unused"
    assert re.fullmatch(r"(10:00|9:\d\d) left", page.inner_text("#left"))
    url = upload(page)
    assert playground.get(url).data == (SAMPLES / "dusk.jpg").read_bytes()
    assert page.inner_text("#state") == "Used"
    assert "1600 × 1067" in page.inner_text("#result")
    until(page, "document.querySelector('#result img').naturalWidth === 1600")
    assert page.evaluate("document.querySelector('#bar').value") == 1
    assert newest(page) == ["Stored", "used"]
    assert "The server deletes this file after 60 minutes at the latest." in page.inner_text("#result")


def test_a_stored_file_goes_after_its_time(browser: Browser, tmp_path: Path) -> None:
    with Server(tmp_path / "data", env=ON) as server:
        watched = Watched(browser, server.base)
        watched.page.wait_for_selector("#fields dd")
        path = upload(watched.page)
        assert server.get(path).status == 200
        watched.close()
        server.stop()
    with Server(tmp_path / "data", port=server.port, env=ON | {"UPONCE_PLAYGROUND_KEEP_SECONDS": "2"}) as server:
        until = time.monotonic() + 60
        while server.get(path).status != 404:
            assert time.monotonic() < until
            time.sleep(0.2)


def test_it_works_at_an_address_of_ipv6(browser: Browser, tmp_path: Path) -> None:
    with Server(tmp_path / "data", env=ON | {"UPONCE_HOST": "::1"}) as server:
        assert server.base == f"http://[::1]:{server.port}"
        watched = Watched(browser, server.base)
        watched.page.wait_for_selector("#fields dd")
        assert server.get(upload(watched.page)).data == (SAMPLES / "dusk.jpg").read_bytes()
        until(watched.page, "document.querySelector('#result img').naturalWidth === 1600")
        watched.close()


def test_the_same_signature_again(page: Page) -> None:
    upload(page)
    seen = press(page, "again")
    assert seen.get_attribute("data-kept") == "true"
    assert "This signature was already used by an upload that completed at" in seen.inner_text()
    assert "Refused: signature_used" in page.inner_text("#result .refused")
    assert page.locator("#result .stored img").count() == 1
    assert newest(page) == ["Stored", "Refused: signature_used", "used"]
    page.click("#upload")
    until(page, "document.querySelectorAll('#log .attempts > li').length === 3")
    assert newest(page)[-2:] == ["Refused: signature_used", "used"]


def test_twenty_at_once(page: Page) -> None:
    seen = press(page, "twenty")
    assert seen.get_attribute("data-kept") == "true"
    assert "1 stored, 19 refused" in seen.inner_text()
    assert (seen.locator(".dots .good").count(), seen.locator(".dots .bad").count()) == (1, 19)
    assert newest(page) == ["1 stored, 19 refused", "used"]
    assert page.locator("#result .stored img").count() == 1


def test_let_it_expire(page: Page) -> None:
    seen = press(page, "expire")
    assert seen.get_attribute("data-kept") == "true"
    assert "Stale request" in seen.inner_text()
    assert newest(page) == ["Refused: stale_request", "expired"]
    assert page.inner_text("#state") == "Expired"


def test_cut_the_connection(page: Page, playground: Server) -> None:
    slow_down(page)
    seen = press(page, "cut")
    assert seen.get_attribute("data-kept") == "true"
    cut, status, retry, state = newest(page)
    assert re.fullmatch(r"Connection cut after [\d.]+ [kM]B", cut)
    assert (status, retry, state) == ("The server says: unused", "Stored", "used")
    url = str(page.locator("#result .facts a").get_attribute("href"))
    assert playground.get(url).data == (SAMPLES / "dusk.jpg").read_bytes()


def test_lose_the_reply(page: Page) -> None:
    seen = press(page, "lose")
    assert seen.get_attribute("data-kept") == "true"
    assert newest(page) == ["The reply was lost", "The same answer again", "Refused: signature_used", "used"]


def test_revoke_it(page: Page) -> None:
    seen = press(page, "revoke")
    assert seen.get_attribute("data-kept") == "true"
    assert newest(page) == ["Revoked by its owner", "Refused: signature_revoked", "revoked"]
    assert page.inner_text("#state") == "Revoked"


def test_a_server_that_breaks_the_promise_is_shown_as_such(page: Page) -> None:
    """The control: every answer of an upload is a 200 here, so no trial can end well."""
    stored = json.dumps({"public_id": "x", "secure_url": "", "resource_type": "image", "bytes": 1})
    page.route("**/v1_1/**", lambda route: route.fulfill(status=200, content_type="application/json", body=stored))
    for trial in ("again", "twenty", "expire", "cut", "revoke"):
        seen = press(page, trial)
        assert seen.get_attribute("data-kept") == "false", trial
        assert "✗" in seen.inner_text()


@pytest.mark.parametrize(("index", "name", "tag"), [(2, "moon.gif", "img"), (3, "sunrise.mp4", "video")])
def test_gif_and_video_are_stored_and_shown(page: Page, playground: Server, index: int, name: str, tag: str) -> None:
    page.locator("#samples input").nth(index).check(force=True)
    until(page, f"document.getElementById('file-name').textContent === '{name}'")
    assert playground.get(upload(page)).data == (SAMPLES / name).read_bytes()
    assert page.locator(f"#result .stored {tag}").count() == 1
    if tag == "video":
        until(page, "document.querySelector('#result video').currentTime > 0.1")
    else:
        assert "20 frames" in page.inner_text("#result")


def test_a_file_of_the_user_and_a_name_that_is_html(page: Page, playground: Server) -> None:
    name = "<img src=x onerror=alert(1)>.jpg"
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    data = (SAMPLES / "morning.jpg").read_bytes()
    page.set_input_files("#picked", {"name": name, "mimeType": "image/jpeg", "buffer": data})
    assert page.inner_text("#file-name") == name
    assert page.input_value("#picked") == ""  # else a browser ignores the same file, chosen again
    assert playground.get(upload(page)).data == data
    press(page, "again")
    page.click("text=curl")
    assert name in page.inner_text("#code")
    assert page.locator("[onerror]").count() == 0


def test_a_file_can_be_dropped(page: Page) -> None:
    page.evaluate(
        """async () => {
          const bytes = await (await fetch("/playground/samples/moon.gif")).blob();
          const data = new DataTransfer();
          data.items.add(new File([bytes], "dropped.gif", { type: "image/gif" }));
          document.getElementById("drop").dispatchEvent(new DragEvent("drop", { dataTransfer: data, bubbles: true }));
        }"""
    )
    assert page.inner_text("#file-name") == "dropped.gif"
    upload(page)


def test_what_is_no_media_is_refused_and_the_signature_stays_unused(page: Page) -> None:
    page.set_input_files("#picked", {"name": "empty.png", "mimeType": "image/png", "buffer": b""})
    page.click("#upload")
    page.wait_for_selector("#result .refused")
    assert page.inner_text("#state") == "Unused"
    until(page, "document.querySelector('#preview').innerText === 'No preview'")
    assert page.locator("#preview img").count() == 0


@pytest.mark.parametrize("trial", ["again", "twenty", "cut", "lose"])
def test_a_refused_file_is_no_verdict_on_the_signature(page: Page, trial: str) -> None:
    """The server keeps its promise: the signature of a refused file is unused. So the page shows no ✗."""
    slow_down(page)
    page.set_input_files("#picked", {"name": "cut.png", "mimeType": "image/png", "buffer": b"\x89PNG\r\n\x1a\n"})
    seen = press(page, trial)
    assert seen.get_attribute("data-kept") == "unknown"
    assert seen.locator(".answer").inner_text().startswith("– Nothing to try")
    assert "the signature is unused" in seen.inner_text()
    assert newest(page)[-1] == "unused"


def test_a_server_that_is_gone_is_named(browser: Browser, playground: Server) -> None:
    page = Watched(browser, playground.base).page  # Chromium itself reports each failed request
    page.wait_for_selector("#fields dd")
    page.route("**/playground/sign", lambda route: route.abort())
    page.route("**/v1_1/**", lambda route: route.abort())
    page.click("#upload")
    page.wait_for_selector("#result >> text=The server cannot be reached.")
    page.click("#sign")
    page.wait_for_selector("#trouble >> text=The server cannot be reached. Check that it runs, and try again.")
    page.context.close()


def test_a_sample_or_a_widget_that_cannot_be_loaded_is_named(browser: Browser, playground: Server) -> None:
    page = Watched(browser, playground.base).page  # Chromium itself reports each failed request
    page.wait_for_selector("#fields dd")
    page.route("**/samples/moon.gif", answering(503, ""))
    page.route("**/widget.js", lambda route: route.abort())
    page.locator("#samples input").nth(2).check(force=True)
    page.wait_for_selector("#trouble >> text=The sample moon.gif cannot be loaded: status 503.")
    assert page.inner_text("#file-name") == "dusk.jpg"
    page.get_by_role("tab", name="Widget").click()
    page.wait_for_selector("#trouble >> text=The widget cannot be loaded.")
    page.context.close()


@pytest.mark.parametrize("button", ["#upload", "#try-again button"])
def test_without_a_first_signature_its_buttons_ask_for_one(browser: Browser, playground: Server, button: str) -> None:
    page = Watched(browser, playground.base, "/robots.txt").page  # Chromium itself reports each failed request
    page.route("**/playground/sign", answering(503, json.dumps({"error": {"message": "Busy."}})), times=1)
    page.goto(f"{playground.base}/playground")
    page.wait_for_selector("#trouble >> text=Busy.")
    page.click(button)
    page.wait_for_selector("#result .stored")
    if button != "#upload":
        page.wait_for_selector("#try-again [data-kept=true]")
    assert not page.is_visible("#trouble")
    page.context.close()


def test_an_answer_that_a_proxy_made_is_named(browser: Browser, playground: Server) -> None:
    """Neither HTML nor another server's JSON hangs the page: the next press works."""
    page = Watched(browser, playground.base).page  # Chromium itself reports each failed request
    page.wait_for_selector("#fields dd")
    for number, (status, body) in enumerate([(502, "<h1>Bad Gateway</h1>"), (200, "<h1>Hello</h1>"), (403, "{}")], 1):
        page.unroute_all()
        page.route("**/v1_1/**", answering(status, body))
        page.click("#upload")
        until(page, f"document.querySelectorAll('#log .attempts > li').length === {number}")
        assert newest(page)[-2:] == [f"Status {status}", "unused"]
    assert "The answer is not from uponce." in page.inner_text("#result")
    page.route("**/playground/sign", answering(502, "<h1>Bad Gateway</h1>"))
    page.click("#sign")
    page.wait_for_selector("#trouble >> text=The answer is not from uponce.")
    page.context.close()


def test_an_upload_without_an_answer_ends(browser: Browser, playground: Server) -> None:
    """A connection that stays open and silent: after a minute of the page's clock, the page says so."""
    page = Watched(browser, playground.base).page
    page.wait_for_selector("#fields dd")
    page.clock.install()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        page.route("**/v1_1/**", lambda route: route.continue_(url=f"http://127.0.0.1:{silent.getsockname()[1]}/v1_1/"))
        page.click("#upload")
        until(page, "document.querySelector('#bar').value === 1")
        page.clock.fast_forward(61_000)
        page.wait_for_selector("#result >> text=No answer")
    page.context.close()


def test_the_code_beside_it_runs(page: Page, curl: str, node: str, tmp_path: Path) -> None:
    """As copied, in a folder with the file. Each one stores with a signature that no other has used."""
    (tmp_path / "dusk.jpg").write_bytes((SAMPLES / "dusk.jpg").read_bytes())
    program = tmp_path / "upload"
    signed = page.locator("#fields dt", has_text="signature").locator("+ dd code")
    for tab, words in (("curl", ["bash"]), ("Node", [node, "--input-type=module", "-"]), ("Python", [sys.executable])):
        before = signed.inner_text()
        page.click("#sign")
        expect(signed).not_to_have_text(before, timeout=60_000)  # the server makes the next one
        signature = signed.inner_text()
        page.get_by_role("tab", name=tab, exact=True).click()
        code = page.inner_text("#code")
        assert signature in code
        if tab == "Python":  # without the package requests
            assert code.startswith("import requests") and compile(code, tab, "exec")
            continue
        program.write_text(code)
        with program.open() as source:
            done = subprocess.run(
                words, stdin=source, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
            )
        assert "secure_url" in done.stdout, done


def test_every_tab_has_the_values_on_the_screen_and_keys_move_between_them(page: Page) -> None:
    nonce = page.locator("#fields dd code").first.inner_text()
    tabs = page.locator("#tabs button")
    assert tabs.all_inner_texts() == ["fetch", "XHR", "Widget", "Uppy", "Node", "Python", "curl"]
    tabs.first.focus()
    for name in tabs.all_inner_texts():
        assert page.evaluate("document.activeElement.textContent") == name
        assert page.locator("#tabs [aria-selected=true]").inner_text() == name
        assert name in ("Widget", "Uppy") or nonce in page.inner_text("#code")
        page.keyboard.press("ArrowRight")
    assert page.locator("#tabs [aria-selected=true]").inner_text() == "fetch"


def test_the_widget_uploads_and_the_time_line_shows_it(page: Page) -> None:
    page.get_by_role("tab", name="Widget").click()
    until(page, "!!customElements.get('uponce-upload')")
    page.evaluate(
        """async () => {
          const bytes = await (await fetch("/playground/samples/morning.jpg")).blob();
          document.querySelector("uponce-upload").add([new File([bytes], "by-widget.jpg", { type: "image/jpeg" })]);
        }"""
    )
    page.wait_for_selector("text=Stored by the widget")
    assert newest(page) == ["Stored by the widget", "used"]


def test_two_files_of_one_name_have_a_signature_each(page: Page) -> None:
    page.get_by_role("tab", name="Widget").click()
    until(page, "!!customElements.get('uponce-upload')")
    page.evaluate(
        """async () => {
          const load = async (name) => (await fetch(`/playground/samples/${name}`)).blob();
          const blobs = [await load("morning.jpg"), await load("moon.gif")];
          document.querySelector("uponce-upload").add(blobs.map((blob) => new File([blob], "image.jpg")));
        }"""
    )
    until(page, "document.querySelectorAll('#log .attempts > li').length === 2")
    signatures = page.locator("#log > li")
    told = [signatures.nth(index).locator(".attempts strong").all_inner_texts() for index in range(2)]
    assert told == [["Stored by the widget"], ["Stored by the widget"]]


def test_by_keyboard_alone(page: Page) -> None:
    """From the top: choose the next sample by an arrow key, upload, and try each way to break it."""
    slow_down(page)
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name === 'sample'"):
            break
    page.keyboard.press("ArrowRight")
    until(page, "document.getElementById('file-name').textContent === 'morning.jpg'")
    for target in ("upload", "again", "twenty", "expire", "cut", "lose", "revoke"):
        for _ in range(20):
            page.keyboard.press("Tab")
            if page.evaluate("(name) => document.activeElement.matches(`#${name}, #try-${name} button`)", target):
                break
        page.keyboard.press("Enter")
        page.wait_for_selector("#result .stored" if target == "upload" else f"#try-{target} [data-kept=true]")
        if target == "again":
            assert "Refused: signature_used" in page.inner_text("#said")
    assert "Refused: signature_revoked" in page.inner_text("#said")


def test_answers_and_messages_are_text(page: Page, playground: Server) -> None:
    """What a server or a proxy between says is shown, and never run."""
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    evil = "<img src=x onerror=alert(1)>"
    picture = f"{playground.base}/playground/samples/dusk.jpg"
    stored = {"public_id": evil, "secure_url": picture, "resource_type": evil, "format": evil, "bytes": 1}
    refused = {"error": {"code": evil, "message": evil}}
    for status, body in ((400, refused), (200, stored)):
        page.unroute_all()
        page.route("**/v1_1/**", answering(status, json.dumps(body)))
        page.click("#upload")
        until(page, f"document.querySelectorAll('#log .attempts > li').length === {1 if status == 400 else 2}")
    assert page.locator("#log", has_text=evil).count() == 1
    assert page.locator("[onerror]").count() == 0


def test_no_other_site_can_frame_it_or_use_its_signatures(browser: Browser, playground: Server) -> None:
    """A page of `localhost`, which is another origin than 127.0.0.1. The first frame is the control."""
    page = browser.new_page()
    page.goto(f"http://localhost:{playground.port}/robots.txt")
    page.evaluate(
        """(urls) => Promise.all(urls.map((url) => new Promise((resolve) => {
          const frame = document.createElement("iframe");
          Object.assign(frame, { src: url, onload: resolve });
          document.body.append(frame);
        })))""",
        [f"{playground.base}/robots.txt", f"{playground.base}/playground"],
    )
    until = time.monotonic() + 60
    while not all(frame.url for frame in page.frames) and time.monotonic() < until:
        page.wait_for_timeout(50)  # the browser reports a refused frame after its load event
    assert [frame.url for frame in page.frames[1:]] == [
        f"{playground.base}/robots.txt",
        "chrome-error://chromewebdata/",
    ]
    ask = "(url) => fetch(url, { method: 'POST', body: '{}' }).then(() => 'read', () => 'blocked')"
    assert page.evaluate(ask, f"{playground.base}/playground/sign") == "blocked"
    page.close()
