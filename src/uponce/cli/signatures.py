"""`uponce signatures`: what became of signatures, and revoking one. Works beside a running server."""

from typing import Literal

import typer

from uponce.cli.options import Data, Json

app = typer.Typer(no_args_is_help=True, help="Signatures the ledger knows: show, list, revoke.")

Which = typer.Argument(
    metavar="SIGNATURE...", help="An id, the one-URL form, or the signed fields as NAME=VALUE words."
)


@app.command()
def show(signature: list[str] = Which, data: Data = None, as_json: Json = False) -> None:
    """Status and history of one signature."""
    from uponce.cli.signature_commands import show as run

    run(signature, data=data, as_json=as_json)


@app.command("list")
def list_(
    data: Data = None,
    cloud: str | None = typer.Option(None, help="Cloud to list. [UPONCE_CLOUD, media]", show_default=False),
    status: Literal["unused", "used", "revoked"] | None = typer.Option(None, help="used, unused or revoked."),
    limit: int = typer.Option(50, min=1, max=500, help="How many, newest first."),
    as_json: Json = False,
) -> None:
    """The newest signatures in the ledger."""
    from uponce.cli.signature_commands import list_ as run

    run(data=data, cloud=cloud, status=status, limit=limit, as_json=as_json)


@app.command()
def revoke(signature: list[str] = Which, data: Data = None, as_json: Json = False) -> None:
    """Refuse one signature from now on, whether or not the server has seen it."""
    from uponce.cli.signature_commands import revoke as run

    run(signature, data=data, as_json=as_json)
