"""`uponce migrate`"""

import typer

from uponce.cli.options import print_json
from uponce.config import load
from uponce.wiring import opened


def run(*, data: str | None, as_json: bool) -> None:
    with opened(load(data=data), create=True) as backend:
        described = backend.database.describe()
    if as_json:
        print_json({"database": described})
        return
    typer.echo(described)
