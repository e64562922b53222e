"""A server that has all bytes of a file, and takes long to complete the upload."""

from pathlib import Path

import pytest

from tests.e2e.widget.page import Widget, form, in_parts
from tests.e2e.widget.site import Line

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

LAST = 7
"""The request that brings the last byte, after the creation and five parts."""

TRIES = 2
Answers = dict[int, str | int | tuple[int, str] | None]


@pytest.mark.parametrize("lost", range(1, TRIES + 1))
@pytest.mark.parametrize("code", ["chunk_in_progress", "outcome_unknown"])
def test_a_server_that_completes_an_upload_is_asked_until_it_has(
    line: Line, widget: Widget, film: Path, code: str, lost: int
) -> None:
    """Behind a relay this takes as long as the file takes to the account. One more lost reply is too many here."""
    first = LAST + lost
    answers = dict.fromkeys(range(LAST, first), Line.LOSE) | dict.fromkeys(range(first, first + 20), (423, code))
    line.strike = lambda number, _: answers.get(number)
    widget.open(in_parts())
    widget.js("(window.refused = 0, el.addEventListener('refused', () => { window.refused += 1 }))")
    widget.js("(el.timing.tries = argument)", TRIES)
    widget.pick(film)
    widget.until("el.answers.length || window.refused")
    assert widget.page.evaluate("window.refused") == 0
    assert widget.states() == ["done"]
    assert len(widget.site.asked) == 1


def test_a_server_that_never_completes_an_upload_is_not_asked_for_ever(line: Line, widget: Widget, film: Path) -> None:
    line.strike = lambda number, _: None if number < LAST else Line.LOSE if number == LAST else (423, "outcome_unknown")
    widget.open(in_parts())
    widget.js("(Object.assign(el.timing, { delay: 1, tries: 1 }), 0)")
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.js("el.uploads[0].error.code") == "outcome_unknown"
    assert len(line.requests) == LAST + 50


def test_a_server_that_is_busy_before_all_bytes_have_arrived_is_not_asked_for_long(
    line: Line, widget: Widget, film: Path
) -> None:
    """Here another request sends the same bytes."""
    line.strike = lambda number, _: None if number < LAST - 1 else (423, "chunk_in_progress")
    widget.open(in_parts())
    widget.js("(el.timing.tries = 2)")
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'refused'")
    assert len(line.requests) == LAST + 1


def open_quickly(widget: Widget, tries: int) -> None:
    widget.open(in_parts())
    widget.js("(Object.assign(el.timing, { delay: 1, tries: argument }), 0)", tries)


def test_a_server_that_completes_an_upload_after_a_503_is_asked_until_it_has(
    line: Line, widget: Widget, film: Path
) -> None:
    """It has all bytes, so the question for the offset completes the upload."""
    working = dict.fromkeys(range(LAST + 1, LAST + 20), (423, "outcome_unknown"))
    answers = {LAST: (503, "storage_unavailable")} | working
    line.strike = lambda number, _: answers.get(number)
    open_quickly(widget, TRIES)
    widget.pick(film)
    widget.until("['done', 'refused'].includes(el.uploads[0]?.state)")
    assert widget.states() == ["done"]
    assert len(widget.site.asked) == 1


def test_a_lost_reply_to_the_question_for_the_offset_may_have_stored_the_file(
    line: Line, widget: Widget, film: Path
) -> None:
    answers: Answers = {LAST: (503, "storage_unavailable"), LAST + 1: Line.LOSE, LAST + 2: (404, "series_gone")}
    line.strike = lambda number, _: answers.get(number)
    open_quickly(widget, TRIES)
    widget.pick(film)
    widget.until("['done', 'refused'].includes(el.uploads[0]?.state)")
    assert widget.js("el.uploads[0].error?.code") == "outcome_unknown"
    assert len(widget.site.asked) == 1


@pytest.mark.parametrize("code", ["upstream_unavailable", "upstream_refused"])
def test_an_upload_that_a_relay_could_not_pass_on_is_sent_with_another_signature(
    line: Line, widget: Widget, film: Path, code: str
) -> None:
    """Its account took nothing, and the address is gone."""
    answers = {LAST: (503, code), LAST + 1: (404, "series_gone")}
    line.strike = lambda number, _: answers.get(number)
    open_quickly(widget, TRIES)
    widget.pick(film)
    widget.stored()
    assert len(widget.site.asked) == 2


def test_a_file_that_the_account_of_a_relay_refuses_is_refused_with_its_reason(
    line: Line, widget: Widget, film: Path
) -> None:
    """Also if the reply to its last part was lost."""
    answers: Answers = {LAST: Line.LOSE, LAST + 1: (400, "upstream_refused")}
    line.strike = lambda number, _: answers.get(number)
    open_quickly(widget, TRIES)
    widget.pick(film)
    widget.until("el.uploads[0]?.state === 'refused'")
    assert widget.js("el.uploads[0].error.code") == "upstream_refused"
    assert widget.js("el.uploads[0].error.message") == "Refused: upstream_refused"


def test_an_account_that_limits_its_uploads_is_asked_again(line: Line, widget: Widget, film: Path) -> None:
    """Cloudinary answers 420 then."""
    line.strike = lambda number, _: (420, "") if number == 1 else None
    widget.open(form())
    widget.js("(Object.assign(el.timing, { delay: 1 }), 0)")
    widget.pick(film)
    widget.stored()
    assert len(widget.site.asked) == 1
