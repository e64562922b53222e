"""Film the playground for the README, as animated WebP: `python -m docs.playground`. It needs Chromium."""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pyvips
from playwright.sync_api import Page, sync_playwright

from tests.e2e.test_browser import FLAGS
from tests.server import Server

WIDTH, HEIGHT, SCALE = 1200, 800, 0.8
QUALITY = 80


def film(page: Page, base: str) -> list[tuple[bytes, int]]:
    """The pictures with their milliseconds: an unused signature, a stored file, a refused one, and a race."""
    shots: list[tuple[bytes, int]] = []

    def shoot(milliseconds: int) -> None:
        page.wait_for_timeout(350)
        shots.append((page.screenshot(clip={"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT}), milliseconds))

    page.goto(f"{base}/playground")
    page.wait_for_selector("#fields dd")
    shoot(1800)
    page.click("#upload")
    page.wait_for_selector("#result .stored")
    shoot(2000)
    page.click("#try-again button")
    page.wait_for_selector("#try-again [data-kept]")
    page.evaluate("scrollTo(0, 0)")
    shoot(3500)
    page.click("#try-twenty button")
    page.wait_for_selector("#try-twenty [data-kept]")
    page.evaluate("document.getElementById('h-tries').scrollIntoView()")
    shoot(3000)
    return shots


def animation(shots: list[tuple[bytes, int]]) -> bytes:
    frames: list[Any] = [pyvips.Image.new_from_buffer(data, "").extract_band(0, n=3).resize(SCALE) for data, _ in shots]
    strip = pyvips.Image.arrayjoin(frames, across=1).copy()
    strip.set_type(pyvips.GValue.gint_type, "page-height", frames[0].height)
    strip.set_type(pyvips.GValue.array_int_type, "delay", [milliseconds for _, milliseconds in shots])
    strip.set_type(pyvips.GValue.gint_type, "loop", 0)
    return bytes(strip.webpsave_buffer(Q=QUALITY, effort=4, smart_subsample=True))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data = Path(folder) / "data"
        with Server(data, env={"UPONCE_PLAYGROUND": "local"}) as server:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
            for scheme in ("light", "dark"):
                page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)  # type: ignore[arg-type]
                picture = animation(film(page, server.base))
                Path(__file__).with_name(f"playground-{scheme}.webp").write_bytes(picture)
                page.close()
            browser.close()


if __name__ == "__main__":
    main()
