"""The pages for people, in Chromium: `/`, the guide and the refusals. They need no JavaScript."""

import re
import time

import pytest
from playwright.sync_api import Browser

from tests.e2e.looks import found_by_axe, looks, shoot
from tests.e2e.playground import Watched
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

PAGES = {"home": "/", "guide": "/guide", "not-found": "/no/such/page", "upload-address": "/v1_1/media/auto/upload"}


@pytest.mark.parametrize("name", PAGES)
def test_it_fits_and_axe_finds_nothing(browser: Browser, playground: Server, node: str, name: str) -> None:
    watched = Watched(browser, playground.base, PAGES[name])
    for look in looks(watched.page):
        shoot(watched.page, f"page-{name}-{look}")
        assert node and found_by_axe(watched.page) == []
    watched.close()


def test_by_keyboard_and_without_javascript_from_a_wrong_address_to_the_playground(
    browser: Browser, playground: Server
) -> None:
    watched = Watched(browser, playground.base, PAGES["not-found"], java_script_enabled=False)
    page = watched.page
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{playground.base}/")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_url(f"{playground.base}/playground")
    watched.close()


def test_an_address_that_is_html_is_text(browser: Browser, playground: Server) -> None:
    """Chromium escapes a typed address, so this one comes back in the message of a delivery."""
    path = "/media/image/upload/v1/%3Cimg%20src=x%20onerror=alert(1)%3E.jpg"
    watched = Watched(browser, playground.base, path)
    watched.page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    assert re.search(r"<img src=x onerror=alert\(1\)>", watched.page.inner_text("main"))
    assert watched.page.locator("img").count() == 0
    watched.close()


def test_no_other_site_can_frame_them(browser: Browser, playground: Server) -> None:
    page = browser.new_page()
    page.goto(f"http://localhost:{playground.port}/robots.txt")
    page.evaluate(
        """(urls) => Promise.all(urls.map((src) => new Promise((onload) => {
          document.body.append(Object.assign(document.createElement("iframe"), { src, onload }));
        })))""",
        [f"{playground.base}{path}" for path in PAGES.values()],
    )
    until = time.monotonic() + 60
    while not all(frame.url for frame in page.frames) and time.monotonic() < until:
        page.wait_for_timeout(50)  # the browser reports a refused frame after its load event
    assert [frame.url for frame in page.frames[1:]] == ["chrome-error://chromewebdata/"] * len(PAGES)
    page.close()
