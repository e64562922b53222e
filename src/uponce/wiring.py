"""The composition root: settings → adapters → services. Drivers are imported when they are chosen."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from uponce import __version__
from uponce.adapters.clock import RandomIds, SystemClock
from uponce.adapters.draining import draining
from uponce.adapters.system import LOCKS
from uponce.app.ports import Metrics, NoMetrics
from uponce.app.services import Services
from uponce.app.sweep import RESTFUL, sweep
from uponce.config import Settings
from uponce.core.errors import NotFound, SettingRefused, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from uponce.adapters.blobs.local import LocalBlobStore
    from uponce.adapters.blobs.objects import ObjectBlobStore
    from uponce.adapters.database.postgres import PostgresDatabase
    from uponce.adapters.database.sqlite import SqliteDatabase
    from uponce.adapters.media.pool import DecoderPool
    from uponce.adapters.metrics.counts import PrometheusMetrics
    from uponce.adapters.secretbox import AesSecretBox
    from uponce.app.ports import FrontServer, Presigner

log = logging.getLogger("uponce")

DAY = 86400


@dataclass(frozen=True, slots=True)
class Backend:
    """The adapters that the settings choose, and the services made of them. Nothing is open yet."""

    settings: Settings
    database: "SqliteDatabase | PostgresDatabase"
    blobs: "LocalBlobStore | ObjectBlobStore"
    decoders: "DecoderPool"
    services: Services


def build(settings: Settings, metrics: Metrics | None = None) -> Backend:
    """Choose the adapters. SettingRefused for a URL that names none."""
    from uponce.adapters.media.pool import DecoderPool

    clock, ids = SystemClock(), RandomIds()
    blobs = blob_store(settings)
    _check_locks(settings)
    decoders = DecoderPool(
        settings.limits,
        [str(blobs.staging)],
        workers=settings.decoders,
        job_seconds=settings.decoder_seconds,
        memory_bytes=settings.decoder_memory,
    )
    database = _database(settings, clock)
    services = Services(
        database=database,
        blobs=blobs,
        inspector=decoders,
        clock=clock,
        ids=ids,
        limits=settings.limits,
        presigner=_presigner(settings, blobs),
        front=_front(settings, blobs),
        metrics=metrics or NoMetrics(),
    )
    return Backend(settings, database, blobs, decoders, services)


def build_metrics(settings: Settings) -> "PrometheusMetrics | None":
    """None when nobody may read them, and when there is no room for them: a server without metrics still serves."""
    if not settings.metrics_token:
        return None
    from uponce.adapters.metrics.counts import PrometheusMetrics
    from uponce.adapters.metrics.shared import take_place

    try:
        place = take_place() if settings.workers > 1 else None
    except OSError as error:
        log.error("this process has no metrics: %s", error)
        return None
    return PrometheusMetrics(__version__, settings.server_name, place)


@contextmanager
def metrics_of_workers(settings: Settings) -> "Iterator[None]":
    """Processes that are started meanwhile count together."""
    if not settings.metrics_token or settings.workers == 1:
        yield
        return
    from uponce.adapters.metrics.shared import shared_folder

    with shared_folder():
        yield


def _database(settings: Settings, clock: SystemClock) -> "SqliteDatabase | PostgresDatabase":
    match urlsplit(settings.database_url).scheme:
        case "sqlite":
            from uponce.adapters.database.sqlite import SqliteDatabase

            path = sqlite_path(settings.database_url)
            return SqliteDatabase(path, clock=clock, secrets=secret_box(settings))
        case "postgresql" | "postgres":
            from uponce.adapters.database.postgres import PostgresDatabase

            return PostgresDatabase(
                settings.database_url,
                secrets=secret_box(settings),
                connections=settings.database_connections,
                seconds=settings.database_seconds,
                fence_skew=settings.limits.skew if settings.database_failover == "fence" else None,
            )
        case scheme:
            raise SettingRefused(
                f"UPONCE_DATABASE: there is no database {scheme!r}. Use sqlite:////path/to/file, or "
                "postgresql://user:password@host/database."
            )


def _missing(settings: Settings) -> str | None:
    """Where a database was looked for in vain; None when there is one."""
    match urlsplit(settings.database_url).scheme:
        case "sqlite":
            return None if sqlite_path(settings.database_url).exists() else str(settings.data_dir)
        case "postgresql" | "postgres":
            from uponce.adapters.database.postgres import Address, is_set_up

            address = Address(settings.database_url, settings.database_seconds)
            return None if is_set_up(address) else address.shown
        case _:  # `build` refuses it
            return None


def sqlite_path(url: str) -> Path:
    """`sqlite:///relative/path` or `sqlite:////absolute/path`."""
    if url.removeprefix("sqlite:///") in (url, "", ":memory:"):
        raise SettingRefused(
            f"UPONCE_DATABASE={url} names no file. A memory database forgets spent signatures; use "
            "sqlite:////path/to/file."
        )
    return Path(url.removeprefix("sqlite:///"))


def blob_store(settings: Settings) -> "LocalBlobStore | ObjectBlobStore":
    """Not open yet. SettingRefused for a URL that names none."""
    url, ids = settings.storage_url, RandomIds()
    match urlsplit(url):
        case ("file", "", path, _, _) if path.startswith("/"):
            from uponce.adapters.blobs.local import LocalBlobStore

            return LocalBlobStore(Path(path), ids=ids)
        case ("s3" | "gs" | "az", place, _, _, _) if place:
            from uponce.adapters.blobs.bucket import Bucket
            from uponce.adapters.blobs.objects import ObjectBlobStore

            seconds = settings.storage_seconds
            return ObjectBlobStore(Bucket(url, seconds), settings.data_dir / "staging", ids=ids, seconds=seconds)
        case _:
            raise SettingRefused(
                f"UPONCE_STORAGE={url} is not supported. Use file:///path/to/folder, s3://bucket/prefix, "
                "gs://bucket/prefix or az://container/prefix."
            )


def _check_locks(settings: Settings) -> None:
    """SettingRefused when several processes would write one folder, and the system has no locks between them."""
    if settings.workers > 1 and settings.storage_url.startswith("file:") and not LOCKS.across_processes:
        raise SettingRefused(
            f"UPONCE_WORKERS is {settings.workers}, and this system ({sys.platform}) has no file locks that several "
            "processes could share. Set UPONCE_WORKERS=1, or run uponce on Linux."
        )


def _presigner(settings: Settings, blobs: "LocalBlobStore | ObjectBlobStore") -> "Presigner | None":
    """SettingRefused when delivery is to redirect to a store that has no URLs."""
    if not settings.storage_redirect:
        return None
    from uponce.adapters.blobs.objects import ObjectBlobStore, Presigned

    if not isinstance(blobs, ObjectBlobStore):
        raise SettingRefused(
            f"UPONCE_STORAGE_REDIRECT={settings.storage_redirect} needs an object store, and UPONCE_STORAGE is "
            f"{settings.storage_url}. Leave it away: uponce sends the bytes itself."
        )
    return Presigned(blobs, settings.storage_redirect)


def _front(settings: Settings, blobs: "LocalBlobStore | ObjectBlobStore") -> "FrontServer | None":
    """SettingRefused when there is no folder that a web server could read."""
    if not settings.storage_accel:
        return None
    from uponce.adapters.blobs.local import InternalLocation, LocalBlobStore

    if not isinstance(blobs, LocalBlobStore):
        raise SettingRefused(
            f"UPONCE_STORAGE_ACCEL={settings.storage_accel} needs a folder that nginx can read, and UPONCE_STORAGE is "
            f"{settings.storage_url}. Use UPONCE_STORAGE_REDIRECT, or leave both away: uponce sends the bytes itself."
        )
    return InternalLocation(settings.storage_accel)


def secret_key_path(settings: Settings) -> Path:
    return settings.data_dir / "secret.key"


def secret_box(settings: Settings) -> "AesSecretBox":
    from uponce.adapters.secretbox import AesSecretBox, key_from_text, load_or_create_key

    if settings.secret_key is not None:
        return AesSecretBox(key_from_text(settings.secret_key))
    return AesSecretBox(load_or_create_key(secret_key_path(settings)))


@contextmanager
def opened(settings: Settings, *, create: bool = False) -> "Iterator[Backend]":
    """Database and blob store, open; the decoders stay asleep. For the commands that are no server.

    NotFound when there is no database yet, unless `create`: a mistyped folder shall not become an empty server.
    """
    missing = None if create else _missing(settings)
    if missing is not None:
        raise NotFound(f"There is no uponce in {missing}. `uponce serve --data {settings.data_dir}` makes one.")
    backend = build(settings)
    backend.database.open()
    try:
        backend.blobs.open_store()
        yield backend
    finally:
        backend.blobs.close()
        backend.database.close()


@contextmanager
def opened_target(settings: Settings, database: str, storage: str | None) -> "Iterator[Backend]":
    """Another store, into which the present one moves: made if need be, with the same secret key.

    It stages uploads apart from servers that run here.
    """
    secret_key = settings.secret_key
    if secret_key is None:
        secret_box(settings)  # which checks the file
        secret_key = secret_key_path(settings).read_bytes().hex()
    target = replace(
        settings,
        data=str(settings.data_dir / "moving"),
        database=database,
        storage=storage or settings.storage_url,
        storage_redirect=0,
        storage_accel="",
        secret_key=secret_key,
    )
    with opened(target, create=True) as backend:
        yield backend


def lifespan(backend: Backend) -> Callable[[Any], Any]:
    """Everything a server needs, for as long as it runs."""

    @asynccontextmanager
    async def run(_: object) -> AsyncIterator[dict[str, Any]]:
        backend.database.open()
        try:
            backend.blobs.open_store()
            await backend.decoders.start()
            housekeeping = asyncio.create_task(_keep_house(backend))
            try:
                with draining(backend.settings.drain_seconds) as is_draining:
                    yield {"draining": is_draining}
            finally:
                housekeeping.cancel()
                with suppress(asyncio.CancelledError):
                    await housekeeping
                await backend.decoders.close()
        finally:
            backend.blobs.close()
            backend.database.close()

    return run


async def _keep_house(backend: Backend) -> None:
    """Purge and sweep, again and again; a failure waits for the next round."""
    settings = backend.settings
    while True:
        await asyncio.sleep(settings.sweep_seconds)
        try:
            await sweep(
                backend.services,
                grace_seconds=settings.grace_seconds,
                audit_seconds=settings.audit_days * DAY,
                rest=RESTFUL,
            )
        except Unavailable as error:
            log.error("the sweep failed and will be tried again: %s %s", error.message, error.detail)
