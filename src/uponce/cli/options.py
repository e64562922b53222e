"""Options and output that commands share."""

import errno
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import msgspec
import typer

from uponce.core.errors import StorageFull

STDIN = "-"
_PIPE_COLUMNS = 10_000

Data = Annotated[
    str | None, typer.Option("--data", help="Data folder. [UPONCE_DATA, ./uponce-data]", show_default=False)
]
Url = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Address of the server, such as https://media.example. By default the server of the data folder.",
        show_default=False,
    ),
]
TrustClock = Annotated[
    bool, typer.Option("--trust-clock", help="Fence by this clock, although the database has noted a later time.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Kind = Annotated[
    Literal["image", "video", "raw", "auto"],
    typer.Option("--type", help="Resource type: image, video, raw, or auto for what the bytes are."),
]
SigningKey = Annotated[
    str | None,
    typer.Option(
        "--key",
        help="API key to sign with. By default the first key with uses=once of UPONCE_CLOUD, or of the server's cloud.",
    ),
]


def warn(message: str) -> None:
    typer.secho(f"uponce: {message}", fg="yellow", err=True)


def print_json(value: Any) -> None:
    typer.echo(msgspec.json.format(msgspec.json.encode(value)).decode())


def say(text: str, value: Any, as_json: bool) -> None:
    """Print the text, or with --json the value."""
    if as_json:
        print_json(value)
    else:
        typer.echo(text)


def say_table(
    columns: Sequence[str], rows: Iterable[Sequence[str]], value: Any, as_json: bool, *, whole: bool = False
) -> None:
    """Print the rows below the names of their columns, or with --json the value. Nothing is cut.

    A terminal breaks long cells, except in the first column. A pipe gets a line for each row. With `whole`, a terminal
    gets what a pipe gets.
    """
    if as_json:
        print_json(value)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None)
    for number, column in enumerate(columns):
        table.add_column(column, no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    Console(width=None if sys.stdout.isatty() and not whole else _PIPE_COLUMNS).print(table)


def parse_pairs(pairs: list[str]) -> dict[str, str]:
    """Return `name=value` words as a mapping; a value may contain `=`. Raise a usage error for other words."""
    parsed: dict[str, str] = {}
    for number, pair in enumerate(pairs, 1):  # no error quotes a value: it could be a live signature
        name, separator, value = pair.partition("=")
        if not separator or not name:
            raise typer.BadParameter(f"Write each parameter as NAME=VALUE. Word {number} of them is not.")
        if name in parsed:
            raise typer.BadParameter(f"Write each parameter once. {name} is there twice.")
        parsed[name] = value
    return parsed


def warn_of_secret() -> None:
    warn(
        "the secret was on the command line, where other users of this machine can see it. With - it comes from the "
        "standard input."
    )


def readable(path: Path | str) -> str:
    """Return the path as UTF-8. Each byte that is no UTF-8 becomes a replacement character."""
    return os.fsencode(path).decode(errors="replace")


def without_signature(message: str) -> str:
    """Return an error without the signature that it quotes: the signature may be valid with other parameters."""
    return re.sub(r"(Invalid Signature \w{8})\w+", r"\1…", message)


_CURES = {
    errno.EACCES: " Run this command as a user that may use it: the server's user, or root.",
    errno.EPERM: " Run this command as a user that may use it: the server's user, or root.",
    errno.ENOSPC: " Make room on its disk.",
    errno.EDQUOT: " Make room on its disk, or raise its quota.",
}


def os_refusal(error: OSError) -> str:
    """Return a sentence for a refusal of the operating system: the path, the reason, and the cure if there is one."""
    place = f"{error.filename}: " if error.filename is not None else ""
    return f"{place}{error.strerror or str(error) or type(error).__name__}.{_CURES.get(error.errno or 0, '')}"


@contextmanager
def filling(place: str) -> Iterator[None]:
    """Name the place into which a command copies if its disk becomes full: the error itself has no path."""
    try:
        yield
    except StorageFull as error:
        cure = "Make room there, and run the command again: it continues"
        raise StorageFull(error.message, detail=f"The disk of {place} is full: {error.detail}. {cure}.") from error


class Show(Protocol):
    def __call__(self, description: str, completed: float, total: float, done: str = "") -> None: ...


@contextmanager
def progress_bar() -> Iterator[Show]:
    """Show one bar on a terminal. Show nothing without a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[done]}"), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1, done="")

        def show(description: str, completed: float, total: float, done: str = "") -> None:
            bar.update(task, description=description, completed=completed, total=total, done=done)

        yield show
