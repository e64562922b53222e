"""A copy of a database in one file that needs no file beside it: as of one moment, and frozen.

It may be on any file system, since no server uses it. Everything here blocks. The asynchronous methods are those of the
CopiedCatalog in app/copy_media.py; only commands use them, and a command may block.
"""

import errno
import logging
import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from uponce.adapters.database import catalog, keys, upkeep
from uponce.adapters.database.commits import asset_of
from uponce.adapters.database.failures import refuse_newer
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.sqlite.connection import connect, lacks_room, seen_full
from uponce.adapters.database.sqlite.file import integrity, locked, make_private, migrate, restoring, version_of
from uponce.adapters.database.statements import load_migrations
from uponce.adapters.database.steps import Operation, Steps, operation, run
from uponce.adapters.files import exists, refused
from uponce.adapters.system import closing_file, sync_file, sync_folder
from uponce.app.ports import Clock
from uponce.core.errors import SettingRefused
from uponce.core.values import Asset, Digest

T = TypeVar("T")
Progress = Callable[[int, int], None]

log = logging.getLogger("uponce")

_SHOWN = 3
_SILENT_SECONDS = 600  # between two steps of a copy
_PAGES = 2048  # a step of the copy: eight megabytes
_BESIDE = ("-wal", "-shm", "-journal")

_connect = partial(connect, is_copy=True)


