"""Files on a local disk, as the blob stores use them. All of it blocks but for OpenFile."""

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol, TypeVar

from uponce.adapters.system import sync_folder
from uponce.app.ports import StoredBlob
from uponce.core.errors import StorageFull, StorageUnavailable

T = TypeVar("T")

KEY = re.compile(r"[0-9a-f]{32}")
SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE = 0o700
BLOCK_BYTES = 1024 * 1024
_READ_BYTES = 64 * 1024
_NOWAIT = getattr(os, "RWF_NOWAIT", None)
_MAX_VECTOR = 1024  # IOV_MAX on Linux


class Threads(Protocol):
    async def in_thread(self, work: Callable[[], T]) -> T: ...


class OpenFile:
    """The OpenBlob port. Closes itself when the last reference goes: a cancelled `open` has nobody who could do it.

    `whole` are all its bytes, when they were read already.
    """

    block_bytes = _READ_BYTES

    def __init__(self, threads: Threads, descriptor: int, size: int) -> None:
        self.whole = b""
        self._threads = threads
        self._descriptor: int | None = descriptor
        self.size = size

    async def read(self, offset: int, length: int) -> bytes:
        if self.whole:
            return self.whole[offset : offset + length]
        descriptor = self._descriptor
        assert descriptor is not None
        cached = _read_cached(descriptor, offset, length)
        return cached or await self._threads.in_thread(lambda: os.pread(descriptor, length, offset))

    def read_now(self, offset: int, into: memoryview) -> int:
        assert self._descriptor is not None
        if _NOWAIT is None:
            return 0
        try:
            return os.preadv(self._descriptor, [into], offset, _NOWAIT)
        except OSError:  # not in memory, or a file system that cannot tell
            return 0

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def _read_cached(descriptor: int, offset: int, length: int) -> bytes:
    """Return bytes that the system has in memory, without waiting for a disk; none where it cannot say."""
    if _NOWAIT is None:
        return b""
    block = bytearray(length)
    try:
        size = os.preadv(descriptor, [block], offset, _NOWAIT)
    except OSError:
        return b""
    return bytes(block) if size == length else bytes(block[:size])


def checked(key: str) -> str:
    """The key, which is good as a part of a path; StorageUnavailable when it is none."""
    if not KEY.fullmatch(key):
        raise StorageUnavailable("The stored file cannot be read.", detail=f"{key!r} is not a blob key")
    return key


def guarded(work: Callable[[], T]) -> T:
    """Do the work; what the operating system refuses becomes one of our errors."""
    try:
        return work()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull(
                "The server's storage has no space left. Nothing was stored. Send the request again later.",
                detail=str(error),
            ) from error
        raise StorageUnavailable(
            "The server's storage cannot be used now. Nothing was stored. Send the request again.",
            detail=str(error),
        ) from error


def swept(error: FileNotFoundError) -> StorageUnavailable:
    """What it means when a staged file is gone."""
    return StorageUnavailable(
        "The upload paused so long that its bytes were removed. Nothing was spent. Send the file again.",
        detail=str(error),
    )


def write_all(descriptor: int, blocks: Sequence[bytes | bytearray | memoryview]) -> None:
    """`writev` may write less than it was given."""
    left: list[memoryview] = [memoryview(block) for block in blocks]
    while left:
        written = os.writev(descriptor, left[:_MAX_VECTOR])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def blocks_of(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """The bytes from `start` to `end`; OSError when the file has less."""
    while start < end:
        block = os.pread(descriptor, min(BLOCK_BYTES, end - start), start)
        if not block:
            raise OSError(errno.EIO, f"the file ends at {start}, before {end}")
        yield block
        start += len(block)


def blobs_in(folder: Path) -> Iterator[StoredBlob]:
    """The files that are ours by their name; what else lies there is none of the sweeper's business."""
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            with suppress(FileNotFoundError):
                if KEY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    facts = entry.stat(follow_symlinks=False)
                    yield StoredBlob(entry.name, facts.st_size, now - facts.st_mtime)


def make_folder(folder: Path) -> None:
    """With the parents that are missing, each durable in its own parent."""
    if folder.is_dir():
        return
    make_folder(folder.parent)
    folder.mkdir(exist_ok=True, mode=PRIVATE)
    sync_folder(folder.parent)
