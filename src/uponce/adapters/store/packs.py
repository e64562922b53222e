"""Packs: append-only files of small blobs, so that one fdatasync makes a whole group of blobs durable.

    <root>/packs/<10 hex digits>     records, each on a page boundary: a header, the bytes, zeros

A blob key names the place of its record: `p`, the pack, the page, random digits. So no table and no index is needed.
Each process makes its own packs. It appends to one pack at a time, and ends the pack after a write or a sync has
failed. So no place in a pack is ever written twice, and a deletion can only erase its own blob. A deletion marks the
header, then punches a hole. Nothing is ever moved. A hole reads as zeros, so a reader checks the header once more after
it has read the bytes.

A pack's name is random, and no answer shows it. So uploaded bytes cannot imitate a header.
"""

import errno
import logging
import os
import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import compress
from pathlib import Path

from uponce.adapters.files import DAMAGED, SAFE, is_packed, make_file, refused
from uponce.adapters.spool.locks import LOCKS
from uponce.adapters.store.records import (
    CRC,
    DELETED,
    FACTS,
    HEADER_BYTES,
    MAGIC,
    PAGE,
    Record,
    page_of,
    record_at,
    room_of,
    walk,
    was_header,
)
from uponce.adapters.system import (
    closing_file,
    erase,
    facts_of,
    open_cached,
    start_writeback,
    sync_data,
    sync_folder,
    write_all,
)
from uponce.app.ports import Body, Ids, StoredBlob
from uponce.app.ports.blobs import Data
from uponce.core.spans import Span

log = logging.getLogger("uponce")

PACK_BYTES = 256 * 1024 * 1024  # a pack of this size gets no other group
_NAME = re.compile(r"[0-9a-f]{10}")
_APPENDING = Span(0, 1)  # the bytes of a pack that its writer locks
_SLOW_SECONDS = 0.005  # a flash disk takes a tenth of it
_MOST_OPEN = 128
_ZEROS = memoryview(bytes(PAGE))


