"""The playground after its server was away, and after it was open for long."""

import json
from collections.abc import Callable

import pytest
from playwright.sync_api import Browser, Page, Route

from tests.e2e.playground import Watched, press, until, upload
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def test_its_widget_asks_again_for_a_signature_if_the_server_is_away(browser: Browser, playground: Server) -> None:
    page = Watched(browser, playground.base).page  # Chromium itself reports each failed request
    page.get_by_role("tab", name="Widget").click()
    until(page, "!!customElements.get('uponce-upload')")
    asked: list[Route] = []

    def away(route: Route) -> None:
        asked.append(route)
        match len(asked):
            case 1:
                route.abort()
            case 2:
                route.fulfill(status=503, body=json.dumps({"error": {"code": "server_busy", "message": "Busy."}}))
            case 3:
                route.fulfill(status=502, body="<h1>Bad Gateway</h1>")
            case _:
                route.continue_()

    page.route("**/playground/sign", away)
    page.evaluate(
        """() => {
          const widget = document.querySelector("uponce-upload");
          widget.timing.delay = 20;
          widget.add([new File(["by the widget"], "note.txt")]);
        }"""
    )
    page.wait_for_selector("text=Stored by the widget")
    assert len(asked) == 4
    page.context.close()


def test_a_used_signature_whose_time_is_over_is_not_used_again(browser: Browser, playground: Server) -> None:
    """uponce refuses it as expired, also if the page had promised another refusal."""
    watched = Watched(browser, playground.base)
    watched.page.wait_for_selector("#fields dd")
    upload(watched.page)
    watched.page.evaluate("(() => { const { now } = Date; Date.now = () => now.call(Date) + 4_000_000; })()")
    assert press(watched.page, "again").get_attribute("data-kept") == "true"
    assert watched.page.locator("#log > li").count() == 2
    watched.close()


def _held(page: Page, url: str, begin: Callable[[], object]) -> Route:
    """Hold the next request to an address. Return it when it has come."""
    held: list[Route] = []
    page.route(url, lambda route: held.append(route), times=1)  # noqa: PLW0108
    begin()
    for _ in range(1200):
        if held:
            return held[0]
        page.wait_for_timeout(50)
    raise AssertionError(url)


def test_a_file_that_is_chosen_while_a_reply_gets_lost_waits_for_the_next_try(
    browser: Browser, playground: Server
) -> None:
    """The repeat has the bytes of the first try: uponce refuses other bytes."""
    watched = Watched(browser, playground.base)
    page = watched.page
    page.wait_for_selector("#fields dd")
    first = _held(page, "**/v1_1/**", lambda: page.click("#try-lose button"))
    page.locator("#samples input").nth(1).check(force=True)
    until(page, "document.getElementById('file-name').textContent === 'morning.jpg'")
    first.continue_()
    page.wait_for_selector("#try-lose .verdict[data-kept]", timeout=60_000)
    assert page.get_attribute("#try-lose .verdict", "data-kept") == "true"
    watched.close()


def _without_the_first_sample(browser: Browser, playground: Server) -> Page:
    """Open the playground. The server answers the first request for the first sample with 503."""
    page = Watched(browser, playground.base, "/robots.txt").page  # Chromium itself reports each failed request
    away = [True]

    def answer(route: Route) -> None:
        if route.request.resource_type == "fetch" and away:
            away.pop()
            route.fulfill(status=503, body="")
        else:
            route.continue_()

    page.route("**/samples/dusk.jpg", answer)
    page.goto(f"{playground.base}/playground")
    page.wait_for_selector("#trouble >> text=The sample dusk.jpg cannot be loaded: status 503.")
    return page


def test_the_first_sample_is_loaded_later_if_the_server_was_away(browser: Browser, playground: Server) -> None:
    page = _without_the_first_sample(browser, playground)
    page.click("#upload")
    page.wait_for_selector("#result .stored")
    assert page.inner_text("#file-name") == "dusk.jpg"
    page.context.close()


def test_without_the_first_sample_a_signature_that_the_widget_used_is_refused_too(
    browser: Browser, playground: Server
) -> None:
    page = _without_the_first_sample(browser, playground)
    page.get_by_role("tab", name="Widget").click()
    until(page, "!!customElements.get('uponce-upload')")
    page.evaluate("document.querySelector('uponce-upload').add([new File(['by the widget'], 'note.txt')])")
    page.wait_for_selector("text=Stored by the widget")
    assert press(page, "again").get_attribute("data-kept") == "true"
    page.context.close()


def test_a_double_click_shows_one_widget(browser: Browser, playground: Server) -> None:
    watched = Watched(browser, playground.base)
    page = watched.page
    page.wait_for_selector("#fields dd")
    tab = page.get_by_role("tab", name="Widget")
    script = _held(page, "**/widget.js", tab.click)
    tab.click()
    script.continue_()
    until(page, "!!document.querySelector('uponce-upload')")
    assert page.locator("uponce-upload").count() == 1
    watched.close()
