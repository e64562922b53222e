"""The composition root: settings → adapters → services. Drivers are imported when they are chosen."""

import logging
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from msgspec.structs import replace

from uponce import __version__
from uponce.adapters.files import blobs_in, exists, make_folder
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.media.sniff import read_ordinary
from uponce.adapters.notifier import Notifier
from uponce.adapters.secretbox import AesSecretBox, key_from_text
from uponce.adapters.spool.locks import LOCKS
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.system import RandomIds, SystemClock
from uponce.adapters.upstream import Times
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.outbox import Work
from uponce.app.ports import LocationOf, Presigner, PutGroup
from uponce.app.relaying.reconcile import reconcile
from uponce.app.services import Metrics, Services
from uponce.config import Settings, masked
from uponce.config.rules import STORES, either
from uponce.core.errors import NotFound, SettingRefused
from uponce.web.cloudinary.notifications import NOTIFY, Notifications

if TYPE_CHECKING:
    from uponce.adapters.archive import Archive
    from uponce.adapters.database.postgres import PostgresDatabase
    from uponce.adapters.database.sqlite import SqliteDatabase
    from uponce.adapters.metrics import PrometheusMetrics

log = logging.getLogger("uponce")


@dataclass(frozen=True, slots=True)
class Backend:
    """The adapters that the settings choose, and the services made from them. Nothing is open yet."""

    settings: Settings
    database: "SqliteDatabase | PostgresDatabase"
    blobs: Blobs
    decoders: DecoderPool
    secrets: AesSecretBox
    upstream: HttpUpstream
    notifier: Notifier
    works: Mapping[str, Work]
    services: Services


def build(settings: Settings, metrics: Metrics | None = None, secrets: AesSecretBox | None = None) -> Backend:
    """Choose the adapters, and return them. Raise SettingRefused for a URL that names no adapter."""
    clock, ids = SystemClock(), RandomIds()
    blobs = blob_store(settings)
    _check_locks(settings)
    decoders = DecoderPool(
        settings.limits,
        [str(blobs.folder)],
        workers=settings.decoders,
        job_seconds=settings.decoder_seconds,
        grant_seconds=settings.decoder_seconds_per_grant,
        memory_bytes=settings.decoder_memory,
    )
    secrets = secrets or secret_box(settings)
    database = _database(settings, clock, secrets)
    upstream = HttpUpstream(Times(reply=settings.limits.relay_answer), settings.relay_connections)
    notifier = Notifier(settings.private_receivers)
    by_name = works(settings, notifier)
    services = Services(
        database=database,
        blobs=blobs,
        inspector=decoders,
        read_ordinary=read_ordinary,
        clock=clock,
        ids=ids,
        upstream=upstream,
        limits=settings.limits,
        put_group=group_putter(database, blobs, alone=settings.workers == 1),
        hold_small=blobs.hold_small,
        presigner=_presigner(settings, blobs),
        location_of=_location_of(settings, blobs),
        metrics=metrics or Metrics(),
        inspects=settings.relay_inspect == "on",
        after_commit=[work.effect_of for work in by_name.values()],
    )
    return Backend(settings, database, blobs, decoders, secrets, upstream, notifier, by_name, services)


def group_putter(database: "SqliteDatabase | PostgresDatabase", blobs: Blobs, *, alone: bool) -> PutGroup | None:
    """Return what puts groups of small blobs. If one process is `alone`, it syncs them while a transaction runs.

    Other processes would wait for that sync too, because the transaction holds the lock of the database.
    """
    late = blobs.late_group if alone else None
    if late is not None and database.seal_before_commits(late):
        return late.put
    return blobs.put_group


def build_metrics(settings: Settings) -> "PrometheusMetrics | None":
    """Return the metrics, or None without UPONCE_METRICS_TOKEN, or if no folder can hold them."""
    if not settings.metrics_token:
        return None
    from uponce.adapters.metrics import PrometheusMetrics, take_place

    try:
        place = take_place() if settings.workers > 1 else None
    except OSError as error:
        log.error("this process counts no metrics: %s. Make room in the folder for temporary files", error)
        return None
    return PrometheusMetrics(__version__, settings.server_name, place)


@contextmanager
def metrics_of_workers(settings: Settings) -> Iterator[None]:
    """Let all processes that start inside count together."""
    if not settings.metrics_token or settings.workers == 1:
        yield
        return
    from uponce.adapters.metrics import shared_folder

    with shared_folder():
        yield


