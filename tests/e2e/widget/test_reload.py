"""Uploads continue after a reload and a crash, and when their element is back."""

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode

import pytest
from playwright.sync_api import BrowserContext, Error, FileChooser, Page, Request

from tests.e2e.widget.page import (
    COUNT_ASKS,
    HAS_ASKED_AGAIN,
    MB,
    NO_LOCK,
    NOTHING_KEPT,
    QUICK,
    SECONDS,
    WAITS,
    WRITTEN,
    Widget,
    bytes_of,
    crawling,
    form,
    in_parts,
)
from tests.e2e.widget.site import Line, Site
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def crash(page: Page) -> None:
    """The browser's process of this page dies."""
    with page.expect_event("crash"), suppress(Error):
        page.goto("chrome://crash")


@pytest.mark.parametrize("parts", [False, True])
@pytest.mark.parametrize("end", [Page.reload, crash], ids=["reload", "crash"])
def test_an_upload_continues_after_the_page_has_ended(
    context: BrowserContext, server: Server, site: Site, film: Path, end: Callable[[Page], None], parts: bool
) -> None:
    """Of a large file only the rest is sent. A small one is sent again, under the same signature."""
    first = Widget(context.new_page(), site)
    offsets: list[int] = []

    def note(request: Request) -> None:
        offsets.append(int(request.headers.get("upload-offset", -1)))

    context.on("request", note)
    with crawling(server) as proxy:
        site.via = proxy.base
        first.open(in_parts() if parts else form())
        first.pick(film)
        first.until(f"el.uploads[0]?.loaded > {2 * MB}")
        offsets.clear()
        end(first.page)
        again = first
        if end is crash:
            again = Widget(context.new_page(), site)
            again.page.goto(site.url)
        proxy.go_on()
        (answer,) = again.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(site.asked) == 1
    assert again.values() == [answer["secure_url"]]
    if parts:
        assert min(offset for offset in offsets if offset >= 0) > MB
    again.eventually(NOTHING_KEPT)


def test_a_file_too_large_to_keep_continues_when_it_is_chosen_again(
    context: BrowserContext, server: Server, widget: Widget, media: Path, film: Path
) -> None:
    context.add_init_script(QUICK.replace("delay: 20", "keep: 1000"))
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {2 * MB}")
        widget.page.reload()
        proxy.go_on()
        widget.until("el.uploads[0]?.state === 'paused'")
        assert widget.status() == "Choose it again to continue"
        choosers: list[FileChooser] = []
        widget.page.on("filechooser", lambda chooser: choosers.append(chooser))  # noqa: PLW0108
        widget.click("Choose film.bin again")
        widget.pick(media / "cat.jpg")
        widget.stored()
        assert widget.states() == ["paused", "done"]
        assert len(choosers) == 1
        asked = list[str]()
        widget.page.on("request", lambda each: asked.append(each.url) if each.method == "HEAD" else None)
        widget.pick(film)
        answer = widget.stored(2)[0]
        assert len(asked) == 1  # one run, and not two that race
        assert widget.states() == ["done", "done"]
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 2


def test_what_was_uploaded_is_in_the_form_after_a_reload_but_not_on_a_new_visit(widget: Widget, media: Path) -> None:
    widget.open()
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    widget.page.reload()
    widget.stored()
    assert widget.values() == [answer["secure_url"]]
    widget.open()
    widget.js("el.restored")
    assert widget.values() == []
    assert len(widget.site.asked) == 1


def test_a_form_that_has_left_the_page_gives_no_files_to_the_next_one(widget: Widget, media: Path) -> None:
    """An application that shows its pages without reloads, and is reloaded between two forms."""
    show, leave = f"(root.innerHTML = `{form()}`, 0)", "(root.innerHTML = 'a list', 0)"
    widget.open("<div id=root></div>")
    widget.page.evaluate(show)
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.page.reload()
    widget.ready()
    widget.page.evaluate(show)
    widget.stored()
    widget.page.evaluate(leave)
    widget.page.reload()
    widget.ready()
    widget.page.evaluate(show)
    widget.js("el.restored")
    assert widget.values() == []


