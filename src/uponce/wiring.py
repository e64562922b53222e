"""The composition root: settings → adapters → services. Drivers are imported when they are chosen."""

import asyncio
import logging
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from msgspec.structs import replace

from uponce import __version__
from uponce.adapters.clock import RandomIds, SystemClock
from uponce.adapters.draining import draining
from uponce.adapters.media.pool import DecoderPool
from uponce.adapters.notifier import Notifier
from uponce.adapters.secretbox import AesSecretBox, key_from_text
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.system import LOCKS
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.outbox import Work, run_due
from uponce.app.ports import FrontServer, Metrics, NoMetrics, Presigner
from uponce.app.relaying.reconcile import reconcile
from uponce.app.services import Services
from uponce.app.sweep import RESTFUL, sweep
from uponce.app.tidy_playground import Kept, tidy_playground
from uponce.app.unbroken import finish_unbroken
from uponce.config import Settings
from uponce.core.errors import NotFound, SettingRefused, UponceError
from uponce.web.cloudinary.notifications import NOTIFY, Notifications

if TYPE_CHECKING:
    from uponce.adapters.archive import Archive
    from uponce.adapters.database.postgres import PostgresDatabase
    from uponce.adapters.database.sqlite import SqliteDatabase
    from uponce.adapters.metrics import PrometheusMetrics

log = logging.getLogger("uponce")

_OFTEN_SECONDS = 2
_ENDING_SECONDS = 5  # what the commits of cancelled requests may take at a stop


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
    services: Services


def build(settings: Settings, metrics: Metrics | None = None, secrets: AesSecretBox | None = None) -> Backend:
    """Choose the adapters. Raise SettingRefused for a URL that names no adapter."""
    clock, ids = SystemClock(), RandomIds()
    blobs = blob_store(settings)
    _check_locks(settings)
    decoders = DecoderPool(
        settings.limits,
        [str(blobs.spool.folder)],
        workers=settings.decoders,
        job_seconds=settings.decoder_seconds,
        grant_seconds=settings.decoder_seconds_per_grant,
        memory_bytes=settings.decoder_memory,
    )
    secrets = secrets or secret_box(settings)
    database = _database(settings, clock, secrets)
    upstream = HttpUpstream(connections=settings.relay_connections)
    notifier = Notifier(settings.private_receivers)
    services = Services(
        database=database,
        blobs=blobs,
        inspector=decoders,
        clock=clock,
        ids=ids,
        limits=settings.limits,
        group_store=blobs.group_store,
        presigner=_presigner(settings, blobs),
        front=_front(settings, blobs),
        metrics=metrics or NoMetrics(),
        upstream=upstream,
        inspects=settings.relay_inspect == "on",
        after_commit={name: work.details_of for name, work in works(settings, notifier).items()},
    )
    return Backend(settings, database, blobs, decoders, secrets, upstream, notifier, services)


def build_metrics(settings: Settings) -> "PrometheusMetrics | None":
    """Return None without UPONCE_METRICS_TOKEN, and when no folder can hold them: the server serves without metrics."""
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
        case scheme:
            raise SettingRefused(
                f"UPONCE_DATABASE: {scheme!r} is not a database that uponce knows. Use sqlite:////path/to/file or "
                "postgresql://user:password@host/database."
            )


def _missing(settings: Settings) -> str | None:
    """Return the place that has no database yet, or None if a database is there."""
    match _scheme(settings.database_url):
        case "sqlite":
            return None if sqlite_path(settings.database_url).exists() else str(settings.data_dir)
        case "postgresql" | "postgres":
            from uponce.adapters.database.postgres import Address, is_set_up

            address = Address(settings.database_url, settings.database_seconds)
            return None if is_set_up(address) else address.shown
        case _:  # `build` refuses it
            return None


def _scheme(url: str) -> str:
    """Return what is before the first colon, and "" without one. `urlsplit` fails for passwords with a bracket."""
    return url.rpartition(":")[0] and url.partition(":")[0]