class Packs:
    """All access to the folder. `close` and what puts groups are for one thread, the rest for any. All of it blocks.

    Blobs of at most `pack_bytes` go into packs, if a hole frees space on this file system. `put_files` stores the
    others, and returns their keys.
    """

    def __init__(
        self, folder: Path, ids: Ids, pack_bytes: int, put_files: Callable[[Sequence[Data]], Sequence[str]]
    ) -> None:
        self._folder = folder
        self._text = os.fspath(folder)
        self._ids = ids
        self._pack_bytes = pack_bytes
        self._put_files = put_files
        self._frees_space: bool | None = None
        self._writer: int | None = None  # a descriptor
        self._name, self._end, self._sealed = "", 0, 0  # up to `_sealed` its bytes are durable
        self._lost = False  # bytes that were never sealed went with their pack
        self._is_slow = False
        self._gate = threading.Lock()
        self._open: dict[str, int] = {}  # descriptors to read from, the last used one at the end

    def put_group(self, bodies: Sequence[Body]) -> Sequence[str]:
        """Return the keys of new blobs, as PutGroup in app/ports/blobs.py says."""
        return self._put(bodies, late=False)

    def write_group(self, bodies: Sequence[Body]) -> Sequence[str]:
        """Return the keys of new blobs, as LateGroup says. Blobs that are files are durable at once.

        On a slow disk the others are too: a sync within a transaction would keep other processes from the database.
        """
        return self._put(bodies, late=not self._is_slow)

    def _put(self, bodies: Sequence[Body], *, late: bool) -> Sequence[str]:
        try:
            packing = self._pack_bytes > 0 and self.holes_free_space()
            small = [packing and len(data) <= self._pack_bytes for data, _ in bodies]
            packed = iter(self._append(list(compress(bodies, small))) if any(small) else ())
            if not late:
                self.seal()
            large = [data for (data, _), in_pack in zip(bodies, small, strict=True) if not in_pack]
            filed = iter(self._put_files(large) if large else ())
        except OSError as error:
            raise refused(error) from error
        return [next(packed if in_pack else filed) for in_pack in small]

    def holes_free_space(self) -> bool:
        """Return whether a hole frees space on this file system. Raise OSError if it cannot be tried. Tried once."""
        if self._frees_space is None:
            path = self._folder / f"probe-{self._ids.hex(10)}"
            with closing_file(make_file(path)) as descriptor:
                path.unlink()
                write_all(descriptor, [b"\1" * PAGE] * 3)
                os.fsync(descriptor)
                before = os.fstat(descriptor).st_blocks
                erase(descriptor, PAGE, PAGE)
                os.fsync(descriptor)
                self._frees_space = os.fstat(descriptor).st_blocks < before
        return self._frees_space

    def _append(self, bodies: Sequence[Body]) -> list[str]:
        """Return the keys of new blobs. After an OSError none of them counts."""
        keys: list[str] = []
        blocks: list[Data] = []
        try:
            if self._writer is None or self._end >= PACK_BYTES:
                self._sync()
                self._end_pack()
                self._writer = self._new_pack()
            end, now = self._end, int(time.time())
            for data, digest in bodies:
                key = f"p{self._name}{end // PAGE:05x}{self._ids.hex(16)}"
                header = _header(key, now, len(data), digest.sha256)
                padding = -(HEADER_BYTES + len(data)) % PAGE
                keys.append(key)
                blocks += header, data, _ZEROS[:padding]
                end += HEADER_BYTES + len(data) + padding
            write_all(self._writer, blocks)
            start_writeback(self._writer, self._end)
        except BaseException:
            self._end_pack(failed=True)
            raise
        self._end = end
        return keys

    def seal(self) -> None:
        """Make durable what `write_group` has put into packs, as LateGroup says."""
        lost, self._lost = self._lost, False
        try:
            if lost:
                raise OSError(errno.EIO, "a pack ended before its bytes were synced")
            self._sync()
        except OSError as error:
            self._lost = False  # its caller knows
            raise refused(error) from error

    def abandon(self) -> None:
        """Free the space of what was not sealed, as LateGroup says. The pack ends with it."""
        if self._sealed < self._end:
            self._end_pack(failed=True)
        self._lost = False

    def _sync(self) -> None:
        """Make the pack durable. If this fails, end it."""
        if self._writer is None or self._sealed == self._end:
            return
        begun = time.monotonic()
        try:
            sync_data(self._writer)
            if self._sealed == 0:
                sync_folder(self._folder)
            self._refuse_moved(self._writer)
        except BaseException:
            self._is_slow = True
            self._end_pack(failed=True)
            raise
        self._sealed = self._end
        self._is_slow = time.monotonic() - begun > _SLOW_SECONDS

    def _refuse_moved(self, writer: int) -> None:
        """Raise OSError if the pack has lost its name.

        If the data folder was replaced, commits go to the database that has the path now. No pack beside that database
        has these bytes.
        """
        if not os.path.samestat(os.fstat(writer), facts_of(f"{self._text}/{self._name}")):
            raise OSError(errno.ESTALE, "another file has the name of the pack: the folder was replaced")

    def _new_pack(self) -> int:
        """Return a descriptor of an empty pack. No other process appends to it, and no sweep deletes it."""
        while True:
            self._name, self._end, self._sealed = self._ids.hex(10), 0, 0
            with suppress(FileExistsError):
                descriptor = make_file(self._folder / self._name)
                # A sweep may have come between.
                if LOCKS.lock(descriptor, _APPENDING) and os.fstat(descriptor).st_nlink:
                    return descriptor
                os.close(descriptor)

    def _end_pack(self, *, failed: bool = False) -> None:
        """Append to the pack no more. After a failure, free the space of what is not sealed: no commit can name it."""
        descriptor, self._writer = self._writer, None
        if descriptor is None:
            return
        if failed:
            with suppress(OSError):
                if self._sealed:
                    os.ftruncate(descriptor, self._sealed)
                else:
                    (self._folder / self._name).unlink()
            self._lost = self._lost or self._sealed < self._end
        LOCKS.release(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        self._end_pack()
        with self._gate:
            while self._open:
                os.close(self._open.popitem()[1])

    def find(self, key: str, flags: int = 0) -> tuple[int, Record] | None:
        """Return a descriptor, which the caller closes, and the record. Return None if the blob does not exist.

        With RWF_NOWAIT as `flags`, raise BlockingIOError if the answer needs a disk.
        """
        for _ in range(2):  # the second time, the pack is opened again: another pack may have the name now
            descriptor = self._reader(key[1:11], wait=not flags)
            if descriptor is None:
                return None
            try:
                record = record_at(descriptor, key[1:11], page_of(key) * PAGE, flags)
            except BaseException:
                os.close(descriptor)
                raise
            if record is not None and record.key == key and not record.is_deleted:
                return descriptor, record
            os.close(descriptor)
            self._forget(key[1:11])
        return None

    def _reader(self, name: str, *, wait: bool) -> int | None:
        with self._gate:
            if (known := self._open.pop(name, None)) is not None:
                self._open[name] = known
                return os.dup(known)
        path, flags = self._folder / name, os.O_RDONLY | SAFE
        try:
            opened = os.open(path, flags) if wait else open_cached(os.fsencode(path), flags)
        except FileNotFoundError:
            return None
        if opened is None:
            raise BlockingIOError(errno.EAGAIN, "only a disk can tell")
        with self._gate:
            if (other := self._open.pop(name, None)) is not None:  # another thread has opened it in between
                os.close(other)
            self._open[name] = opened
            if len(self._open) > _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            return os.dup(opened)

    def _forget(self, name: str) -> None:
        with self._gate:
            if name in self._open:
                os.close(self._open.pop(name))

    def delete(self, key: str) -> None:
        """Delete the blob. Does nothing if it does not exist. A sweep completes a deletion that breaks off.

        If its header is damaged or cannot be read, erase that page only: the size is unknown. The rest of the blob
        keeps its space until the pack is deleted.
        """
        name, start = key[1:11], page_of(key) * PAGE
        with suppress(FileNotFoundError), closing_file(os.open(self._folder / name, os.O_RDWR | SAFE)) as descriptor:
            try:
                record = record_at(descriptor, name, start)
                is_damaged = record is None and was_header(descriptor, name, start)
            except OSError as error:
                if error.errno not in DAMAGED:
                    raise
                record, is_damaged = None, True
            if is_damaged:
                erase(descriptor, start, PAGE)  # no other blob was ever here
            if record is not None and record.key == key:
                _erase(descriptor, record)

    def records(self, prefix: str = "", *, drop_empty: bool = False) -> Iterator[StoredBlob]:
        """Yield every blob whose key begins with the prefix, except what the disk cannot read: a header, or a pack.

        `drop_empty` deletes the packs that have no blob and that no process appends to. In the other packs it completes
        deletions that broke off. A pack with a header that is damaged or cannot be read stays: a later read may
        succeed, and a row may name the bytes behind it. A failure gets a line in the log. If a pack cannot be read at
        all, raise OSError, so that the sweep counts as failed.
        """
        now = time.time()
        for path in self._packs(prefix):
            is_empty, broken_off = True, list[Record]()
            try:
                with closing(walk(path)) as records:
                    for record in records:
                        if record is not None and record.is_deleted:
                            broken_off.append(record)
                            continue
                        is_empty = False
                        if record is not None and record.key.startswith(prefix):
                            yield StoredBlob(record.key, record.size, now - record.stored_at, record.sha256)
            except OSError as error:
                if error.errno != errno.ENOENT and (drop_empty or error.errno not in DAMAGED):
                    raise
                is_empty = False
            if drop_empty:
                self._tidy(path, broken_off, is_empty=is_empty)

    def _tidy(self, path: Path, broken_off: Sequence[Record], *, is_empty: bool) -> None:
        """Delete the pack if it is empty, else complete its deletions that broke off. Log a failure."""
        problem = "the empty pack %s cannot be deleted: %s"
        try:
            if is_empty:
                self._drop_if_empty(path)
            problem = "a deletion in the pack %s cannot be completed: %s"
            if broken_off:
                with suppress(FileNotFoundError), closing_file(os.open(path, os.O_RDWR | SAFE)) as descriptor:
                    for record in broken_off:
                        _erase(descriptor, record)
        except OSError as error:
            log.warning(problem, path, error)

    def _packs(self, prefix: str = "") -> list[Path]:
        """Return the packs of blobs whose key begins with the prefix."""
        if prefix and not is_packed(prefix):
            return []
        with os.scandir(self._folder) as entries:  # a listing of the store by places comes here for each
            names = [entry.name for entry in entries if entry.name.startswith(prefix[1:11])]
        return [self._folder / name for name in names if _NAME.fullmatch(name)]

    def _drop_if_empty(self, path: Path) -> None:
        with suppress(FileNotFoundError), closing_file(os.open(path, os.O_RDWR | SAFE)) as descriptor:
            try:
                if LOCKS.lock(descriptor, _APPENDING) and not any(_is_kept(record) for record in walk(path)):
                    path.unlink()
            finally:
                LOCKS.release(descriptor)


def _header(key: str, stored_at: int, size: int, sha256: str) -> bytes:
    facts = FACTS.pack(MAGIC, key.encode(), stored_at, size, bytes.fromhex(sha256))
    return facts + CRC.pack(zlib.crc32(facts))


def _is_kept(record: Record | None) -> bool:
    """Return whether the pack must stay for this record, or for None, a header that is damaged or cannot be read."""
    return record is None or not record.is_deleted


def _erase(descriptor: int, record: Record) -> None:
    """Erase a blob. It may be called again, at any time: no other blob is ever there."""
    start, room = record.start - HEADER_BYTES, room_of(record.size)
    holes = [(start, PAGE), (start + PAGE, room - PAGE)] if room > PAGE else [(start, PAGE)]
    # A mark that is there already may be the only trace of a deletion that broke off.
    if room > PAGE and (record.is_deleted or _mark(descriptor, start)):
        holes.reverse()
    for at, length in holes:
        erase(descriptor, at, length)


def _mark(descriptor: int, start: int) -> bool:
    """Mark the record as deleted, so that a sweep completes a deletion that breaks off. Return False on a full disk.

    It is on the disk before the holes are. So after a power cut too, a header without the mark has all its bytes.
    A mark may need space where a hole needs none. Without it the header must go first: a reader that still finds the
    header has read all bytes before it.
    """
    try:
        os.pwritev(descriptor, [DELETED], start, getattr(os, "RWF_DSYNC", 0))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        return False
    return True
