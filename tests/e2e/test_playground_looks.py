"""How the playground looks: contrast, sizes, without JavaScript, and how soon it is there."""

import statistics
import time

import pytest
from playwright.sync_api import Browser, Route

from tests.e2e.looks import SCHEMES, WIDTHS, found_by_axe, shoot
from tests.e2e.playground import Watched, press, until, upload
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

PAINT = "performance.getEntriesByName('first-contentful-paint')"
RECEIVED = """performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))
  .filter(({ name }) => !name.includes('/samples/')).reduce((sum, { transferSize }) => sum + transferSize, 0)"""


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", WIDTHS)
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
    assert node and found_by_axe(page, kept=20) == []
    watched.close()


def test_without_javascript_it_says_what_to_do(browser: Browser, playground: Server) -> None:
    watched = Watched(browser, playground.base, java_script_enabled=False)
    assert watched.page.locator("noscript .notice").is_visible()
    assert [each.inner_text() for each in watched.page.locator("button, label").all() if each.is_visible()] == []
    watched.close()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [360, 768, 1280])
def test_it_fits_every_screen(browser: Browser, playground: Server, scheme: str, width: int) -> None:
    watched = Watched(browser, playground.base, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = watched.page
    page.wait_for_selector("#fields dd")
    upload(page)
    for trial in ("again", "twenty", "revoke"):
        press(page, trial)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), trial
    shoot(page, f"playground-{scheme}-{width}")
    watched.close()


def test_nothing_moves_when_the_stored_picture_arrives(browser: Browser, playground: Server) -> None:
    """A click that is under way would miss its button."""
    watched = Watched(browser, playground.base, viewport={"width": 768, "height": 800})
    page, held = watched.page, list[Route]()
    page.wait_for_selector("#fields dd")
    page.route("**/playground/image/upload/**", lambda route: held.append(route))  # noqa: PLW0108
    upload(page)
    top = "document.getElementById('tries').getBoundingClientRect().top"
    before = page.evaluate(top)
    until(page, "document.querySelector('#result img') !== null")
    deadline = time.monotonic() + 60
    while not held and time.monotonic() < deadline:  # its request may come later than the picture
        page.wait_for_timeout(50)
    held[0].continue_()
    until(page, "document.querySelector('#result img').naturalWidth > 0")
    assert page.evaluate(top) == before
    watched.close()


def first_paint(browser: Browser, base: str, delay: float = 0) -> tuple[float, int]:
    """Open the page with an empty cache: milliseconds to the first content, and bytes received without media.

    `delay` is in seconds, for the page.
    """
    context = browser.new_context()
    page = context.new_page()

    def late(route: Route) -> None:
        time.sleep(delay)
        route.continue_()

    if delay:
        page.route("**/playground", late)
    page.goto(f"{base}/playground")
    page.wait_for_selector("#fields dd")
    until(page, f"{PAINT}.length === 1")
    milliseconds = float(page.evaluate(f"{PAINT}[0].startTime"))
    size = int(page.evaluate(RECEIVED))
    context.close()
    return milliseconds, size


@pytest.mark.full
def test_the_first_paint_is_quick_and_small(browser: Browser, playground: Server) -> None:
    """The median of nine in a warm browser, on a quiet machine. The control is a page that takes 300 ms.

    Other work on the machine only adds time. So a round that other work slowed down is measured again, twice at most.
    """
    first_paint(browser, playground.base)
    medians = []
    for _ in range(3):
        measured = [first_paint(browser, playground.base) for _ in range(9)]
        medians.append(statistics.median(milliseconds for milliseconds, _ in measured))
        assert max(size for _, size in measured) < 60_000
        if medians[-1] < 200:
            break
    print(f"first paint of the playground: {medians} ms, {measured[0][1]} bytes")
    assert medians[-1] < 200, medians
    assert first_paint(browser, playground.base, 0.3)[0] > 300
