"""The upload widget over bad lines: under one signature everything arrives once."""

import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import BrowserContext

from proof.faults.proxy import Fault, FaultProxy, Kind
from tests.e2e.widget.page import MB, Widget, bytes_of, crawling, form, in_parts
from tests.e2e.widget.site import Line
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def test_a_broken_line_is_repaired_under_the_same_signature(server: Server, widget: Widget, film: Path) -> None:
    with FaultProxy(server.port, lambda n: Fault(Kind.CUT, after=2 * MB) if n <= 3 else Fault()) as proxy:
        widget.site.via = proxy.base
        widget.open()
        widget.pick(film)
        (answer,) = widget.stored()
        assert proxy.struck[Kind.CUT] >= 1
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1


def test_a_large_file_continues_where_the_line_broke(server: Server, widget: Widget, film: Path) -> None:
    patches: list[int] = []
    widget.page.on(
        "request", lambda each: patches.append(int(each.headers["upload-offset"])) if each.method == "PATCH" else None
    )
    with FaultProxy(server.port, lambda n: Fault(Kind.CUT, after=2_500_000) if n <= 4 else Fault()) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        (answer,) = widget.stored()
        assert proxy.struck[Kind.CUT] >= 1
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1
    assert patches.count(0) == 1
    assert patches == sorted(patches)
    assert len(patches) > 6


def stall_after_signing(widget: Widget, milliseconds: int) -> None:
    """Let the widget wait so long on a silent line, but as long as it takes for its signature."""
    widget.js(
        """(el.signer = async (params) => {
          const signed = await fetch("/sign", { method: "POST", body: JSON.stringify({ params }) });
          el.timing.stall = argument;
          return signed.json();
        }, 0)""",
        milliseconds,
    )
    widget.js("(el.timing.tries = 1000)")


def test_a_line_that_falls_silent_counts_as_broken(server: Server, widget: Widget, film: Path) -> None:
    with FaultProxy(server.port, lambda n: Fault(Kind.SILENCE, after=MB) if n <= 2 else Fault()) as proxy:
        widget.site.via = proxy.base
        widget.open()
        stall_after_signing(widget, 500)
        widget.pick(film)
        widget.stored()
        assert proxy.struck[Kind.SILENCE] >= 1
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("lost", [1, 2])
def test_a_lost_reply_is_asked_for_again(server: Server, line: Line, widget: Widget, media: Path, lost: int) -> None:
    line.strike = lambda number, _: Line.LOSE if number <= lost else None
    widget.open()
    widget.pick(media / "cat.jpg")
    (answer,) = widget.stored()
    assert [method for method, *_ in line.requests] == ["POST"] * (lost + 1)
    assert bytes_of(server, answer) == (media / "cat.jpg").read_bytes()
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("lost", range(1, 10))
def test_any_reply_of_a_large_upload_may_be_lost(
    server: Server, line: Line, widget: Widget, film: Path, lost: int
) -> None:
    """The creation's, that of any part, the last one's, and that of the question what became of it."""
    also = {8: {7, 8}, 9: {7, 9}}.get(lost, {lost})
    line.strike = lambda number, _: Line.LOSE if number in also else None
    widget.open(in_parts())
    widget.pick(film)
    (answer,) = widget.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == (2 if lost == 1 else 1)  # without its address an upload cannot be continued
    assert widget.states() == ["done"]


# What the page shows for a second may be gone before a test looks.
_NOTE_STATUS = """(window.noted = [], new MutationObserver(() => {
  const status = el.shadowRoot.querySelector("[part=status]");
  if (status) window.noted.push([el.uploads[0]?.state, status.innerText]);
}).observe(el.shadowRoot, { subtree: true, childList: true, characterData: true }), 0)"""


@pytest.mark.parametrize("parts", [False, True])
def test_the_server_says_when_to_try_again(line: Line, widget: Widget, film: Path, parts: bool) -> None:
    line.strike = lambda number, _: 1 if number == 1 else None
    widget.open(in_parts() if parts else form())
    widget.js(_NOTE_STATUS)
    widget.pick(film)
    widget.stored()
    assert ["retrying", "Retrying in 1 sec · server busy"] in widget.page.evaluate("window.noted")
    (_, _, first), (_, _, second), *_ = line.requests
    assert second - first >= 1
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("parts", [False, True])
def test_an_expired_signature_is_replaced(widget: Widget, film: Path, parts: bool) -> None:
    def stale_at_first(params: dict[str, Any]) -> dict[str, Any]:
        return params | {"timestamp": int(time.time()) - 4000} if len(widget.site.asked) == 1 else params

    widget.site.signs = stale_at_first
    widget.open(in_parts() if parts else form())
    widget.pick(film)
    widget.stored()
    first, second = widget.site.asked
    assert first["params"]["nonce"] != second["params"]["nonce"]


def test_a_back_end_whose_signatures_are_always_expired_is_asked_a_few_times(widget: Widget, media: Path) -> None:
    widget.site.signs = lambda params: params | {"timestamp": int(time.time()) - 4000}
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "This permission to upload has expired."
    assert len(widget.site.asked) == 4


