"""`uponce clouds`: create and list clouds, and set what their uploads are passed on to."""

import typer

from uponce.cli.options import Data, Json

app = typer.Typer(no_args_is_help=True, help="Create and list clouds, and pass their uploads on to an account.")


@app.command()
def create(
    name: str,
    data: Data = None,
    relay: str | None = typer.Option(
        None,
        help="Account that stores the media: cloudinary://KEY:SECRET@CLOUD?upload_prefix=https://api.cloudinary.com. "
        "With - the URL comes from the standard input, so that no other user of this machine sees the secret.",
    ),
    same_keys: bool = typer.Option(
        False, "--same-keys", help="Accept signatures of the account's own key, so the backend needs no new key."
    ),
    as_json: Json = False,
) -> None:
    """Make a cloud with two API keys and print a CLOUDINARY_URL for each.

    With --relay, uponce checks and spends each signature and passes the upload on. The account stores the media.
    """
    from uponce.cli.cloud_commands import create as run

    run(name, data=data, relay=relay, same_keys=same_keys, as_json=as_json)


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """Show all clouds with their keys and upstreams, without secrets."""
    from uponce.cli.cloud_commands import list_ as run

    run(data=data, as_json=as_json)


@app.command()
def relay(
    name: str,
    url: str | None = typer.Argument(
        None, metavar="[URL]", help="The account, as for `create --relay`. With - from the standard input."
    ),
    data: Data = None,
    off: bool = typer.Option(False, "--off", help="Store uploads here again."),
) -> None:
    """Pass the uploads of a cloud on to an account from now on."""
    from uponce.cli.cloud_commands import relay as run

    if off == (url is not None):
        raise typer.BadParameter("Name the account's URL, or --off.")
    run(name, url, data=data)
