"""The upload widget is a field of its form."""

import re
from pathlib import Path

import pytest
from cloudinary.utils import api_sign_request

from tests.e2e.widget.page import PAINTED, Widget, crawling, form, transfer
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def test_two_forms_and_hidden_elements_each_have_their_own_files(widget: Widget, media: Path) -> None:
    first = "form:nth-of-type(1) uponce-upload"
    second = "form:nth-of-type(2) uponce-upload"
    widget.open(form("") + form("hidden multiple", "photos"))
    widget.pick(media / "cat.jpg", of=first)
    widget.pick(media / "dance.gif", media / "walk.mp4", of=second)
    (cat,), (dance, walk) = widget.stored(of=first), widget.stored(2, of=second)
    assert widget.values(0) == [cat["secure_url"]]
    assert widget.values(1, "photos") == [dance["secure_url"], walk["secure_url"]]
    assert not widget.page.locator(second).is_visible()
    assert widget.page.evaluate("Object.keys(window).filter((name) => /uponce|widget/i.test(name))") == []


def test_the_value_is_empty_when_the_file_was_removed(widget: Widget, media: Path) -> None:
    widget.open()
    widget.js("(window.changes = 0, el.addEventListener('change', () => { window.changes += 1 }))")
    widget.pick(media / "cat.jpg", media / "dance.gif")
    _, dance = widget.stored(2)
    widget.click("Remove cat.jpg")
    assert widget.values() == [dance["secure_url"]]
    widget.click("Remove dance.gif")
    assert widget.values() == []
    assert widget.page.evaluate("[...new FormData(document.forms[0]).keys()]") == []
    assert widget.page.evaluate("window.changes") == 4


_NAMES = "el.uploads.map(({ name }) => name)"


def _wait_with(widget: Widget, *names: str) -> None:
    widget.open(form("multiple paused"))
    widget.pick(*({"name": name, "mimeType": "text/plain", "buffer": b"x"} for name in names))
    widget.page.evaluate(PAINTED)
    assert widget.js(_NAMES) == list(names)


def test_a_double_click_removes_one_file(widget: Widget) -> None:
    """The next row moves up under the pointer."""
    _wait_with(widget, "a.txt", "b.txt", "c.txt")
    widget.page.locator('uponce-upload button[aria-label="Remove a.txt"]').dblclick()
    assert widget.js(_NAMES) == ["b.txt", "c.txt"]
    widget.click("Remove b.txt")
    assert widget.js(_NAMES) == ["c.txt"]


def test_a_held_key_removes_one_file(widget: Widget) -> None:
    """The focus goes to the next row. After the last row it goes to the button that opens the file dialog."""
    _wait_with(widget, "a.txt", "b.txt")
    widget.js("(el.pick = () => { window.picked = true }, 0)")
    widget.page.locator('uponce-upload button[aria-label="Remove a.txt"]').focus()
    for left in (["b.txt"], []):
        for _ in range(3):  # the browser repeats the key
            widget.page.keyboard.down("Enter")
        widget.page.keyboard.up("Enter")
        assert widget.js(_NAMES) == left
    assert not widget.page.evaluate("window.picked")


def test_a_reset_empties_it(widget: Widget, media: Path) -> None:
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.page.evaluate("document.forms[0].reset()")
    assert (widget.values(), widget.js("el.uploads")) == ([], [])


def test_a_required_field_and_a_running_upload_stop_the_form(server: Server, widget: Widget, film: Path) -> None:
    valid = "document.forms[0].checkValidity()"
    widget.open(form("multiple required"))
    assert widget.js("el.validity.valueMissing")
    assert not widget.page.evaluate(valid)
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.pick(film)
        widget.until("el.uploads[0]?.loaded > 0")
        assert widget.js("[el.validity.valueMissing, el.validity.customError]") == [False, True]
        widget.page.click("text=Send")
        assert widget.site.submitted == []
        proxy.go_on()
        widget.stored()
    assert widget.page.evaluate(valid)
    widget.click("Remove film.bin")
    assert not widget.page.evaluate(valid)


@pytest.mark.parametrize("ends", ["uploaded", "refused"])
def test_a_listener_may_send_the_form_when_the_last_upload_has_ended(widget: Widget, ends: str) -> None:
    if ends == "refused":
        widget.site.before = lambda _: (403, {}, {})
    widget.open()
    widget.js("(el.addEventListener(argument, () => { window.valid = el.form.checkValidity() }), 0)", ends)
    widget.pick({"name": "a.txt", "mimeType": "text/plain", "buffer": b"x"})
    widget.until("window.valid !== undefined")
    assert widget.page.evaluate("window.valid")


def test_a_disabled_fieldset_disables_it(widget: Widget, media: Path) -> None:
    widget.open(
        form()
        .replace("<uponce", "<fieldset disabled><uponce")
        .replace("</uponce-upload>", "</uponce-upload></fieldset>")
    )
    assert widget.page.locator("uponce-upload [part=button]").is_disabled()
    is_taken = widget.page.evaluate(transfer("drop"), ["uponce-upload", "note.txt", "dropped"])
    assert is_taken  # else the browser opens the file in place of the page
    widget.js("el.add([new File(['x'], 'x.txt')])")
    assert widget.js("el.uploads") == []
    widget.page.evaluate("document.querySelector('fieldset').disabled = false")
    assert widget.page.locator("uponce-upload [part=button]").is_enabled()


def test_its_own_attribute_disables_it(widget: Widget) -> None:
    widget.open()
    widget.js("(el.toggleAttribute('disabled'), 0)")
    assert widget.page.locator("uponce-upload [part=button]").is_disabled()
    widget.js("(el.toggleAttribute('disabled'), 0)")
    assert widget.page.locator("uponce-upload [part=button]").is_enabled()


def test_a_server_can_verify_a_signed_value(server: Server, widget: Widget, media: Path) -> None:
    """As Cloudinary's SDKs verify the value of their upload field."""
    widget.open(form('value-as="signed"'))
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    # The pattern of `cloudinary.forms.CloudinaryJsFileField`.
    found = re.fullmatch(r"([^/]+)/([^/]+)/v(\d+)/([^#]+)\.([^#.]+)#([^/]+)", widget.values()[0])
    assert found is not None
    assert found.groups()[:2] == ("image", "upload")
    assert (found[4], found[5]) == (answer["public_id"], "jpg")
    seen = {"public_id": found[4], "version": found[3]}
    assert found[6] == api_sign_request(seen, server.browser.secret, signature_version=1)
