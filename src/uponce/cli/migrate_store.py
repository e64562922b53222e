"""`uponce migrate-store`"""

import asyncio
import re
import sys
from dataclasses import asdict

import typer

from uponce.app.migrate_store import Moved, Store, migrate_store, undo_move
from uponce.cli.backup import tell_lost
from uponce.cli.fence import told
from uponce.cli.options import STDIN, Data, Json, TrustClock, filling, print_json, progress_bar, say, warn_of_secret
from uponce.config import MASK, load, masked
from uponce.core.errors import SettingRefused
from uponce.wiring import moving, opened, opened_target


def run(
    to_database: str | None = typer.Option(
        None,
        help="The new database, written like UPONCE_DATABASE. It must hold no uponce yet. With - the URL comes from "
        "the standard input, so that no other user of this machine sees its password.",
    ),
    to_storage: str | None = typer.Option(
        None, help="The new storage, written like UPONCE_STORAGE. By default the media stay where they are."
    ),
    undo: bool = typer.Option(
        False,
        "--undo",
        help="Give the move up: this store takes uploads again. Signatures made before are refused.",
    ),
    yes: bool = typer.Option(
        False,
        "--yes",
        help="With --undo: give up the files that the other store has added to the storage. Assets whose files it "
        "has deleted or replaced stay without them.",
    ),
    trust_clock: TrustClock = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Move to another database and storage, and compare every row and every file.

    Nothing is deleted in the present store. Servers that run on the present store go on delivering. During the move
    they begin to refuse uploads with 503, and keep refusing. If the command is interrupted, run it again: it
    continues.
    """
    if undo == (to_database is not None):
        raise typer.BadParameter("Name --to-database, or --undo.")
    if to_database == STDIN:
        to_database = sys.stdin.readline().strip()
    elif to_database is not None and _has_password(to_database):
        warn_of_secret()
    for name, value in (("--to-database", to_database), ("--to-storage", to_storage)):
        if value is not None and not value.strip():
            raise typer.BadParameter(f"{name} is empty. Check that the variable in it is set.")
    if to_database is None:
        _undo(yes, trust_clock, data, as_json)
    else:
        _move(to_database, to_storage, data, as_json)


def _has_password(url: str) -> bool:
    """Return whether the URL of a database has a password. A user's name alone is masked too, and does not count."""
    return MASK in masked("database", re.sub("://[^:/?#@]*@", "://", url))


def _move(to_database: str, to_storage: str | None, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    if to_database == settings.database_url:
        raise SettingRefused("The store is in that database already. Name another database.")
    moves = to_storage is not None and to_storage != settings.storage_url
    place = filling(f"{to_storage} or of the new database" if to_storage else "the new database")
    with (
        place,
        opened(settings) as here,
        moving(settings),
        opened_target(settings, to_database, to_storage) as there,
        progress_bar() as show,
    ):
        moved = asyncio.run(
            migrate_store(
                Store(here.database, here.blobs),
                Store(there.database, there.blobs),
                media=moves,
                progress=lambda what, done, total: show(f"copying {what}", done, total, f"{done:,} of {total:,}"),
            )
        )
    if as_json:
        print_json(asdict(moved))
    else:
        _print(moved)
    if not moved.complete:
        raise typer.Exit(1)


def _undo(loses_files: bool, trusts_clock: bool, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    with opened(settings) as here, moving(settings):
        skew = settings.limits.skew
        undoing = undo_move(here.database, here.blobs, skew, loses_files=loses_files, trusts_clock=trusts_clock)
        watermark = asyncio.run(undoing)
    taken = "this store is not frozen: nothing was changed. To cancel a move, use the settings of the store that moved"
    if watermark is not None:
        taken = f"this store takes uploads again; stop every server of the other store. {told(watermark)}"
    say(taken, {"watermark": watermark}, as_json)


def _print(moved: Moved) -> None:
    media = moved.media
    if media is not None and media.lost:
        tell_lost(media)
        state = "the rows had moved before" if moved.earlier else "only media have moved"
        cure = ", or cancel it with --undo" if moved.frozen and not moved.earlier else ""
        goes_on = "" if moved.frozen else ". This store still takes uploads"
        typer.echo(f"{state}. Restore the lost files from a backup and run this again{cure}{goes_on}", err=True)
        return
    if moved.earlier:
        new = media.copied if media else 0
        left = f"{new:,} missing files are there now" if new else "nothing was left to do"
        cure = "" if media is None else ". Set UPONCE_STORAGE of every server before you start it"
        typer.echo(f"an earlier run has moved the store there; {left}{cure}")
        return
    rows = ", ".join(f"{count:,} {table.replace('_', ' ')}" for table, count in moved.rows.items())
    files = "" if media is None else f"; {media.present + media.copied:,} files"
    typer.echo(f"moved and compared: {rows}{files}. Start servers on the new store; this store takes no more uploads")
