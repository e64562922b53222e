"""Locks on bytes of a spooled file, between requests and between server processes.

A request that waits for a span holds a shared lock on the same bytes, moved far beyond the end of any file. The holder
of the span looks there from time to time.
"""

import errno
import os
from collections.abc import Callable

from uponce.adapters.system import LOCKS
from uponce.core.errors import ChunkInProgress, StorageUnavailable
from uponce.core.spans import Span

_WANTED = 2**62  # where the locks of waiting requests begin
WHOLE = Span(0, _WANTED - 1)


class Hold:
    """An open file with a lock on some of its bytes, until it is closed.

    The garbage collector closes it as well, since a cancelled request never does.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def number(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the hold has ended")
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            LOCKS.release(descriptor)
            os.close(descriptor)

    def __del__(self) -> None:
        self.close()


Open = Callable[[str], int | None]  # a descriptor of the file of this key, if the file exists


def hold(open_: Open, key: str, span: Span) -> Hold:
    """Lock a span. Blocks. Raise StorageUnavailable without such a file, ChunkInProgress if some of it is locked."""
    while True:
        hold = _open(open_, key)
        if not LOCKS.lock(hold.number(), span):
            hold.close()
            raise in_progress()
        if os.fstat(hold.number()).st_nlink:
            return hold
        hold.close()  # deleted between the opening and the locking


def in_progress() -> ChunkInProgress:
    return ChunkInProgress(
        "Another request is sending these bytes of the file, or completing it. Wait for its answer, or send this "
        "request again later.",
    )


def ask_for(open_: Open, key: str, span: Span) -> Hold:
    """Return a mark. While it is open, the request that holds some of the span sees that it is wanted. Blocks."""
    hold = _open(open_, key)
    LOCKS.lock(hold.number(), _wanted(span), shared=True)
    return hold


def _open(open_: Open, key: str) -> Hold:
    descriptor = open_(key)
    if descriptor is None:
        raise StorageUnavailable(
            "The bytes of this upload that arrived before are missing. Nothing was spent. Send this request again, or "
            "begin the upload again.",
            detail=f"no blob {key}",
        )
    return Hold(descriptor)


def _wanted(span: Span) -> Span:
    return Span(span.start + _WANTED, span.end + _WANTED)


def is_wanted(hold: Hold, span: Span) -> bool:
    """Return whether another request asks for some of the span."""
    return LOCKS.locked(hold.number(), _wanted(span))
