"""`uponce prove`"""

import asyncio

import typer
from rich.console import Console

from uponce.cli.address import checked_url
from uponce.cli.credentials import Credentials, credentials_of, find_credentials
from uponce.cli.options import Data, Json, print_json
from uponce.config import masked
from uponce.prove import prove
from uponce.prove.board import CheckBoard
from uponce.prove.checks import Plan, Verdict
from uponce.prove.site import Site


def run(
    url: str | None = typer.Option(
        None, help="cloudinary://KEY:SECRET@CLOUD?upload_prefix=https://HOST, or https://HOST. [CLOUDINARY_URL]"
    ),
    key: str | None = typer.Option(None, help="With https://HOST: KEY:SECRET@CLOUD. With a data folder: an API key."),
    data: Data = None,
    signatures: int = typer.Option(20, min=1, max=10_000, help="Number of signatures to race for."),
    at_once: int = typer.Option(10, min=2, max=500, help="Number of uploads that race for each signature."),
    seconds: float = typer.Option(120, min=1, help="Begin no new check after this many seconds."),
    as_json: Json = False,
) -> None:
    """Test from outside whether signatures work once on a running server.

    It replays signatures, tears uploads, loses replies and races many uploads for one signature. Exit code 0 if every
    promise holds.
    """
    plan, target = Plan(signatures, at_once, seconds), _target(url, key, data)
    site, board = Site(target.base, target.key, plan.seconds), CheckBoard(Console(stderr=as_json))
    try:
        proof = asyncio.run(prove(site, board, plan))
    except asyncio.CancelledError:
        raise typer.Exit(1) from None
    if as_json:
        print_json(proof.as_data())
    if proof.verdict is not Verdict.HOLDS:
        raise typer.Exit(1)


def _target(url: str | None, key: str | None, data: str | None) -> Credentials:
    """Return the credentials in `cloudinary://…`, or for another address in KEY:SECRET@CLOUD.

    Without an address, return those that other commands use.
    """
    if url is None:
        return find_credentials(data, key)
    if url.startswith("cloudinary:"):
        return credentials_of(url)
    if key is None:
        raise typer.BadParameter(f"For {masked('url', url)}, also give --key KEY:SECRET@CLOUD.")
    return credentials_of(f"cloudinary://{key}?upload_prefix={checked_url(url)}")
