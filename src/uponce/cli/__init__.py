"""The command line. Each command is one module, imported when it is called, so that --help answers at once."""

import inspect
import sys
from typing import Literal

import typer

from uponce import __version__
from uponce.cli import clouds, keys, outbox, signatures
from uponce.cli.options import Data, Json, Kind, Url, without_signature
from uponce.core.errors import UponceError

app = typer.Typer(
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="A self-hosted media upload server whose upload signatures work once. It speaks Cloudinary's upload API.",
    epilog="Start with `uponce demo` or `uponce serve`. Exit codes: 0 done, 1 refused or failed, 2 wrong usage.",
)
app.add_typer(keys.app, name="keys")
app.add_typer(clouds.app, name="clouds")
app.add_typer(outbox.app, name="outbox")
app.add_typer(signatures.app, name="signatures")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"uponce {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(
        False, "--version", callback=_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


@app.command()
def serve(
    data: Data = None,
    host: str | None = typer.Option(
        None, help="Address to listen on; 0.0.0.0 for all. [UPONCE_HOST, 127.0.0.1]", show_default=False
    ),
    port: int | None = typer.Option(
        None, help="Port to listen on; 0 picks a free port. [UPONCE_PORT, 8000]", show_default=False
    ),
    workers: int | None = typer.Option(
        None, help="Number of server processes. [UPONCE_WORKERS, 1]", show_default=False
    ),
    playground: bool = typer.Option(
        False, "--playground", help="Serve the page /playground to browsers on this machine. [UPONCE_PLAYGROUND=local]"
    ),
) -> None:
    """Run the server.

    The first start on an empty data folder makes two API keys and prints a CLOUDINARY_URL for each. Keys in UPONCE_KEYS
    or UPONCE_KEYS_FILE replace those two, and then no secret is printed. SIGTERM and SIGINT end the server with exit
    code 0, once the uploads in progress have ended or 30 seconds have passed.
    """
    from uponce.cli.serve import run

    shown = "local" if playground else None
    run(data=data, host=host, port=port, workers=workers, playground=shown)


@app.command()
def sign(
    parameters: list[str] = typer.Argument(
        None, metavar="NAME=VALUE...", help="Upload parameters to sign, such as folder=cats."
    ),
    data: Data = None,
    url: Url = None,
    key: str | None = typer.Option(None, help="API key to sign with. By default the first key with uses=once."),
    resource_type: Kind = "auto",
    form: Literal["fields", "curl", "url"] = typer.Option(
        "fields", "--as", help="fields (one a line), curl (a command), or url (everything in one URL)."
    ),
    as_json: Json = False,
) -> None:
    """Make one signature for an upload.

    The key in the data folder, or in CLOUDINARY_URL, signs. The command does not ask the server.
    """
    from uponce.cli.sign import run

    run(parameters or [], data=data, url=url, key=key, resource_type=resource_type, form="json" if as_json else form)


