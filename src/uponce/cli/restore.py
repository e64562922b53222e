"""`uponce restore`"""

import asyncio

import typer

from uponce.adapters.system import RandomIds, SystemClock
from uponce.app.backup import restore
from uponce.cli.backup import as_data, show_media, tell_lost_and_exit
from uponce.cli.fence import told
from uponce.cli.options import Data, Json, filling, progress_bar, say, warn
from uponce.config import load
from uponce.wiring import archive_of, blob_store, own_secrets

_CURE = (
    "The restore has ended, so do not repeat it. Start the server. Then upload these assets again, or delete them: "
    "until then each backup ends with exit code 1. `uponce fsck` names them"
)

_RENEW = (
    "no secret key was checked. Run `uponce keys renew` with the same settings before you start the server: it names "
    "the keys whose secrets cannot be read, and --yes replaces these secrets"
)


def run(
    folder: str = typer.Argument(metavar="FOLDER", help="Folder that `uponce backup` wrote."),
    reuse_storage: bool = typer.Option(
        False,
        "--reuse-storage",
        help="The storage is that of the server that lost its database. Files that the backup does not name stay there "
        "for UPONCE_GRACE_SECONDS.",
    ),
    lost_key: bool = typer.Option(
        False,
        "--lost-key",
        help="No copy of the secret key exists. Restore without it, and run `uponce keys renew` before the server "
        "starts.",
    ),
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Restore a data folder from a backup.

    It verifies every file and refuses every signature that may have been used since the backup. It overwrites nothing.
    If it is interrupted, run it again. If the backup lacks bytes of assets, everything else is restored, with exit code
    1.
    """
    settings, clock = load(data=data), SystemClock()
    archive = archive_of(settings, folder)
    with (
        filling(f"{settings.storage_url} or of {settings.data_dir}"),
        archive.reading(own_secrets(settings), clock.now(), lost_key=lost_key) as snapshot,
        progress_bar() as show,
    ):
        done, mark, surplus = asyncio.run(
            restore(
                archive,
                snapshot,
                blob_store(settings),
                clock,
                settings.limits.skew,
                RandomIds().hex(32),
                reuses_storage=reuse_storage,
                on_pages=lambda pages, total: show("copying the database", pages, total),
                on_media=lambda copying: show_media(show, copying),
            )
        )
    if surplus:
        warn(
            f"the storage has {surplus:,} files that the backup does not name, such as uploads since the backup. A "
            f"server deletes them {settings.grace_seconds:,} seconds after this restore (UPONCE_GRACE_SECONDS). Copy "
            "the storage first if you may find the lost database."
        )
    if lost_key:
        warn(_RENEW)
    say(
        f"restored {done.present + done.copied:,} assets; {told(mark)}. Restoring undoes key revocations, key "
        "rotations and deletions made since the backup: repeat them. Deleted assets are back, and public ones are "
        "public again",
        {**as_data(done), "watermark": mark, "unnamed": surplus},
        as_json,
    )
    tell_lost_and_exit(done, _CURE)
