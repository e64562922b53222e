"""The database's file: the file system below it, the version of its schema, and how its log gets into it.

SQLite's locks and shared memory do not work across machines. The schema is numbered SQL files, applied in order,
forward only, all or nothing.
"""

import errno
import fcntl
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from uponce.adapters.database import failures, upkeep
from uponce.adapters.database.failures import refuse_newer, refuse_older
from uponce.adapters.database.sqlite.connection import Connection, HeldConnection, Log, code_of
from uponce.adapters.database.sqlite.reserve import NO_ROOM
from uponce.adapters.database.statements import load_migrations
from uponce.adapters.database.steps import run
from uponce.adapters.files import cure_of_inodes, exists, make_file
from uponce.adapters.system import MOUNTINFO, closing_file, file_system_of, sync_folder
from uponce.core.errors import SettingRefused, UponceError

log = logging.getLogger("uponce")

_NETWORK = frozenset(
    "9p afs beegfs ceph cifs coda davfs gfs gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs pvfs2 smb3 "
    "smbfs vboxsf".split()
)
# Every other mount through FUSE (sshfs, s3fs, rclone…) is remote, or promises nothing about fsync.
_LOCAL_FUSE = frozenset({"fuseblk", "fuse.fuse-overlayfs"})
_MOST_MESSAGES = 10_000

# Many commits change the same page of an index. With fewer checkpoints, it is written less often (SQLite: 1,000).
LONG_LOG_PAGES = 8000
_NEXT_COMMIT_SECONDS, _LOOK_SECONDS = 0.05, 0.001


def refuse_network(folder: Path, mountinfo: Path = MOUNTINFO) -> None:
    """Raise SettingRefused if the existing folder is on a network file system. Do nothing without /proc."""
    kind = file_system_of(folder, mountinfo)
    if kind in _NETWORK or (kind.startswith("fuse") and kind not in _LOCAL_FUSE):
        raise SettingRefused(
            f"The database folder {folder} is on a network file system ({kind}). There SQLite cannot "
            "stop a signature from being used twice. Point UPONCE_DATABASE to a local disk, or to PostgreSQL."
        )


def make_private(path: Path) -> None:
    """Create the file with mode 0600, and its folders, if needed. After this, a power cut does not lose their names.

    SQLite gives the same mode to the files that it puts beside this one, and syncs the folder itself later.
    """
    folders = [path.parent, *path.parent.parents]
    missing = [folder for folder in folders if not exists(folder)]
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with suppress(FileExistsError):
        os.close(make_file(path.resolve()))
    for folder in (path.parent, *(folder.parent for folder in missing)):
        sync_folder(folder)


def refuse_unwritable(path: Path) -> None:
    """Raise SettingRefused if the file, or a log that SQLite has left beside it, cannot be written.

    SQLite would open it nevertheless, refuse each write, and leave logs with the mode of the file.
    """
    real = path.resolve()
    files = [real, *(real.with_name(real.name + end) for end in ("-wal", "-shm"))]
    # Asked twice whether it exists: another process may delete its log in between.
    unwritable = [str(file) for file in files if exists(file) and not os.access(file, os.W_OK) and exists(file)]
    if unwritable:
        raise SettingRefused(
            f"The database {path} cannot be opened: this user cannot write {' and '.join(unwritable)}. Let the user of "
            "the server write these files, or mount the disk read-write."
        )


def restoring(path: Path) -> Path:
    """Return the path of the draft that a restore makes first, and renames to the database at its end."""
    return path.with_name(f"{path.name}.restoring")


def refuse_restoring(path: Path) -> None:
    """Raise SettingRefused if a restore of the database has begun and not ended."""
    if exists(restoring(path)) and not exists(path):
        raise SettingRefused(
            f"{restoring(path)} shows a restore that has not ended. Wait until it ends. If it was interrupted, run "
            "`uponce restore` again, or delete this file to begin with an empty server."
        )