def works(settings: Settings, notifier: Notifier) -> Mapping[str, Work]:
    """Return each kind of work after a commit, by the name of its effects."""
    notifications = Notifications(notifier, settings.base_url, settings.notification_url)
    return {"relay": Work(reconcile), NOTIFY: Work(notifications.send, notifications.effect_of)}


def _database(settings: Settings, clock: SystemClock, secrets: AesSecretBox) -> "SqliteDatabase | PostgresDatabase":
    match _scheme(settings.database_url):
        case "sqlite":
            from uponce.adapters.database.sqlite import SqliteDatabase

            path = sqlite_path(settings.database_url)
            return SqliteDatabase(path, clock=clock, secrets=secrets)
        case "postgresql" | "postgres":
            from uponce.adapters.database.postgres import PostgresDatabase

            return PostgresDatabase(
                settings.database_url,
                secrets=secrets,
                connections=settings.database_connections,
                seconds=settings.database_seconds,
                fence_skew=settings.limits.skew if settings.database_failover == "fence" else None,
            )
        case _:
            raise SettingRefused(
                f"UPONCE_DATABASE={masked('database', settings.database_url)} is not a database that uponce knows. Use "
                "sqlite:////path/to/file or postgresql://user:password@host/database."
            )


def missing(settings: Settings) -> str | None:
    """Return the place that has no database yet, or None if it has one."""
    match _scheme(settings.database_url):
        case "sqlite":
            return None if exists(sqlite_path(settings.database_url)) else str(settings.data_dir)
        case "postgresql" | "postgres":
            from uponce.adapters.database.postgres import DatabaseAddress, is_set_up

            address = DatabaseAddress(settings.database_url, settings.database_seconds)
            return None if is_set_up(address) else address.shown
        case _:  # `build` refuses it
            return None


def _scheme(url: str) -> str:
    """Return the text before the first colon, or "" without a colon. `urlsplit` fails for passwords with a bracket."""
    return url.rpartition(":")[0] and url.partition(":")[0]


def sqlite_path(url: str) -> Path:
    """Return the path in `sqlite:///relative/path` or `sqlite:////absolute/path`. Raise SettingRefused without one."""
    if url.removeprefix("sqlite:///") in (url, "", ":memory:"):
        raise SettingRefused(
            f"UPONCE_DATABASE={masked('database', url)} names no file. A database in memory would forget which "
            "signatures are spent. Use sqlite:////path/to/file."
        )
    return Path(url.removeprefix("sqlite:///"))


def blob_store(settings: Settings) -> Blobs:
    """Return the store, not open yet. Raise SettingRefused for a URL that names no store."""
    url, ids = settings.storage_url, RandomIds()
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket that is never closed
        parts = urlsplit("")
    match parts:
        # The folder has what `urlsplit` takes for a query or fragment.
        case ("file", "", path, _, _) if path.startswith("/") and (folder := settings.storage_folder):
            from uponce.adapters.store.local import LocalBlobs

            return LocalBlobs(folder, ids=ids, pack_bytes=settings.pack_bytes)
        case ("s3" | "gs" | "az", place, _, _, _) if re.fullmatch("[^:@]+", place):  # without credentials
            from uponce.adapters.store.bucket import Bucket
            from uponce.adapters.store.objects import BucketBlobs

            seconds, uploads = settings.storage_seconds, settings.storage_uploads
            return BucketBlobs(
                Bucket(url, seconds), _spool(settings.data_dir), ids=ids, seconds=seconds, uploads=uploads
            )
        case _:
            raise SettingRefused(
                f"UPONCE_STORAGE={masked('storage', url)} is not supported. Use {either(STORES)}. Credentials "
                "come from the environment."
            )


def _check_locks(settings: Settings) -> None:
    """Raise SettingRefused if several processes would write one folder, and the system has no locks between them."""
    if settings.workers > 1 and settings.storage_folder and not LOCKS.across_processes:
        raise SettingRefused(
            f"UPONCE_WORKERS is {settings.workers}, and this system ({sys.platform}) has no file locks that several "
            "processes could share. Set UPONCE_WORKERS=1, or run uponce on Linux."
        )


def _presigner(settings: Settings, blobs: Blobs) -> Presigner | None:
    """Return the presigner of the store, or None. Raise SettingRefused if a redirect is set, and no URLs exist."""
    if not settings.storage_redirect:
        return None
    presigner = blobs.presigner(settings.storage_redirect)
    if presigner is None:
        raise SettingRefused(
            f"UPONCE_STORAGE_REDIRECT={settings.storage_redirect} needs an object store, but UPONCE_STORAGE is "
            f"{masked('storage', settings.storage_url)}. Remove this setting; uponce then sends the bytes itself."
        )
    return presigner


def _location_of(settings: Settings, blobs: Blobs) -> LocationOf | None:
    """Return what names blobs to the server in front, or None. Raise SettingRefused if that server has no folder."""
    if not settings.storage_accel:
        return None
    location_of = blobs.location_of(settings.storage_accel)
    if location_of is None:
        raise SettingRefused(
            f"UPONCE_STORAGE_ACCEL={settings.storage_accel} needs a folder that nginx can read, but UPONCE_STORAGE is "
            f"{masked('storage', settings.storage_url)}. Use UPONCE_STORAGE_REDIRECT, or remove both; uponce then "
            "sends the bytes itself."
        )
    return location_of


def secret_key_path(settings: Settings) -> Path:
    return settings.data_dir / "secret.key"


def secret_box(settings: Settings) -> AesSecretBox:
    """Return what encrypts API secrets. The key is UPONCE_SECRET_KEY, or in a file, which is not read or made yet."""
    return AesSecretBox(
        secret_key_path(settings) if settings.secret_key is None else key_from_text(settings.secret_key)
    )


def own_secrets(settings: Settings) -> AesSecretBox | None:
    """Return what encrypts API secrets if the settings have the secret key. Return None if a file has it."""
    return None if settings.secret_key is None else secret_box(settings)


def archive_of(settings: Settings, folder: str) -> "Archive":
    """Return the folder of a backup of this server. Raise SettingRefused if the server's database is not SQLite."""
    from uponce.adapters.archive import Archive

    if not settings.database_url.startswith("sqlite:"):
        raise SettingRefused(
            "`uponce backup` and `uponce restore` are for SQLite. For PostgreSQL use pg_dump or its provider's "
            "snapshots, and run `uponce fence` after restoring one. Back up the secret key too."
        )
    return Archive(
        Path(folder),
        database=sqlite_path(settings.database_url),
        secret_key=secret_key_path(settings) if settings.secret_key is None else None,
    )


@contextmanager
def opened(
    settings: Settings, *, create: bool = False, upgrade: bool = False, secrets: AesSecretBox | None = None
) -> Iterator[Backend]:
    """Open the database and the blob store for a command. The decoders do not start.

    Raise NotFound if there is no database, unless `create`: a mistyped folder must not become an empty server. Raise
    SettingRefused for the database of an earlier release, unless `upgrade`: a command that only looks must not be the
    first to change it.
    """
    place = None if create else missing(settings)
    if place is not None:
        raise NotFound(
            f"There is no uponce in {place}. `uponce serve --data {settings.data_dir}` makes one. If the server uses "
            "another folder, name it with --data or UPONCE_DATA."
        )
    backend = build(settings, secrets=secrets)
    with ExitStack() as stack:
        stack.callback(backend.blobs.close)
        stack.callback(backend.database.close)
        backend.database.open(upgrade=upgrade)
        backend.blobs.open_store()
        yield backend


@contextmanager
def opened_target(settings: Settings, database: str, storage: str | None) -> Iterator[Backend]:
    """Open another store, to move into. Make it if needed, with this secret key and a separate spool."""
    target = replace(
        settings,
        data=str(_moving(settings)),
        database=database,
        storage=storage or settings.storage_url,
        storage_redirect=0,
        storage_accel="",
    )
    with opened(target, create=True, upgrade=True, secrets=secret_box(settings)) as backend:
        yield backend


@contextmanager
def moving(settings: Settings) -> Iterator[None]:
    """Let no other `uponce migrate-store` run from this data folder: one run would delete blobs of the other.

    Delete the spooled files that an interrupted run to a bucket left. Raise SettingRefused while another one runs.
    """
    from uponce.adapters.database.sqlite.file import locked, make_private

    lock = _moving(settings) / "lock"
    make_folder(lock.parent)
    make_private(lock)
    busy = f"Another `uponce migrate-store` is running from the data folder {settings.data_dir}. Wait until it ends."
    with locked(lock, busy):
        spool = _spool(_moving(settings))
        for blob in blobs_in(spool) if exists(spool) else ():
            with suppress(OSError):  # the next run tries again
                (spool / blob.key).unlink()
        yield


def _moving(settings: Settings) -> Path:
    return settings.data_dir / "moving"


def _spool(data: Path) -> Path:
    """Return the folder where files for a bucket arrive."""
    return data / "spool"