def test_a_back_end_that_is_away_is_asked_again(widget: Widget, media: Path) -> None:
    widget.site.before = lambda number: (503, {}, {"Retry-After": "0"}) if number < 3 else None
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.stored()
    assert len(widget.site.asked) == 3


def test_offline_means_waiting_and_online_means_going_on(
    context: BrowserContext, server: Server, widget: Widget, film: Path
) -> None:
    with crawling(server) as proxy:
        widget.site.via = proxy.base
        widget.open(in_parts())
        widget.pick(film)
        widget.until(f"el.uploads[0]?.loaded > {MB}")
        widget.js("(el.timing.tries = 1)")
        widget.note_lines()
        context.set_offline(True)
        proxy.go_on()
        widget.until("el.uploads[0].state === 'retrying'")
        widget.page.wait_for_timeout(500)  # time for many tries, if there were any
        assert widget.status() == "No connection · continues when you are online"
        assert widget.heard() == [f"film.bin: {widget.status()}"]
        context.set_offline(False)
        widget.stored()
    assert len(widget.site.asked) == 1


def test_it_gives_up_after_some_tries_and_the_user_may_go_on(line: Line, widget: Widget, media: Path) -> None:
    """With the same signature: the outcome of the tries before is unknown."""
    line.strike = lambda *_: Line.LOSE
    widget.open()
    widget.js("(el.timing.tries = 2)")
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.status() == "No connection. Try again when you are online."
    assert len(line.requests) == 3
    line.strike = lambda *_: None
    widget.click("Try cat.jpg again")
    widget.stored()
    assert len(widget.site.asked) == 1


# A line that is always broken.
_NOWHERE = "(el.signer = async () => ({ url: 'http://127.0.0.1:1/v1_1/media/upload', fields: { a: 1 } }), 0)"


def test_a_pause_between_two_tries_is_a_pause(widget: Widget) -> None:
    """Also while the widget looks whether the file can still be read."""
    widget.open()
    widget.js(_NOWHERE)
    widget.js(
        """el.add([Object.assign(new File(["x"], "a.txt"), {
          slice: () => ({ arrayBuffer: () => new Promise((resolve) => { window.read = resolve }) }),
        })])"""
    )
    widget.page.wait_for_function("!!window.read")
    widget.js("(el.pause(), window.read(new ArrayBuffer(1)), new Promise(setTimeout)).then(() => 0)")
    assert widget.states() == ["paused"]


def test_no_try_leaves_a_listener(widget: Widget) -> None:
    widget.open()
    widget.js(_NOWHERE)
    widget.js(
        """(window.waiting = new Set(), ["add", "remove"].forEach((what) => {
          const original = window[`${what}EventListener`];
          window[`${what}EventListener`] = (type, listener, ...how) => {
            if (type === "online") window.waiting[what === "add" ? "add" : "delete"](listener);
            original.call(window, type, listener, ...how);
          };
        }), Object.assign(el.timing, { tries: 2 }), 0)"""
    )
    widget.js("el.add([new File(['x'], 'a.txt')])")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.page.evaluate("window.waiting.size") == 0


@pytest.mark.parametrize("parts", [False, True])
def test_a_file_that_may_be_stored_is_not_sent_under_another_signature(
    line: Line, widget: Widget, film: Path, parts: bool
) -> None:
    """All bytes have arrived, the reply is lost, and uponce no longer knows the upload. So the user decides."""
    last = 7 if parts else 1  # the request that brings the last byte
    line.strike = lambda number, _: Line.LOSE if number >= last else None
    widget.open(in_parts() if parts else form())
    widget.js("(el.timing.tries = 0)")
    widget.pick(film)
    widget.until("el.uploads[0]?.error?.code === 'unreachable'")
    line.strike = lambda *_: (410, "gone") if parts else (400, "stale_request")
    widget.page.reload()
    widget.until("el.uploads?.[0]?.state === 'refused'")
    assert widget.js("el.uploads[0].error.code") == "outcome_unknown"
    assert widget.status() == "This file may be stored already. Look before you try again."
    assert len(widget.site.asked) == 1
    line.strike = lambda *_: None
    widget.click("Try film.bin again")
    widget.stored()
    assert len(widget.site.asked) == 2


@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("request_too_slow", "outcome_unknown"),
        ("signature_used", "outcome_unknown"),
        ("file_too_large", "file_too_large"),
        ("content_mismatch", "content_mismatch"),
    ],
)
def test_a_refusal_does_not_hide_that_a_try_before_may_have_stored_the_file(
    line: Line, widget: Widget, media: Path, code: str, shown: str
) -> None:
    """Only if it is about the file, which the try before brought as well."""
    line.strike = lambda number, _: Line.LOSE if number == 1 else (400, code)
    widget.open()
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.js("el.uploads[0].error.code") == shown
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("last", [Line.LOSE, (503, "server_busy")])
@pytest.mark.parametrize(
    ("code", "shown"),
    [
        ("invalid_media", "This file is damaged, or of another type."),
        ("content_mismatch", "Refused: content_mismatch"),
    ],
)
def test_a_refusal_is_shown_also_if_the_question_what_has_arrived_brings_it(
    line: Line, widget: Widget, film: Path, last: str | tuple[int, str], code: str, shown: str
) -> None:
    """uponce ends an upload then whose last part got no answer. The answer to HEAD has no body."""
    line.strike = lambda number, _: {7: last, 8: (400, code)}.get(number)
    widget.open(in_parts())
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'refused'")
    assert [method for method, *_ in line.requests] == ["POST", *["PATCH"] * 6, "HEAD"]
    assert widget.js("el.uploads[0].error.code") == code
    assert widget.status() == shown