@contextmanager
def locked(path: Path, refusal: str = "", *, shared: bool = False) -> Iterator[None]:
    """Lock a file or folder, at most until this process ends. Several may lock it at once if each lock is `shared`.

    If another process holds it, raise SettingRefused with the refusal. Without a refusal, wait.
    """
    how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (fcntl.LOCK_NB if refusal else 0)
    with closing_file(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        try:
            fcntl.flock(descriptor, how)
        except BlockingIOError:
            raise SettingRefused(refusal) from None
        yield


def integrity(connection: Connection, *, deep: bool) -> Sequence[str]:
    """Return the faults that SQLite's own check finds in the file, each message once."""
    check = "integrity_check" if deep else "quick_check"
    try:
        messages = [row[0] for row in connection.execute(f"PRAGMA {check}({_MOST_MESSAGES})")]
    except sqlite3.OperationalError:  # locked, an I/O error: nothing is known
        raise
    except sqlite3.DatabaseError as error:  # so damaged that the check itself fails
        return [str(error)]
    return [] if messages == ["ok"] else list(dict.fromkeys(messages))


def migrate(connection: Connection, *, upgrade: bool = True) -> None:
    """Bring the file to the newest version. Servers may race.

    Raise SettingRefused if a newer release made it, or without `upgrade`, if an earlier release made it.
    """
    steps = load_migrations("sqlite")
    _refuse_foreign(connection)  # whatever its version: many programs number theirs too
    if (present := version_of(connection)) == len(steps):
        return
    if not upgrade:
        refuse_older(present, len(steps))
    connection.execute("BEGIN IMMEDIATE")
    try:
        present = version_of(connection)
        _refuse_foreign(connection)
        refuse_newer(present, len(steps))
        frozen = run(connection, upkeep.frozen().begin(0))
        run(connection, upkeep.thaw_unfenced().begin(0))
        for statement in (s for step in steps[present:] for s in _statements(step)):
            connection.execute(statement)
        if frozen:
            run(connection, upkeep.freeze().begin(0))
        connection.execute(f"PRAGMA user_version = {len(steps)}")
        connection.execute("COMMIT")
    finally:
        connection.rollback()


def version_of(connection: Connection) -> int:
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return version


def _refuse_foreign(connection: Connection) -> None:
    names = {row["name"] for row in connection.ask([("list_tables", {})])[0]}
    if names and "api_keys" not in names:
        raise SettingRefused(
            f"The database belongs to another program: it has the table {min(names)}, and no API keys. Point "
            "UPONCE_DATABASE to the database of uponce, or to a new file."
        )


def _statements(script: str) -> Iterator[str]:
    """Yield the statements one by one: `executescript` would commit the transaction first."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


_CURES = {
    sqlite3.SQLITE_READONLY: "Let the user of the server write this file and its folder, or mount the disk read-write",
    sqlite3.SQLITE_CANTOPEN: "Let the user of the server read and write this file and its folder, and free disk space",
    sqlite3.SQLITE_PERM: "Let the user of the server read and write this file and its folder",
    sqlite3.SQLITE_NOTADB: "Point UPONCE_DATABASE to the database of uponce, or to a new file",
    sqlite3.SQLITE_CORRUPT: "Stop every server on this file and restore it from a backup",
    sqlite3.SQLITE_FULL: "Free disk space",
    sqlite3.SQLITE_IOERR: "Check the disk and its free space",
    sqlite3.SQLITE_BUSY: "Stop the other program that holds the file",
}
_OF_SYSTEM = {
    errno.EROFS: sqlite3.SQLITE_READONLY,
    errno.EACCES: sqlite3.SQLITE_PERM,
    errno.EPERM: sqlite3.SQLITE_PERM,
    errno.ENOSPC: sqlite3.SQLITE_FULL,
    errno.EDQUOT: sqlite3.SQLITE_FULL,
    errno.EIO: sqlite3.SQLITE_IOERR,
}
_LATER = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY)


def cannot_open(path: Path, error: Exception) -> SettingRefused:
    """Return the error of a start-up that failed, with cause and cure."""
    number = error.errno if isinstance(error, OSError) else None
    code = _OF_SYSTEM.get(number or 0, code_of(error))
    cure = f". {_CURES.get(code, 'Point UPONCE_DATABASE to a file in a folder that the server may write')}"
    if code in NO_ROOM:
        cure = cure_of_inodes(path) or cure
    return SettingRefused(f"The database {path} cannot be opened: {error}{cure}.")


def is_for_later(error: sqlite3.Error) -> bool:
    """Return whether a server may start with this failure of a write: a full disk refuses uploads, and may get room."""
    return code_of(error) in _LATER


class Checkpointer(Log):
    """Moves committed pages from the log to the database file, so that no commit has to.

    A thread moves them beside the commits. PASSIVE waits for no other connection. SQLite begins the log again only when
    every page of it was moved, so `finish` moves the rest of a long log between two transactions. After a failure the
    thread tries again later. It reports each reason, since no commit fails, and the log grows.

    Up to SQLite 3.51.2, a checkpoint that begins when every page was moved can lose commits: those that begin the log
    again at that moment (sqlite.org/wal.html, "The WAL-reset bug"). So here a checkpoint begins only while a page was
    not moved, or while no connection can commit. A lock of the folder keeps the checkpoints of all processes apart, so
    a page that is committed under this lock stays until the checkpoint that follows.

    If another file has the path, the log may belong to that file. Its pages must not get into the old file, and must
    not count as moved.
    """

    def __init__(self, held: HeldConnection, folder: Path) -> None:
        self._held = held
        self._folder = folder
        self._reported = set[str]()
        self._due = threading.Event()
        self._turn = threading.Lock()  # of the connection
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="uponce-checkpointer", daemon=True)

    def make_due(self) -> None:
        """Let the thread move pages soon."""
        self._due.set()
        if self._thread.is_alive():
            return
        try:  # before, a command or an idle server needs no thread for it
            self._thread.start()
        except RuntimeError:  # the system allows no more threads, or the thread has failed
            self.is_long = True

    def finish(self, connection: Connection) -> None:
        """Move all pages of the log, unless other pages are moved now. Call it in the thread that commits.

        `connection` is the one that commits. It has no transaction, and gets one that ends before this returns: so no
        commit comes in between, of no process.
        """
        if not self._turn.acquire(blocking=False):
            return
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                with _alone(self._folder) as is_alone:
                    if is_alone:
                        self.is_long = False  # after a failure, until the next round
                        self._move()  # it stays long until the log has begun again: a reader may be in the way
            except OSError as error:
                self._report(str(error))
            finally:
                connection.execute("ROLLBACK")
        finally:
            self._turn.release()

    def close(self) -> None:
        self._closed = True
        self._due.set()
        if self._thread.is_alive():
            self._thread.join()
        self._held.drop()

    def _serve(self) -> None:
        while not self._closed:
            self._due.wait()
            if not self._closed:
                self._serve_once()
            # Not before: under load the next round would begin at once, and leave no time for `finish`.
            self._due.clear()

    def _serve_once(self) -> None:
        try:
            with self._turn, _alone(self._folder) as is_alone:
                if is_alone and self._tried(self._leave_a_page):
                    self._move()
        except OSError as error:
            self._report(str(error))

    def _leave_a_page(self) -> None:
        """Return when a page was committed since this began. Without commits, make one.

        A transaction without a change leaves none, and does not change `data_version`.
        """
        connection, end = self._connected(), time.monotonic() + _NEXT_COMMIT_SECONDS
        before = _data_version(connection)
        while _data_version(connection) == before:
            if time.monotonic() >= end:
                connection = self._connected()  # another file may have the path by now
                connection.execute("BEGIN IMMEDIATE")
                connection.execute(f"PRAGMA user_version = {version_of(connection)}")
                connection.execute("COMMIT")
                return
            time.sleep(_LOOK_SECONDS)

    def _move(self) -> None:
        def move() -> None:
            ((busy, pages, moved),) = self._connected().execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()
            if not busy:  # by another program
                self._reported.clear()
                self.is_long = pages > LONG_LOG_PAGES >= pages - moved  # else a reader needs the bulk of it

        self._tried(move)

    def _tried(self, work: Callable[[], None]) -> bool:
        try:
            work()
        except (sqlite3.Error, UponceError) as error:
            self._held.drop()
            if code_of(error) != sqlite3.SQLITE_BUSY:  # a long transaction: the next round comes soon
                self._report(failures.detail_of(error))
            return False
        return True

    def _connected(self) -> Connection:
        if self._held.is_moved():
            self._held.drop()  # closing it moves nothing (pager.c: HAS_MOVED)
        return self._held.connected()

    def _report(self, reason: str) -> None:
        if reason not in self._reported:
            self._reported.add(reason)
            log.error(
                "the pages of uponce.db-wal cannot be moved to the database, so it grows: %s. Check the disk", reason
            )


def _data_version(connection: Connection) -> int:
    """Return a number that each change by another connection changes."""
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Lock the folder as `locked` does, and yield True. Yield False if another process holds it."""
    with closing_file(os.open(folder, os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
