"""Locks on bytes of a spooled file, between requests and between server processes.

A request that waits for a span holds a shared lock on the same bytes, moved far beyond the end of any file. The holder
of the span looks there from time to time.
"""

import fcntl
import os
import struct
import threading
from collections.abc import Callable

from uponce.adapters.files import OpenDescriptor
from uponce.adapters.system import LINUX
from uponce.core.errors import ChunkInProgress, StorageUnavailable
from uponce.core.spans import Span

_WANTED = 2**62  # where the locks of waiting requests begin
WHOLE = Span(0, _WANTED - 1)

_FLOCK = "hhqqi"  # `struct flock` of Linux on 64-bit machines


class KernelLocks:
    """Open file description locks (fcntl(2)). They end when the file is closed or its process dies.

    `across_processes` is False if only requests of one process see each other's locks.
    """

    across_processes = True

    def lock(self, descriptor: int, span: Span, *, shared: bool = False) -> bool:
        """Lock the span of the file for this descriptor. Return False if another descriptor holds some of it."""
        kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
        try:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _flock(kind, span))
        except (BlockingIOError, PermissionError):
            return False
        return True

    def locked(self, descriptor: int, span: Span) -> bool:
        """Return whether another descriptor holds a lock on some of the span."""
        found = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _flock(fcntl.F_WRLCK, span))
        return bool(struct.unpack(_FLOCK, found)[0] != fcntl.F_UNLCK)

    def release(self, descriptor: int) -> None:
        """End the locks of the descriptor. Call it before the close, which ends them anyway here."""


class ProcessLocks:
    """Locks between the descriptors of one process, in a table. Its methods promise what those of KernelLocks do.

    POSIX's own locks do not help: they belong to the process, and end when any descriptor of the file is closed.
    """

    across_processes = False

    def __init__(self) -> None:
        self._gate = threading.Lock()
        self._held: dict[int, list[tuple[tuple[int, int], Span, bool]]] = {}

    def lock(self, descriptor: int, span: Span, *, shared: bool = False) -> bool:
        file = _file(descriptor)
        with self._gate:
            if self._meets(descriptor, file, span, beside_shared=shared):
                return False
            self._held.setdefault(descriptor, []).append((file, span, shared))
        return True

    def locked(self, descriptor: int, span: Span) -> bool:
        with self._gate:
            return self._meets(descriptor, _file(descriptor), span, beside_shared=False)

    def release(self, descriptor: int) -> None:
        with self._gate:
            self._held.pop(descriptor, None)

    def _meets(self, descriptor: int, file: tuple[int, int], span: Span, *, beside_shared: bool) -> bool:
        return any(
            of == file and span.meets(held) and not (shared and beside_shared)
            for other, locks in self._held.items()
            if other != descriptor
            for of, held, shared in locks
        )


def _flock(kind: int, span: Span) -> bytes:
    """Return a `struct flock`. A length of 0 would mean all to the end, so an empty span locks its first byte."""
    return struct.pack(_FLOCK, kind, os.SEEK_SET, span.start, span.size or 1, 0)


def _file(descriptor: int) -> tuple[int, int]:
    facts = os.fstat(descriptor)
    return facts.st_dev, facts.st_ino


# macOS has such locks too, and another `struct flock`.
LOCKS: KernelLocks | ProcessLocks = KernelLocks() if LINUX else ProcessLocks()


class Hold(OpenDescriptor):
    """An open file with a lock on some of its bytes, until it is closed."""

    def _end(self, descriptor: int) -> None:
        LOCKS.release(descriptor)
        super()._end(descriptor)


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
