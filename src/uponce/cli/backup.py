"""`uponce backup` and `uponce restore`"""

import asyncio
from typing import Any

import typer

from uponce import __version__
from uponce.adapters.clock import SystemClock
from uponce.app.backup import BackedUp, back_up, restore
from uponce.app.copy_media import Copying
from uponce.app.ports import PLACES
from uponce.cli.fence import told
from uponce.cli.options import print_json
from uponce.cli.progress import Show, shown
from uponce.config import load
from uponce.wiring import archive_of, blob_store, opened, own_secrets

_SHOWN = 10


def run_backup(folder: str, *, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    archive = archive_of(settings, folder)
    with archive.writing(), opened(settings) as backend, shown() as show:
        done = asyncio.run(
            back_up(
                backend.services,
                backend.secrets,
                archive,
                __version__,
                on_pages=lambda pages, total: show("copying the database", pages, total),
                on_media=lambda copying: _show_media(show, copying),
            )
        )
    if as_json:
        before = None if done.before is None else str(done.before)
        rest = {"folder": str(archive.folder), **_as_data(done.media), "dropped": done.dropped, "before": before}
        print_json({**done.facts, **rest})
    else:
        _print(str(archive.folder), done)
    _tell_lost_and_exit(done.media)


def _print(folder: str, done: BackedUp) -> None:
    key_too = ", and the secret key: keep it as safe as the server" if done.has_key else ""
    typer.echo(
        f"{folder}: the database and {done.facts['assets']:,} assets, {done.media.copied:,} of them new "
        f"({done.media.bytes:,} bytes){key_too}"
    )
    if done.before is not None:
        typer.echo(f"the database of the backup before is {done.before}")


def run_restore(folder: str, *, data: str | None, as_json: bool) -> None:
    settings, now = load(data=data), SystemClock().now()
    archive = archive_of(settings, folder)
    with archive.reading(own_secrets(settings), now) as snapshot, shown() as show:
        done, mark = asyncio.run(
            restore(
                archive,
                snapshot,
                blob_store(settings),
                now,
                settings.limits.skew,
                on_pages=lambda pages, total: show("copying the database", pages, total),
                on_media=lambda copying: _show_media(show, copying),
            )
        )
    if as_json:
        print_json({**_as_data(done), "watermark": mark})
    else:
        typer.echo(
            f"restored {done.present + done.copied:,} assets; {told(mark)}. Restoring undoes key revocations and "
            "rotations made since the backup: repeat them"
        )
    _tell_lost_and_exit(done)


def _show_media(show: Show, copying: Copying) -> None:
    done = f"{copying.copied:,} files, {copying.bytes:,} bytes"
    show("copying the media", copying.places, len(PLACES), done)


def _as_data(done: Copying) -> dict[str, Any]:
    return {"present": done.present, "copied": done.copied, "bytes": done.bytes, "lost": done.lost}


def _tell_lost_and_exit(done: Copying) -> None:
    if done.lost:
        tell_lost(done)
        raise typer.Exit(1)


def tell_lost(done: Copying) -> None:
    for name, why in list(done.lost.items())[:_SHOWN]:
        typer.echo(f"lost: {name}: {why}", err=True)
    typer.echo(f"{len(done.lost):,} assets have lost their bytes; all other assets are complete", err=True)