class Snapshot:
    """An open copy. The caller must close it. `live` is the database that `renew` reads."""

    def __init__(self, path: Path, live: Path | None = None) -> None:
        """Open a copy. Raise SettingRefused if it cannot be read, or if it accepts writes: then it is no copy."""
        self.path = path
        self._live = live
        with ExitStack() as opened:
            try:
                self._session = opened.enter_context(closing(_connect(path)))
                is_copy = self._run(upkeep.frozen())
            except sqlite3.Error as error:
                raise SettingRefused(
                    f"{path} cannot be read as a copy of a database: {error}. Name a folder of `uponce backup`."
                ) from None
            if not is_copy:
                raise SettingRefused(f"{path} is not a copy of `uponce backup`: it takes writes.")
            opened.pop_all()  # `close` closes it

    def close(self) -> None:
        self._session.close()

    def api_keys(self) -> frozenset[str]:
        """Return the names of all API keys. A server never deletes one, so an older copy has no other names."""
        with self._refusing():
            (rows,) = self._session.ask([("list_all_keys", {})])
        return frozenset(row["api_key"] for row in rows)

    def owner(self) -> str | None:
        """Return the owner of the database, or None if it had taken no storage."""
        with self._refusing():
            return self._run(upkeep.owner())

    def is_related(self, other: Path) -> bool:
        """Return whether the database at `other` has an asset of this copy, or this copy has no asset."""
        with self._refusing(), self._attached(other):
            ((row,),) = self._session.ask([("is_related", {})])
        return bool(row["related"])

    def is_continued_by(self, other: Path) -> bool:
        """Return whether the audit of the database at `other` has the newest row of this copy, or begins after it.

        A purge deletes the oldest rows, and later rows may get their numbers. A refusal more changes the time of a row.
        """
        with self._refusing(), self._attached(other):
            ((row,),) = self._session.ask([("is_continued", {})])
        return bool(row["continued"])

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        with self._refusing():
            return self._run(catalog.digests(prefix))

    async def find_commit(self, blob_key: str) -> Asset | None:
        with self._refusing():
            return self._run(catalog.find_of_blob(blob_key))

    async def renew(self, blob_key: str) -> Asset | None:
        """Replace the row of the asset that names this blob with its live row.

        Return the row, or None if the asset is gone.

        The asset_id finds the live row: after a deletion, its row number and its name may belong to another asset.
        """
        assert self._live is not None
        connection = self._session
        with self._refusing(), self._attached(self._live):
            connection.execute("BEGIN IMMEDIATE")
            self._run(upkeep.thaw_unfenced())
            renewed = self._run(_renew(blob_key))
            self._run(upkeep.freeze())
            connection.execute("COMMIT")
        return renewed

    @contextmanager
    def _attached(self, live: Path) -> Iterator[None]:
        self._session.ask([("attach_live", {"address": f"{live.as_uri()}?mode=ro"})])
        try:
            yield
        finally:
            self._session.rollback()
            self._session.ask([("detach_live", {})])

    def check(self) -> None:
        """Raise SettingRefused for a copy of a newer release, or a damaged copy."""
        with self._refusing():
            refuse_newer(version_of(self._session), len(load_migrations("sqlite")))
        try:
            found = integrity(self._session, deep=True)
        except sqlite3.Error as error:
            found = [str(error)]
        if found:
            raise self._damaged(_first(found), _reindexing(self.path, found))

    def check_secrets(self, secrets: SecretBox, now: float) -> None:
        """Raise SettingRefused if `secrets` cannot decrypt all keys."""
        run(self._session, keys.list_all(secrets, None).begin(now))

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Raise StorageFull if its disk is full, and SettingRefused if the copy is damaged or cannot be used."""
        try:
            yield
        except sqlite3.OperationalError as error:
            _refuse_full(error, self.path.parent)
            raise SettingRefused(f"{self.path} cannot be used: {error}. Check the disk there.") from None
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from None

    def _damaged(self, reason: str, cure: str = "") -> SettingRefused:
        before = max(self.path.parent.glob(f"{self.path.name}.2*Z"), default=None)
        cure = cure or (f"Rename {before.name} to {self.path.name}" if before else "Name another folder")
        return SettingRefused(f"{self.path} is damaged: {reason}. {cure}, and run it again.")

    def _run(self, operation: Operation[T]) -> T:
        return run(self._session, operation.begin(0))


@operation(writes=True)
def _renew(_: float, blob_key: str) -> Steps[Asset | None]:
    ((copied,),) = yield [("find_asset_of_blob", {"blob_key": blob_key})]
    subject = {"asset_id": copied["asset_id"]}
    _dropped, _copied, renewed = yield [(name, subject) for name in ("drop_asset", "copy_live", "find_renewed")]
    return asset_of(renewed[0]) if renewed else None


def take(live: Path, path: Path, progress: Progress) -> None:
    """Make a new copy at `path`, instead of the file there. Servers may write to the live database during the copy.

    `progress` gets the number of copied pages and of all pages. Raise StorageFull without room, and SettingRefused,
    with the cure, after another failure.
    """
    try:
        _copy(live, path, progress, is_live=True)
        with closing(_connect(path)) as connection:
            if found := integrity(connection, deep=True):  # as a restore does
                cure = _reindexing(live, found) or "Restore that backup"
                raise SettingRefused(
                    f"{live} is damaged: {_first(found)}. The last backup stays as it was. Stop the server, and check "
                    f"the disk. {cure}."
                )
            connection.execute("PRAGMA journal_mode = DELETE")  # all of it in one file
            connection.execute("BEGIN IMMEDIATE")
            run(connection, upkeep.freeze().begin(0))
            connection.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        _refuse_full(error, path.parent)
        raise SettingRefused(f"The database cannot be copied to {path}: {error}. Check the disk there.") from None


def _refuse_full(error: Exception, folder: Path) -> None:
    """Raise StorageFull if the failure is a lack of room in the folder."""
    if lacks_room(seen_full(error, folder)):
        raise refused(OSError(errno.ENOSPC, str(error))) from None


@contextmanager
def begun_restore(target: Path) -> Iterator[None]:
    """Hold the place of a restore: inside, no other restore runs, and no server makes a database at `target`.

    The hold on servers ends when `restore` has made the database. Raise SettingRefused if a database is there, or while
    another restore runs.
    """
    refuse_present(target)
    draft = restoring(target)
    try:
        make_private(draft)
    except OSError as error:
        raise SettingRefused(f"The database cannot be restored to {target}: {error}. Choose another folder.") from None
    with locked(draft, f"Another restore to {target} is running. Wait until it ends."):
        _is_unused(target, delete=True)  # or a server could start on it
        _refuse_files(target)
        yield


def restore(path: Path, target: Path, clock: Clock, skew: int, owner: str, progress: Progress) -> int:
    """Make a server's database at `target` from the copy at `path`. Return its watermark.

    The database is thawed and fenced, and has the new owner. It appears whole or not at all. The fence is made after
    the copy: an old server may have spent signatures until then. Raise SettingRefused if a database is there.
    """
    _refuse_files(target)
    draft = restoring(target)
    try:
        _copy(path, draft, progress)
        with closing(_connect(draft)) as connection:
            migrate(connection)  # the copy may be of an earlier release
            connection.execute("BEGIN IMMEDIATE")
            run(connection, upkeep.replace_owner(owner).begin(0))
            mark = run(connection, upkeep.thaw(skew).begin(clock.now()))
            connection.execute("COMMIT")
        draft.rename(target)
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise SettingRefused(f"The database cannot be restored to {target}: {error}. Check the disk there.") from None
    return mark


def refuse_present(target: Path) -> None:
    """Raise SettingRefused if a database is there that an upload may have used.

    A refused start leaves a database that no upload has used.
    """
    if not _is_unused(target):
        _refuse_files(target)


def _is_unused(target: Path, *, delete: bool = False) -> bool:
    """Return whether a database without API keys and upstreams is there, and no server has it open.

    With `delete`, delete it.

    A server deletes no key, so no upload has used the database. If a server makes a key now, it is refused.
    """
    try:
        with closing(_connect(target)) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            (present,) = connection.ask([("list_tables", {})])
            tables = ("api_keys", "upstreams") if present else ()
            counts = connection.ask([("count_rows", {"table": table}) for table in tables])
            unused = not target.is_symlink() and not any(row["rows"] for (row,) in counts)
            if unused and delete:
                for path in (*_beside(target), target):  # SQLite leaves the log of a file that is gone
                    path.unlink(missing_ok=True)
    except (OSError, sqlite3.Error):
        return False
    return unused and not any(exists(path) for path in _beside(target))


def _beside(target: Path) -> Sequence[Path]:
    return [target.with_name(target.name + end) for end in _BESIDE]


def _refuse_files(target: Path) -> None:
    """Raise SettingRefused if a database, or its log, is there. SQLite would use that log for the restored database."""
    for path in (target, *_beside(target)):
        if exists(path):
            raise SettingRefused(
                f"{path} exists, and uponce overwrites nothing. If a restore into this folder was interrupted, it had "
                "ended, since the database comes last: start the server. Else move the file away, or restore elsewhere."
            )


def _first(found: Sequence[str]) -> str:
    return "; ".join(found[:_SHOWN])


def _reindexing(path: Path, found: Sequence[str]) -> str:
    """Return the cure of a database in which only indexes of assets do not agree with their rows, or "".

    In the ledger the index may be right and the row wrong. After a REINDEX, a spent signature could work again.
    """
    if not all(re.search(r"(missing from|entries in) index \S*assets", message) for message in found):
        return ""
    return (
        f'Run: sqlite3 "{path}" "REINDEX assets". Before you start a server, run `uponce fsck`: if a blob is missing, '
        "a row was damaged and not the index. Then restore an older backup"
    )


def _copy(source: Path, target: Path, progress: Progress, *, is_live: bool = False) -> None:
    with _watched(target, source if is_live else None) as moved:
        make_private(target)
        os.truncate(target, 0)  # not deleted: while the draft of a restore is there, no server makes a database
        for path in _beside(target):
            path.unlink(missing_ok=True)
        with (
            # Closed last: this ends the locks of the process on the file, as below.
            closing_file(os.open(target, os.O_RDWR | os.O_CLOEXEC)) as descriptor,
            closing(_connect(source)) as reading,
            closing(_connect(target)) as writing,
        ):

            def step(_: int, left: int, pages: int) -> None:
                sync_file(descriptor)  # or the last step waits for gigabytes, as if the disk did not answer
                moved()
                progress(pages - left, pages)

            # One transaction around all steps: a write of another process would make the copy begin again.
            reading.execute("BEGIN")
            reading.ask([("list_tables", {})])
            reading.backup(writing, pages=_PAGES, sleep=0, progress=step)
            reading.rollback()


@contextmanager
def _watched(target: Path, live: Path | None) -> Iterator[Callable[[], None]]:
    """Yield a function to call at each step of a copy. End the process if no call comes for _SILENT_SECONDS.

    The copy reads in one transaction. Until its end, the log of a live database grows, and fills the disk of the
    server. No exception ends a write that hangs, as to a network share.
    """
    moves = SimpleQueue[bool]()

    def watch() -> None:
        try:
            while moves.get(timeout=_SILENT_SECONDS):
                pass
        except Empty:
            log.critical(
                "The copy of the database to %s has not moved for %s seconds, so this command ends: the log of a live "
                "database grows while it is copied. Check the disk or network share of the copy, and run the command "
                "again.",
                *(target, _SILENT_SECONDS),
            )
            # A thread that waits for a disk does not die before the disk answers, and its locks would stay until then.
            # When a process closes any descriptor of a file, all its locks on that file end.
            if live:
                with suppress(OSError):
                    os.close(os.open(f"{live}-shm", os.O_RDONLY | os.O_CLOEXEC))
            os._exit(1)

    thread = threading.Thread(target=watch, name="uponce-copy", daemon=True)
    thread.start()
    try:
        yield lambda: moves.put(True)
    finally:
        moves.put(False)
        thread.join()
