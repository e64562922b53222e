"""`uponce signatures`: show, list and revoke signatures. It works beside a running server."""

from typing import Literal

import typer

from uponce.cli.options import Data, Json

app = typer.Typer(no_args_is_help=True, help="Show, list and revoke signatures.")

Which = typer.Argument(
    metavar="SIGNATURE...",
    help="Its id, the URL of `uponce sign --as url`, or all signed fields as NAME=VALUE.",
)


@app.command()
def show(signature: list[str] = Which, data: Data = None, as_json: Json = False) -> None:
    """Show the status and the history of one signature."""
    from uponce.cli.signature_commands import show as run

    run(signature, data=data, as_json=as_json)


@app.command("list")
def list_(
    data: Data = None,
    cloud: str | None = typer.Option(None, help="Cloud to list. [UPONCE_CLOUD, media]", show_default=False),
    status: Literal["unused", "used", "pending", "revoked"] | None = typer.Option(
        None, help="Show only used, unused, pending or revoked signatures."
    ),
    limit: int = typer.Option(50, min=1, max=500, help="How many to show, newest first."),
    as_json: Json = False,
) -> None:
    """List the newest signatures in the ledger. A signature that no upload has used yet is not there."""
    from uponce.cli.signature_commands import list_ as run

    run(data=data, cloud=cloud, status=status, limit=limit, as_json=as_json)


@app.command()
def revoke(signature: list[str] = Which, data: Data = None, as_json: Json = False) -> None:
    """Refuse one unused signature from now on, also if no request has used it yet. Exit code 1 if it is used."""
    from uponce.cli.signature_commands import revoke as run

    run(signature, data=data, as_json=as_json)
