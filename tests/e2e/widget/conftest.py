"""Chromium, a site with the widget, and a line between them."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, sync_playwright

from tests.e2e.test_browser import FLAGS
from tests.e2e.widget.page import QUICK, Widget
from tests.e2e.widget.site import Line, Site, serving
from tests.server import Server


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(server: Server) -> Iterator[Site]:
    with serving(server) as site:
        yield site


@pytest.fixture
def line(server: Server, site: Site) -> Iterator[Line]:
    with Line(server) as line:
        thread = threading.Thread(target=line.serve_forever, args=(0.01,))
        thread.start()
        site.via = line.base
        yield line
        line.shutdown()
        thread.join()


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context()
    context.add_init_script(QUICK)
    yield context
    context.close()


@pytest.fixture
def widget(context: BrowserContext, site: Site) -> Iterator[Widget]:
    widget = Widget(context.new_page(), site)
    yield widget
    # Chromium itself logs each failed request.
    assert [each for each in widget.problems if not each.startswith("Failed to load resource")] == []


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """6 MB that are no media."""
    path = tmp_path / "film.bin"
    path.write_bytes(bytes(range(250)) * 24_000)
    return path