def test_a_file_that_was_changed_after_a_lost_reply_may_be_stored_as_it_was(
    line: Line, widget: Widget, tmp_path: Path
) -> None:
    note = tmp_path / "note.txt"
    note.write_bytes(b"first")
    line.strike = lambda *_: Line.LOSE
    widget.open()
    widget.js("(el.timing.tries = 1000)")
    widget.pick(note)
    while len(line.requests) < 2:  # the reply of the first is lost
        widget.page.wait_for_timeout(20)
    note.write_bytes(b"second")
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.js("el.uploads[0].error.code") == "outcome_unknown"


def test_a_server_that_stored_nothing_leaves_the_widget_its_next_signature(
    line: Line, widget: Widget, film: Path
) -> None:
    """All bytes had arrived. The refusal says that nothing was stored, and then the signature expired."""
    answers = {1: (503, "storage_unavailable"), 2: (400, "stale_request")}
    line.strike = lambda number, _: answers.get(number)
    widget.open(form())
    widget.pick(film)
    widget.stored()
    assert len(widget.site.asked) == 2


def test_a_service_worker_that_hides_the_progress_breaks_no_line(server: Server, widget: Widget, film: Path) -> None:
    """The upload takes three times as long as a line may be silent."""
    with FaultProxy(server.port, lambda _: Fault(rate=2 * MB)) as proxy:
        widget.site.via = proxy.base
        widget.open(form())
        widget.serve_by_worker()
        stall_after_signing(widget, 1000)
        widget.pick(film)
        (answer,) = widget.stored()
    assert bytes_of(server, answer) == film.read_bytes()
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("parts", [False, True])
def test_a_service_worker_does_not_hide_that_a_file_may_be_stored(
    line: Line, widget: Widget, film: Path, parts: bool
) -> None:
    """Else the widget sends the file under another signature."""
    last = 7 if parts else 1  # the request that brings the last byte
    then = (410, "gone") if parts else (400, "stale_request")
    line.strike = lambda number, _: None if number < last else Line.LOSE if number == last else then
    widget.open(in_parts() if parts else form())
    widget.serve_by_worker()
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'refused' || el.answers.length")
    assert widget.js("el.uploads[0].error?.code") == "outcome_unknown"
    assert len(widget.site.asked) == 1


# Firefox fires the upload's `load` with the head of the answer: never, if the answer is lost.
_LATE_LOAD = """(() => {
  const { send } = XMLHttpRequest.prototype;
  XMLHttpRequest.prototype.send = function (body) {
    const { upload } = this;
    const { onload } = upload;
    let load;
    upload.onload = (event) => { load = event };
    this.addEventListener("readystatechange", () => this.status && load && onload?.call(upload, load));
    return send.call(this, body);
  };
})()"""


@pytest.mark.parametrize("parts", [False, True])
def test_a_browser_that_says_late_what_has_left_does_not_hide_that_a_file_may_be_stored(
    context: BrowserContext, line: Line, widget: Widget, film: Path, parts: bool
) -> None:
    """Else the widget sends the file under another signature."""
    context.add_init_script(_LATE_LOAD)
    test_a_file_that_may_be_stored_is_not_sent_under_another_signature(line, widget, film, parts)


def test_a_browser_that_says_late_what_has_left_gives_the_server_time_to_store_it(
    context: BrowserContext, line: Line, widget: Widget, film: Path
) -> None:
    """The widget waits four times as long for the answer as for the next byte."""
    context.add_init_script(_LATE_LOAD)
    line.strike = lambda *_: Line.LOSE
    widget.open()
    widget.js(
        """((original) => {
          window.waits = [];
          window.setTimeout = (work, ms) => (window.waits.push(ms), original(work, ms));
        })(setTimeout)"""
    )
    widget.js("(Object.assign(el.timing, { tries: 0, stall: 31_000 }), 0)")
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'refused'")
    # Another timer removes the line for screen readers. It is shorter.
    assert widget.page.evaluate("window.waits.filter((ms) => ms >= 31_000).at(-1)") == 124_000


def test_a_service_worker_leaves_an_upload_its_next_signature(line: Line, widget: Widget, film: Path) -> None:
    """Its part before the last one was lost: nothing can be stored."""
    answers: dict[int, str | tuple[int, str]] = {6: Line.LOSE, 7: (410, "gone")}
    line.strike = lambda number, _: answers.get(number)
    widget.open(in_parts())
    widget.serve_by_worker()
    widget.pick(film)
    widget.stored()
    assert len(widget.site.asked) == 2
