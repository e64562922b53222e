"""The threads that use the local disk, and the memory that all writers share."""

from collections.abc import Callable
from typing import Any, TypeVar
from weakref import WeakSet

from uponce.adapters.files import guarded
from uponce.adapters.threads import Lane, NoThread, Threads, ThreadsEnded
from uponce.core.errors import StorageUnavailable

T = TypeVar("T")

_MOST_BUFFERED = 512 * 1024  # large enough for the lanes
_LEAST_BUFFERED = 64 * 1024
_ALL_BUFFERED = 32 * 1024 * 1024
_QUICKLY_SYNCED = 1024 * 1024
WORKERS = 8
LARGE_WORKERS = 4


class Disk:
    """Runs work on the disk in threads. Large files have separate ones, so no small upload waits for gigabytes.

    Deliveries have separate ones too: a slow disk may have a thousand reads to do, and no upload waits for these.
    """

    def __init__(self, workers: int = WORKERS) -> None:
        self._threads = Threads(workers, "uponce-disk")
        self._large = Threads(LARGE_WORKERS, "uponce-large", modest=True)
        self._syncing = Threads(LARGE_WORKERS, "uponce-sync")
        self._reading = Threads(workers, "uponce-read")
        self._writers: WeakSet[Any] = WeakSet()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Return what blocking work returns. An error of the operating system becomes an error of core/errors.py."""
        return await run_guarded(self._threads, work)

    async def read(self, work: Callable[[], T]) -> T:
        """Return what `in_thread` would, for work of a delivery."""
        return await run_guarded(self._reading, work)

    async def sync(self, work: Callable[[], T], size: int) -> T:
        """Return what `in_thread` would, for work that syncs `size` bytes. No small file waits for a large one."""
        return await run_guarded(self._threads if size <= _QUICKLY_SYNCED else self._syncing, work)

    def lane(self) -> Lane:
        """Return a lane on the threads for large files."""
        return Lane(self._large)

    async def in_lane(self, lane: Lane, work: Callable[[], T]) -> T:
        """Return what `in_thread` would. The work waits for the earlier work of the lane."""
        return await run_guarded(lane, work)

    def count(self, writer: object) -> None:
        """Share the memory with this writer while the writer exists."""
        self._writers.add(writer)

    @property
    def buffer_bytes(self) -> int:
        """Return how many bytes one writer may gather before a flush: fewer if many write, so slow ones stay cheap."""
        return max(_LEAST_BUFFERED, min(_MOST_BUFFERED, _ALL_BUFFERED // (len(self._writers) or 1)))

    def close(self) -> None:
        for threads in (self._threads, self._large, self._syncing, self._reading):
            threads.close()


async def run_guarded(threads: Threads | Lane, work: Callable[[], T]) -> T:
    """Return what blocking work returns. Every failure of the system becomes an error of core/errors.py."""
    try:
        return await threads.run(lambda: guarded(work))
    except ThreadsEnded:
        raise StorageUnavailable("The server has stopped. Send the same request again later.") from None
    except NoThread as error:
        raise StorageUnavailable(
            "The server's storage cannot be used now. Nothing was stored. Send the request again later.",
            detail=f"{error}: see the limit of threads (ulimit -u, TasksMax, or the pids limit of a container)",
        ) from error
