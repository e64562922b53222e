"""The metrics of one server, also of several processes together, and their text for Prometheus."""

import fcntl
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client import values as storage
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from uponce.adapters.files import exists
from uponce.adapters.system import closing_file
from uponce.app.ports import Waiting
from uponce.app.services import Metrics
from uponce.core.errors import GrantRefused, StorageUnavailable, Unavailable, UpstreamRefused

OK, INTERNAL_ERROR = "ok", "internal_error"

# An alarm rings when a counter rises. A counter that appears with its first event has not risen.
_FROM_ZERO = (
    OK,
    INTERNAL_ERROR,
    UpstreamRefused.account_outcome,
    *(error.code for parent in (Unavailable, GrantRefused) for error in parent.__subclasses__()),
)
_BACKGROUND = ("purge", "sweep", "relay", "notify", "playground")
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)
_COMMIT_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # names the folder, for workers and for the library
# A folder of a random name is made there, which only we may enter. Not `gettempdir()`: it fails on a full disk.
PLACES = ("/dev/shm", os.environ.get("TMPDIR") or "/tmp")  # noqa: S108
_PREFIX = "uponce-metrics-"
_ABANDONED_SECONDS = 60

# More than the counters of all label values need: if a file had to grow, the disk might have no room.
_GAUGES = ("gauge_livesum", "gauge_max", "gauge_mostrecent")
SIZES = {"counter": 2 * 1024 * 1024, "histogram": 2 * 1024 * 1024, **dict.fromkeys(_GAUGES, 16 * 1024)}


@dataclass(frozen=True, slots=True)
class WorkerPlace:
    """The place of one worker: the number in the names of its files, and the lock that it holds while it lives."""

    folder: Path
    number: int
    lock: BinaryIO