def test_each_of_several_elements_gets_back_what_was_its_own(
    context: BrowserContext, server: Server, widget: Widget, media: Path, film: Path
) -> None:
    """Also when only their place on the page distinguishes them."""
    first, second = (f"form:nth-of-type({n}) uponce-upload" for n in (1, 2))
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts() + in_parts())
        widget.pick(media / "cat.jpg", of=first)
        (cat,) = widget.stored(of=first)
        widget.pick(media / "dance.gif", film, of=second)
        widget.until(f"el.answers.length && el.uploads.at(-1).loaded > {MB}", of=second)
        widget.page.reload()
        proxy.go_on()
        widget.stored(2, of=second)
    assert widget.values(0) == [cat["secure_url"]]
    assert sorted(each["name"] for each in widget.js("el.uploads", of=second)) == ["dance.gif", "film.bin"]
    assert len(widget.site.asked) == 3


def test_going_back_to_a_form_finds_it_as_it_was(widget: Widget, media: Path) -> None:
    widget.open()
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    widget.page.click("text=Send")
    widget.page.wait_for_url("**/done")
    assert widget.site.submitted == [urlencode({"media": answer["secure_url"]})]
    widget.page.go_back()
    widget.stored()
    assert widget.values() == [answer["secure_url"]]


def test_another_tab_leaves_a_live_upload_alone(
    context: BrowserContext, server: Server, widget: Widget, film: Path
) -> None:
    with crawling(server, rate=1.5 * MB) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB / 2}")
        other = Widget(context.new_page(), widget.site)
        other.page.goto(widget.site.url)
        other.ready()
        other.js("el.restored")
        assert other.js("el.uploads") == []
        proxy.go_on()
        widget.stored()
        widget.eventually(NOTHING_KEPT)
        assert other.js("el.uploads") == []
    assert len(widget.site.asked) == 1


# Deletions come late, or fail.
_SLOW = """(() => {
  const original = IDBObjectStore.prototype.delete;
  IDBObjectStore.prototype.delete = function (key) {
    const { name, transaction } = this;
    const late = {};
    setTimeout(() => {
      const now = transaction.db.transaction(name, "readwrite").objectStore(name);
      original.call(now, key).onsuccess = () => late.onsuccess();
    }, 500);
    return late;
  };
})()"""
_FAILING = "(IDBObjectStore.prototype.delete = () => { throw new DOMException('disk', 'UnknownError') }, 0)"


def test_a_waiting_tab_gets_an_upload_only_when_its_record_is_gone(
    context: BrowserContext, server: Server, widget: Widget, film: Path
) -> None:
    """Else the waiting tab shows a file that the first tab has uploaded."""
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.page.evaluate(_SLOW)
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB / 2}")
        other = Widget(context.new_page(), widget.site)
        other.page.goto(widget.site.url)
        other.ready()
        other.js("(window.shown = 0, el.addEventListener('progress', () => { window.shown += 1 }), el.restored)")
        other.eventually(WAITS)
        other.page.evaluate(COUNT_ASKS)
        proxy.go_on()
        widget.stored()
    other.eventually(HAS_ASKED_AGAIN)
    assert other.page.evaluate("window.shown") == 0
    widget.eventually(NOTHING_KEPT)


def test_an_upload_is_released_also_if_its_record_cannot_be_deleted(widget: Widget, media: Path) -> None:
    widget.open()
    widget.page.evaluate(_FAILING)
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.eventually(NO_LOCK)


def test_an_open_tab_continues_what_a_closed_one_has_begun(
    context: BrowserContext, server: Server, widget: Widget, film: Path
) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        other = Widget(context.new_page(), widget.site)
        other.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        other.page.reload()
        other.ready()
        widget.page.close()
        proxy.go_on()
        (answer,) = other.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1


