"""How the playground looks: contrast, sizes, and without JavaScript."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.e2e.conftest import NODE
from tests.e2e.playground import Watched, press, upload
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

SHOTS = Path(__file__).parents[2] / "screenshots"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing(browser: Browser, playground: Server, node: str, scheme: str, width: int) -> None:
    """Contrast, names, roles: with stored and refused uploads on the page, and with the widget."""
    watched = Watched(browser, playground.base, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = watched.page
    page.wait_for_selector("#fields dd")
    upload(page)
    for trial in ("again", "twenty", "revoke"):
        press(page, trial)
    page.get_by_role("tab", name="Widget").click()
    page.wait_for_selector("uponce-upload")
    page.evaluate((NODE / "node_modules/axe-core/axe.min.js").read_text() + "; true")
    found = page.evaluate("axe.run()")
    assert len(found["passes"]) > 20 and node
    assert [(one["id"], [each["target"] for each in one["nodes"]]) for one in found["violations"]] == []
    watched.close()


def test_without_javascript_it_says_what_to_do(browser: Browser, playground: Server) -> None:
    watched = Watched(browser, playground.base, java_script_enabled=False)
    assert watched.page.locator("noscript .notice").is_visible()
    assert [each.inner_text() for each in watched.page.locator("button, label").all() if each.is_visible()] == []
    watched.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_every_screen(browser: Browser, playground: Server, scheme: str, width: int) -> None:
    """Screenshots go to the folder screenshots/, for people to look at."""
    watched = Watched(browser, playground.base, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = watched.page
    page.wait_for_selector("#fields dd")
    upload(page)
    for trial in ("again", "twenty", "revoke"):
        press(page, trial)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), trial
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"playground-{scheme}-{width}.png", full_page=True)
    watched.close()
