"""The table, row by row as things happen. Finished rows scroll away like any output, so every terminal can show it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from uponce.demo.story import Step, StepResult

# Also the width without a terminal. No row of the story wraps in it.
FULL_WIDTH = 80
_NUMBER, _PROMISE, _SEEN, _MARK, _TIME = 2, 13, 22, 1, 6
_GAP = 2
_FIXED = _NUMBER + _MARK + _TIME + 5 * _GAP
_TITLE = FULL_WIDTH - _FIXED - _PROMISE - _SEEN
_INDENT = _NUMBER + 2


class StepBoard:
    """Shows the steps. It uses named colours only: they follow the reader's theme, dark or light."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._width = min(console.width, FULL_WIDTH)
        self._chapter = ""
        self._explained: set[str] = set()
        utf8 = console.encoding.lower().startswith("utf")
        self._kept, self._broken = ("✓", "✗") if utf8 else ("+", "X")

    def open(self, url: str, sdk_version: str) -> None:
        self._print(Text("uponce: upload signatures that work once", style="bold"))
        self._print(Text(f"A server at {url}, real media, the cloudinary SDK {sdk_version}."))
        self._print(Text())
        heads = ("", "what happens", "promised", "seen", "", "time")
        self._print(self._grid([Text(head, style="dim") for head in heads]))

    def busy(self, what: str) -> AbstractContextManager[object]:
        """Return a spinner beside `what`. It shows nothing without a terminal."""
        return self._console.status(Text(what), spinner_style="cyan")

    def row(self, number: int, step: Step, outcome: StepResult, seconds: float) -> None:
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
                    Text(_duration(seconds), style="dim"),
                ]
            )
        )
        self._explain(outcome)

    def sum_up(self, kept: Sequence[bool], seconds: float, folder: Path | None) -> None:
        """Print the last lines. `folder` is the folder that was kept, if any."""
        good, total = sum(kept), len(kept)
        verdict = Text(f"{good} of {total} as promised", style="bold green" if good == total else "bold red")
        self._print(Text())
        self._print(verdict.append(f", in {seconds:.1f} s.", style="default not bold"))
        if good < total and folder is None:
            self._print(Text("Run it with --keep to look at the server's folder and log."))
        if folder is not None:
            # On one line, whatever the width, so that it can be copied.
            command = f"uponce serve --playground --data {folder / 'data'}"
            self._console.print(Text(f"Serve it again: {command}"), soft_wrap=True)
            self._print(Text("The playground is then at http://127.0.0.1:8000/playground"))

    def fail(self, message: str) -> None:
        # On one line, whatever the width, so that a command in it can be copied.
        self._console.print(Text(message, style="red"), soft_wrap=True)

    def _explain(self, outcome: StepResult) -> None:
        """Print the server's own sentence: once for each kind of refusal, and always after a broken promise."""
        if not outcome.quote or (outcome.kept and outcome.seen in self._explained):
            return
        self._explained.add(outcome.seen)
        self._print(Padding(Text(f'"{outcome.quote}"', style="dim italic"), (0, 0, 0, _INDENT)))

    def _grid(self, cells: Sequence[Text]) -> Table:
        # In a narrow window the texts share the width, and fold.
        room = max(self._width - _FIXED, 3)
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(width=_NUMBER, justify="right")
        for width in (_TITLE, _PROMISE, _SEEN):
            grid.add_column(width=max(width * room // (FULL_WIDTH - _FIXED), 1), overflow="fold")
        grid.add_column(width=_MARK)
        grid.add_column(width=_TIME, justify="right")
        grid.add_row(*cells)
        return grid

    def _print(self, what: Text | Table | Padding) -> None:
        self._console.print(what, highlight=False)


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{int(seconds * 1000)} ms"
