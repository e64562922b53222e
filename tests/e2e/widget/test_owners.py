"""Each upload continues in its own element, and in no other."""

from pathlib import Path

import pytest

from tests.e2e.widget.page import Widget
from tests.e2e.widget.site import Line

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
