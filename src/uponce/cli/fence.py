"""`uponce fence`"""

import asyncio

import typer

from uponce.app.backup import fence
from uponce.cli.options import Data, Json, print_json
from uponce.config import load
from uponce.core.freshness import utc
from uponce.wiring import opened


def run(data: Data = None, as_json: Json = False) -> None:
    """Refuse every signature that may have been used since a copy of the database was made.

    Run it once after restoring a database with other tools than `uponce restore`, and before serving.
    """
    with opened(load(data=data)) as backend:
        watermark = asyncio.run(fence(backend.services))
    if as_json:
        print_json({"watermark": watermark})
        return
    typer.echo(told(watermark))


def told(watermark: int) -> str:
    """Return one sentence about what a fence means."""
    return (
        f"uponce refuses every signature with a timestamp up to {utc(watermark)} from now on; newer signatures work, "
        "and new keys work at once"
    )
