"""What depends on the operating system: each effect by Linux's own means, or by the best of other systems.

Linux is the system for production. macOS and other Unix systems run uponce for development: no Landlock around the
decoders, and file locks within one process only. `uponce doctor` shows what is missing.
"""

import ctypes
import errno
import fcntl
import os
import re
import resource
import signal
import string
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

LINUX = sys.platform == "linux"
MOUNTINFO = Path("/proc/self/mountinfo")

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1
_M_TOP_PAD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -2, -3, -8
_TOP_PAD_BYTES = 16 * 1024 * 1024
_MAPPED_BYTES = 512 * 1024
_SYNC_FILE_RANGE_WRITE = 2
_PUNCH_HOLE_KEEP_SIZE = 2 | 1
_ZEROS_AT_ONCE = 1024 * 1024
_MAX_VECTOR = 1024  # IOV_MAX on Linux
EUCLEAN = 117  # Linux: the file system is damaged
_OF_DISKS = (errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, EUCLEAN)
_PARENT_LOOK_SECONDS = 1.0
# For openat2(2), which has this number on every machine. The call keeps the interpreter's lock: it never waits.
_OPENAT2, _AT_FDCWD = 437, -100
_HOW = struct.Struct("QQQ")  # flags, mode, resolve
_RESOLVE_CACHED = 0x20
_SYSCALL = ctypes.PyDLL(None).syscall if LINUX else None
_MODEST = 10  # nice(2)
_DRAWN_BYTES = 4096
_BASE36 = (string.digits + string.ascii_lowercase).encode()
_LETTERS = (_BASE36 * 8)[:256]
_UNFAIR = bytes(range(252, 256))  # without them each letter is equally likely: 252 is 7 · 36


def sync_file(descriptor: int) -> None:
    """Make the file's bytes and size durable. On macOS fsync stops at the drive's cache, F_FULLFSYNC does not."""
    if hasattr(fcntl, "F_FULLFSYNC"):
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def sync_data(descriptor: int) -> None:
    """Make the file's bytes durable, and the facts that are needed to read them."""
    if hasattr(fcntl, "F_FULLFSYNC") or not hasattr(os, "fdatasync"):
        sync_file(descriptor)
    else:
        os.fdatasync(descriptor)


def write_all(descriptor: int, blocks: Sequence[bytes | bytearray | memoryview]) -> None:
    """Write all blocks: one `writev` may write fewer bytes than it gets."""
    left: list[memoryview] = [memoryview(block) for block in blocks]
    while left:
        written = os.writev(descriptor, left[:_MAX_VECTOR])
        while left and written >= len(left[0]):
            written -= len(left.pop(0))
        if written:
            left[0] = left[0][written:]


def facts_of(path: str) -> os.stat_result:
    """Return the status of the file at this path. Right after a sync, `Path.stat` takes ten times as long."""
    return os.stat(path)  # noqa: PTH116


