"""`uponce prove`"""

import asyncio
import signal

import typer
from rich.console import Console

from uponce.cli.credentials import Credentials, credentials_of, find_credentials
from uponce.cli.options import print_json
from uponce.prove import prove
from uponce.prove.board import Board
from uponce.prove.checks import Plan, Verdict
from uponce.prove.site import Site


def run(*, url: str | None, key: str | None, data: str | None, plan: Plan, as_json: bool) -> None:
    """Exit code 0 if every promise was seen to hold, 1 otherwise."""
    target = _target(url, key, data)
    site, board = Site(target.base, target.key, plan.seconds), Board(Console(stderr=as_json))
    try:
        proof = asyncio.run(prove(site, board, plan))
    except asyncio.CancelledError:
        raise typer.Exit(128 + signal.SIGTERM) from None
    if as_json:
        print_json(proof.as_data())
    if proof.verdict is not Verdict.HOLDS:
        raise typer.Exit(1)


def _target(url: str | None, key: str | None, data: str | None) -> Credentials:
    """`cloudinary://…` as it is; another address with KEY:SECRET@CLOUD; else CLOUDINARY_URL or the data folder."""
    if url is None:
        return find_credentials(data, key)
    if url.startswith("cloudinary:"):
        return credentials_of(url)
    if key is None:
        raise typer.BadParameter(f"For {url}, also give --key KEY:SECRET@CLOUD.")
    return credentials_of(f"cloudinary://{key}?upload_prefix={url}")
