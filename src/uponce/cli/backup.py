"""`uponce backup`"""

import asyncio
from pathlib import Path
from typing import Any

import typer

from uponce import __version__
from uponce.app.backup import BackedUp, back_up
from uponce.app.check import FROZEN
from uponce.app.copy_media import Copying
from uponce.app.owner import check_owner
from uponce.app.ports import PLACES
from uponce.app.services import Services
from uponce.cli.options import Data, Json, Show, filling, progress_bar, readable, say, warn
from uponce.config import load
from uponce.core.errors import SettingRefused
from uponce.wiring import archive_of, opened

_SHOWN = 10
_CURE = (
    "Repeat the backup first: bytes that cannot be read now may be readable then. If assets stay lost, upload them "
    "again, or delete them: until then each backup ends with exit code 1"
)


def run(
    folder: str = typer.Argument(metavar="FOLDER", help="A new or empty folder, or the folder of an earlier backup."),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Copy the database, the media and the secret key into a folder.

    Files that an earlier backup has in that folder are not copied again. It is safe beside a running server. It needs
    SQLite; PostgreSQL has its own tools. A frozen database takes no uploads: its backup is made too, with exit code 1.
    """
    settings = load(data=data)
    archive = archive_of(settings, folder)
    with filling(folder), archive.writing(), opened(settings) as backend, progress_bar() as show:

        async def work() -> tuple[BackedUp, bool, str | None]:
            done = await back_up(
                backend.services,
                backend.secrets,
                archive,
                __version__,
                on_pages=lambda pages, total: show("copying the database", pages, total),
                on_media=lambda copying: show_media(show, copying),
            )
            doubt = await _doubt(backend.services) if done.media.lost else None
            return done, await backend.services.database.frozen(), doubt

        done, is_frozen, doubt = asyncio.run(work())
    before = None if done.before is None else readable(done.before)
    rest = {"folder": readable(archive.folder), **as_data(done.media), "dropped": done.dropped, "before": before}
    say(_text(archive.folder, done), {**done.facts, **rest}, as_json)
    if is_frozen:
        warn(f"this is a backup of a database that takes no uploads. {FROZEN}")
    tell_lost_and_exit(done.media, _CURE if doubt is None else f"{doubt} Then repeat the backup.")
    if is_frozen:
        raise typer.Exit(1)


async def _doubt(services: Services) -> str | None:
    """Return why the storage, which lacks files, may be another database's, else None."""
    try:
        await check_owner(services.database, services.blobs)
    except SettingRefused as doubt:
        return str(doubt)
    return None


def _text(folder: Path, done: BackedUp) -> str:
    key_too = ", and the secret key: keep it as safe as the server" if done.has_key else ""
    before = "" if done.before is None else f"\nthe database of the backup before is {done.before}"
    return (
        f"{folder}: the database and {done.facts['assets']:,} assets, {done.media.copied:,} of them new "
        f"({done.media.bytes:,} bytes){key_too}{before}"
    )


def show_media(show: Show, copying: Copying) -> None:
    done = f"{copying.copied:,} files, {copying.bytes:,} bytes"
    show("copying the media", copying.places, len(PLACES), done)


def as_data(done: Copying) -> dict[str, Any]:
    return {"present": done.present, "copied": done.copied, "bytes": done.bytes, "lost": done.lost}


def tell_lost_and_exit(done: Copying, cure: str) -> None:
    if done.lost:
        tell_lost(done)
        typer.echo(cure, err=True)
        raise typer.Exit(1)


def tell_lost(done: Copying) -> None:
    for name, why in list(done.lost.items())[:_SHOWN]:
        typer.echo(f"lost: {name}: {why}", err=True)
    typer.echo(
        f"{len(done.lost):,} assets have lost their bytes, or cannot be read now; all other assets are complete",
        err=True,
    )
