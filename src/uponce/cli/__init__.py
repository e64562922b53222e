"""The command line. Each command is one module, imported when it is called, so that --help answers at once."""

import sys
from typing import Literal

import typer

from uponce import __version__
from uponce.cli import help_pages, keys, signatures
from uponce.cli.options import Data, Json, Kind
from uponce.core.errors import UponceError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="Media upload signatures that work once: a self-hosted server that speaks Cloudinary's upload API.",
    epilog="Start with: uponce demo, or uponce serve.",
)
app.add_typer(keys.app, name="keys")
app.add_typer(signatures.app, name="signatures")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"uponce {__version__}")
        raise typer.Exit


@app.callback()
def _root(version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show it.")) -> None:
    pass


@app.command()
def serve(
    data: Data = None,
    host: str | None = typer.Option(None, help="Address to listen on. [UPONCE_HOST, 127.0.0.1]", show_default=False),
    port: int | None = typer.Option(None, help="Port; 0 picks a free one. [UPONCE_PORT, 8000]", show_default=False),
    workers: int | None = typer.Option(None, help="Server processes. [UPONCE_WORKERS, 1]", show_default=False),
) -> None:
    """Run the server. An empty data folder is set up first, and its two CLOUDINARY_URLs are printed."""
    from uponce.cli.serve import run

    run(data=data, host=host, port=port, workers=workers)


@app.command()
def sign(
    parameters: list[str] = typer.Argument(None, metavar="NAME=VALUE...", help="What to sign, e.g. folder=cats"),
    data: Data = None,
    key: str | None = typer.Option(None, help="API key to sign with; the first once-key otherwise."),
    resource_type: Kind = "auto",
    form: Literal["fields", "curl", "url"] = typer.Option(
        "fields", "--as", help="fields, curl (a command), or url (the whole grant in one URL)."
    ),
    as_json: Json = False,
) -> None:
    """Mint one signature."""
    from uponce.cli.sign import run

    run(parameters or [], data=data, key=key, resource_type=resource_type, form="json" if as_json else form)


@app.command()
def upload(
    files: list[str] = typer.Argument(metavar="FILE..."),
    parameter: list[str] = typer.Option([], "--set", metavar="NAME=VALUE", help="Sign this with each file."),
    data: Data = None,
    key: str | None = typer.Option(None, help="API key to sign with; the first once-key otherwise."),
    resource_type: Kind = "auto",
    as_json: Json = False,
) -> None:
    """Sign and upload files, each with a signature of its own. CLOUDINARY_URL reaches a server elsewhere."""
    from uponce.cli.upload import run

    run(files, parameter, data=data, key=key, resource_type=resource_type, as_json=as_json)


@app.command()
def doctor(data: Data = None, as_json: Json = False) -> None:
    """Check settings, disk, database and decoders; say what to do about what is wrong."""
    from uponce.cli.doctor import run

    run(data=data, as_json=as_json)


@app.command()
def migrate(data: Data = None, as_json: Json = False) -> None:
    """Make or upgrade the tables, as a server does when it starts. Safe beside running servers of the last release."""
    from uponce.cli.migrate import run

    run(data=data, as_json=as_json)


@app.command()
def sweep(
    data: Data = None,
    grace: int | None = typer.Option(None, help="Spare what is younger, in seconds. [UPONCE_GRACE_SECONDS, 7200]"),
    as_json: Json = False,
) -> None:
    """Delete bytes that belong to nothing and forget grants whose time is over. Safe beside a running server."""
    from uponce.cli.sweep import run

    run(data=data, grace=grace, as_json=as_json)


@app.command()
def backup(
    folder: str = typer.Argument(metavar="FOLDER", help="Empty, new, or that of an earlier backup."),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Copy database, media and secret key into a folder; what an earlier backup has there already is not copied again.

    Safe beside a running server. For SQLite; PostgreSQL has its own.
    """
    from uponce.cli.backup import run_backup

    run_backup(folder, data=data, as_json=as_json)


@app.command()
def restore(
    folder: str = typer.Argument(metavar="FOLDER", help="What `uponce backup` has made."),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Make a server's data of a backup: every file compared, all signatures refused that may have been used since.

    Overwrites nothing. When it breaks off, run it again.
    """
    from uponce.cli.backup import run_restore

    run_restore(folder, data=data, as_json=as_json)


@app.command("migrate-store")
def migrate_store(
    to_database: str | None = typer.Option(None, help="As UPONCE_DATABASE. A database where no server was set up."),
    to_storage: str | None = typer.Option(None, help="As UPONCE_STORAGE; the media stay where they are otherwise."),
    undo: bool = typer.Option(
        False, "--undo", help="Give it up: the present store takes uploads again, with signatures made from now on."
    ),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Move to another database and storage, compared row by row and file by file; nothing is deleted here.

    Servers that run here go on delivering; from the middle on they refuse uploads with 503, for good. Whatever
    breaks off goes on when it is run again.
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
    """Run once after restoring a database by other means than `uponce restore`, before serving: refuse all signatures
    that may have been used since the copy."""
    from uponce.cli.fence import run

    run(data=data, as_json=as_json)


@app.command()
def fsck(
    data: Data = None,
    grace: int | None = typer.Option(
        None, help="What is younger, in seconds, counts as in flight. [UPONCE_GRACE_SECONDS, 7200]"
    ),
    deep: bool = typer.Option(False, "--deep", help="Read and hash every blob, and check every index."),
    as_json: Json = False,
) -> None:
    """Compare rows with bytes and the ledger with itself. Exit code 1 for damage, 0 for what a sweep removes."""
    from uponce.cli.fsck import run

    run(data=data, grace=grace, deep=deep, as_json=as_json)


@app.command()
def prove(
    url: str | None = typer.Option(
        None, help="cloudinary://KEY:SECRET@CLOUD?upload_prefix=https://HOST, or https://HOST. [CLOUDINARY_URL]"
    ),
    key: str | None = typer.Option(None, help="With https://HOST: KEY:SECRET@CLOUD. With a data folder: an API key."),
    data: Data = None,
    signatures: int = typer.Option(20, min=1, max=10_000, help="How many signatures to race for."),
    at_once: int = typer.Option(10, min=2, max=500, help="How many uploads race for each."),
    seconds: float = typer.Option(120, min=1, help="Begin nothing new after so many seconds."),
    as_json: Json = False,
) -> None:
    """Try from outside whether signatures work once on a running server: replays, torn uploads, lost replies, races."""
    from uponce.cli.prove import run
    from uponce.cli.prove.checks import Plan

    run(url=url, key=key, data=data, plan=Plan(signatures, at_once, seconds), as_json=as_json)


@app.command()
def demo(keep: bool = typer.Option(False, help="Leave the server's folder behind, to look at.")) -> None:
    """Show the whole story on real media: start a server, upload, replay, race, tear, revoke, kill it."""
    from rich.console import Console

    from uponce.cli.demo import run

    raise typer.Exit(run(Console(), keep))


def main() -> None:
    """Exit codes: 0 done, 1 refused or failed, 2 usage."""
    try:
        if "--help" in sys.argv:
            help_pages.load()
        app()
    except UponceError as error:
        typer.secho(f"uponce: {error.message}", fg="red", err=True)
        sys.exit(1)
