"""The upload widget in Chromium, on a page of another origin, over good and bad lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

from tests.e2e.test_browser import FLAGS
from tests.e2e.widget_site import Site, serving
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

MB = 1_000_000
WIDGET = '<uponce-upload sign="/sign" cloud="media" name="media" multiple></uponce-upload>'


@pytest.fixture(scope="module")
def browser(chromium: str) -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def site(server: Server) -> Iterator[Site]:
    with serving(server) as site:
        site.body = f'<form action="/done" method="post">{WIDGET}<button>Send</button></form>'
        yield site


class Widget:
    """The page, and its widget as a user and a script of the page see it."""

    def __init__(self, page: Page, site: Site, selector: str = "uponce-upload") -> None:
        self.page = page
        self.site = site
        self.selector = selector

    def open(self) -> None:
        self.page.goto(self.site.url)
        self.page.wait_for_function("!!customElements.get('uponce-upload')")

    def js(self, expression: str, argument: Any = None) -> Any:
        """The value of an expression over `el`."""
        return self.page.evaluate(
            f"(argument) => {{ const el = document.querySelector('{self.selector}'); return ({expression}) }}", argument
        )

    def pick(self, *files: Path | dict[str, Any]) -> None:
        self.page.locator(f"{self.selector} input").first.set_input_files(list(files))  # type: ignore[arg-type]

    def until(self, condition: str, seconds: float = 20) -> None:
        self.page.wait_for_function(
            f"() => {{ const el = document.querySelector('{self.selector}'); return !!({condition}) }}",
            timeout=seconds * 1000,
        )

    def finished(self, count: int) -> list[dict[str, Any]]:
        """The answers, as soon as all these files are stored."""
        self.until(f"el.answers.length === {count}")
        answers: list[dict[str, Any]] = self.js("el.answers")
        return answers


@pytest.fixture
def widget(browser: Browser, site: Site) -> Iterator[Widget]:
    """A page that logs nothing and throws nothing."""
    context = browser.new_context()
    page = context.new_page()
    problems: list[str] = []

    def log(message: ConsoleMessage) -> None:
        problems.append(message.text)

    page.on("console", log)
    page.on("pageerror", lambda error: problems.append(str(error)))
    widget = Widget(page, site)
    widget.open()
    yield widget
    context.close()
    assert [each for each in problems if not each.startswith("Failed to load resource")] == []


def test_files_of_all_kinds_are_stored_and_in_the_form(server: Server, widget: Widget, media: Path) -> None:
    names = ["cat.jpg", "dance.gif", "walk.mp4", "note.txt"]
    widget.pick(*(media / name for name in names))
    answers = widget.finished(4)
    assert sorted(each["original_filename"] for each in answers) == ["cat", "dance", "note", "walk"]
    for each in answers:
        assert (
            server.get(each["secure_url"]).data == (media / f"{each['original_filename']}.{_ending(each)}").read_bytes()
        )
    assert len(widget.site.asked) == 4
    assert len({each["params"]["nonce"] for each in widget.site.asked}) == 4
    values = widget.page.evaluate("new FormData(document.forms[0]).getAll('media')")
    assert values == [each["secure_url"] for each in answers]


def _ending(answer: dict[str, Any]) -> str:
    return str(answer.get("format") or answer["public_id"].rpartition(".")[2])
