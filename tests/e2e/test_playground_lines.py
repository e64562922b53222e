"""The playground after its server was away, and after it was open for long."""

import json

import pytest
from playwright.sync_api import Browser, Route

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