class PrometheusMetrics(Metrics):
    """The metrics of one process, or with `place` of all processes that count in its folder.

    A process can have one such object at a time: the library decides by a global variable where it keeps a number.
    """

    def __init__(self, version: str, server: str, place: WorkerPlace | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        _count_in(place)
        self._place = place
        self._registry = registry = CollectorRegistry()
        counter, gauge = partial(Counter, registry=registry), partial(Gauge, registry=registry)
        histogram, shown = partial(Histogram, registry=registry), partial(gauge, multiprocess_mode="mostrecent")
        # Not `instance`: Prometheus itself sets that label, to the address from which it reads.
        build = gauge("uponce_build_info", "The server.", ("version", "server"), multiprocess_mode="max")
        build.labels(version, server).set(1)
        requests = counter("uponce_http_requests", "Requests that are over.", ("route", "method", "status"))
        name = "uponce_http_request_duration_seconds"
        seconds = histogram(name, "Until a request was over.", ("route", "method"), buckets=_REQUEST_SECONDS)

        @cache
        def of_request(route: str, method: str, status: int) -> tuple[Counter, Histogram]:
            return requests.labels(route, method, str(status) if status else "none"), seconds.labels(route, method)

        self._of_request = of_request
        self._uploads = counter("uponce_uploads", "Uploads stored, and requests refused that sent one.", ("outcome",))
        _begin(self._uploads, _FROM_ZERO)
        self._stored = self._uploads.labels(OK)
        sending = gauge("uponce_uploads_in_progress", "Requests that send an upload now.", multiprocess_mode="livesum")
        self._sending = sending.track_inprogress()
        self._received = counter("uponce_upload_received_bytes", "Bodies of requests that send uploads.")
        name, text = "uponce_upload_commit_duration_seconds", "From asking the database until it was durable."
        self._commits = histogram(name, text, buckets=_COMMIT_SECONDS)
        self._swept_blobs = counter("uponce_swept_blobs", "Orphans deleted.")
        self._swept_bytes = counter("uponce_swept_bytes", "Bytes of these.")
        self._swept_grants = counter("uponce_swept_grants", "Ledger rows forgotten.")
        self._background_failures = counter("uponce_background_failures", "Failed background work.", ("work",))
        _begin(self._background_failures, _BACKGROUND)
        self._purged_at, self._swept_at = (
            gauge(
                f"uponce_{name}_last_success_timestamp_seconds",
                f"0 before the first {name} since the start.",
                multiprocess_mode="max",
            )
            for name in ("purge", "sweep")
        )

        self._pending = shown("uponce_pending_uploads", "Uploads whose outcome in the upstream is not known.")
        self._live = shown("uponce_live_effects", "Effects of the outbox that servers still try.")
        self._dead = shown("uponce_dead_effects", "Effects of the outbox that wait for an operator.")

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        number, length = self._of_request(route, method, status)
        number.inc()
        length.observe(seconds)

    def sending(self) -> AbstractContextManager[object]:
        return self._sending

    def received(self, size: int) -> None:
        self._received.inc(size)

    def refused(self, code: str) -> None:
        self._uploads.labels(code).inc()

    def committing(self) -> AbstractContextManager[object]:
        return self._commits.time()

    def stored(self) -> None:
        self._stored.inc()

    def purged(self, grants: int) -> None:
        self._swept_grants.inc(grants)

    def purge_succeeded(self, now: float) -> None:
        self._purged_at.set(now)

    def swept(self, size: int) -> None:
        self._swept_blobs.inc()
        self._swept_bytes.inc(size)

    def sweep_succeeded(self, now: float) -> None:
        self._swept_at.set(now)

    def background_failed(self, work: str) -> None:
        self._background_failures.labels(work).inc()

    def waiting(self, waiting: Waiting) -> None:
        self._pending.set(waiting.pending)
        self._live.set(waiting.live)
        self._dead.set(waiting.dead)

    def text(self) -> bytes:
        """Return all metrics, in Prometheus' text format 0.0.4. Raise StorageUnavailable if they cannot be read."""
        if self._place is None:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        try:
            MultiProcessCollector(together, str(self._place.folder))  # type: ignore[no-untyped-call]
            return generate_latest(together)
        except (OSError, ValueError, RuntimeError) as error:
            raise StorageUnavailable("The metrics cannot be read.", detail=str(error)) from error


def _count_in(place: WorkerPlace | None) -> None:
    if place is None:
        storage.ValueClass = storage.MutexValue
    else:
        storage.ValueClass = storage.MultiProcessValue(lambda: place.number)  # type: ignore[no-untyped-call]


@contextmanager
def shared_folder() -> Iterator[None]:
    """Let all processes that start inside count in one folder, each in its own files. A scrape adds them up.

    The folder is in memory if the system has such a place. With mapped files on a disk, a process that counts would
    wait while the disk is busy. A full disk kills a process that touches a page without room, so the files also get
    their size before any process counts in them. Without a folder, processes find none.

    A worker's files stay after its end, since counters must not go down. The next worker continues them.
    """
    os.environ.pop(VARIABLE, None)
    folder = _make()
    if folder is None:
        yield
        return
    with folder as path, closing_file(os.open(path, os.O_RDONLY)) as descriptor:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.environ[VARIABLE] = path
        try:
            yield
        finally:
            os.environ.pop(VARIABLE, None)


def _make() -> TemporaryDirectory[str] | None:
    for place in PLACES:
        with suppress(OSError):
            _drop_abandoned(Path(place))
            return TemporaryDirectory(prefix=_PREFIX, dir=place, ignore_cleanup_errors=True)
    return None


def _drop_abandoned(place: Path) -> None:
    """Delete the folders of servers that were killed. A server that runs, or is starting, keeps its folder."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError), closing_file(os.open(folder, os.O_RDONLY | os.O_DIRECTORY)) as descriptor:
            found = os.fstat(descriptor)
            if found.st_uid == os.geteuid() and time.time() - found.st_mtime > _ABANDONED_SECONDS:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)


def take_place() -> WorkerPlace:
    """Return the first free place. Raise OSError without a folder, or without room in it."""
    if not os.environ.get(VARIABLE):
        raise FileNotFoundError(f"no folder for them could be made in any of {', '.join(PLACES)}")
    folder = Path(os.environ[VARIABLE])
    _forget_killed(folder)
    for number in count():
        lock = (folder / f"{number}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            continue
        mark_process_dead(number, str(folder))  # type: ignore[no-untyped-call]
        for kind, size in SIZES.items():
            _reserve(folder / f"{kind}_{number}.db", size)
        return WorkerPlace(folder, number, lock)
    raise AssertionError("unreachable")


def _forget_killed(folder: Path) -> None:
    """Forget the uploads that were under way in killed workers. A new worker may take another place than theirs."""
    for path in folder.glob("*.lock"):
        with path.open("ab") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mark_process_dead(int(path.stem), str(folder))  # type: ignore[no-untyped-call]


def _reserve(file: Path, size: int) -> None:
    """Make the file whole or not at all: another process may be reading the folder."""
    if exists(file):
        return
    made = file.with_suffix(".new")
    made.write_bytes(bytes(size))
    made.replace(file)


def _begin(counter: Counter, values: Iterable[str]) -> None:
    """Let the counter begin at 0 for each value of its label."""
    for value in values:
        counter.labels(value)
