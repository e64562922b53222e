"""Who may write which bytes of a file: locks of the kernel, between requests and between server processes.

They are open file description locks, gone when the file is closed or its process dies. Who waits for a span holds a
shared lock on the same bytes moved far beyond the end of any file; there the holder looks from time to time.
"""

import errno
import fcntl
import os
import struct

from uponce.adapters.blobs.gathering import Yard
from uponce.core.errors import ChunkInProgress, StorageUnavailable
from uponce.core.spans import Span

_WANTED = 2**62  # where the locks of those who wait begin
WHOLE = Span(0, _WANTED - 1)
_FLOCK = "hhqqi"
_RETRY_SECONDS = 2


class Hold:
    """An open file with a lock on some of its bytes, until it is closed; also by the collector, since a cancelled
    caller has nobody who could close it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def number(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the hold has ended")
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


def hold(store: Yard, key: str, span: Span) -> Hold:
    """In a thread. Lock a span; StorageUnavailable when there is no such file."""
    while True:
        hold = _open(store, key)
        try:
            fcntl.fcntl(hold.number(), fcntl.F_OFD_SETLK, _lock(fcntl.F_WRLCK, span))
        except (BlockingIOError, PermissionError):
            hold.close()
            raise in_progress() from None
        if os.fstat(hold.number()).st_nlink:
            return hold
        hold.close()  # deleted between the opening and the locking


def in_progress() -> ChunkInProgress:
    return ChunkInProgress(
        "Another request is sending these bytes of the file, or completing it. Wait for its answer, or send this one "
        "again a little later.",
        retry_after=_RETRY_SECONDS,
    )


def ask_for(store: Yard, key: str, span: Span) -> Hold:
    """In a thread. As long as it is open, who holds a part of the span is told that it is wanted."""
    hold = _open(store, key)
    fcntl.fcntl(hold.number(), fcntl.F_OFD_SETLK, _lock(fcntl.F_RDLCK, _wanted(span)))
    return hold


def _open(store: Yard, key: str) -> Hold:
    descriptor = store.open_unfinished(key)
    if descriptor is None:
        raise StorageUnavailable(
            "The bytes that arrived of this upload cannot be found. Nothing was spent; send this again, or begin anew.",
            detail=f"no blob {key}",
            retry_after=1,
        )
    return Hold(descriptor)


def _lock(kind: int, span: Span) -> bytes:
    """A `struct flock`. A length of 0 would be all to the end, so an empty span has its first byte."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, span.start, span.size or 1, 0)


def _wanted(span: Span) -> Span:
    return Span(span.start + _WANTED, span.end + _WANTED)


def is_wanted(hold: Hold, span: Span) -> bool:
    """Whether somebody asks for a part of the span."""
    found = fcntl.fcntl(hold.number(), fcntl.F_OFD_GETLK, _lock(fcntl.F_WRLCK, _wanted(span)))
    return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)
