"""The upload widget on the page: policy, sizes, contrast, style, motion."""

import json
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.e2e.looks import found_by_axe, looks, shoot
from tests.e2e.widget.page import MB, Widget, crawling, form
from tests.e2e.widget.site import Site
from tests.server import Server

pytestmark = [pytest.mark.proof, pytest.mark.xdist_group("browser")]


def test_a_strict_policy_is_enough(server: Server, widget: Widget, media: Path) -> None:
    """No inline script, no inline style, no blob: and no string that becomes HTML."""
    widget.site.policy = (
        f"default-src 'none'; script-src {server.base}; style-src 'self'; connect-src 'self' {server.base}; "
        f"img-src {server.base}; media-src {server.base}; form-action 'self'; base-uri 'none'; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )
    widget.open()
    widget.pick(media / "cat.jpg", media / "dance.gif", media / "walk.mp4", media / "note.txt")
    widget.stored(4)
    thumbs = "[...el.shadowRoot.querySelectorAll('[part=thumb]')]"
    shown = f"{thumbs}.map(({{ firstChild }}) => firstChild.localName ?? firstChild.data)"
    widget.until(f"String({shown}) === 'canvas,img,video,TXT'")
    widget.until("el.shadowRoot.querySelector('video').readyState >= 2")
    assert widget.page.evaluate("getComputedStyle(document.querySelector('uponce-upload')).display") == "block"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<div style='display: flex'><b>Photos</b>", "</div>"),
        ("<div style='display: flex; flex-direction: column; align-items: center'>", "</div>"),
        ("<dialog open>", "</dialog>"),
        ("<table><tr><th>Photos<td>", "</table>"),
    ],
    ids=["row", "column", "dialog", "table"],
)
def test_it_has_its_natural_width_where_the_page_gives_it_none(widget: Widget, before: str, after: str) -> None:
    """A list of files with long names makes it no wider."""
    widget.open(f"{before}<uponce-upload sign=/sign cloud=media multiple paused></uponce-upload>{after}")
    width = widget.js("el.offsetWidth")
    assert width > 200
    widget.js("(el.add([new File(['x'], `${'a long name '.repeat(12)}.txt`)]), 0)")
    widget.until("el.uploads[0]?.state === 'paused'")
    assert widget.js("el.offsetWidth") == width


@pytest.mark.parametrize("width", [320, 360, 1280])
def test_it_fits_and_does_not_jump(browser: Browser, server: Server, site: Site, film: Path, width: int) -> None:
    context = browser.new_context(
        viewport={"width": width, "height": 800}, has_touch=width < 500, is_mobile=width < 500
    )
    widget = Widget(context.new_page(), site)
    long = {"name": f"{'a long name ' * 12}.txt", "mimeType": "text/plain", "buffer": b"x" * 2 * MB}
    heights = "[...el.shadowRoot.querySelectorAll('li')].map((row) => row.getBoundingClientRect().height)"
    with crawling(server, rate=4 * MB) as proxy:
        site.via = proxy.base
        widget.open(form('multiple capture part-size="1000000"'))
        widget.js(
            f"""(window.heights = new Set(), el.addEventListener("progress", () => {{
              for (const height of {heights}) window.heights.add(Math.round(height));
            }}))"""
        )
        widget.pick(long)
        widget.until("el.uploads[0]?.loaded > 100000")
        widget.js("el.pause()")
        widget.js("el.resume()")
        widget.stored()
    assert len(widget.page.evaluate("[...window.heights]")) == 1
    assert widget.page.evaluate("document.documentElement.scrollWidth") <= width
    assert widget.page.locator("uponce-upload [part=camera]").is_visible() == (width < 500)
    buttons = "[...el.shadowRoot.querySelectorAll('button')].filter((each) => each.checkVisibility())"
    smallest = widget.js(f"Math.min(...{buttons}.map((each) => each.offsetHeight))")
    assert smallest >= (44 if width < 500 else 36)
    context.close()


def test_a_phone_shows_all_of_what_is_wrong(widget: Widget, media: Path) -> None:
    widget.page.set_viewport_size({"width": 360, "height": 800})
    widget.open()
    widget.js(
        """(el.signer = async () => { throw new TypeError("no line") },
          Object.assign(el.timing, { delay: 60_000, keep: 0 }), 0)"""
    )
    status = "(({ scrollWidth, clientWidth }) => scrollWidth <= clientWidth)(el.shadowRoot.querySelector('.status'))"
    widget.pick(media / "cat.jpg")
    widget.until("el.uploads[0]?.state === 'retrying'")
    assert "connection lost" in widget.status()
    assert widget.js(status)
    widget.page.context.set_offline(True)
    widget.js("(el.messages = {})")  # draws the row
    assert widget.status() == "No connection · continues when you are online"
    assert widget.js(status)
    widget.page.context.set_offline(False)
    widget.page.reload()
    widget.until("el.uploads?.[0]?.state === 'paused'")
    assert widget.status() == "Choose it again to continue"
    assert widget.js(status)


def test_axe_finds_nothing_in_any_state(widget: Widget, media: Path, film: Path, node: str) -> None:
    widget.site.signs = lambda params: params | ({"allowed_formats": "jpg,gif"})
    widget.open(f"<main><h1>Photos</h1>{form()}</main>")
    for look in looks(widget.page):  # nothing chosen yet
        assert node and found_by_axe(widget.page) == [], look
    widget.pick(media / "cat.jpg", media / "dance.gif", media / "walk.mp4", film)
    widget.until("String(el.uploads.map(({ state }) => state)) === 'done,done,refused,refused'")
    widget.js("(el.setAttribute('paused', ''), 0)")
    widget.pick(media / "note.txt")
    widget.until("el.uploads[4].state === 'paused'")
    for look in looks(widget.page):
        shoot(widget.page, f"widget-{look}")
        assert found_by_axe(widget.page) == [], look


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(browser: Browser, site: Site, media: Path, scheme: Any) -> None:
    """At least 4.5 to 1 against what is behind it, as WCAG 2.2 AA asks."""
    context = browser.new_context(color_scheme=scheme)
    widget = Widget(context.new_page(), site)
    site.signs = lambda params: params | ({"allowed_formats": "jpg"})
    widget.open()
    widget.pick(media / "cat.jpg", media / "dance.gif")
    widget.until("String(el.uploads.map(({ state }) => state)) === 'done,refused'")
    ratios = widget.page.evaluate(_CONTRAST)
    assert len(ratios) >= 7
    assert {name: ratio for name, ratio in ratios if ratio < 4.5} == {}
    context.close()


_CONTRAST = """() => {
  const pixel = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const rgb = (color) => {
    pixel.clearRect(0, 0, 1, 1);
    pixel.fillStyle = color;
    pixel.fillRect(0, 0, 1, 1);
    return [...pixel.getImageData(0, 0, 1, 1).data];
  };
  const linear = (c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
  const light = (color) => {
    const [r, g, b] = color.slice(0, 3).map((c) => linear(c / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement ?? at.getRootNode().host) {
      const color = rgb(getComputedStyle(at).backgroundColor);
      if (color[3] === 255) return color;
    }
    return rgb("Canvas");
  };
  const root = document.querySelector("uponce-upload").shadowRoot;
  const isSeen = (node) => node.localName === "svg" || (node.nodeType === Node.TEXT_NODE && node.data.trim());
  const seen = [...root.querySelectorAll("[part]")].filter((each) => [...each.childNodes].some(isSeen));
  return seen.map((each) => {
    const [a, b] = [light(rgb(getComputedStyle(each).color)), light(behind(each))].sort((x, y) => y - x);
    return [each.part.value + " " + each.textContent, (a + 0.05) / (b + 0.05)];
  });
}"""


def test_any_piece_can_be_styled(widget: Widget, media: Path) -> None:
    widget.open(form())
    widget.pick(media / "cat.jpg")
    widget.stored()
    widget.page.evaluate(
        """document.adoptedStyleSheets = [Object.assign(new CSSStyleSheet(), {})];
        document.adoptedStyleSheets[0].replaceSync(`uponce-upload { --uponce-accent: rgb(1, 2, 3) }
          ::part(name) { color: rgb(4, 5, 6) } ::part(item-done) { border-color: rgb(7, 8, 9) }`)"""
    )
    style = "getComputedStyle(el.shadowRoot.querySelector(argument[0]))[argument[1]]"
    assert widget.js(style, ["[part=button]", "backgroundColor"]) == "rgb(1, 2, 3)"
    assert widget.js(style, ["[part=name]", "color"]) == "rgb(4, 5, 6)"
    assert widget.js(style, ["li", "borderTopColor"]) == "rgb(7, 8, 9)"


def test_motion_stops_for_those_who_ask(browser: Browser, site: Site, media: Path) -> None:
    context = browser.new_context(reduced_motion="reduce")
    widget = Widget(context.new_page(), site)
    widget.open()
    widget.pick(media / "dance.gif")
    widget.stored()
    widget.until("el.shadowRoot.querySelector('[part=thumb] canvas')")
    assert widget.js("el.shadowRoot.querySelector('[part=thumb] img')") is None
    assert widget.js("el.shadowRoot.getAnimations().length") == 0
    context.close()


def test_pictures_of_many_photos_are_decoded_one_at_a_time(widget: Widget, media: Path) -> None:
    """Phones have no memory for all of them. A damaged one holds up no other."""
    widget.open(form("multiple paused"))
    widget.js(
        """(window.now = window.most = 0, window.decode = createImageBitmap, createImageBitmap = async (...how) => {
          window.most = Math.max(window.most, ++window.now);
          try { return await window.decode(...how) } finally { window.now -= 1 }
        }, 0)"""
    )
    pictures = [b"damaged", *[(media / "cat.jpg").read_bytes()] * 8]
    widget.pick(*({"name": f"{n}.jpg", "mimeType": "image/jpeg", "buffer": each} for n, each in enumerate(pictures)))
    widget.until("el.shadowRoot.querySelectorAll('canvas').length === 8")
    assert widget.page.evaluate("window.most") == 1


def test_pictures_of_a_reload_are_small_and_load_when_they_are_seen(widget: Widget) -> None:
    rows = [
        {"name": "a", "answer": {"secure_url": "/a", "resource_type": "image"} | more}
        for more in (
            {"format": "jpg", "bytes": 1_999_999},
            {"format": "jpg", "bytes": 2_000_000},
            {"format": "gif", "bytes": 1},
        )
    ]
    loading = """(el.formStateRestoreCallback(argument), [...el.shadowRoot.querySelectorAll("[part=thumb]")]
      .map((thumb) => thumb.querySelector("img")?.loading ?? null))"""
    for motion, gif in (("no-preference", "lazy"), ("reduce", None)):
        widget.page.emulate_media(reduced_motion=motion)  # type: ignore[arg-type]
        widget.open()
        visit = widget.page.evaluate("sessionStorage.uponceVisit")
        assert widget.js(loading, json.dumps([row | {"visit": visit} for row in rows])) == ["lazy", None, gif]


def test_texts_that_are_set_later_name_the_buttons(widget: Widget) -> None:
    widget.open(form("multiple paused"))
    widget.js(
        "(el.add([new File(['x'], 'a.txt')]), el.messages = { resume: '{name} weiter', remove: '{name} weg' }, 0)"
    )
    labels = "[...el.shadowRoot.querySelectorAll('[part=action]')].map((each) => each.ariaLabel)"
    assert widget.js(labels) == ["a.txt weiter", "a.txt weg"]


def test_a_browser_without_light_dark_shows_the_light_colours(widget: Widget) -> None:
    widget.page.emulate_media(color_scheme="dark")
    colour = "getComputedStyle(el.shadowRoot.querySelector('[part=button]')).backgroundColor"
    widget.open()
    assert widget.js(colour) == "rgb(124, 184, 255)"
    widget.open("<script>CSS.supports = () => false</script>" + form())
    assert widget.js(colour) == "rgb(11, 92, 173)"


def test_a_screen_reader_sees_a_group_with_the_name_that_the_page_gives(widget: Widget) -> None:
    widget.open(form('aria-label="Photos"'))
    tree = widget.page.context.new_cdp_session(widget.page).send("Accessibility.getFullAXTree")["nodes"]
    seen = [(each["role"]["value"], each["name"]["value"]) for each in tree if not each["ignored"]]
    assert ("group", "Photos") in seen


def test_the_bar_is_seen_in_forced_colours(browser: Browser, site: Site) -> None:
    context = browser.new_context(forced_colors="active")
    widget = Widget(context.new_page(), site)
    widget.open(form("multiple paused"))
    widget.js("(el.add([new File(['x'], 'a.txt')]), 0)")
    colour = "getComputedStyle(el.shadowRoot.querySelector(argument)).backgroundColor"
    assert widget.js(colour, "[part=fill]") != widget.js(colour, "[part=bar]")
    context.close()
