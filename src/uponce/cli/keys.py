"""`uponce keys`: create, list, revoke, rotate and renew API keys."""

from typing import Literal

import typer

from uponce.cli.options import Data, Json

app = typer.Typer(no_args_is_help=True, help="Create, import, list, revoke, rotate and renew API keys.")


@app.command()
def create(
    data: Data = None,
    cloud: str | None = typer.Option(None, help="Cloud (tenant) of the key; a new name makes a new cloud."),
    name: str = typer.Option("", help="What the key is for, in your words."),
    uses: Literal["once", "unlimited"] = typer.Option("once", help="How often one signature works."),
    scope: Literal["upload", "all"] = typer.Option(
        "upload", help="What its signatures allow: uploads only, or everything the API offers."
    ),
    window: int | None = typer.Option(
        None, help="Seconds that a signature lives. [UPONCE_WINDOW, 3600]", show_default=False
    ),
    allow_v1: bool = typer.Option(False, help="Accept signatures of old SDKs whose values contain '&' (unsafe)."),
    sha256_only: bool = typer.Option(False, help="Refuse SHA-1 signatures."),
    as_json: Json = False,
) -> None:
    """Make a key and print its CLOUDINARY_URL."""
    from uponce.cli.key_commands import create as run

    run(
        data=data,
        cloud=cloud,
        name=name,
        uses=uses,
        scope=scope,
        window=window,
        allow_v1=allow_v1,
        sha256_only=sha256_only,
        as_json=as_json,
    )


@app.command("import")
def import_(
    api_key: str | None = typer.Argument(
        None,
        metavar="KEY",
        help="Id of one key. Its secret comes from the standard input, or is asked for on a terminal.",
    ),
    data: Data = None,
    cloud: str | None = typer.Option(None, help="Cloud of the key. [UPONCE_CLOUD, media]", show_default=False),
    name: str = typer.Option("", help="What the key is for, in your words."),
    uses: Literal["once", "unlimited"] = typer.Option("once", help="How often one signature works."),
    scope: Literal["upload", "all"] = typer.Option(
        "upload", help="What its signatures allow: uploads only, or everything the API offers."
    ),
    window: int | None = typer.Option(
        None, help="Seconds that a signature lives. [UPONCE_WINDOW, 3600]", show_default=False
    ),
    as_json: Json = False,
) -> None:
    """Bring a key with its secret: a backend that signs with a pair already keeps it.

    Without KEY the standard input has one key a line:
    cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload&window=3600&name=browser.
    A key that exists is never changed; one that differs ends the command with exit code 1.
    """
    from uponce.cli.key_commands import import_ as run

    run(api_key, data=data, cloud=cloud, name=name, uses=uses, scope=scope, window=window, as_json=as_json)


@app.command("list")
def list_(data: Data = None, as_json: Json = False) -> None:
    """Show all keys, without their secrets."""
    from uponce.cli.key_commands import list_ as run

    run(data=data, as_json=as_json)


@app.command()
def revoke(api_key: str, data: Data = None, as_json: Json = False) -> None:
    """Refuse a key and all its signatures from now on."""
    from uponce.cli.key_commands import revoke as run

    run(api_key, data=data, as_json=as_json)


@app.command()
def rotate(
    api_key: str,
    data: Data = None,
    overlap: int | None = typer.Option(
        None, help="Seconds that the old secret stays valid. By default the key's window."
    ),
    as_json: Json = False,
) -> None:
    """Give a key a new secret and print its CLOUDINARY_URL."""
    from uponce.cli.key_commands import rotate as run

    run(api_key, overlap, data=data, as_json=as_json)


@app.command()
def renew(
    data: Data = None,
    yes: bool = typer.Option(False, "--yes", help="Do it. Without this option, only show which keys it would change."),
    as_json: Json = False,
) -> None:
    """Last resort when secret.key is lost and no backup has it: replace every API secret that cannot be read.

    Prints the new CLOUDINARY_URL of each key. Signatures made with the old secrets are refused from then on. Keys whose
    secret can be read stay as they are. Spent signatures stay spent.
    """
    from uponce.cli.key_commands import renew as run

    run(data=data, yes=yes, as_json=as_json)