@contextmanager
def closing_file(descriptor: int) -> Iterator[int]:
    """Yield the descriptor, and close it at the end."""
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in the folder durable."""
    with closing_file(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as descriptor:
        sync_file(descriptor)


def file_system_of(folder: Path, mountinfo: Path = MOUNTINFO) -> str:
    """Return the file system type of a folder, or "" without /proc."""
    try:
        mounts = os.fsdecode(mountinfo.read_bytes())
    except OSError:
        return ""
    return file_system(folder.resolve(), mounts)


def file_system(path: Path, mounts: str) -> str:
    """Return the file system type of an absolute path, by the text of /proc/self/mountinfo (see proc(5))."""
    found, kind = -1, ""
    for line in filter(None, mounts.split("\n")):  # names may have the other characters that end lines
        left, _, right = line.partition(" - ")
        point = Path(_unescaped(left.split(" ")[4]))
        # A later mount on the same point covers the earlier one.
        if path.is_relative_to(point) and len(point.parts) >= found:
            found, kind = len(point.parts), right.split(" ")[0]
    return kind


def lacks_journal(folder: Path, facts: Path = Path("/sys")) -> bool:
    """Return whether the folder is on ext4 that was made without a journal. False where the system cannot tell."""
    device = folder.stat().st_dev
    try:
        name = (facts / f"dev/block/{os.major(device)}:{os.minor(device)}").resolve(strict=True).name
        return (facts / f"fs/ext4/{name}/journal_task").read_text().strip() == "<none>"
    except OSError:
        return False


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def start_writeback(descriptor: int, start: int = 0, length: int = 0) -> None:
    """Ask the kernel to begin to write changed pages. The fsync at the end then waits for little. Length 0: all.

    It is a hint, so it does not matter if the system cannot do it. But raise OSError if the disk fails: ext4 may drop
    the pages for which it finds no place, and no later fsync reports that. (`posix_fadvise` would start it too, but
    would drop the pages, which the first readers need.)
    """
    if hasattr(_LIBC, "sync_file_range"):
        failed = _LIBC.sync_file_range(
            descriptor, ctypes.c_int64(start), ctypes.c_int64(length), _SYNC_FILE_RANGE_WRITE
        )
        if failed and (error := ctypes.get_errno()) in _OF_DISKS:
            raise OSError(error, os.strerror(error))


def open_cached(path: bytes, flags: int) -> int | None:
    """Return a descriptor of the file if the system finds it without waiting for a disk, else None."""
    if _SYSCALL is None:
        return None
    how = _HOW.pack(flags, 0, _RESOLVE_CACHED)
    descriptor: int = _SYSCALL(_OPENAT2, _AT_FDCWD, path, how, len(how))
    return descriptor if descriptor >= 0 else None


def erase(descriptor: int, start: int, length: int) -> None:
    """Let these bytes of the file read as zeros, and free their space if the file system can."""
    if LINUX and hasattr(_LIBC, "fallocate"):
        if _LIBC.fallocate(descriptor, _PUNCH_HOLE_KEEP_SIZE, ctypes.c_int64(start), ctypes.c_int64(length)) == 0:
            return
        error = ctypes.get_errno()
        if error not in (errno.EOPNOTSUPP, errno.ENOSYS):
            raise OSError(error, os.strerror(error))
    while length:
        written = os.pwrite(descriptor, bytes(min(length, _ZEROS_AT_ONCE)), start)
        start, length = start + written, length - written


def end_of_data(descriptor: int, start: int, end: int) -> int:
    """Return where the last data of the file between `start` and `end` ends; `start` if all of that is a hole.

    A file system that shows no holes has data up to the end of the file.
    """
    last = start
    with suppress(OSError):  # ENXIO: no data follows
        while last < end and (data := os.lseek(descriptor, last, os.SEEK_DATA)) < end:
            last = min(os.lseek(descriptor, data, os.SEEK_HOLE), end)
    return last


def keep_heap() -> None:
    """Let glibc keep one heap, and 16 MiB of free memory at its top. Call it before other threads begin.

    glibc gives the top of the heap back after each large body, and faults it in again for the next one. With the
    padding, a body of 200 MB measured 1.7 times as fast. glibc also makes a heap for every few threads, and each keeps
    what it once needed. An upload of 256 MiB to a bucket in chunks took 19 to 38 MiB with four heaps, and takes 18 with
    one. Heaps that exist before the call stay in use. Other C libraries have no such settings.

    The padding also fixes the size from which glibc maps each block apart, at 128 KiB. A copy of 200 KiB then took 109
    µs, and takes 4 with 512 KiB.
    """
    if hasattr(_LIBC, "mallopt"):
        _LIBC.mallopt(_M_TOP_PAD, _TOP_PAD_BYTES)
        _LIBC.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        _LIBC.mallopt(_M_ARENA_MAX, 1)


def lower_priority() -> None:
    """Let the other threads of this process go first, also if `nice` started it. Only Linux has one for each thread.

    It is a hint: a filter of system calls, such as a service manager's, may forbid it.
    """
    if LINUX:
        with suppress(OSError):
            usual = os.getpriority(os.PRIO_PROCESS, os.getpid())
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), usual + _MODEST)


def allow_files(most: int) -> None:
    """Let this process and its children open so many files, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = most if hard == resource.RLIM_INFINITY else min(most, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def die_with(parent: int, signal_: signal.Signals) -> None:
    """Send this process the signal when its parent, of that number, ends.

    If the parent has ended already, send it at once.

    Without Linux's parent-death signal a thread checks every second.
    """
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal_), 0, 0, 0)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal_)
        return

    def look() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_LOOK_SECONDS)
        os.kill(os.getpid(), signal_)

    threading.Thread(target=look, name="parent", daemon=True).start()


class SystemClock:
    def now(self) -> float:
        return time.time()


class RandomIds:
    """Makes ids of random bytes that it draws for a hundred ids at once.

    Each system call lets other threads in, which costs more than the ids of an upload.
    """

    def __init__(self) -> None:
        self._drawn: deque[bytes] = deque()  # threads share it: taking one and adding many are atomic
        os.register_at_fork(after_in_child=self._drawn.clear)

    def hex(self, length: int) -> str:
        return self._bytes().hex()[:length]

    def base36(self, length: int) -> str:
        letters = b""
        while len(letters) < length:
            letters += self._bytes().translate(_LETTERS, _UNFAIR)
        return letters[:length].decode()

    def dated_hex(self) -> str:
        """Return a UUID of version 7 without its hyphens (RFC 9562, 5.7)."""
        milliseconds, chance = time.time_ns() // 1_000_000, int.from_bytes(self._bytes(), "big") >> (256 - 74)
        high, low = divmod(chance, 1 << 62)
        return f"{milliseconds << 80 | 7 << 76 | high << 64 | 2 << 62 | low:032x}"

    def _bytes(self) -> bytes:
        """Return 32 bytes that were never returned before."""
        try:
            return self._drawn.popleft()
        except IndexError:
            drawn = os.urandom(_DRAWN_BYTES)
            self._drawn.extend([drawn[at : at + 32] for at in range(32, _DRAWN_BYTES, 32)])
            return drawn[:32]
