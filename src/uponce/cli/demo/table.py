"""The table, row by row as things happen. Finished rows scroll away like any output, so every terminal can show it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from uponce.cli.demo.story import Outcome, Step

# Wide enough that no row of the story wraps.
FULL_WIDTH = 100
_NUMBER, _MARK, _TIME = 2, 2, 7
_FIXED = _NUMBER + _MARK + _TIME + 5 * 2
_INDENT = _NUMBER + 2


class Board:
    """Where the story is shown. Named colours only: they follow the reader's theme, dark or light."""

    def __init__(self, console: Console) -> None:
        self._console = console
        if not console.is_terminal:
            # Nothing to fit into: one line a row, not the 80 columns that are assumed.
            console.width = FULL_WIDTH
        self._width = min(console.width, FULL_WIDTH)
        self._chapter = ""
        self._explained: set[str] = set()
        utf8 = console.encoding.lower().startswith("utf")
        self._kept, self._broken = ("✓", "✗") if utf8 else ("ok", "NO")

    def open(self, url: str, sdk_version: str) -> None:
        self._print(Text("uponce: upload signatures that work once", style="bold"))
        self._print(Text(f"A server at {url}, real media, the official cloudinary SDK {sdk_version}."))
        self._print(Text())
        heads = ("", "what happens", "promised", "seen", "", "time")
        self._print(self._grid([Text(head, style="dim") for head in heads]))

    def busy(self, what: str) -> AbstractContextManager[object]:
        """A spinner beside `what`; nothing where there is no terminal."""
        return self._console.status(Text(what), spinner_style="cyan")

    def row(self, number: int, step: Step, outcome: Outcome, seconds: float) -> None:
        if step.chapter != self._chapter:
            self._chapter = step.chapter
            self._print(Text())
            self._print(Text(step.chapter, style="bold cyan"))
        colour = "green" if outcome.kept else "bold red"
        self._print(
            self._grid(
                [
                    Text(str(number), style="dim"),
                    Text(step.title),
                    Text(step.promise),
                    Text(outcome.seen, style=colour),
                    Text(self._kept if outcome.kept else self._broken, style=colour),
                    Text(f"{seconds:.2f} s", style="dim"),
                ]
            )
        )
        self._explain(outcome)

    def sum_up(self, kept: Sequence[bool], seconds: float, folder: Path | None) -> None:
        """The last line; `folder` is what was kept on purpose."""
        good, total = sum(kept), len(kept)
        verdict = Text(f"{good} of {total} as promised", style="bold green" if good == total else "bold red")
        self._print(Text())
        self._print(verdict.append(f", in {seconds:.1f} s.", style="default not bold"))
        if folder is not None:
            self._print(Text(f"Kept: {folder}. Serve it again with: uponce serve --data {folder / 'data'}"))

    def fail(self, message: str) -> None:
        self._print(Text(message, style="red"))

    def _explain(self, outcome: Outcome) -> None:
        """The server's own sentence: once for each kind of refusal, and whenever something is not as promised."""
        if not outcome.quote or (outcome.kept and outcome.seen in self._explained):
            return
        self._explained.add(outcome.seen)
        self._print(Padding(Text(f'"{outcome.quote}"', style="dim italic"), (0, 0, 0, _INDENT)))

    def _grid(self, cells: Sequence[Text]) -> Table:
        grid = Table.grid(padding=(0, 2, 0, 0))
        flexible = self._width - _FIXED
        title, promise = flexible * 41 // 100, flexible * 26 // 100
        grid.add_column(width=_NUMBER, justify="right")
        for width in (title, promise, flexible - title - promise):
            grid.add_column(width=width, overflow="fold")
        grid.add_column(width=_MARK)
        grid.add_column(width=_TIME, justify="right")
        grid.add_row(*cells)
        return grid

    def _print(self, what: Text | Table | Padding) -> None:
        self._console.print(what, highlight=False)
