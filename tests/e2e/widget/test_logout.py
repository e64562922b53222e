"""What a logout deletes, and a form that forgets: the next user at this browser gets no file of the user before."""

from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext

from tests.e2e.test_readme import block
from tests.e2e.widget.page import NO_LOCK, NOTHING_KEPT, WRITTEN, Widget, form

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def _log_out(widget: Widget) -> None:
    code = block("docs/guide/widget.md", "js", "deleteDatabase")
    with widget.page.expect_navigation():
        widget.page.evaluate(f"setTimeout(() => {{ {code} }})")


def test_the_logout_of_the_guide_leaves_the_next_user_no_file(widget: Widget, media: Path) -> None:
    widget.open(form("paused"))
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'paused'")
    widget.page.evaluate(WRITTEN)
    widget.page.goto(f"{widget.site.url}nowhere")
    _log_out(widget)
    widget.open(form("paused"))
    widget.js("el.restored")
    widget.eventually(NO_LOCK)
    assert widget.js("el.uploads") == []


def test_the_logout_of_the_guide_leaves_no_finished_file_in_the_form_of_the_next_user(
    widget: Widget, media: Path
) -> None:
    """In an application that shows its pages without reloads. A second file waits."""
    show = f"(root.innerHTML = `{form()}`, 0)"
    widget.open("<div id=root></div>")
    widget.page.evaluate(show)
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.js("(el.toggleAttribute('paused'), 0)")
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[1]?.state === 'paused'")
    widget.page.evaluate(WRITTEN)
    _log_out(widget)
    widget.ready()
    widget.page.evaluate(show)
    widget.js("el.restored")
    widget.eventually(NO_LOCK)
    assert widget.js("el.uploads") == []


def _go_back_to_an_empty_form(widget: Widget) -> None:
    widget.page.go_back()
    _assert_empty(widget)


def _assert_empty(widget: Widget) -> None:
    widget.ready()
    widget.js("el.restored")
    assert widget.values() == []
    assert widget.js("el.uploads") == []


def test_a_form_that_forgets_is_empty_after_the_back_button(widget: Widget, media: Path) -> None:
    """Browsers keep what is in a form. The next user at a shared computer may go back to it."""
    widget.open(form("multiple forget"))
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.page.click("text=Send")
    widget.page.wait_for_url("**/done")
    assert widget.page.evaluate("sessionStorage.length") == 0
    _go_back_to_an_empty_form(widget)


def test_after_the_logout_of_the_guide_a_form_is_empty_also_after_the_back_button(widget: Widget, media: Path) -> None:
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.page.goto(f"{widget.site.url}nowhere")
    _log_out(widget)
    _go_back_to_an_empty_form(widget)


@pytest.mark.parametrize("way", ["reload", "back"])
@pytest.mark.parametrize("before", [["cat.jpg"], []])
def test_what_a_page_writes_after_a_logout_fills_no_form_of_the_next_user(
    widget: Widget, media: Path, before: list[str], way: str
) -> None:
    """`before` are the files that are finished before the logout."""
    widget.open()
    widget.pick(*(media / name for name in before))
    widget.stored(len(before))
    widget.page.evaluate("sessionStorage.clear()")
    widget.pick(media / "dance.gif")
    widget.stored(len(before) + 1)
    widget.eventually(NOTHING_KEPT)  # else the next page goes on with a file that is finished
    if way == "back":
        widget.page.goto(f"{widget.site.url}nowhere")
        _go_back_to_an_empty_form(widget)
        return
    widget.page.reload()
    _assert_empty(widget)


def test_what_a_page_picks_up_after_a_logout_is_not_kept_for_the_next_user(widget: Widget, media: Path) -> None:
    """The next page may be slow to arrive. Until then this one goes on."""
    widget.open(form("paused multiple"))
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'paused'")
    widget.page.evaluate(block("docs/guide/widget.md", "js", "deleteDatabase").replace("location.reload();", "0"))
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[1]?.state === 'paused'")
    widget.page.evaluate(WRITTEN)
    widget.page.reload()
    _assert_empty(widget)
    widget.eventually(NO_LOCK)
    assert widget.js("el.uploads") == []


_DELETE = """new Promise((resolve) => {
  const deletion = indexedDB.deleteDatabase("uponce");
  for (const type of ["success", "blocked"]) deletion.addEventListener(type, () => resolve(type));
})"""


def test_a_page_may_delete_the_database_while_another_tab_has_the_widget(
    context: BrowserContext, widget: Widget, media: Path
) -> None:
    """As an application does after a logout. Both tabs then upload, and keep what they upload."""
    widget.open(form("paused"))
    widget.js("el.restored")
    other = Widget(context.new_page(), widget.site)
    other.open()
    assert other.page.evaluate(_DELETE) == "success"
    other.pick(media / "cat.jpg")
    other.stored()
    widget.pick(media / "dance.gif")
    widget.until("el.uploads[0]?.state === 'paused'")
    widget.page.evaluate(WRITTEN)
    widget.page.reload()
    widget.until("el.uploads?.length")
    assert widget.status() == "Paused at 0%"
