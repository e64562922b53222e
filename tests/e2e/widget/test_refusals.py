"""What is refused is said in plain words, and nothing of it is read as HTML."""

from pathlib import Path
from typing import Any

import pytest

from tests.e2e.widget.page import Widget, form, in_parts
from tests.e2e.widget.site import Line
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def refusals(widget: Widget) -> list[dict[str, Any]]:
    got: list[dict[str, Any]] = widget.page.evaluate("window.refusals")
    return got


def listen(widget: Widget) -> None:
    widget.page.evaluate(
        """window.refusals = []; document.addEventListener("refused", ({ detail }) => {
          const { name, error } = detail; window.refusals.push({ name, ...error });
        })"""
    )


def test_a_refusal_is_said_in_plain_words_and_in_the_users_language(widget: Widget, media: Path) -> None:
    widget.site.signs = lambda params: params | {"allowed_formats": "png"}
    widget.open()
    listen(widget)
    widget.note_lines()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "Files of this type are not accepted."
    assert widget.heard() == [f"cat.jpg: {widget.status()}"]
    widget.js("(el.messages = { format_not_allowed: 'Bitte nur PNG.', choose: 'x', chooseMany: 'Dateien wählen' })")
    assert widget.status() == "Bitte nur PNG."
    assert widget.page.locator("uponce-upload [part=button]").inner_text() == "Dateien wählen"
    (refusal,) = refusals(widget)
    assert (refusal["name"], refusal["code"], refusal["status"]) == ("cat.jpg", "format_not_allowed", 400)
    assert widget.values() == []
    assert not widget.page.locator('uponce-upload button[aria-label^="Try"]').is_visible()


