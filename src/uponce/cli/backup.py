"""`uponce backup` and `uponce restore`: one box, into a folder and back."""

import asyncio
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import typer

from uponce import __version__
from uponce.adapters.archive import Archive
from uponce.adapters.clock import RandomIds, SystemClock
from uponce.adapters.database.sqlite.snapshot import Snapshot, refuse_present, restore, take
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import local_blobs
from uponce.app.copy_media import Copying, copy_media, forget_unnamed
from uponce.app.ports import PLACES
from uponce.cli.fence import told
from uponce.cli.options import print_json
from uponce.cli.progress import Show, shown
from uponce.config import Settings, load
from uponce.core.errors import SettingRefused
from uponce.wiring import Backend, blob_store, opened, secret_box, secret_key_path, sqlite_path

_SHOWN = 10


def run_backup(folder: str, *, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    live = _file_of(settings)
    archive = Archive(Path(folder))
    archive.begin()
    with archive.held(), opened(settings) as backend, shown() as show, _media_of(archive) as store:
        key = asyncio.run(_readable_key(backend))
        if key is not None:
            archive.refuse_other_key(key, backend.secrets.shown)
        take(live, archive.draft, lambda done, pages: show("copying the database", done, pages))
        made_at = int(SystemClock().now())
        with closing(Snapshot(archive.draft, live)) as snapshot:
            _refuse_other_server(archive, snapshot)
            done = asyncio.run(
                copy_media(
                    snapshot,
                    backend.services.blobs,
                    store,
                    renew=snapshot.renew,
                    progress=lambda copying: _show_media(show, copying),
                )
            )
            facts = {"uponce": __version__, "made_at": made_at, "assets": done.present + done.copied}
        kept = archive.finish(facts, key if settings.secret_key is None else None)
        with closing(Snapshot(archive.database)) as snapshot:
            dropped = asyncio.run(forget_unnamed(snapshot, store))
    before = None if kept is None else str(kept)
    if as_json:
        print_json({**facts, "folder": str(archive.folder), **_as_data(done), "dropped": dropped, "before": before})
    else:
        key_too = key is not None and settings.secret_key is None
        typer.echo(
            f"{archive.folder}: the database and {facts['assets']:,} assets, {done.copied:,} of them new "
            f"({done.bytes:,} bytes)" + (", and the secret key: keep it as safe as the server" if key_too else "")
        )
        if before is not None:
            typer.echo(f"the database of the backup before is {before}")
    if done.lost:
        tell_lost(done)
        raise typer.Exit(1)


async def _readable_key(backend: Backend) -> bytes | None:
    """Return the secret key, or None without API keys. Raise SettingRefused if it does not read all their secrets:
    such a backup could not be restored."""
    unreadable = await backend.database.unreadable_keys()
    if unreadable:
        names, reason = ", ".join(unreadable), next(iter(unreadable.values()))
        raise SettingRefused(f"Nothing is backed up: the secrets of the API keys {names} cannot be read. {reason}")
    return backend.secrets.key() if await backend.database.list_keys() else None


def _refuse_other_server(archive: Archive, snapshot: Snapshot) -> None:
    """Raise SettingRefused if the backup holds API keys that the server does not have: it is another server's."""
    if not archive.database.exists():
        return
    with closing(Snapshot(archive.database)) as before:
        missing = before.api_keys() - snapshot.api_keys()
    if missing:
        raise SettingRefused(
            f"{archive.folder} is the backup of another database: this server does not have its API keys "
            f"{', '.join(sorted(missing))}. Nothing was replaced. If this server lost its database, restore the "
            "backup; otherwise name another folder."
        )


def run_restore(folder: str, *, data: str | None, as_json: bool) -> None:
    settings = load(data=data)
    target = _file_of(settings)
    archive = Archive(Path(folder))
    archive.check()
    refuse_present(target)
    now = SystemClock().now()
    with closing(Snapshot(archive.database)) as snapshot:
        own = settings.secret_key is not None
        path = secret_key_path(settings)
        snapshot.check(secret_box(settings) if own else AesSecretBox(*archive.key_for(path)), now)
        if not own:
            archive.give_key(path)
        blobs = blob_store(settings)
        blobs.open_store()
        with closing(blobs), shown() as show, _media_of(archive) as store:
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
            f"restored {done.present + done.copied:,} assets; {told(mark)}. Restoring undoes key revocations and "
            "rotations made since the backup: repeat them"
        )
    if done.lost:
        tell_lost(done)
        raise typer.Exit(1)


def _file_of(settings: Settings) -> Path:
    if not settings.database_url.startswith("sqlite:"):
        raise SettingRefused(
            "`uponce backup` and `uponce restore` are for SQLite. For PostgreSQL use pg_dump or its provider's "
            "snapshots, and run `uponce fence` after restoring one. Back up the secret key too."
        )
    return sqlite_path(settings.database_url)


@contextmanager
def _media_of(archive: Archive) -> Iterator[Blobs]:
    store = local_blobs(archive.media, ids=RandomIds())
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
    typer.echo(f"{len(done.lost):,} assets have lost their bytes; all other assets are complete", err=True)
