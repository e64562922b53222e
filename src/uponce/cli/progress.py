"""One bar on a terminal, and nothing where there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn


class Show(Protocol):
    def __call__(self, description: str, completed: float, total: float, done: str = "") -> None: ...


@contextmanager
def shown() -> Iterator[Show]:
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1, done="")

        def show(description: str, completed: float, total: float, done: str = "") -> None:
            bar.update(task, description=description, completed=completed, total=total, done=done)

        yield show
