"""The output for people: what will be sent, a line for each check with a progress bar below, the verdict."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from uponce.prove.checks import Check, CheckResult, Plan, Verdict, worst
from uponce.prove.site import CleanUp, Site, dot

FULL_WIDTH = 80
_MARK, _PROMISE, _SEEN = 1, 15, 28
_GAP = 2
_TITLE = FULL_WIDTH - _MARK - _PROMISE - _SEEN - 3 * _GAP
_COLOURS = {Verdict.HOLDS: "green", Verdict.BROKEN: "bold red", Verdict.UNCLEAR: "yellow"}
_MARKS = {Verdict.HOLDS: "✓", Verdict.BROKEN: "✗", Verdict.UNCLEAR: "?"}
_PLAIN_MARKS = {Verdict.HOLDS: "+", Verdict.BROKEN: "X", Verdict.UNCLEAR: "?"}
_VERDICTS = {
    Verdict.HOLDS: "It holds: signatures work once here.",
    Verdict.BROKEN: "BROKEN: signatures do not work exactly once here.",
    Verdict.UNCLEAR: "Not proved: some answers were unclear.",
}


class Bar:
    """Counts requests. A check that sends fewer than its share skips the rest of it."""

    def __init__(self, progress: Progress, requests: int, done: int) -> None:
        self._progress = progress
        self._task = progress.add_task("", total=requests)
        self._planned = done

    def begin(self, check: Check) -> None:
        self._progress.update(self._task, description=check.title, completed=self._planned)
        self._planned += check.requests

    def sent(self) -> None:
        self._progress.advance(self._task)


class CheckBoard:
    """Shows the checks. It uses named colours only: they follow the reader's theme, dark or light."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._chapter = ""
        self._quoted: set[str] = set()
        self._marks = _MARKS if console.encoding.lower().startswith("utf") else _PLAIN_MARKS

    @contextmanager
    def progress(self, requests: int, done: int) -> Iterator["Bar"]:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            yield Bar(bar, requests, done)

    def open(self, site: Site, plan: Plan, uploads: int, files: int) -> None:
        self._print(Text("uponce prove: do signatures work once there?", style="bold"))
        self._print(
            Text(
                f"To {site.base}, cloud {site.cloud}, this command sends at most {uploads + files} "
                f"requests: at most {uploads} uploads in {plan.seconds:g} seconds, up to {plan.at_once} at once, and "
                f"at most {files} to remove the files, if the server can delete. Each upload has an image of "
                f"{len(dot(0))} bytes or less. All names begin with {site.folder}/."
            )
        )

    def row(self, check: Check, outcome: CheckResult) -> None:
        if check.chapter != self._chapter:
            self._chapter = check.chapter
            self._print(Text())
            self._print(Text(check.chapter, style="bold cyan"))
        colour = _COLOURS[outcome.verdict]
        grid = Table.grid(padding=(0, _GAP, 0, 0))
        grid.add_column(width=_MARK)
        for width in (_TITLE, _PROMISE, _SEEN):
            grid.add_column(min_width=1, max_width=width, width=width, overflow="fold")
        mark = Text(self._marks[outcome.verdict], style=colour)
        grid.add_row(mark, Text(check.title), Text(check.promise), Text(outcome.seen, style=colour))
        self._print(grid)
        self._quote(outcome)

    def sum_up(self, outcomes: Sequence[CheckResult], seconds: float, sent: int) -> None:
        verdict = worst(outcome.verdict for outcome in outcomes)
        good = sum(outcome.verdict is Verdict.HOLDS for outcome in outcomes)
        self._print(Text())
        self._print(
            Text(_VERDICTS[verdict], style=_COLOURS[verdict]).append(
                f" {good} of {len(outcomes)} as promised, in {seconds:.1f} s, with {sent} requests.",
                style="default not bold",
            )
        )

    def tell_clean_up(self, site: Site, done: CleanUp) -> None:
        if not done.left:
            if done.removed:
                self._print(Text(f"\nRemoved all {done.removed} stored files."))
            return
        self._print(
            Text(
                f"\nRemoved {done.removed}; up to {len(done.left)} files remain under {site.folder}/. "
                f"The server refused to remove them: {done.why}",
                style="yellow",
            )
        )

    def _quote(self, outcome: CheckResult) -> None:
        """Print the server's own sentence: once for each kind of answer, and always after a broken promise."""
        if not outcome.quote or (outcome.verdict is Verdict.HOLDS and outcome.seen in self._quoted):
            return
        self._quoted.add(outcome.seen)
        self._print(Padding(Text(f'"{outcome.quote}"', style="dim italic"), (0, 0, 0, _MARK + _GAP)))

    def _print(self, what: Text | Table | Padding) -> None:
        self._console.print(what, highlight=False)