def test_a_file_that_cannot_be_accepted_asks_for_no_signature(widget: Widget, media: Path) -> None:
    widget.open(form('multiple accept="image/*,.txt" max-bytes="20000" max-files="2"'))
    listen(widget)
    empty = {"name": "empty.txt", "mimeType": "text/plain", "buffer": b""}
    large = {"name": "large.png", "mimeType": "image/png", "buffer": b"x" * 20_001}
    small = [{"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in range(3)]
    film = {"name": "walk.mp4", "mimeType": "video/mp4", "buffer": b"x"}
    widget.pick(empty, large, film, *small)
    widget.stored(2)
    got = [(each["name"], each["code"], each["message"]) for each in refusals(widget)]
    assert got == [
        ("empty.txt", "empty_file", "This file is empty."),
        ("large.png", "file_too_large", "This file is too large."),
        ("walk.mp4", "format_not_allowed", "Files of this type are not accepted."),
        ("2.txt", "too_many_files", "Only 2 files are allowed."),
    ]
    assert len(widget.site.asked) == 2


def test_a_screen_reader_reads_all_files_that_are_refused_together(widget: Widget) -> None:
    """The region is not atomic: a screen reader reads each new line, and no line again. Later, no old line is there."""
    widget.page.clock.install(time=0)
    widget.open(form('multiple max-bytes="1"'))
    widget.page.clock.pause_at(3600)
    widget.pick(*({"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"xx"} for n in "abc"))
    region = widget.page.locator("uponce-upload [role=status]")
    widget.page.clock.fast_forward(5_000)
    assert region.inner_text().splitlines() == [f"{n}.txt: This file is too large." for n in "abc"]
    assert region.get_attribute("aria-atomic") == "false"
    widget.js("el.add(Array.from({ length: 200 }, (_, n) => new File(['xx'], `${n}.txt`)))")
    lines = region.inner_text().splitlines()
    assert (len(lines) < 100, lines[-1]) == (True, "199.txt: This file is too large.")
    widget.page.clock.fast_forward(60_000)
    assert region.inner_text() == ""


def test_a_refused_file_counts_for_max_files_as_long_as_it_may_be_tried_again(widget: Widget) -> None:
    widget.site.before = lambda number: (403, {}, {}) if number == 2 else None
    widget.open(form('multiple max-files="2" parallel="1"'))
    widget.pick(*({"name": f"{n}.txt", "mimeType": "text/plain", "buffer": b"x"} for n in "ab"))
    widget.until("el.uploads[1]?.state === 'refused'")
    widget.pick({"name": "c.txt", "mimeType": "text/plain", "buffer": b"x"})
    widget.until("el.uploads[2]?.state === 'refused'")
    assert widget.js("el.uploads[2].error.message") == "Only 2 files are allowed."
    widget.click("Try b.txt again")
    widget.stored(2)
    assert len(widget.values()) == 2


def test_the_back_end_may_refuse(widget: Widget, media: Path) -> None:
    refusal = {"error": {"code": "quota", "message": "You have used all of your space."}}
    widget.site.before = lambda number: (403, refusal if number == 1 else {}, {})
    widget.open()
    listen(widget)
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "You have used all of your space."
    widget.click("Try cat.jpg again")
    widget.until("window.refusals.length === 2")
    assert [each["code"] for each in refusals(widget)] == ["quota", "sign_failed"]
    assert widget.status() == "This site did not allow the upload."
    error = {"code": "sign_failed", "status": 403, "message": widget.status()}
    assert widget.js("el.uploads[0].error") == error


@pytest.mark.parametrize("fails", ["sign endpoint", "uponce"])
def test_a_server_that_fails_refuses_no_file(line: Line, widget: Widget, media: Path, fails: str) -> None:
    if fails == "uponce":
        line.strike = lambda *_: (502, "")
    else:
        widget.site.before = lambda _: (502, {}, {})
    widget.open()
    listen(widget)
    widget.js("(el.timing.tries = 1)")
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "The server is busy. Try again later."
    assert refusals(widget) == [{"name": "cat.jpg", "code": "unavailable", "status": 502, "message": widget.status()}]
    line.strike, widget.site.before = (lambda *_: None), (lambda _: None)
    widget.click("Try cat.jpg again")
    widget.stored()


def test_a_double_click_tries_again_and_does_not_pause(widget: Widget, media: Path) -> None:
    widget.site.before = lambda number: (403, {}, {}) if number == 1 else None
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    widget.page.locator('uponce-upload button[aria-label="Try cat.jpg again"]').dblclick()
    widget.stored()


def test_a_signer_of_the_page_may_refuse(widget: Widget, media: Path) -> None:
    widget.open()
    listen(widget)
    widget.js(
        """(el.messages = { quota: "No space left." }, el.signer = async () => {
          throw Object.assign(new Error("for developers"), { code: "quota" });
        }, 0)"""
    )
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "No space left."
    assert refusals(widget)[0]["code"] == "quota"


def test_a_used_signature_is_refused_and_a_retry_asks_for_another(server: Server, widget: Widget, media: Path) -> None:
    spent = server.signed({"nonce": "spent"})
    assert server.post(spent, b"first").status == 200
    widget.site.before = lambda n: (200, {"url": server.upload_url(), "fields": spent}, {}) if n == 1 else None
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "This permission to upload was already used."
    widget.click("Try cat.jpg again")
    widget.stored()


def test_a_file_that_was_deleted_from_the_disk_is_named(line: Line, widget: Widget, film: Path) -> None:
    line.strike = lambda *_: Line.LOSE
    widget.open(form("multiple paused"))
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'paused'")
    film.unlink()
    widget.click("Continue film.bin")
    widget.until("el.uploads[0].state === 'refused'")
    assert widget.status() == "This file was changed. Choose it again."


def test_no_file_name_is_read_as_html(widget: Widget) -> None:
    name = '<img src=x onerror="window.hacked=1">.jpg'
    widget.site.before = lambda _: (403, {"error": {"message": "<img src=x onerror='window.hacked=1'>"}}, {})
    widget.open()
    widget.pick({"name": name, "mimeType": "image/jpeg", "buffer": b"no picture"})
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.page.locator("uponce-upload [part=name]").inner_text() == name
    assert widget.status().startswith("<img src=x")
    assert widget.js("el.shadowRoot.querySelectorAll('img').length") == 0
    assert not widget.page.evaluate("window.hacked")


def test_accept_refuses_what_it_does_not_name(widget: Widget) -> None:
    """A file without a type passes: browsers do not know every type, and the signature is the real limit."""
    cases = [
        ("*/*", "a.bin", "application/x-any", True),
        ("*", "a.bin", "application/x-any", True),
        ("image/*", "a.png", "image/png", True),
        ("image/*", "a.txt", "text/plain", False),
        ("image/*", "IMG_1.HEIC", "", True),
        ("video/x-matroska", "a.mkv", "", True),
        ("image/png", "a.gif", "image/gif", False),
        (".heic", "IMG_1.HEIC", "", True),
        (".heic", "a.mkv", "", False),
        (" .txt,, image/png,", "a.exe", "application/x-any", False),
        ("", "a.exe", "application/x-any", True),
        (" ,", "a.exe", "application/x-any", True),
    ]
    widget.open(form("multiple paused"))
    states = widget.js(
        """argument.map(([accept, name, type]) => {
          el.setAttribute("accept", accept);
          el.add([new File(["x"], name, { type })]);
          return el.uploads.at(-1).state;
        })""",
        cases,
    )
    assert states == ["paused" if passes else "refused" for *_, passes in cases]


def test_a_refused_file_replaces_no_other(widget: Widget) -> None:
    """A field without `multiple` keeps the file that it has. The next choice removes the refused one."""
    files = {
        name: {"name": f"{name}.txt", "mimeType": "text/plain", "buffer": b"x" * size}
        for name, size in {"good": 9, "large": 11, "better": 10}.items()
    }
    names = "el.uploads.map(({ name, state }) => `${name} ${state}`)"
    widget.open(form('max-bytes="10"'))
    widget.pick(files["good"])
    (answer,) = widget.stored()
    widget.pick(files["large"])
    assert widget.js(names) == ["good.txt done", "large.txt refused"]
    assert widget.values() == [answer["secure_url"]]
    widget.pick(files["better"])
    widget.until("el.answers[0]?.original_filename === 'better'")
    assert widget.js(names) == ["better.txt done"]


def test_a_signer_of_the_page_may_answer_with_an_error(widget: Widget, media: Path) -> None:
    widget.open()
    listen(widget)
    error = {"code": "quota", "message": "You have used all of your space.", "status": 403}
    widget.js("(el.signer = async () => ({ error: argument }), 0)", error)
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert refusals(widget) == [{"name": "cat.jpg"} | error]


def test_a_signer_that_breaks_is_named_by_a_code_of_the_widget(widget: Widget, media: Path) -> None:
    """The `code` of a DOMException is a number."""
    widget.open()
    listen(widget)
    widget.js("(el.signer = async () => { throw new DOMException('for developers', 'TimeoutError') }, 0)")
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert refusals(widget)[0]["code"] == "sign_failed"


def test_a_signer_that_has_no_line_is_asked_again(server: Server, widget: Widget, media: Path) -> None:
    widget.open()
    widget.js(
        """(window.asked = 0, el.signer = async () => {
          if ((window.asked += 1) < 3) throw new TypeError("Failed to fetch");
          return { fields: argument };
        }, 0)""",
        server.signed({"public_id": "after-a-broken-line"}),
    )
    widget.pick(media / "cat.jpg")
    widget.stored()
    assert widget.page.evaluate("window.asked") == 3


def test_a_code_may_be_any_word(widget: Widget, media: Path) -> None:
    widget.site.before = lambda _: (403, {"error": {"code": "constructor", "message": "No."}}, {})
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "No."


# From the first byte of the file on, until `free`, the browser's database writes nothing.
_HOLD_DATABASE = """(() => {
  const { send } = XMLHttpRequest.prototype;
  const { transaction } = IDBDatabase.prototype;
  let database;
  IDBDatabase.prototype.transaction = function (...how) { return transaction.apply((database = this), how) };
  XMLHttpRequest.prototype.send = function (body) {
    if (body && typeof body !== "string" && !window.held) {
      window.held = database.transaction("uploads", "readwrite").objectStore("uploads");
      const spin = () => { if (!window.free) window.held.get("nothing").onsuccess = spin };
      spin();
    }
    this.addEventListener("loadend", () => { window.lost = this.status === 0 });
    return send.call(this, body);
  };
})()"""


@pytest.mark.parametrize("parts", [False, True])
def test_an_error_is_shown_when_a_reload_no_longer_forgets_that_the_file_may_be_stored(
    line: Line, widget: Widget, film: Path, parts: bool
) -> None:
    last = 7 if parts else 1  # the request that brings the last byte
    line.strike = lambda number, _: Line.LOSE if number >= last else None
    widget.open(in_parts() if parts else form())
    widget.js("(el.timing.tries = 0)")
    widget.page.evaluate(_HOLD_DATABASE)
    widget.pick(film)
    widget.page.wait_for_function("window.lost")
    widget.page.wait_for_timeout(300)  # longer than an error takes
    assert widget.states() == ["uploading"]
    widget.page.evaluate("(window.free = true, 0)")
    widget.until("el.uploads[0].error?.code === 'unreachable'")
