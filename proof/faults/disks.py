"""A file system in an image file whose power can be cut: everything that was not flushed to the disk is gone.

The cut is the file system's own shutdown call without a log flush: `xfs_io -x -c shutdown`, on XFS and on ext4. Dirty
pages and the log in memory are dropped, and the next mount recovers from the journal. What the file system has handed
to the disk is kept. So a disk that lies about its own cache is not tested here.

An ext4 without a journal keeps no promise, see docs/adr/0047-a-disk-with-a-journal.md. No power is cut there.
"""

import fcntl
import os
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

WITHOUT_JOURNAL = "ext4 without journal"
_MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-f"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
    WITHOUT_JOURNAL: ("mkfs.ext4", "-q", "-F", "-O", "^has_journal"),
}
KINDS = ("xfs", "ext4")

# linux/fs.h and xfs_fs.h: XFS_IOC_GOINGDOWN and EXT4_IOC_SHUTDOWN are one number, and so are their flags.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = struct.pack("I", 2)

_MIB = 1024 * 1024
_SIZE = 320 * _MIB  # mkfs.xfs refuses less than 300 MiB
_MEMORY = Path("/dev/shm")
_UNMOUNT_SECONDS = 60  # a worker whose supervisor was killed ends its requests first, within 30


class Disk:
    """`path` is its mount point; `kind` one of KINDS, or WITHOUT_JOURNAL."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.path = folder / kind.replace(" ", "-")
        self._image = self.path.with_suffix(".img")
        self._mounted = False  # os.path.ismount says no once the power is cut
        self.path.mkdir()

    @contextmanager
    def fresh(self) -> Iterator[None]:
        """Empty and mounted; unmounted at the end, whatever has happened."""
        self._image.unlink(missing_ok=True)
        with self._image.open("wb") as image:
            image.truncate(_SIZE)
        _run(*_MAKE[self.kind], str(self._image))
        self._mount()
        try:
            yield
        finally:
            self._unmount()

    def cut(self) -> None:
        """At once; every write and fsync from now on fails."""
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, _NO_LOG_FLUSH)
        finally:
            os.close(descriptor)

    def power_on(self) -> None:
        """Mount again and recover from the journal. The processes that used the disk must be dead."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        self._mounted = True  # also when it is interrupted half-way
        _run("mount", "-o", "loop", str(self._image), str(self.path))

    def _unmount(self) -> None:
        """Unmount. A killed process may take a moment to close its files."""
        deadline = time.monotonic() + _UNMOUNT_SECONDS
        while self._mounted:
            ended = subprocess.run(["umount", str(self.path)], check=False, capture_output=True, text=True)
            self._mounted = ended.returncode != 0 and "not mounted" not in ended.stderr
            if self._mounted and time.monotonic() > deadline:
                subprocess.run(["umount", "--lazy", str(self.path)], check=True)
                raise AssertionError(f"the disk stays busy: {ended.stderr}")
            if self._mounted:
                time.sleep(0.01)


@contextmanager
def disks(kinds: Sequence[str] = KINDS) -> Iterator[list[Disk]]:
    """Yield images in a separate folder, in memory if there is room for them."""
    roomy = _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 * len(kinds) * _SIZE
    with tempfile.TemporaryDirectory(prefix="uponce-power-", dir=_MEMORY if roomy else None) as folder:
        yield [Disk(Path(folder), kind) for kind in kinds]


def why_not() -> str:
    """Return what this machine lacks for it, or "" if it lacks nothing."""
    missing = [tool for tool in ("mkfs.xfs", "mkfs.ext4", "mount", "umount") if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    if os.geteuid() != 0:
        return "mounting images needs root"
    try:
        with disks() as every:
            for disk in every:
                with disk.fresh():
                    disk.cut()
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this kernel cannot cut the power of a loop-mounted image: {error}"
    return ""


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True)
