"""The picture of docs/reference/benchmarks.md: what uponce is good at, and what it costs, from the newest records."""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import NamedTuple

from proof.bench.report import number
from proof.bench.result import Result


class Tile(NamedTuple):
    """One large figure. `over` names the case to divide by, round by round: then the figure is per cent."""

    row: str
    case: str
    figure: str
    over: str
    form: str
    texts: tuple[str, str]


class Bars(NamedTuple):
    """Cases beside one another. The first one is drawn as ours."""

    row: str
    title: str
    figure: str
    cases: tuple[tuple[str, str], ...]  # the name in the records, the name in the picture


TILES = (
    Tile(
        "P4",
        "uponce, single-use",
        "uploads/s",
        "uponce, unlimited",
        "{} %",
        ("speed with single use,", "100 % without"),
    ),
    Tile(
        "P5",
        "uponce, filled",
        "uploads/s",
        "uponce, empty",
        "{} %",
        ("speed at 10 M assets,", "100 % when empty"),
    ),
    Tile("P2", "uponce, 1 × 500 MB", "memory above idle MiB", "", "{} MiB", ("more memory during", "a 500 MB upload")),
    Tile("P8", "uponce, start", "idle memory, MiB", "", "{} MiB", ("memory when idle,", "decoders included")),
    Tile("P8", "uponce, start", "start to first 200, s", "", "{} s", ("from an empty folder", "to ready")),
)
BARS = (
    Bars(
        "P1",
        "Uploads of 100 KB, per second",
        "uploads/s",
        (
            ("uponce, 1 worker", "uponce: hash, inspect, audit, fsync"),
            ("busboy, durable", "Node, busboy: HMAC, ledger, fsync"),
            ("express, not durable", "Node, express: HMAC, ledger"),
        ),
    ),
    Bars(
        "P2",
        "One upload of 500 MB, MB per second",
        "MB/s",
        (("uponce, 1 × 500 MB", "uponce: MD5, SHA-256, fsync"), ("nginx PUT, 1 × 500 MB", "nginx: store only")),
    ),
    Bars(
        "P6",
        "Downloads of 100 KB, per second",
        "GET/s",
        (
            ("uponce, GET", "uponce"),
            ("uponce behind nginx, GET", "uponce, nginx sends the bytes"),
            ("express GET", "Node, express"),
            ("nginx GET", "nginx"),
        ),
    ),
)

_WIDTH, _LABELS, _BAR, _LINE = 860, 270, 480, 24
# Readable on a white page and on a dark one; nothing is said by colour alone.
_STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.head { font-size: 16px; font-weight: 600 } .big { font-size: 25px; font-weight: 600; fill: #1a7f37 }
.soft { fill: #59636e } .title, .ours { font-weight: 600 }
rect { fill: #afb8c1 } rect.ours { fill: #0969da } rect.tile { fill: #f0f3f6 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .big { fill: #3fb950 } .soft { fill: #9198a1 }
  rect { fill: #57606a } rect.ours { fill: #4493f8 } rect.tile { fill: #1c2128 }
}"""


def picture(results: Sequence[Result]) -> str:
    """Return an SVG: large figures above, bars beside those of peers below. Leaves out what was not measured."""
    rounds = {
        (result.row, case.name, figure): case.figures(figure)
        for result in results
        for case in result.cases
        for figure in case.samples[0]
    }
    top, parts = 24, [_text(0, 24, "head", "What uponce is good at")]
    parts += _tiles(rounds, top + 14)
    top += 14 + 92 + 38
    parts.append(
        _text(0, top, "head", "What it costs: speed, since each upload is hashed, inspected, recorded and synced")
    )
    top += 12
    for bars in BARS:
        drawn = list(_bars(rounds, bars, top))
        top += 34 + len(bars.cases) * _LINE if drawn else 0
        parts += drawn
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-10 0 {_WIDTH + 20} {top + 12}" role="img">\n'
        f"<title>What uponce is good at, and what it costs</title>\n<style>{_STYLE}</style>\n{''.join(parts)}</svg>\n"
    )


_Rounds = Mapping[tuple[str, str, str], Sequence[float]]


def _tiles(rounds: _Rounds, top: int) -> Iterator[str]:
    width = _WIDTH / len(TILES)
    for place, tile in enumerate(TILES):
        values = rounds.get((tile.row, tile.case, tile.figure))
        if values is None:
            continue
        if tile.over:
            pairs = zip(values, rounds[tile.row, tile.over, tile.figure], strict=False)
            values = [100 * ours / theirs for ours, theirs in pairs]
        value = statistics.median(values)
        left = place * width
        told = f"{value:.2g}" if value < 10 else f"{value:.0f}"
        yield f'<rect class="tile" x="{left:.0f}" y="{top}" width="{width - 10:.0f}" height="92" rx="8"/>\n'
        yield _text(left + 12, top + 36, "big", tile.form.format(told))
        yield _text(left + 12, top + 60, "soft", tile.texts[0])
        yield _text(left + 12, top + 78, "soft", tile.texts[1])


def _bars(rounds: _Rounds, bars: Bars, top: int) -> Iterator[str]:
    found = [(name, rounds.get((bars.row, case, bars.figure))) for case, name in bars.cases]
    known = [(name, statistics.median(values) if values else None) for name, values in found]
    longest = max((value for _, value in known if value), default=None)
    if longest is None:
        return
    yield _text(0, top + 22, "title", bars.title)
    for place, (name, value) in enumerate(known):
        line, ours = top + 30 + place * _LINE, "ours" if name.startswith("uponce") else ""
        length = _BAR * (value or 0) / longest
        yield _text(0, line + 15, ours or "soft", name)
        yield f'<rect class="{ours}" x="{_LABELS}" y="{line + 3}" width="{length:.0f}" height="16" rx="2"/>\n'
        yield _text(_LABELS + length + 8, line + 15, ours, number(value) if value else "not measured")


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>\n'
