"""A server process without its sockets, which can die at any moment and leaves on the disk what a SIGKILL leaves."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from proof.faults.operator import give_key
from tests.app.uploads import CALLER
from tests.world import MovableClock, Sniffer, sniff_whole
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.secretbox import AesSecretBox
from uponce.adapters.spool.disk import Disk
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.authorise import UploadRequest
from uponce.app.services import Services
from uponce.app.uploading import streamed
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.app.uploading.pipeline import Arrival, Pipeline, Uploaded
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, UponceError
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, ResourceType
from uponce.wiring import group_putter

T = TypeVar("T")
CLOUD = "demo"
_LIMITS = Limits(attempts_per_grant=1000)  # none is displaced: the model does not know which one is slow
SHARD = "00"
LOST = frozenset({"database_unavailable", "outcome_unknown"})
"""What an upload comes to whose process dies: nobody is there to say it."""


@dataclass
class Life:
    """What must not go on once the process is dead asks here first. `before_commit` and `after_commit` run once."""

    alive: bool = True
    before_commit: Callable[[], Awaitable[None]] | None = None
    after_commit: Callable[[], Awaitable[None]] | None = None

    def check(self) -> None:
        if not self.alive:
            raise DatabaseUnavailable("This process is dead.")

    async def die(self) -> None:
        self.alive = False
        raise OutcomeUnknown("This process is dead.")


class OneShardIds(RandomIds):
    def hex(self, length: int) -> str:
        return SHARD + super().hex(length)[len(SHARD) :]


class OneShardBlobs(LocalBlobs):
    """Has one folder, to be quick."""

    def _shards(self, prefix: str = "") -> Iterator[Path]:
        if SHARD.startswith(prefix[: len(SHARD)]):
            yield self._blobs / SHARD


class MortalDisk(Disk):
    """Flushes at once, so that the bytes of an upload that stops are on the disk."""

    def __init__(self, life: Life) -> None:
        super().__init__(workers=2)
        self.life = life

    @property
    def buffer_bytes(self) -> int:
        return 1

    async def in_thread(self, work: Callable[[], T]) -> T:
        self.life.check()
        return await super().in_thread(work)

    async def drain(self) -> None:
        """Return when no flush is under way. One that failed fails its upload, unless that has ended."""
        for writer in self._writers:
            with suppress(UponceError):
                await writer.settle()

    def drop(self) -> None:
        """Close the descriptors of all that was arriving, as the kernel does."""
        for writer in self._writers:
            writer._put.__self__.close()


class MortalDatabase:
    def __init__(self, real: Any, life: Life) -> None:
        self._real = real
        self._life = life

    def __getattr__(self, name: str) -> Any:
        async def call(*args: Any, **named: Any) -> Any:
            self._life.check()
            real = getattr(self._real, name)
            if name not in ("commit", "commit_arrival", "delete"):
                return await real(*args, **named)
            await self._pass("before_commit")
            done = await real(*args, **named)
            await self._pass("after_commit")
            return done

        return call

    async def _pass(self, moment: str) -> None:
        work = getattr(self._life, moment)
        setattr(self._life, moment, None)
        if work is not None:
            await work()


class Process:
    """From `__init__` to `end`."""

    def __init__(self, root: Path, clock: MovableClock, database: type[SqliteDatabase] = SqliteDatabase) -> None:
        self.life = Life()
        give_key(root)
        self._database = database(root / "uponce.db", clock=clock, secrets=AesSecretBox(bytes(32)))
        self.disk, ids = MortalDisk(self.life), OneShardIds()
        self.blobs = OneShardBlobs(root / "media", ids=ids, disk=self.disk)
        self._database.open()
        self.blobs.open_store()
        mortal: Any = MortalDatabase(self._database, self.life)
        self.services = Services(
            mortal, self.blobs, Sniffer(), sniff_whole, clock, RandomIds(), HttpUpstream(), _LIMITS
        )
        put_group = group_putter(self._database, self.blobs, alone=True)
        self.services = replace(self.services, put_group=put_group)
        self.pipeline = Pipeline(self.services)

    def end(self) -> None:
        self.disk.drop()
        self.blobs.close()
        self._database.close()

    async def upload_whole(self, data: bytes, fields: Mapping[str, str]) -> str:
        """Upload bytes that are in memory, with the group of all that wait. Return `ok` or the code of the refusal."""
        arrival = Arrival(_request(None), tuple(fields.items()), "cat.bin", data, MediaFacts(ResourceType.RAW))
        try:
            await self.pipeline.upload(arrival)
        except UponceError as error:
            return error.code
        return "ok"


def _request(idempotency_key: str | None) -> UploadRequest:
    return UploadRequest(CLOUD, ResourceType.RAW, (), None, CALLER, idempotency_key)


class Attempt:
    """One upload that goes on as the test feeds it. Made inside the event loop."""

    def __init__(self, process: Process, data: bytes, idempotency_key: str | None = None) -> None:
        self._process = process
        self._key = idempotency_key
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task = asyncio.ensure_future(self._upload())
        self._sent = 0
        self.data = data

    async def begin(self, fields: Mapping[str, str]) -> str:
        """Send the fields and the first bytes. Return the code of the refusal, or ""."""
        return await self._feed(*(Field(*field) for field in fields.items()), FileStart("cat.bin"), self._slice(1))

    async def send(self) -> str:
        return await self._feed(self._slice(len(self.data) // 4))

    async def finish(self) -> str:
        """Send the rest. Return `ok`, `replayed`, or the code of the refusal."""
        self._events.put_nowait(self._slice(len(self.data)))
        self._events.put_nowait(None)
        return await self._task

    async def abort(self) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task

    def _slice(self, length: int) -> bytes:
        begin, self._sent = self._sent, self._sent + length
        return self.data[begin : self._sent]

    async def _feed(self, *events: Event) -> str:
        for event in events:
            self._events.put_nowait(event)
        taken = asyncio.ensure_future(self._events.join())
        await asyncio.wait({self._task, taken}, return_when=asyncio.FIRST_COMPLETED)
        taken.cancel()
        if self._task.done():
            return self._task.result()
        await self._process.disk.drain()
        return ""

    async def _upload(self) -> str:
        try:
            uploaded = await streamed.upload(self._process.services, _request(self._key), self._arrivals())
        except UponceError as error:
            return error.code
        assert isinstance(uploaded, Uploaded)
        return "replayed" if uploaded.committed.replayed else "ok"

    async def _arrivals(self) -> AsyncIterator[Event]:
        while (event := await self._events.get()) is not None:
            yield event
            self._events.task_done()
