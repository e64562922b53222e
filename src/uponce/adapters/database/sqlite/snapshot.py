"""A copy of a database in one file that needs no other beside it: as it was at one moment, and frozen.

It may lie on any file system, since nobody serves on it. Everything here blocks; the asynchronous methods are those
of the Catalog in app/copy_media.py, for commands, which have nobody to hold up.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from uponce.adapters.database import catalog, keys, upkeep
from uponce.adapters.database.catalog import asset_of
from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.sqlite.connection import Session
from uponce.adapters.database.sqlite.file import held, integrity, make_private, migrate, restoring
from uponce.adapters.database.steps import Operation, Steps, operation, run
from uponce.adapters.system import sync_folder
from uponce.app.ports import Clock
from uponce.core.errors import SettingRefused
from uponce.core.values import Asset, Digest

T = TypeVar("T")
Progress = Callable[[int, int], None]

_SHOWN = 3
_PAGES = 2048  # a step of the copy: eight megabytes
_BESIDE = ("-wal", "-shm", "-journal")


class Snapshot:
    """Close it. `live` is where `renew` looks."""

    def __init__(self, path: Path, live: Path | None = None) -> None:
        """Open one. SettingRefused when there is none, or what is there takes writes: then it is no copy."""
        self.path = path
        self._live = live
        with ExitStack() as opened:
            try:
                self._session = Session(opened.enter_context(closing(_connect(path))))
                is_copy = self._run(upkeep.frozen())
            except sqlite3.Error as error:
                raise SettingRefused(
                    f"{path} cannot be read as a copy of a database: {error}. Name a folder of `uponce backup`."
                ) from None
            if not is_copy:
                raise SettingRefused(f"{path} is not a copy of `uponce backup`: it takes writes.")
            opened.pop_all()  # `close` closes it

    def close(self) -> None:
        self._session.connection.close()

    def api_keys(self) -> frozenset[str]:
        """Return the names of all API keys. A server never deletes one, so an older copy has no other names."""
        (rows,) = self._session.ask([("list_all_keys", {})])
        return frozenset(row["api_key"] for row in rows)

    def owner(self) -> str | None:
        """Return the owner of the database, or None in a copy of an earlier release, which has no such table."""
        try:
            return self._run(upkeep.owner())
        except sqlite3.OperationalError:
            return None

    def is_related(self, other: Path) -> bool:
        """Return whether the database at `other` has an asset of this copy, or this copy has no asset."""
        with self._attached(other):
            ((row,),) = self._session.ask([("is_related", {})])
        return bool(row["related"])

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        try:
            return self._run(catalog.digests(prefix))
        except sqlite3.DatabaseError as error:
            raise SettingRefused(f"{self.path} is damaged: {error}. Name another backup.") from None

    async def find_commit(self, blob_key: str) -> Asset | None:
        return self._run(catalog.find_of_blob(blob_key))

    async def renew(self, blob_key: str) -> Asset | None:
        """The row of the asset that names this blob becomes what it is in the live database; None when it is gone.

        Told by its asset_id: after a deletion the number of its row, and its name, may be another asset's.
        """
        assert self._live is not None
        connection = self._session.connection
        with self._attached(self._live):
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
            self._session.connection.rollback()
            self._session.ask([("detach_live", {})])

    def check(self, secrets: SecretBox, now: float) -> None:
        """Raise SettingRefused if SQLite finds the file damaged, or if `secrets` cannot read its API keys."""
        try:
            found = integrity(self._session.connection, deep=True)
        except sqlite3.Error as error:
            found = [str(error)]
        if found:
            before = max(self.path.parent.glob(f"{self.path.name}.2*Z"), default=None)
            cure = f"Rename {before.name} to {self.path.name}" if before else "Name another backup"
            raise SettingRefused(f"{self.path} is damaged: {_first(found)}. {cure}, and run it again.")
        run(self._session, keys.list_all(secrets, None).begin(now))

    def _run(self, operation: Operation[T]) -> T:
        return run(self._session, operation.begin(0))


@operation(writes=True)
def _renew(_: float, blob_key: str) -> Steps[Asset | None]:
    ((copied,),) = yield [("find_copied", {"blob_key": blob_key})]
    subject = {"asset_id": copied["asset_id"]}
    _dropped, _copied, renewed = yield [(name, subject) for name in ("drop_copied", "copy_live", "find_renewed")]
    return asset_of(renewed[0]) if renewed else None


def take(live: Path, path: Path, progress: Progress) -> None:
    """A new copy at `path`, in place of what is there. The live one may be written meanwhile.

    `progress` is told pages that are done and pages in all. SettingRefused, with the cure.
    """
    try:
        _copy(live, path, progress)
        with closing(_connect(path)) as connection:
            if found := integrity(connection, deep=False):
                raise SettingRefused(
                    f"{live} is damaged: {_first(found)}. The last backup stays as it was. Stop the server, check the "
                    "disk, and restore that backup."
                )
            connection.execute("PRAGMA journal_mode = DELETE")  # all of it in one file
            connection.execute("BEGIN IMMEDIATE")
            run(Session(connection), upkeep.freeze().begin(0))
            connection.execute("COMMIT")
    except (OSError, sqlite3.Error) as error:
        raise SettingRefused(f"The database cannot be copied to {path}: {error}. Check the disk there.") from None


@contextmanager
def begun_restore(target: Path) -> Iterator[None]:
    """Keep other restores away, and servers from making a database at `target` until `restore` has. Raise
    SettingRefused if a database is there, or while another restore runs."""
    refuse_present(target)
    draft = restoring(target)
    try:
        make_private(draft)
    except OSError as error:
        raise SettingRefused(f"The database cannot be restored to {target}: {error}. Choose another folder.") from None
    with held(draft, f"Another restore to {target} is running. Wait until it ends."):
        yield


def restore(path: Path, target: Path, clock: Clock, skew: int, owner: str, progress: Progress) -> int:
    """A server's database at `target`, where none was, from the copy at `path`: thawed, fenced, with the owner; the
    watermark.

    It appears whole or not at all. The fence counts from after the copy: an old server may have spent until then.
    """
    refuse_present(target)
    draft = restoring(target)
    try:
        _copy(path, draft, progress)
        with closing(_connect(draft)) as connection:
            migrate(connection)  # the copy may be of an earlier release
            connection.execute("BEGIN IMMEDIATE")
            run(Session(connection), upkeep.replace_owner(owner).begin(0))
            mark = run(Session(connection), upkeep.thaw(skew).begin(clock.now()))
            connection.execute("COMMIT")
        draft.rename(target)
        sync_folder(target.parent)
    except (OSError, sqlite3.Error) as error:
        raise SettingRefused(f"The database cannot be restored to {target}: {error}. Check the disk there.") from None
    return mark


def refuse_present(target: Path) -> None:
    """SettingRefused when a database lies there, or its log, which SQLite would take for that of the restored one."""
    for path in (target, *(target.with_name(target.name + end) for end in _BESIDE)):
        if path.exists():
            raise SettingRefused(f"{path} exists, and uponce overwrites nothing. Move it away, or restore elsewhere.")


def _first(found: Sequence[str]) -> str:
    return "; ".join(found[:_SHOWN])


def _copy(source: Path, target: Path, progress: Progress) -> None:
    make_private(target)
    os.truncate(target, 0)  # and not deleted: while the draft of a restore is there, no server makes a database
    for end in _BESIDE:
        with suppress(FileNotFoundError):
            target.with_name(target.name + end).unlink()
    with closing(_connect(source)) as reading, closing(_connect(target)) as writing:
        # One transaction around all steps: a write by somebody else would make the copy begin anew.
        reading.execute("BEGIN")
        reading.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        reading.backup(writing, pages=_PAGES, sleep=0, progress=lambda _, left, pages: progress(pages - left, pages))
        reading.rollback()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw", uri=True, isolation_level=None, check_same_thread=False
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection
