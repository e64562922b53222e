"""Files on a local disk, as the blob stores use them. All of it blocks, except OpenFile."""

import errno
import os
import re
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from stat import S_ISDIR
from tempfile import TemporaryFile
from typing import Protocol, TypeVar

from uponce.adapters.system import EUCLEAN, closing_file, sync_file, sync_folder, write_all
from uponce.app.ports import StoredBlob
from uponce.app.ports.blobs import Data
from uponce.core.errors import StorageFull, StorageUnavailable, UponceError

T = TypeVar("T")

KEY = re.compile(r"[0-9a-fp][0-9a-f]{31}")
SAFE = os.O_NOFOLLOW | os.O_CLOEXEC
PRIVATE = 0o700
BLOCK_BYTES = 1024 * 1024
_PROBE_BYTES = 64 * 1024
DAMAGED = (errno.EIO, errno.EBADMSG, EUCLEAN)  # a page or the inode of a file
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)  # from FAT and some network shares
_FIRST_BYTES = 64 * 1024
NOWAIT: int = getattr(os, "RWF_NOWAIT", 0)


class Run(Protocol):
    """Runs blocking work in a thread."""

    async def __call__(self, work: Callable[[], T]) -> T: ...


class OpenDescriptor:
    """The owner of a descriptor. The garbage collector closes it as well, since a cancelled request never does."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def number(self) -> int:
        if self._descriptor is None:
            raise OSError(errno.EBADF, "the file is closed")
        return self._descriptor

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            self._end(descriptor)

    def _end(self, descriptor: int) -> None:
        os.close(descriptor)

    def __del__(self) -> None:
        self.close()


class OpenFile(OpenDescriptor):
    """The OpenBlob port: a file, or the `size` bytes of a pack from `start`, after a header.

    `whole` is all bytes of a small blob, if they have been read.
    """

    first_bytes, block_bytes = _FIRST_BYTES, BLOCK_BYTES

    def __init__(self, run: Run, descriptor: int, size: int, start: int = 0, header: bytes = b"") -> None:
        super().__init__(descriptor)
        self.whole = b""
        self._run = run
        self.size = size
        self._start = start
        self._header = header

    def take_whole(self) -> None:
        """Read a small blob now. Blocks."""
        if self.size <= self.first_bytes:
            self.whole = self._read(0, self.size)

    async def read(self, offset: int, length: int) -> bytes | bytearray:
        if self.whole or offset >= self.size:
            return self.whole[offset : offset + length]
        return self._cached(offset, length) or await self.read_in_thread(offset, length)

    async def read_in_thread(self, offset: int, length: int) -> bytes:
        return await self._run(lambda: self._read(offset, length))

    def _cached(self, offset: int, length: int) -> bytes | bytearray:
        """Return these bytes if all of them are in memory, else none. A system short of memory keeps only some."""
        block = bytearray(min(length, self.size - offset))
        return block if self.read_now(offset, memoryview(block)) == len(block) else b""

    def _read(self, offset: int, length: int) -> bytes:
        descriptor = self.number()
        block = read_at(descriptor, self._start + offset, max(0, min(length, self.size - offset)))
        if not self._is_there(descriptor):
            raise StorageUnavailable(
                "The stored bytes cannot be read.", detail="the blob was deleted while it was read"
            )
        return block

    def _is_there(self, descriptor: int, flags: int = 0) -> bool:
        """Return whether the bytes of a read before were those of the blob: whether its header is still there.

        A deletion changes the header first.
        """
        length = len(self._header)
        return not length or read_at(descriptor, self._start - length, length, flags) == self._header

    def blocks(self) -> Iterator[bytes]:
        """Yield all bytes, in order. Blocks. Raise OSError if the file has fewer."""
        offset = 0
        while offset < self.size:
            block = self._read(offset, BLOCK_BYTES)
            if not block:
                raise OSError(errno.EIO, f"the blob ends at {offset}, before {self.size}")
            yield block
            offset += len(block)

    def read_now(self, offset: int, into: memoryview) -> int:
        if not NOWAIT:
            return 0
        descriptor = self.number()
        try:
            size = os.preadv(descriptor, [into[: max(0, self.size - offset)]], self._start + offset, NOWAIT)
            return size if self._is_there(descriptor, NOWAIT) else 0
        except OSError:  # not in memory, or a file system that cannot tell
            return 0


def read_at(descriptor: int, offset: int, length: int, flags: int = 0) -> bytes:
    """Return the bytes there, fewer only at the end of the file. One `pread` may return fewer anywhere.

    With RWF_NOWAIT, raise OSError or return fewer if they are not in memory.
    """
    if flags:
        into = bytearray(length)
        size = os.preadv(descriptor, [into], offset, flags)
        return bytes(into) if size == length else bytes(into[:size])
    block = os.pread(descriptor, length, offset)
    while len(block) < length and (more := os.pread(descriptor, length - len(block), offset + len(block))):
        block += more
    return block


def is_packed(key: str) -> bool:
    """Return whether the key is that of a blob in a pack. A copy of such a blob, in a file, has the same key."""
    return key.startswith("p")


def shard_of(key: str) -> str:
    """Return the folder of a blob that is a file, or for the beginning of a key the beginning of its name."""
    return key[: 3 if is_packed(key) else 2]


def checked(key: str) -> str:
    """Return the key if it is safe as a part of a path. Raise StorageUnavailable if not."""
    if not KEY.fullmatch(key):
        raise StorageUnavailable("The stored file cannot be read.", detail=f"{key!r} is not a blob key")
    return key


def guarded(work: Callable[[], T]) -> T:
    """Return what the work returns. A failure of the operating system becomes a StorageFull or StorageUnavailable."""
    try:
        return work()
    except OSError as error:
        raise refused(error) from error


def refused(error: OSError) -> UponceError:
    """Return the StorageFull or StorageUnavailable for a failure of the operating system."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFull(
            "The server's storage has no space left. Nothing was stored. Send the request again later.",
            detail=f"{error}{cure_of_inodes(error.filename)}",
        )
    return StorageUnavailable(
        "The server's storage cannot be used now. Nothing was stored. Send the request again.",
        detail=f"{error}{cure_of_rights(error)}",
    )


