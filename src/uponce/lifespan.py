"""What a server runs from its start to its end: its parts in their order, and the work that it repeats."""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

from uponce.adapters.draining import draining
from uponce.app.outbox import run_due
from uponce.app.sweep import RESTFUL, purge, sweep_blobs
from uponce.app.tidy_playground import Kept, tidy_playground
from uponce.app.unbroken import finish_unbroken
from uponce.config import noted
from uponce.core.errors import StorageFull, UponceError
from uponce.core.signature import utc
from uponce.wiring import Backend

log = logging.getLogger("uponce")

_OFTEN_SECONDS = 2
_ENDING_SECONDS = 5  # the time for commits and answers of cancelled requests at a stop


def lifespan(backend: Backend) -> Callable[[Any], Any]:
    """Return a context that runs everything a server needs. It closes every part, also if another part fails."""

    @asynccontextmanager
    async def run(_: object) -> AsyncIterator[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            stack.callback(backend.blobs.close)  # closed after the database, whose writer appends to packs
            stack.callback(backend.database.close)
            backend.database.open()
            await backend.database.list_keys()  # raises SettingRefused if the secret key is lost or another one
            with suppress(StorageFull):  # it still delivers
                await backend.database.note_settings(noted(backend.settings))
            await _widen_fence(backend)
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


async def _widen_fence(backend: Backend) -> None:
    skew = backend.settings.limits.skew
    mark = await backend.database.widen_fence(skew)
    if mark is not None and mark >= backend.services.clock.now():
        log.warning(
            "uponce refuses signatures with a timestamp up to %s, since UPONCE_SKEW=%d is more than at the last fence. "
            "A smaller value does not undo this. Keys of `uponce keys create` work at once",
            utc(mark),
            skew,
        )


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _rounds(backend: Backend) -> Iterator[Coroutine[Any, Any, None]]:
    """Yield the work that a server repeats beside its requests."""
    settings, services = backend.settings, backend.services
    forget = partial(
        purge,
        services,
        grace_seconds=settings.grace_seconds,
        audit_seconds=settings.audit_seconds,
        dead_seconds=settings.dead_seconds,
    )
    delete = partial(sweep_blobs, services, grace_seconds=settings.grace_seconds, rest=RESTFUL)

    def failing(work: str) -> Callable[[], None]:
        return partial(services.metrics.background_failed, work)

    # Apart: a sweep of a large store takes hours, and the next partitions of the ledger must not wait for it.
    yield _repeat("the purge", settings.sweep_seconds, forget, failing("purge"))
    yield _repeat("the sweep", settings.sweep_seconds, delete, failing("sweep"))
    for name, work in backend.works.items():
        run = partial(run_due, services, name, work)
        yield _repeat(f"the outbox of {name}", _OFTEN_SECONDS, run, failing(name))
    if settings.playground != "off":
        kept = Kept(
            settings.playground_keep_files,
            settings.playground_keep_bytes,
            settings.playground_keep_seconds,
            settings.playground_bytes,
        )
        tidy = partial(tidy_playground, services, kept)
        yield _repeat("the deletion of old files of the playground", _OFTEN_SECONDS, tidy, failing("playground"))


async def _repeat(name: str, seconds: float, work: Callable[[], Awaitable[object]], failed: Callable[[], None]) -> None:
    """Repeat the work. A failure is logged and calls `failed`, and the next round tries again."""
    failures = _Failures(name, seconds)
    while True:
        await asyncio.sleep(seconds)
        try:
            await work()
            failures.end()
        except (Exception, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # a future that something else cancels raises the same error
                raise
            failures.add(error)
            failed()


class _Failures:
    """Logs the failures of repeated work.

    Each new reason has its trace. Reasons that come again have one line, when the number of failures has doubled: a
    database may be away for days. Reasons that differ in numbers and keys alone are one.
    """

    def __init__(self, name: str, seconds: float) -> None:
        self._name = name
        self._seconds = seconds
        self._count = 0  # since the work was done
        self._reasons = set[str]()

    def add(self, error: BaseException) -> None:
        self._count += 1
        reason = error.for_operator if isinstance(error, UponceError) else repr(error)
        kind = re.sub(r"[0-9a-f]*\d[0-9a-f]*", "#", reason)
        if kind not in self._reasons:
            self._reasons.add(kind)
            log.error(
                "%s failed; the next round is in %d seconds: %s", self._name, self._seconds, reason, exc_info=error
            )
        elif self._count.bit_count() == 1:
            log.error("%s has failed %d times without success: %s", self._name, self._count, reason)

    def end(self) -> None:
        """Log that the work is done again, if it failed before."""
        if self._count:
            log.warning("%s works again after %d failures", self._name, self._count)
        self._count = 0
        self._reasons.clear()
