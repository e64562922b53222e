"""`uponce settings`: the effective settings and where each comes from."""

import typer

from uponce.cli.options import Data, Json, print_json
from uponce.config import effective


def run(data: Data = None, as_json: Json = False) -> None:
    """Show every setting with its effective value and its source. Secrets are masked."""
    rows = effective(data=data)
    if as_json:
        print_json(rows)
        return
    width = max(len(row["name"]) for row in rows)
    for row in rows:
        value = "" if row["value"] is None else row["value"]
        typer.echo(f"{row['name']:<{width}} = {value}  ({row['source']})")
