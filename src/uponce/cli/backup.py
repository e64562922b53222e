"""`uponce backup` and `uponce restore`: one box, into a folder and back."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import typer

from uponce import __version__
from uponce.adapters.archive import Archive
from uponce.adapters.blobs.local import LocalBlobStore
from uponce.adapters.clock import RandomIds, SystemClock
from uponce.adapters.database.sqlite.snapshot import Snapshot, refuse_present, restore, take
from uponce.app.copy_media import PLACES, Copying, copy_media, forget_unnamed
from uponce.cli.fence import told
from uponce.cli.options import print_json
from uponce.cli.progress import Show, shown
from uponce.config import Settings, load
from uponce.core.errors import SettingRefused
from uponce.wiring import blob_store, opened, secret_box, secret_key_path, sqlite_path

_SHOWN = 10


def run_backup(folder: str, *, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    live = _file_of(settings)
    archive = Archive(Path(folder))
    archive.begin()
    with archive.held(), opened(settings) as backend, shown() as show, _media_of(archive) as store:
        take(live, archive.draft, lambda done, pages: show("copying the database", done, pages))
        made_at = int(SystemClock().now())
        with closing(Snapshot(archive.draft, live)) as snapshot:
            done = asyncio.run(
                copy_media(
                    snapshot,
                    backend.services.blobs,
                    store,
                    renew=snapshot.renew,
                    progress=lambda copying: _show_media(show, copying),
                )
            )
            key = None if settings.secret_key is not None else secret_key_path(settings).read_bytes()
            facts = {"uponce": __version__, "made_at": made_at, "assets": done.present + done.copied}
        archive.finish(facts, key)
        with closing(Snapshot(archive.database)) as snapshot:
            dropped = asyncio.run(forget_unnamed(snapshot, store))
    if as_json:
        print_json({**facts, "folder": str(archive.folder), **_as_data(done), "dropped": dropped})
    else:
        typer.echo(
            f"{archive.folder}: the database and {facts['assets']:,} assets, {done.copied:,} of them new "
            f"({done.bytes:,} bytes)" + (", and the secret key: keep it as safe as the server" if key else "")
        )
    if done.lost:
        tell_lost(done)
        raise typer.Exit(1)


def run_restore(folder: str, *, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    target = _file_of(settings)
    archive = Archive(Path(folder))
    archive.check()
    refuse_present(target)
    if settings.secret_key is None:
        archive.give_key(secret_key_path(settings))
    now = SystemClock().now()
    blobs = blob_store(settings)
    blobs.open_store()
    with closing(blobs), closing(Snapshot(archive.database)) as snapshot, shown() as show, _media_of(archive) as store:
        snapshot.check(secret_box(settings), now)
        done = asyncio.run(
            copy_media(snapshot, store, blobs, deep=True, progress=lambda copying: _show_media(show, copying))
        )
        mark = restore(
            archive.database,
            target,
            now,
            settings.limits.skew,
            lambda done, pages: show("copying the database", done, pages),
        )
    if as_json:
        print_json({**_as_data(done), "watermark": mark})
    else:
        typer.echo(
            f"restored {done.present + done.copied:,} assets; {told(mark)}. Keys that were revoked or rotated since "
            "the backup are as they were before: do it again"
        )
    if done.lost:
        tell_lost(done)
        raise typer.Exit(1)


def _file_of(settings: Settings) -> Path:
    if not settings.database_url.startswith("sqlite:"):
        raise SettingRefused(
            "`uponce backup` and `uponce restore` are for SQLite. For PostgreSQL use pg_dump or its provider's "
            "snapshots, and run `uponce fence` after restoring one."
        )
    return sqlite_path(settings.database_url)


@contextmanager
def _media_of(archive: Archive) -> Iterator[LocalBlobStore]:
    store = LocalBlobStore(archive.media, ids=RandomIds())
    store.open_store()
    with closing(store):
        yield store


def _show_media(show: Show, copying: Copying) -> None:
    done = f"{copying.copied:,} files, {copying.bytes:,} bytes"
    show("copying the media", copying.places, len(PLACES), done)


def _as_data(done: Copying) -> dict[str, Any]:
    return {"present": done.present, "copied": done.copied, "bytes": done.bytes, "lost": done.lost}


def tell_lost(done: Copying) -> None:
    for name, why in list(done.lost.items())[:_SHOWN]:
        typer.echo(f"lost: {name}: {why}", err=True)
    typer.echo(f"{len(done.lost):,} assets have lost their bytes; all others are complete", err=True)