@app.command()
def upload(
    files: list[str] = typer.Argument(metavar="FILE..."),
    parameter: list[str] = typer.Option(
        [], "--set", metavar="NAME=VALUE", help="Upload parameter to sign with each file. Repeat the option for more."
    ),
    data: Data = None,
    url: Url = None,
    key: str | None = typer.Option(None, help="API key to sign with. By default the first key with uses=once."),
    resource_type: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Sign and upload files, each with its own signature.

    Set CLOUDINARY_URL to upload to a server on another machine. Exit code 1 if a file was refused; the others are
    stored.
    """
    from uponce.cli.upload import run

    run(files, parameter, data=data, url=url, key=key, resource_type=resource_type, as_json=as_json)


@app.command()
def settings(data: Data = None, as_json: Json = False) -> None:
    """Show every setting with its effective value and its source. Secrets are masked."""
    from uponce.cli.settings import run

    run(data=data, as_json=as_json)


@app.command()
def doctor(data: Data = None, as_json: Json = False) -> None:
    """Check settings, disk, database and decoders, and say how to mend what is wrong."""
    from uponce.cli.doctor import run

    run(data=data, as_json=as_json)


@app.command()
def migrate(data: Data = None, as_json: Json = False) -> None:
    """Make or upgrade the database tables, as a starting server does.

    It is safe beside running servers of the previous release.
    """
    from uponce.cli.migrate import run

    run(data=data, as_json=as_json)


@app.command()
def sweep(
    data: Data = None,
    grace: int | None = typer.Option(
        None, help="Spare files younger than this, in seconds. [UPONCE_GRACE_SECONDS, 7200]"
    ),
    as_json: Json = False,
) -> None:
    """Delete bytes that no asset names, and forget grants whose time is over.

    A running server does the same every few minutes. It is safe beside a running server.
    """
    from uponce.cli.sweep import run

    run(data=data, grace=grace, as_json=as_json)


@app.command()
def backup(
    folder: str = typer.Argument(metavar="FOLDER", help="A new or empty folder, or the folder of an earlier backup."),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Copy the database, the media and the secret key into a folder.

    Files that an earlier backup has in that folder are not copied again. It is safe beside a running server. It needs
    SQLite; PostgreSQL has its own tools.
    """
    from uponce.cli.backup import run_backup

    run_backup(folder, data=data, as_json=as_json)


@app.command()
def restore(
    folder: str = typer.Argument(metavar="FOLDER", help="Folder that `uponce backup` wrote."),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Restore a data folder from a backup.

    It verifies every file and refuses every signature that may have been used since the backup. It overwrites nothing.
    If it is interrupted, run it again.
    """
    from uponce.cli.backup import run_restore

    run_restore(folder, data=data, as_json=as_json)


@app.command("migrate-store")
def migrate_store(
    to_database: str | None = typer.Option(
        None, help="The new database, written like UPONCE_DATABASE. It must hold no uponce yet."
    ),
    to_storage: str | None = typer.Option(
        None, help="The new storage, written like UPONCE_STORAGE. By default the media stay where they are."
    ),
    undo: bool = typer.Option(
        False,
        "--undo",
        help="Give the move up: this store takes uploads again, with signatures made from now on.",
    ),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Move to another database and storage, and compare every row and every file.

    Nothing is deleted in the present store. Servers that run on the present store go on delivering. During the move
    they begin to refuse uploads with 503, and keep refusing. If the command is interrupted, run it again: it
    continues.
    """
    from uponce.cli.migrate_store import run, run_undo

    if undo == (to_database is not None):
        raise typer.BadParameter("Name --to-database, or --undo.")
    if to_database is None:
        run_undo(data=data, as_json=as_json)
    else:
        run(to_database, to_storage, data=data, as_json=as_json)


@app.command()
def fence(data: Data = None, as_json: Json = False) -> None:
    """Refuse every signature that may have been used since a copy of the database was made.

    Run it once after restoring a database with other tools than `uponce restore`, and before serving.
    """
    from uponce.cli.fence import run

    run(data=data, as_json=as_json)


@app.command()
def fsck(
    data: Data = None,
    grace: int | None = typer.Option(
        None, help="Files younger than this, in seconds, count as in flight. [UPONCE_GRACE_SECONDS, 7200]"
    ),
    deep: bool = typer.Option(False, "--deep", help="Also read and hash every blob, and check every index."),
    as_json: Json = False,
) -> None:
    """Compare the database with the stored files, and the ledger with itself.

    Exit code 1 if there is damage. Leftovers that a sweep removes are no damage.
    """
    from uponce.cli.fsck import run

    run(data=data, grace=grace, deep=deep, as_json=as_json)


@app.command()
def prove(
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
    from uponce.cli.prove import run
    from uponce.prove.checks import Plan

    run(url=url, key=key, data=data, plan=Plan(signatures, at_once, seconds), as_json=as_json)


@app.command()
def demo(
    keep: bool = typer.Option(False, help="Keep the server's folder afterwards."),
    relay: bool = typer.Option(
        False, "--relay", help="Pass the uploads on to a second server, which plays the account."
    ),
) -> None:
    """Show on real media what uponce promises: start a server, upload, replay, race, tear, revoke and kill it."""
    from rich.console import Console

    from uponce.demo import run

    raise typer.Exit(run(Console(), keep, relay=relay))


def _reflow(group: typer.Typer) -> None:
    """Let the terminal break the lines of help texts: typer keeps the line breaks of the source in all but the first
    paragraph."""
    for command in group.registered_commands:
        text = inspect.cleandoc((command.callback and command.callback.__doc__) or "")
        command.help = "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))


for _group in (app, keys.app, clouds.app, outbox.app, signatures.app):
    _reflow(_group)


def main() -> None:
    """Exit codes: 0 done, 1 refused or failed, 2 usage. A command that a signal interrupts has failed."""
    try:
        app()
    except UponceError as error:
        typer.secho(f"uponce: {without_signature(error.for_operator)}", fg="red", err=True)
        sys.exit(1)
    except SystemExit as ended:
        sys.exit(ended.code if ended.code in (None, 0, 2) else 1)
