"""Each upload continues in its own element, and in no other, also beside other tabs."""

import threading
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.e2e.widget.page import (
    COUNT_ASKS,
    HAS_ASKED_AGAIN,
    MB,
    NO_LOCK,
    SECONDS,
    WAITS,
    WRITTEN,
    Widget,
    crawling,
    form,
    in_parts,
)
from tests.e2e.widget.site import Line
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def test_an_upload_that_gave_up_continues_in_the_next_element(line: Line, widget: Widget, media: Path) -> None:
    """An application without reloads shows another page, and the form again."""
    line.strike = lambda *_: Line.LOSE
    widget.open()
    widget.js("(el.timing.tries = 0)")
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    line.strike = lambda *_: None
    widget.js("el.replaceWith(el.cloneNode())")
    widget.stored()
    assert len(widget.site.asked) == 1


def test_a_new_row_of_a_form_does_not_continue_the_file_of_another(widget: Widget, media: Path) -> None:
    """The new row is the first on the page, as the other row was before. The user removes the other row."""
    widget.open(form("paused"))
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'paused'")
    widget.js("el.before(Object.assign(el.cloneNode(), { className: 'new' }))")
    widget.js("el.restored", of=".new")
    widget.js("el.remove()", of="uponce-upload:not(.new)")
    widget.eventually(NO_LOCK)
    assert widget.js("el.uploads", of=".new") == []


# A component that has the widget in its shadow root, and gives the page that widget by its name.
_COMPONENTS = f"""<x-a></x-a><x-b></x-b><script>
  for (const name of ["a", "b"]) customElements.define(`x-${{name}}`, class extends HTMLElement {{
    connectedCallback() {{
      this.attachShadow({{ mode: "open" }}).innerHTML = `{in_parts()}`;
      window[name] = this.shadowRoot.querySelector("uponce-upload");
    }}
  }});
</script>"""


def test_components_with_a_widget_each_get_back_their_own_files(
    server: Server, widget: Widget, media: Path, film: Path
) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(_COMPONENTS)
        widget.pick(media / "cat.jpg", of="x-a uponce-upload")
        widget.page.wait_for_function("a.answers.length === 1")
        widget.pick(film, of="x-b uponce-upload")
        widget.page.wait_for_function(f"b.uploads[0]?.loaded > {MB}")
        widget.page.reload()
        proxy.go_on()
        widget.page.wait_for_function("window.b?.answers?.length === 1")
    assert widget.page.evaluate("[a, b].map((each) => each.answers[0].original_filename)") == ["cat", "film"]
    assert len(widget.site.asked) == 2


_NAMES = "el.uploads.map(({ name }) => name)"


def full_beside(context: BrowserContext, widget: Widget, media: Path) -> Widget:
    """Return another tab with the form. Its field for one file has one, and waits for the lock of the upload here."""
    other = Widget(context.new_page(), widget.site)
    other.open(form(""))
    other.js("el.restored")
    other.pick(media / "cat.jpg")
    other.stored()
    other.eventually(WAITS)
    other.page.evaluate(COUNT_ASKS)
    return other


def test_a_field_for_one_file_keeps_its_own_when_another_tab_is_closed(
    context: BrowserContext, widget: Widget, media: Path
) -> None:
    widget.open(form("paused"))
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[0]?.state === 'paused'")
    other = full_beside(context, widget, media)
    widget.page.close()
    other.eventually(HAS_ASKED_AGAIN)
    assert other.js(_NAMES) == ["cat.jpg"]


def test_what_a_full_field_does_not_continue_waits_in_the_next_form(
    context: BrowserContext, widget: Widget, media: Path
) -> None:
    """The field for one file of another tab has a file when the tab of this upload is closed, and is then sent."""
    signing = threading.Event()

    def slow(number: int) -> None:
        if number == 1:
            signing.wait(SECONDS)

    widget.site.before = slow
    widget.open(form(""))
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[0]?.state === 'signing'")
    widget.page.evaluate(WRITTEN)
    other = full_beside(context, widget, media)
    widget.page.close()
    signing.set()
    other.eventually(HAS_ASKED_AGAIN)
    other.page.click("text=Send")
    other.page.wait_for_url("**/done")
    other.open(form(""))
    other.until("el.uploads?.length")
    assert (other.js(_NAMES), other.states()) == (["dance.gif"], ["paused"])
    assert len(widget.site.asked) == 2


# A back end that never answers.
_SIGNING = "(el.signer = () => new Promise(() => {}), 0)"
_SETTLED = "['done', 'paused'].includes(el.uploads?.[0]?.state)"


@pytest.mark.parametrize("state", ["done", "paused"])
def test_a_full_field_of_another_tab_pauses_no_upload_in_its_own_tab(
    context: BrowserContext, widget: Widget, media: Path, state: str
) -> None:
    """The tab needs long for a reload. A pause of the user stays a pause."""
    widget.open(form(""))
    widget.js(_SIGNING)
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[0]?.state === 'signing'")
    if state == "paused":
        widget.click("Pause dance.gif")
    widget.page.evaluate(WRITTEN)
    other = full_beside(context, widget, media)
    widget.site.body = "Back soon"
    widget.page.reload()
    other.eventually(HAS_ASKED_AGAIN)
    widget.site.body = form("")
    widget.page.reload()
    widget.until(_SETTLED)
    assert (widget.js(_NAMES), widget.states()) == (["dance.gif"], [state])


