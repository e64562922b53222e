"""Where the database's file lies. SQLite's locks and shared memory do not work across machines."""

import fcntl
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from uponce.adapters.system import sync_folder
from uponce.core.errors import DatabaseUnavailable, SettingRefused

_MOUNTINFO = Path("/proc/self/mountinfo")
_NETWORK = frozenset(
    "9p afs beegfs ceph cifs coda davfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb3 "
    "smbfs vboxsf".split()
)
# What else is mounted through FUSE (sshfs, s3fs, rclone…) is remote, or promises nothing about fsync.
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs"})


def refuse_network(folder: Path, mountinfo: Path = _MOUNTINFO) -> None:
    """SettingRefused when the existing folder lies on a network file system. Says nothing where there is no /proc."""
    try:
        mounts = mountinfo.read_text(errors="surrogateescape")
    except OSError:
        return
    kind = file_system(folder.resolve(), mounts)
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE):
        raise SettingRefused(
            f"The database folder {folder} is on a network file system ({kind}). There SQLite cannot "
            "stop a signature from being used twice. Point UPONCE_DATABASE to a local disk, or to PostgreSQL."
        )


def file_system(path: Path, mounts: str) -> str:
    """The file system type of an absolute path, by the text of /proc/self/mountinfo (see proc(5))."""
    found, kind = -1, ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = Path(_unescaped(left.split(" ")[4]))
        # A later mount on the same point covers the earlier one.
        if path.is_relative_to(point) and len(point.parts) >= found:
            found, kind = len(point.parts), right.split(" ")[0]
    return kind


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)


def make_private(path: Path) -> None:
    """Create the file and its folders, if need be, so that a power cut does not lose their names; mode 0600.

    SQLite gives the same mode to the files it puts beside this one, and syncs the folder itself later.
    """
    folders = [path.parent, *path.parent.parents]
    missing = [folder for folder in folders if not folder.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600, exist_ok=True)
    for folder in (path.parent, *(folder.parent for folder in missing)):
        sync_folder(folder)


def identity(path: Path) -> tuple[int, int]:
    """The same for as long as the same file has this name; DatabaseUnavailable when none has."""
    try:
        facts = path.stat()
    except OSError as error:
        raise DatabaseUnavailable(
            "The server's database does not answer now. Nothing was stored. Send the same request again later.",
            detail=f"the database file is gone: {error}. Put it back",
        ) from None
    return facts.st_dev, facts.st_ino


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for one process of this machine at a time. The lock ends with the process at the latest."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
