"""Blobs in a bucket.

    <prefix>/blobs/<kk>/<key>       published, immutable
    <prefix>/parts/<key>/<name>     parts of unfinished uploads, see parts.py
    <prefix>/owner                  the owner of the storage, see app/owner.py

Keys are 32 random hex digits. Nothing that a client sends ever becomes part of a name. Bytes that are arriving are in
the spool of the server, or in memory if they are few. They are uploaded when they are complete and accepted, so a
refused upload costs no request.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from weakref import WeakValueDictionary

from uponce.adapters.files import KEY, SAFE, checked, make_folder, make_one_folder, shard_of, swept
from uponce.adapters.spool.disk import Disk, run_guarded
from uponce.adapters.spool.hashes import digest_of
from uponce.adapters.store.blobs import Blobs, in_batches
from uponce.adapters.store.bucket import PART_BYTES, Bucket
from uponce.adapters.store.parts import ObjectParts
from uponce.adapters.system import closing_file
from uponce.adapters.threads import Threads
from uponce.app.ports import PLACES, Body, HoldSmall, Ids, Parts, Presigner, StoredBlob
from uponce.core.errors import SettingRefused, StorageUnavailable
from uponce.core.formats import BINARY
from uponce.core.spans import Span
from uponce.core.values import Digest

T = TypeVar("T")

_NAME = re.compile(rf"blobs/(p?[0-9a-f]{{2}})/({KEY.pattern})")
_FOLDER = "blobs"
_OWNER = "owner"
_ASKERS = 32
_ENDING_SECONDS = 5  # for the requests that run, and to remove the parts of objects that they do not complete
_FIRST_BYTES = 128 * 1024
_BLOCK_BYTES = 2 * 1024 * 1024  # one request for each block: large enough to be cheap


class _Turns:
    """The turns of one series to send its parts, in order."""

    def __init__(self, most: int) -> None:
        self._free = asyncio.Semaphore(most)
        self._waits: dict[asyncio.Timeout, float] = {}

    async def take(self, seconds: float) -> None:
        """Take a turn when one is free. Raise TimeoutError if no part is stored for so many seconds."""
        async with asyncio.timeout(seconds) as wait:
            self._waits[wait] = seconds
            try:
                await self._free.acquire()
            finally:
                del self._waits[wait]

    def give(self, *, stored: bool) -> None:
        """Return a turn. Those that wait for one may wait longer if the part was stored."""
        now = asyncio.get_running_loop().time()
        for wait, seconds in self._waits.items() if stored else ():
            if not wait.expired():
                wait.reschedule(now + seconds)
        self._free.release()


def _call(loop: asyncio.AbstractEventLoop, work: Callable[[], object]) -> None:
    with suppress(RuntimeError):  # the loop is closed
        loop.call_soon_threadsafe(work)


class BucketBlobs(Blobs):
    """Blobs in a bucket. They arrive in the folder `spool`.

    `seconds` is how long a request may wait to be sent. At most `uploads` large files go to the bucket at a time, and
    as many small ones. A small one is one request.
    """

    is_remote = True

    def __init__(self, bucket: Bucket, spool: Path, *, ids: Ids, seconds: int, uploads: int) -> None:
        super().__init__(spool, Disk(), ids)
        self.parts: Parts = ObjectParts(self, self.run, self._ask, bucket, ids)
        self._bucket = bucket
        self._seconds = seconds
        # Separate, so that no delivery waits for uploads, and no small upload for gigabytes of another client. Few:
        # each may hold 25 MiB, and a small one 10 MiB.
        self._movers = Threads(uploads, "uponce-upload")
        self._small_movers = Threads(uploads, "uponce-small")
        self._of_one_series = max(1, uploads // 4)
        self._turns = WeakValueDictionary[tuple[str, bool], _Turns]()  # each lives as long as it has work
        self._askers = Threads(_ASKERS, "uponce-bucket")

    def open_store(self) -> None:
        try:
            make_folder(self.folder.parent)
            make_one_folder(self.folder)
        except OSError as error:
            raise SettingRefused(
                f"UPONCE_DATA: {self.folder} cannot be used: {error}. Uploads are spooled there, whatever the storage."
            ) from error

    def describe(self) -> str:
        return "each blob is an object in the bucket"

    @property
    def hold_small(self) -> HoldSmall:
        return lambda body: SmallBlob(self, self._bucket, self._ids.hex(32), body)

    def close(self) -> None:
        """End soon: no commit can name any more what is on its way to the bucket."""
        self._bucket.end()
        until = time.monotonic() + _ENDING_SECONDS
        for threads in (self._movers, self._small_movers, self._askers):
            threads.close(within=max(0, until - time.monotonic()))
        super().close()

    async def open(self, key: str) -> "ObjectBlob | None":
        name = _name(key)
        size = await self._ask(lambda: self._bucket.size_of(name))
        return None if size is None else ObjectBlob(self, name, size)

    def published(self, prefix: str = "") -> AsyncIterator[StoredBlob]:
        return in_batches(self._ask, self._published(prefix))

    def listings(self, first: str) -> Iterator[AsyncIterator[StoredBlob]]:
        """Yield two: with one for each place, a bucket that is nearly empty would cost as many requests.

        The first begins inside of the folder: after the name of a folder, SeaweedFS leaves out the folder.
        """
        yield in_batches(self._ask, self._published("", after=f"{_FOLDER}/{first}/{first}"))
        yield self._before(first)

    async def _before(self, first: str) -> AsyncIterator[StoredBlob]:
        # Not in the thread: one step there would read all the rest of the bucket.
        async for blob in self.published():
            if shard_of(blob.key) < first:
                yield blob

    def _published(self, prefix: str, after: str = "") -> Iterator[StoredBlob]:
        folder = f"{_FOLDER}/{shard_of(prefix)}" if shard_of(prefix) in PLACES else _FOLDER
        for name, size, age in self._bucket.listing(folder, after):
            match = _NAME.fullmatch(name)  # the sweeper must not touch other objects
            if match and match[1] == shard_of(match[2]) and match[2].startswith(prefix):
                yield StoredBlob(match[2], size, age)

    async def digest(self, key: str) -> Digest | None:
        name = _name(key)
        size = await self._ask(lambda: self._bucket.size_of(name))
        if size is None:
            return None
        return await self.run(lambda: digest_of(self._bucket.blocks(name, size)), size)

    async def ping(self) -> None:
        """Return if the spool can be written and the bucket exists. Only a listing of a folder shows the second."""
        await super().ping()
        await self._ask(lambda: next(self._bucket.listing("ping"), None))

    async def _url_of(self, key: str, seconds: int) -> str:
        name = _name(key)
        return await self._ask(lambda: self._bucket.signed_url(name, seconds))

    async def read(self, name: str, offset: int, length: int) -> bytes:
        return await self._ask(lambda: self._bucket.read(name, offset, length))

    async def run(self, work: Callable[[], T], size: int, series: str | None = None) -> T:
        """Run work that moves `size` bytes, in a thread. No small work waits for large work.

        With the blob key of a `series`, first wait while the series has a quarter of the threads. Its holder must not
        keep the uploads of others waiting. Raise StorageUnavailable if no work of the series succeeds in time.
        """
        is_small = size <= PART_BYTES
        threads, kind = (self._small_movers, "small") if is_small else (self._movers, "large")
        what = f"thread for {kind} uploads (UPONCE_STORAGE_UPLOADS)"
        if series is None:
            return await self._run(threads, work, what)
        turns = self._turns.setdefault((series, is_small), _Turns(self._of_one_series))
        try:
            await turns.take(self._seconds)
        except TimeoutError:
            few = f"none of the {self._of_one_series} parts of this upload that go at a time was stored"
            raise self._too_slow(few) from None
        return await self._run(threads, work, what, turns.give)

    async def _ask(self, work: Callable[[], T]) -> T:
        return await self._run(self._askers, work, "thread")

    async def _run(
        self, threads: Threads, work: Callable[[], T], what: str, ended: Callable[..., object] | None = None
    ) -> T:
        """Run the work in a thread. Raise StorageUnavailable if none becomes free in time, as when the store stalls.

        `ended` is called when the work is done, or will never begin, with `stored` for work that succeeded. A cancelled
        caller may be gone before that.
        """
        start = Future[bool]()  # either a thread begins and ends the work, or this cancels the work
        if ended is not None:
            loop = asyncio.get_running_loop()
            start.add_done_callback(
                lambda done: _call(loop, partial(ended, stored=not done.cancelled() and done.result()))
            )

        def begin() -> T:
            if not start.set_running_or_notify_cancel():
                raise asyncio.CancelledError
            stored = False
            try:
                result = work()
                stored = True
            finally:
                start.set_result(stored)
            return result

        running = asyncio.ensure_future(run_guarded(threads, begin))
        try:
            await asyncio.wait([running], timeout=self._seconds)
            if not running.done() and start.cancel():
                raise self._too_slow(f"no {what} became free")
            return await running
        finally:
            start.cancel()  # if the caller is cancelled, no thread begins it any more
            running.cancel()

    def _too_slow(self, reason: str) -> StorageUnavailable:
        return StorageUnavailable(
            "The server's storage is too slow now. Nothing was stored. Send the request again later.",
            detail=f"{reason} within {self._seconds} seconds (UPONCE_STORAGE_SECONDS)",
        )

    def put(self, key: str, path: Path, descriptor: int, media_type: str) -> None:
        try:
            descriptor = os.open(path, os.O_RDONLY | SAFE)
        except FileNotFoundError as error:
            raise swept(error) from error
        with closing_file(descriptor):
            self._bucket.upload(_name(key), descriptor, Span(0, os.fstat(descriptor).st_size), media_type)

    async def withdraw(self, key: str) -> None:
        name = _name(key)
        await self._ask(lambda: self._bucket.delete(name))

    async def owner(self) -> str | None:
        return await self._ask(lambda: self._bucket.text_of(_OWNER))

    async def set_owner(self, owner: str, *, replace: bool = False) -> None:
        await self._ask(lambda: self._bucket.put_text(_OWNER, owner, replace=replace))

    def presigner(self, seconds: int) -> Presigner:
        return Presigner(seconds, partial(self._url_of, seconds=seconds))


class SmallBlob:
    """The Publishable port: bytes in memory."""

    def __init__(self, store: BucketBlobs, bucket: Bucket, key: str, body: Body) -> None:
        self.key = key
        self._store = store
        self._bucket = bucket
        self._body = body
        self._is_offered = False

    async def publish(self, media_type: str = BINARY) -> None:
        data, digest = self._body
        self._is_offered = True
        await self._store.run(
            lambda: self._bucket.put(_name(self.key), bytes(data), digest.md5, media_type), digest.size
        )

    async def discard(self) -> None:
        if self._is_offered:
            with suppress(StorageUnavailable):  # the sweeper deletes what stays
                await self._store.withdraw(self.key)


class ObjectBlob:
    """The OpenBlob port. It holds nothing open: each block is a request."""

    first_bytes, block_bytes = _FIRST_BYTES, _BLOCK_BYTES

    def __init__(self, store: BucketBlobs, name: str, size: int) -> None:
        self._store = store
        self._name = name
        self.size = size

    async def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        return await self._store.read(self._name, offset, length) if length > 0 else b""

    def read_now(self, offset: int, into: memoryview) -> int:
        return 0

    def close(self) -> None:
        return


def _name(key: str) -> str:
    return f"{_FOLDER}/{shard_of(checked(key))}/{key}"