def test_a_file_that_was_chosen_in_place_of_another_is_not_replaced_by_it(widget: Widget, media: Path) -> None:
    """An application without reloads shows the form again. The user chooses before the browser's database answers."""
    widget.open(form(""))
    widget.js(_SIGNING)
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[0]?.state === 'signing'")
    widget.page.evaluate(WRITTEN)
    again = "(el.replaceWith(el.cloneNode()), document.querySelector('uponce-upload'))"
    widget.js(f"{again}.add([new File(['x'], 'a.txt')])")
    widget.stored()
    widget.js("el.restored")
    widget.eventually(NO_LOCK)
    assert widget.js(_NAMES) == ["a.txt"]
    widget.js(f"({again}, 0)")
    widget.until(_SETTLED)
    assert (widget.js(_NAMES), widget.states()) == (["dance.gif"], ["paused"])


def test_a_reload_beside_another_tab_keeps_the_upload_in_its_tab(
    context: BrowserContext, widget: Widget, media: Path
) -> None:
    widget.open(form("paused"))
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'paused'")
    widget.page.evaluate(WRITTEN)
    other = Widget(context.new_page(), widget.site)
    other.open(form("paused"))
    other.js("(Object.assign(el.timing, { delay: 60_000 }), 0)")
    other.eventually(WAITS)
    widget.page.reload()
    widget.until("el.uploads?.length")
    assert (widget.js(_NAMES), other.js(_NAMES)) == (["cat.jpg"], [])
    widget.click("Continue cat.jpg")
    widget.stored()


def test_a_refused_choice_does_not_stop_a_field_for_one_file(widget: Widget, media: Path) -> None:
    widget.open(form("paused"))
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'paused'")
    widget.pick({"name": "empty.txt", "mimeType": "text/plain", "buffer": b""})
    widget.until("el.uploads[1]?.state === 'refused'")
    widget.js("(window.kept = el, el.remove(), new Promise(setTimeout)).then(() => 0)")
    assert widget.page.evaluate("kept.uploads.length") == 1
    widget.page.evaluate("document.forms[0].append(window.kept)")
    widget.until("el.uploads.length === 2")
    widget.click("Continue cat.jpg")
    widget.stored()
    assert widget.js(_NAMES) == ["empty.txt", "cat.jpg"]


def test_what_a_sent_form_left_behind_waits_in_the_next_form(line: Line, widget: Widget, media: Path) -> None:
    """The next form at this address may be of another album. The user decides."""
    body = form().replace("<form", '<iframe name="away"></iframe><form target="away"')
    line.strike = lambda *_: Line.LOSE
    widget.open(body)
    widget.js("(el.timing.tries = 0)")
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    widget.page.click("text=Send")
    widget.page.evaluate(WRITTEN)
    line.strike = lambda *_: None
    widget.open(body)
    widget.until("el.uploads?.length")
    assert widget.states() == ["paused"]
    widget.click("Continue cat.jpg")
    widget.stored()
    assert len(widget.site.asked) == 1


_CATCH_DATABASE = """(() => {
  const { open } = IDBFactory.prototype;
  IDBFactory.prototype.open = function (...how) {
    const request = open.apply(this, how);
    request.addEventListener("success", () => { window.database ??= request.result });
    return request;
  };
})()"""
_CLOSE = "(database.close(), database.dispatchEvent(new Event('close')), 0)"
# What a closed connection does to a change that is under way.
_ABORT = """(() => {
  const original = IDBObjectStore.prototype.delete;
  IDBObjectStore.prototype.delete = function (key) {
    IDBObjectStore.prototype.delete = original;
    const request = this.delete(key);
    this.transaction.abort();
    return request;
  };
})()"""


@pytest.mark.parametrize("loss", [_CLOSE, _ABORT], ids=["close", "abort"])
def test_a_finished_file_stays_out_of_the_next_form_after_the_browser_closed_the_database(
    context: BrowserContext, widget: Widget, media: Path, loss: str
) -> None:
    """As Safari does with a page in the background. Else the next form asks for another signature."""
    signing = threading.Event()

    def slow(_: int) -> None:
        signing.wait(SECONDS)

    widget.site.before = slow
    context.add_init_script(_CATCH_DATABASE)
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'signing'")
    widget.page.evaluate(WRITTEN)
    widget.page.evaluate(loss)
    signing.set()
    widget.stored()
    widget.eventually(NO_LOCK)
    widget.page.click("text=Send")
    widget.page.wait_for_url("**/done")
    widget.open()
    widget.js("el.restored")
    widget.eventually(NO_LOCK)
    assert widget.js("el.uploads") == []
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("route", ["", "#/edit"])
def test_a_reload_at_one_address_fills_no_form_at_another(widget: Widget, media: Path, route: str) -> None:
    """An application that shows its pages without reloads. Its user leaves it, and comes back at another address."""
    show = f"(root.innerHTML = `{form()}`, 0)"
    widget.open("<div id=root></div>")
    here = widget.page.evaluate("location.href")
    widget.page.evaluate("(address) => history.replaceState(null, '', address)", here + route)
    widget.page.evaluate(show)
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.page.evaluate("(address) => history.replaceState(null, '', address)", here if route else "?back")
    widget.page.reload()
    widget.ready()
    widget.page.evaluate("(address) => history.pushState(null, '', address)", here + route)
    widget.page.evaluate(show)
    widget.js("el.restored")
    assert widget.js("el.uploads") == []