def cure_of_rights(error: OSError) -> str:
    """Return a sentence if the user of this process lacks a right."""
    if error.errno in (errno.EACCES, errno.EPERM):
        return ". Give the files to the server's user (chown), or run the command as a user that may use them"
    return ""


def has_no_room(folder: Path) -> bool:
    """Return whether no file there can grow now: its disk is full, or a quota is used up."""
    try:
        with TemporaryFile(dir=folder, buffering=0) as file:
            write_all(file.fileno(), [os.urandom(_PROBE_BYTES)])  # zeros may need no room
            sync_file(file.fileno())
    except OSError as error:
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    return False


def has_no_inodes(disk: os.statvfs_result) -> bool:
    """Return whether no file can be made there. File systems that make inodes at need count none."""
    return disk.f_files > 0 and disk.f_favail == 0


def cure_of_inodes(file: object) -> str:
    """Return a sentence if this file could not be made for want of an inode: `df` shows space there."""
    with suppress(OSError):
        if isinstance(file, str | Path) and has_no_inodes(os.statvfs(Path(file).parent)):
            return (
                ". No inodes are left there (df -i), and each file needs one. Delete files, or use XFS, or ext4 made "
                "with -i 4096"
            )
    return ""


def swept(error: FileNotFoundError) -> StorageUnavailable:
    """Return the error of a request whose spooled file is gone."""
    return StorageUnavailable(
        "The upload paused so long that its bytes were removed. Nothing was spent. Send the file again.",
        detail=str(error),
    )


def exists(path: Path, is_kind: Callable[[int], bool] = bool) -> bool:
    """Return whether a file or folder is there, or one of a kind, such as `stat.S_ISDIR`. Raise OSError if unknown.

    Use it in place of `Path.exists`, `is_dir` and `is_file`. From Python 3.14 these return False on every error: a
    folder that this user may not open would be an empty one.
    """
    try:
        return is_kind(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def make_file(path: Path) -> int:
    """Return a descriptor of a new private file, to read and write. Blocks. Raise OSError if it exists."""
    descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | SAFE, 0o600)
    _give_to_owner(descriptor, path.parent)
    return descriptor


def _give_to_owner(descriptor: int, folder: Path) -> None:
    """Give a file of root to the owner of its folder, as SQLite does: a service of that user must be able to use it.

    Some disks have no owners, and some let root give nothing away. There the file stays root's.
    """
    if os.geteuid() == 0:
        with suppress(OSError):
            facts = folder.stat()
            if facts.st_uid != 0:
                os.fchown(descriptor, facts.st_uid, facts.st_gid)


def write_new(path: Path, blocks: Iterable[Data]) -> None:
    """Write a new private file. Its bytes are durable on return, not its name. Blocks. Raise OSError if it exists."""
    with closing_file(make_file(path)) as descriptor:
        for block in blocks:
            write_all(descriptor, [block])
        sync_file(descriptor)


def write_whole(path: Path, blocks: Iterable[Data], give_name: Callable[[Path, Path], object] = os.replace) -> None:
    """Write the whole file durably, or no file. Blocks.

    `give_name(draft, path)` gives the complete file its name. If it raises FileExistsError, the file that exists stays.
    """
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    try:
        write_new(draft, blocks)
        with suppress(FileExistsError):
            give_name(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def link(file: Path, path: Path) -> None:
    """Give the file another name beside its first one. Without hard links, move the file to that name.

    Raise FileExistsError if a file has that name. Without hard links, two processes must not do this at once.
    """
    try:
        path.hardlink_to(file)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if exists(path):
            raise FileExistsError(path) from error
        file.rename(path)


def blocks_of(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from `start` to `end`. Raise OSError if the file has fewer."""
    while start < end:
        block = os.pread(descriptor, min(BLOCK_BYTES, end - start), start)
        if not block:
            raise OSError(errno.EIO, f"the file ends at {start}, before {end}")
        yield block
        start += len(block)


def blobs_in(folder: Path) -> Iterator[StoredBlob]:
    """Yield the files whose name is a blob key, except those whose facts the disk cannot read.

    The sweeper must not touch other files in the folder.
    """
    now = time.time()
    with os.scandir(folder) as entries:
        for entry in entries:
            if not KEY.fullmatch(entry.name):
                continue
            try:
                if not entry.is_file(follow_symlinks=False):
                    continue
                facts = entry.stat(follow_symlinks=False)
            except OSError as error:
                if error.errno not in (errno.ENOENT, *DAMAGED):
                    raise
                continue
            yield StoredBlob(entry.name, facts.st_size, now - facts.st_mtime)


def make_folder(folder: Path) -> None:
    """Make the folder and its missing parents, each durable in its own parent."""
    if exists(folder, S_ISDIR):
        return
    make_folder(folder.parent)
    make_one_folder(folder)
    sync_folder(folder.parent)


def make_one_folder(folder: Path) -> None:
    """Make a private folder unless it exists. Its parent must exist. Raise OSError if a file has its name."""
    if exists(folder, S_ISDIR):
        return
    folder.mkdir(exist_ok=True, mode=PRIVATE)
    with closing_file(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | SAFE)) as descriptor:
        _give_to_owner(descriptor, folder.parent)