def sqlite_path(url: str) -> Path:
    """`sqlite:///relative/path` or `sqlite:////absolute/path`."""
    if url.removeprefix("sqlite:///") in (url, "", ":memory:"):
        raise SettingRefused(
            f"UPONCE_DATABASE={url} names no file. A database in memory would forget which signatures are spent. Use "
            "sqlite:////path/to/file."
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
        case ("file", "", path, _, _) if path.startswith("/"):
            from uponce.adapters.store.local import local_blobs

            path = url.partition(":")[2].removeprefix("//")  # also what `urlsplit` takes for a query or a fragment
            return local_blobs(Path(path), ids=ids, pack_bytes=settings.pack_bytes)
        case ("s3" | "gs" | "az", place, _, _, _) if place:
            from uponce.adapters.store.bucket import Bucket
            from uponce.adapters.store.objects import bucket_blobs

            seconds = settings.storage_seconds
            return bucket_blobs(Bucket(url, seconds), settings.data_dir / "spool", ids=ids, seconds=seconds)
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


def _presigner(settings: Settings, blobs: Blobs) -> Presigner | None:
    """Raise SettingRefused if delivery should redirect to a store that has no URLs."""
    if not settings.storage_redirect:
        return None
    presigner = blobs.store.presigner(settings.storage_redirect)
    if presigner is None:
        raise SettingRefused(
            f"UPONCE_STORAGE_REDIRECT={settings.storage_redirect} needs an object store, but UPONCE_STORAGE is "
            f"{settings.storage_url}. Remove this setting; uponce then sends the bytes itself."
        )
    return presigner


def _front(settings: Settings, blobs: Blobs) -> FrontServer | None:
    """Raise SettingRefused if there is no folder that a web server could read."""
    if not settings.storage_accel:
        return None
    front = blobs.store.front(settings.storage_accel)
    if front is None:
        raise SettingRefused(
            f"UPONCE_STORAGE_ACCEL={settings.storage_accel} needs a folder that nginx can read, but UPONCE_STORAGE is "
            f"{settings.storage_url}. Use UPONCE_STORAGE_REDIRECT, or remove both; uponce then sends the bytes itself."
        )
    return front


def secret_key_path(settings: Settings) -> Path:
    return settings.data_dir / "secret.key"


def secret_box(settings: Settings) -> AesSecretBox:
    """Encrypts API secrets with UPONCE_SECRET_KEY, or with the key in the data folder: not read yet, and not made."""

    return AesSecretBox(
        secret_key_path(settings) if settings.secret_key is None else key_from_text(settings.secret_key)
    )


def own_secrets(settings: Settings) -> AesSecretBox | None:
    """Return None unless the settings have the secret key: then a file has it."""
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
def opened(settings: Settings, *, create: bool = False, secrets: AesSecretBox | None = None) -> Iterator[Backend]:
    """Open the database and the blob store for a command; the decoders stay asleep.

    Raise NotFound if there is no database, unless `create`: a mistyped folder must not become an empty server.
    """
    missing = None if create else _missing(settings)
    if missing is not None:
        raise NotFound(
            f"There is no uponce in {missing}. `uponce serve --data {settings.data_dir}` makes one. If the server uses "
            "another folder, name it with --data or UPONCE_DATA."
        )
    backend = build(settings, secrets=secrets)
    with ExitStack() as stack:
        stack.callback(backend.blobs.close)
        stack.callback(backend.database.close)
        backend.database.open()
        backend.blobs.open_store()
        yield backend


@contextmanager
def opened_target(settings: Settings, database: str, storage: str | None) -> Iterator[Backend]:
    """Open another store, into which the present one moves. Make it if needed; it uses the same secret key.

    It receives uploads apart from servers that run here.
    """
    target = replace(
        settings,
        data=str(settings.data_dir / "moving"),
        database=database,
        storage=storage or settings.storage_url,
        storage_redirect=0,
        storage_accel="",
    )
    with opened(target, create=True, secrets=secret_box(settings)) as backend:
        yield backend


def lifespan(backend: Backend) -> Callable[[Any], Any]:
    """Run everything a server needs, for as long as it runs. Every part is closed, also when another part fails."""

    @asynccontextmanager
    async def run(_: object) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            stack.callback(backend.blobs.close)  # after the database, whose writer appends to packs
            stack.callback(backend.database.close)
            backend.database.open()
            await backend.database.list_keys()  # raises SettingRefused if the secret key is lost or another one
            backend.blobs.open_store()
            stack.push_async_callback(backend.decoders.close)
            await backend.decoders.start()
            stack.push_async_callback(backend.upstream.close)
            stack.push_async_callback(backend.notifier.close)
            for rounds in _rounds(backend):
                stack.push_async_callback(_end, asyncio.create_task(rounds))
            stack.push_async_callback(finish_unbroken, _ENDING_SECONDS)
            with draining(backend.settings.drain_seconds) as is_draining:
                yield {"draining": is_draining}

    return run


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def works(settings: Settings, notifier: Notifier) -> Mapping[str, Work]:
    """Return each kind of work after a commit, by the name of its effects."""
    notifications = Notifications(notifier.post, settings.base_url, settings.notification_url)
    return {"relay": Work(reconcile), NOTIFY: Work(notifications.send, notifications.url_for)}


def _rounds(backend: Backend) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield what a server does again and again beside its requests."""
    settings, services = backend.settings, backend.services
    clean = partial(
        sweep, services, grace_seconds=settings.grace_seconds, audit_seconds=settings.audit_seconds, rest=RESTFUL
    )
    yield _repeat("the sweep", settings.sweep_seconds, clean, services.metrics.sweep_failed)
    for name, work in works(settings, backend.notifier).items():
        yield _repeat(f"the outbox of {name}", _OFTEN_SECONDS, partial(run_due, services, name, work))
    if settings.playground != "off":
        kept = Kept(
            settings.playground_keep_files,
            settings.playground_keep_bytes,
            settings.playground_keep_seconds,
            settings.playground_bytes,
        )
        tidy = partial(tidy_playground, services, kept)
        yield _repeat("the deletion of old files of the playground", _OFTEN_SECONDS, tidy)


async def _repeat(
    name: str, seconds: float, work: Callable[[], Awaitable[object]], failed: Callable[[], None] = lambda: None
) -> None:
    """Do the work again and again. A failure is logged, calls `failed`, and the next round tries again."""
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a future that something else cancels raises the same error
                raise
            reason = error.for_operator if isinstance(error, UponceError) else error
            log.exception("%s failed; the next round is in %d seconds: %s", name, seconds, reason)
            failed()
