"""A page with upload widgets, as its user and its scripts see them."""

import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import Page

from proof.faults.proxy import Fault, FaultProxy
from tests.e2e.widget.site import Site
from tests.server import Server

MB = 1_000_000
SECONDS = 60
# Bad lines are repaired at once.
QUICK = """customElements.whenDefined("uponce-upload").then(() => {
  for (const el of document.querySelectorAll("uponce-upload")) Object.assign(el.timing, { delay: 20 });
});"""

# Chromium drops keys before the first frame of a page.
PAINTED = "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"

# Of the locks that say which tab has an upload.
NO_LOCK = "navigator.locks.query().then(({ held, pending }) => held.length + pending.length === 0)"
WAITS = "navigator.locks.query().then(({ pending }) => pending.length === 1)"
# A tab that has waited for the lock of another tab frees it, and asks once more a little later.
COUNT_ASKS = """(() => {
  const { request } = LockManager.prototype;
  window.asks = 0;
  LockManager.prototype.request = function (...how) { window.asks += 1; return request.apply(this, how) };
})()"""
HAS_ASKED_AGAIN = f"window.asks > 0 && {NO_LOCK}"

# Of what an upload needs to continue.
NOTHING_KEPT = """() => new Promise((resolve) => {
  const opening = indexedDB.open("uponce");
  opening.onsuccess = () => {
    const counts = ["uploads", "files"].map((name) => opening.result.transaction(name).objectStore(name).count());
    counts[1].onsuccess = () => resolve(counts.every(({ result }) => result === 0));
  };
})"""

# All that the widget has asked the browser to keep.
WRITTEN = """() => new Promise((resolve) => {
  const opening = indexedDB.open("uponce");
  opening.onsuccess = () => {
    const writing = opening.result.transaction("uploads", "readwrite");
    writing.objectStore("uploads").count();
    writing.oncomplete = () => resolve();
  };
})"""


def form(attributes: str = "multiple", name: str = "media") -> str:
    return (
        f'<form action="/done" method="post"><uponce-upload sign="/sign" cloud="media" name="{name}" {attributes}>'
        "</uponce-upload><button>Send</button></form>"
    )


def bytes_of(server: Server, answer: dict[str, Any]) -> bytes:
    """The stored file, also if its upload came by another address, which the answer names."""
    return server.get(urlsplit(answer["secure_url"]).path).data


def in_parts(extra: str = "") -> str:
    return form(f'multiple part-size="{MB}" {extra}')


def crawling(server: Server, rate: float = 3 * MB) -> FaultProxy:
    """A slow line, on which no upload of more than 4 MB ends before `go_on`."""
    return FaultProxy(server.port, lambda _: Fault(rate=rate), most=4 * MB)


def transfer(kind: str) -> str:
    events = {"paste": "ClipboardEvent", "drop": "DragEvent"}
    field = {"paste": "clipboardData", "drop": "dataTransfer"}[kind]
    return f"""([target, name, text]) => {{
      const transfer = new DataTransfer();
      transfer.items.add(new File([text], name, {{ type: "text/plain" }}));
      const options = {{ {field}: transfer, bubbles: true, cancelable: true }};
      return !document.querySelector(target).dispatchEvent(new {events[kind]}("{kind}", options));
    }}"""


class Widget:
    """A page with widgets, as its user and its scripts see them. It logs nothing and throws nothing."""

    def __init__(self, page: Page, site: Site) -> None:
        self.page = page
        self.site = site
        self.problems: list[str] = []
        page.set_default_timeout(SECONDS * 1000)
        page.on("console", lambda message: self.problems.append(message.text))
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("request", lambda request: self._host(request.url))

    def _host(self, url: str) -> None:
        if urlsplit(url).hostname not in ("localhost", "127.0.0.1", None):
            self.problems.append(f"request to {url}")

    def open(self, body: str | None = None) -> None:
        self.site.body = form() if body is None else body
        self.page.goto(self.site.url)
        self.ready()

    def ready(self) -> None:
        self.page.wait_for_function("!!customElements.get('uponce-upload')")

    def serve_by_worker(self) -> None:
        """All requests of the page now pass through a service worker."""
        self.page.evaluate(
            """new Promise((resolve) => {
              navigator.serviceWorker.addEventListener("controllerchange", resolve);
              navigator.serviceWorker.register("/worker.js");
            }).then(() => 0)"""
        )

    def js(self, expression: str, argument: Any = None, *, of: str = "uponce-upload") -> Any:
        """The value of an expression over the element `el`."""
        return self.page.evaluate(
            f"(argument) => {{ const el = document.querySelector('{of}'); return ({expression}) }}", argument
        )

    def until(self, condition: str, *, of: str = "uponce-upload") -> None:
        self.page.wait_for_function(f"() => {{ const el = document.querySelector('{of}'); return !!({condition}) }}")

    def eventually(self, promise: str) -> None:
        """Wait until what is promised is true. `wait_for_function` takes the promise itself for true."""
        until = time.monotonic() + SECONDS
        while not self.page.evaluate(promise):
            assert time.monotonic() < until, promise
            self.page.wait_for_timeout(50)

    def pick(self, *files: Path | dict[str, Any], of: str = "uponce-upload") -> None:
        self.page.locator(f"{of} input").set_input_files(list(files))  # type: ignore[arg-type]

    def stored(self, count: int = 1, *, of: str = "uponce-upload") -> list[dict[str, Any]]:
        """The answers, as soon as this many files are stored."""
        self.until(f"el.answers.length === {count}", of=of)
        answers: list[dict[str, Any]] = self.js("el.answers", of=of)
        return answers

    def states(self) -> list[str]:
        states: list[str] = self.js("el.uploads.map((upload) => upload.state)")
        return states

    def status(self) -> str:
        return str(self.page.locator("uponce-upload [part=status]").first.inner_text())

    def note_lines(self) -> None:
        """Note the lines that a screen reader reads. The widget removes each one some seconds later."""
        self.js(
            """(window.heard = [], new MutationObserver((changes) => {
              for (const { addedNodes } of changes) for (const { textContent } of addedNodes) heard.push(textContent);
            }).observe(el.shadowRoot.querySelector("[role=status]"), { childList: true }))"""
        )

    def heard(self) -> list[str]:
        heard: list[str] = self.page.evaluate("window.heard")
        return heard

    def click(self, label: str) -> None:
        self.page.locator(f'uponce-upload button[aria-label="{label}"]').click()

    def values(self, number: int = 0, name: str = "media") -> list[str]:
        """What the form would send."""
        values: list[str] = self.page.evaluate(f"new FormData(document.forms[{number}]).getAll('{name}')")
        return values
