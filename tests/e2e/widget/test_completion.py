"""A server that has all bytes of a file, and takes long to complete the upload."""

from pathlib import Path

import pytest

from tests.e2e.widget.page import Widget, in_parts
from tests.e2e.widget.site import Line

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]

LAST = 7
"""The request that brings the last byte, after the creation and five parts."""

TRIES = 2


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