def test_a_waiting_tab_continues_from_what_the_closed_one_knew_last(
    context: BrowserContext, line: Line, widget: Widget, media: Path
) -> None:
    """Here the signature that the file was sent under. With another signature the file is stored twice."""
    signing = threading.Event()

    def slow(_: int) -> None:
        signing.wait(SECONDS)

    widget.site.before = slow
    line.strike = lambda *_: Line.LOSE
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'signing'")
    other = Widget(context.new_page(), widget.site)
    other.page.goto(widget.site.url)
    other.ready()
    other.js("el.restored")
    signing.set()
    widget.until("el.uploads[0]?.state === 'retrying'")
    widget.page.close()
    line.strike = lambda *_: None
    other.stored()
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize(("mine", "others"), [("edit?id=1", "edit?id=2"), ("#/edit/1", "#/edit/2"), ("#!1", "#!2")])
def test_an_upload_continues_in_the_form_of_its_own_record_only(
    server: Server, widget: Widget, film: Path, mine: str, others: str
) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.site.body = in_parts()

        def visit(address: str) -> None:
            widget.page.goto("about:blank")
            widget.page.goto(f"{widget.site.url}{address}")
            widget.ready()

        visit(mine)
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        visit(others)
        proxy.go_on()
        widget.js("el.restored")
        widget.eventually(NO_LOCK)
        assert widget.states() == []
        visit(mine)
        (answer,) = widget.stored()
    assert bytes_of(server, answer) == film.read_bytes()


def test_a_place_on_the_page_is_no_other_record(server: Server, widget: Widget, film: Path) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        widget.page.goto(f"{widget.site.url}#photos")
        widget.page.reload()
        proxy.go_on()
        widget.stored()
    assert len(widget.site.asked) == 1


def test_a_page_may_forbid_to_keep_anything(server: Server, widget: Widget, film: Path) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts("forget"))
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        assert widget.page.evaluate("indexedDB.databases()") == []
        widget.page.reload()
        widget.ready()
        assert widget.js("el.uploads") == []


def test_an_element_that_leaves_the_page_stops_and_continues_when_it_is_back(
    server: Server, widget: Widget, film: Path
) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        widget.js("document.forms[0].prepend(el)")  # moved: goes on
        assert widget.states() == ["uploading"]
        assert widget.js("(window.kept = el, el.remove(), new Promise(setTimeout)).then(() => kept.uploads)") == []
        proxy.go_on()
        widget.page.evaluate("document.forms[0].append(window.kept)")
        (answer,) = widget.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1


def test_an_upload_that_was_tried_again_continues_when_its_element_is_back(
    line: Line, widget: Widget, media: Path
) -> None:
    line.strike = lambda *_: Line.LOSE
    widget.open()
    widget.js("(el.timing.tries = 0)")
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    widget.js("(Object.assign(el.timing, { tries: 8, delay: 60_000 }), 0)")
    widget.click("Try cat.jpg again")
    widget.until("el.uploads[0].state === 'retrying'")
    line.strike = lambda *_: None
    widget.js("(window.kept = el, el.remove(), new Promise(setTimeout)).then(() => 0)")
    widget.page.evaluate("document.forms[0].append(window.kept)")
    widget.stored()
    assert len(widget.site.asked) == 1


def test_a_paused_upload_stays_paused_until_the_user_continues(server: Server, widget: Widget, film: Path) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        widget.click("Pause film.bin")
        proxy.go_on()
        widget.js("(window.kept = el, el.remove(), new Promise(setTimeout)).then(() => 0)")
        widget.page.evaluate("document.forms[0].prepend(window.kept)")
        widget.until("el.uploads.length")
        assert widget.states() == ["paused"]
        widget.page.evaluate(WRITTEN)
        widget.page.reload()
        widget.until("el.uploads?.length")
        assert widget.states() == ["paused"]
        assert widget.status().startswith("Paused at ")
        assert widget.status() != "Paused at 0%"
        widget.click("Continue film.bin")
        widget.page.evaluate(WRITTEN)
        widget.page.reload()
        (answer,) = widget.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1
