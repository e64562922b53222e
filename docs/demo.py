"""Record `uponce demo` for the README, as animated SVG: `python -m docs.demo`. It runs the demo, and keeps its pace."""

import io
import re
import time
from collections.abc import Iterator
from html import escape
from itertools import pairwise
from pathlib import Path

from rich.console import Console
from rich.text import Text

from uponce.demo import run
from uponce.demo.table import FULL_WIDTH

PICTURE = Path(__file__).with_name("demo.svg")
COLUMN, LINE, MARGIN, TOP = 8.4, 20, 24, 56
CELL = re.compile(r"\S+(?: \S+)*")
# The styles that the demo has, as ANSI has them, and the classes of the picture.
LOOKS = {word: word for word in ("bold", "dim", "italic")} | {
    "color(1)": "red",
    "color(2)": "green",
    "color(6)": "cyan",
}
SHORTEST, LONGEST = 0.05, 0.7  # seconds between two lines, so that no line is missed and no wait is long
LOOK = """
    :root { --ink: #1f2328; --soft: #59636e; --page: #fff; --line: #d1d9e0; --good: #1a7f37; --bad: #cf222e;
      --head: #0b5cad; }
    @media (prefers-color-scheme: dark) {
      :root { --ink: #e6edf3; --soft: #9198a1; --page: #0d1117; --line: #3d444d; --good: #3fb950; --bad: #f85149;
        --head: #7cb8ff; }
    }
    text { font: 14px ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: var(--ink); }
    .page { fill: var(--page); stroke: var(--line); } .dot { fill: var(--line); }
    .bold { font-weight: 700; } .italic { font-style: italic; }
    .dim { fill: var(--soft); } .green { fill: var(--good); } .red { fill: var(--bad); } .cyan { fill: var(--head); }
    g { animation: show 0.2s backwards; } @keyframes show { from { opacity: 0.2; } }
    @media (prefers-reduced-motion: reduce) { g { animation: none; } }
"""


class Timed(io.StringIO):
    """Keeps when each line was written."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def write(self, text: str) -> int:
        self.seconds += [time.monotonic()] * text.count("\n")
        return super().write(text)


def recording() -> Iterator[tuple[float, Text]]:
    """Each line of the demo with its looks, and the second in which the picture shows it."""
    output = Timed()
    console = Console(file=output, record=True, width=FULL_WIDTH, force_terminal=False)
    if run(console) != 0:
        raise SystemExit(output.getvalue())
    lines = [Text.from_ansi(line) for line in console.export_text(styles=True).splitlines()]
    shown, before = 0.0, output.seconds[0]
    for line, written in zip(lines, output.seconds, strict=True):
        shown += min(max(written - before, SHORTEST), LONGEST)
        before = written
        yield shown, line


def svg(lines: list[tuple[float, Text]]) -> str:
    width, height = round(FULL_WIDTH * COLUMN) + 2 * MARGIN, TOP + len(lines) * LINE + MARGIN
    dots = "".join(f'<circle class="dot" cx="{MARGIN + 20 * i}" cy="26" r="6"/>' for i in range(3))
    rows = "\n".join(_row(number, at, line) for number, (at, line) in enumerate(lines) if line.plain.strip())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">\n'
        f"<title>uponce demo</title>\n<style>{LOOK}</style>\n"
        f'<rect class="page" x="0.5" y="0.5" width="{width - 1}" height="{height - 1}" rx="12"/>{dots}\n'
        f'<text class="dim" x="{width / 2}" y="31" text-anchor="middle">uponce demo</text>\n{rows}\n</svg>\n'
    )


def _row(number: int, at: float, line: Text) -> str:
    """One line of the terminal. Each cell begins at its column, whatever font the reader has."""
    y = TOP + (number + 0.5) * LINE
    ends = sorted({0, len(line), *(place for span in line.spans for place in (span.start, span.end))})
    texts = [
        f'<text x="{MARGIN + cell.start() * COLUMN:.1f}" y="{y:g}"{_looks(line, cell.start())}>{escape(cell[0])}</text>'
        for begin, end in pairwise(ends)
        for cell in CELL.finditer(line.plain, begin, end)
    ]
    return f'<g style="animation-delay: {at:.2f}s">{"".join(texts)}</g>'


def _looks(line: Text, place: int) -> str:
    styles = [str(span.style) for span in line.spans if span.start <= place < span.end]
    looks = [LOOKS[word] for style in styles for word in style.split() if word in LOOKS]
    return f' class="{" ".join(looks)}"' if looks else ""


def main() -> None:
    PICTURE.write_text(svg(list(recording())))


if __name__ == "__main__":
    main()
