"""How a page looks: its screenshots, and what axe finds in it. Needs the fixture `node`, which installs axe."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from playwright.sync_api import Page

from tests.e2e.conftest import NODE

SHOTS = Path(__file__).parents[2] / "screenshots"
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
WIDTHS = (360, 1280)


# axe takes a page without a background for white, also in the dark.
_BEHIND = """() => {
  const isClear = getComputedStyle(document.body).backgroundColor === "rgba(0, 0, 0, 0)";
  if (isClear) document.documentElement.style.backgroundColor = "canvas";
}"""


def looks(page: Page) -> Iterator[str]:
    """Show the page in light and in dark, on a phone and on a desktop. Yield the name of each look. Nothing moves."""
    for scheme in SCHEMES:
        for width in WIDTHS:
            page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            page.set_viewport_size({"width": width, "height": 800})
            yield f"{scheme}-{width}"


def shoot(page: Page, name: str) -> None:
    """Write screenshots/<name>.png, for people to look at. The page is no wider than the screen."""
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
    SHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SHOTS / f"{name}.png", full_page=True)


def found_by_axe(page: Page, *, kept: int = 8) -> list[tuple[str, list[str]]]:
    """Return each rule that the page breaks, with the elements. The colours inside Uppy and FilePond are their own.

    More than `kept` rules must apply and be kept: otherwise axe has not seen the page.
    """
    page.evaluate(_BEHIND)
    page.evaluate((NODE / "node_modules/axe-core/axe.min.js").read_text() + "; true")
    found = page.evaluate("axe.run({ exclude: ['.uppy-Root', '.filepond--root'] })")
    assert len(found["passes"]) > kept
    return [(one["id"], [str(each["target"]) for each in one["nodes"]]) for one in found["violations"]]
