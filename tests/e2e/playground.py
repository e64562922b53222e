"""The playground and the other pages of the server in Chromium, as a user sees them."""

from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request

SAMPLES = Path(__file__).parents[2] / "src/uponce/web/pages/samples"
ON = {"UPONCE_PLAYGROUND": "local"}


class Watched:
    """A page whose complaints and whose requests to other hosts are kept."""

    def __init__(self, browser: Browser, base: str, path: str = "/playground", **options: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
        self.page = self.context.new_page()
        self.base = base
        self.complaints: list[str] = []
        self.page.on("console", self._console)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._request)
        self.opened = f"{base}{path}"
        self.page.goto(self.opened)

    def _console(self, message: ConsoleMessage) -> None:
        # Chromium itself reports every refusal: those that the playground asks for, and a page that is one.
        refused = "status of 400" in message.text or message.location.get("url") == self.opened
        if message.type in ("error", "warning") and not refused:
            self.complaints.append(message.text)

    def _request(self, request: Request) -> None:
        if not request.url.startswith((self.base, "blob:")):
            self.complaints.append(f"request to {request.url}")

    def close(self) -> None:
        self.context.close()
        assert self.complaints == []


def until(page: Page, condition: str) -> None:
    """Wait until it holds. Playwright's own way to wait needs `eval`, which the page's policy forbids."""
    for _ in range(1200):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def upload(page: Page) -> str:
    """Press the button; the address of what was stored."""
    page.click("#upload")
    return str(page.locator("#result .facts a").get_attribute("href"))


def press(page: Page, trial: str) -> Locator:
    """Try one thing; the place of its outcome, once it is there."""
    page.click(f"#try-{trial} button")
    page.wait_for_selector(f"#try-{trial} .verdict[data-kept]", timeout=60_000)
    return page.locator(f"#try-{trial} .verdict")
