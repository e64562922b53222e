"""SqliteDatabase: ledger, catalog, keys and audit in one SQLite file on a local disk.

Everything that writes goes through one thread (writer.py); what a method returns or refuses is durable by then.
Several server processes may share the file.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from uponce.adapters.database.decisions import repetition, spending
from uponce.adapters.database.listing import parse_cursor
from uponce.adapters.database.purging import BATCH, in_batches
from uponce.adapters.database.rows import SecretBox
from uponce.adapters.database.sqlite import audit, catalog, checks, deleting, freezing, ledger, moving, replies, series
from uponce.adapters.database.sqlite.arrivals import Group, KeyMemory
from uponce.adapters.database.sqlite.connection import connect
from uponce.adapters.database.sqlite.failures import cannot_open, is_for_later
from uponce.adapters.database.sqlite.filesystem import identity, locked, make_private, refuse_network
from uponce.adapters.database.sqlite.keys import KeyRing
from uponce.adapters.database.sqlite.readers import Glances, Readers
from uponce.adapters.database.sqlite.schema import migrate, version_of
from uponce.adapters.database.sqlite.writer import Writer
from uponce.app.ports import Candidate, Clock, Committed, Draft, Page, Reply, Row, Rule, Steps, Table
from uponce.app.ports.database import A
from uponce.core.errors import SettingRefused
from uponce.core.series import Series, StoredPart
from uponce.core.spans import Span
from uponce.core.values import (
    ApiKey,
    Asset,
    AssetName,
    AuditEvent,
    AuditRecord,
    Caller,
    Digest,
    Grant,
    GrantRecord,
    GrantStatus,
)

T = TypeVar("T")


class SqliteDatabase:
    """The Database port (see app/ports/ for what each method promises). Between `open` and `close` only."""

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        secrets: SecretBox,
        connect: Callable[[Path], sqlite3.Connection] = connect,
    ) -> None:
        self._path = path.absolute()
        self._clock = clock
        self._secrets = secrets
        self._connect = partial(connect, self._path)
        identify = partial(identity, self._path)
        self._writer = Writer(self._connect, identify)
        self._memory = KeyMemory(clock, secrets)
        self._readers = Readers(self._connect, identify)
        self.glance = Glances(self._connect, identify)

    def open(self) -> None:
        """Create or migrate the file. Raise SettingRefused, with the cure, if it cannot keep the guarantees."""
        folder = self._path.parent
        if self._path.is_dir():
            raise SettingRefused(
                f"UPONCE_DATABASE: {self._path} is a folder. Name a file, for example sqlite:///{self._path}/uponce.db."
            )
        try:
            make_private(self._path)
            refuse_network(folder)
            with locked(folder):  # of processes that switch a new file to WAL at once, some fail: "database is locked"
                self._migrate()
            self.glance.prepare()
        except (OSError, sqlite3.Error) as error:
            raise cannot_open(self._path, error) from None
        self._writer.start()

    def describe(self) -> str:
        """For people: what was checked, and no secret."""
        connection = self._connect()
        try:
            version = version_of(connection)
        finally:
            connection.close()
        return f"sqlite:///{self._path}: WAL, synchronous=FULL, local file system, schema version {version}"

    def close(self) -> None:
        """Finish what was begun; later calls raise DatabaseUnavailable."""
        self._writer.close()
        self._readers.close()
        self.glance.close()

    async def find_key(self, api_key: str) -> ApiKey | None:
        return await self._readers.run(lambda connection: self._keys.find(connection, api_key))

    async def list_keys(self, cloud: str | None = None) -> Sequence[ApiKey]:
        return await self._readers.run(lambda connection: self._keys.list(connection, cloud))

    async def unreadable_keys(self) -> Mapping[str, str]:
        return await self._readers.run(self._keys.unreadable)

    async def add_key(self, key: ApiKey) -> None:
        await self._change_keys(lambda connection: self._keys.add(connection, key))

    async def revoke_key(self, api_key: str) -> ApiKey | None:
        return await self._change_keys(lambda connection: self._keys.revoke(connection, api_key))

    async def rotate_key(self, api_key: str, secret: str, overlap: int) -> ApiKey | None:
        return await self._change_keys(lambda connection: self._keys.rotate(connection, api_key, secret, overlap))

    async def _change_keys(self, job: Callable[[sqlite3.Connection], T]) -> T:
        def change(connection: sqlite3.Connection) -> T:
            self._memory.forget()
            return job(connection)

        return await self._writer.run(change)

    async def find_grant(self, key: bytes) -> GrantRecord | None:
        return await self._readers.run(lambda connection: ledger.find(connection, key))

    async def list_grants(
        self, cloud: str, *, api_key: str | None, status: GrantStatus | None, limit: int, cursor: str | None
    ) -> Page[GrantRecord]:
        after = parse_cursor(cursor)
        page = partial(ledger.page, cloud=cloud, api_key=api_key, status=status, limit=limit, after=after)
        return await self._readers.run(page)

    async def history(self, key: bytes, limit: int) -> Sequence[AuditRecord]:
        return await self._readers.run(lambda connection: audit.history(connection, key, limit))

    async def commit(self, grant: Grant, draft: Draft, caller: Caller) -> Committed:
        return await self._writer.run(
            lambda connection: _commit(connection, grant, draft, caller, now=self._clock.now())
        )

    async def commit_arrival(self, arrival: A, steps: Steps[A], most_refusals: int) -> Committed:
        group = Group(self._memory, steps, most_refusals, self._commit_candidate)
        committed: Committed = await self._writer.run_prepared(arrival, group)
        return committed

    def _commit_candidate(self, connection: sqlite3.Connection, candidate: Candidate) -> Committed:
        return _commit(connection, candidate.grant, candidate.draft, candidate.caller, now=self._clock.now())

    async def delete(self, grant: Grant, name: AssetName, caller: Caller) -> Asset | None:
        return await self._writer.run(
            lambda connection: deleting.delete(connection, grant, name, caller, self._clock.now())
        )

    async def find_commit(self, blob_key: str) -> Asset | None:
        return await self._readers.run(lambda connection: catalog.find_by_blob(connection, blob_key))

    async def find_reply(self, grant_key: bytes, idempotency_key: str) -> Reply | None:
        return await self._readers.run(lambda connection: replies.find(connection, grant_key, idempotency_key))

    async def revoke_grant(self, grant: Grant, caller: Caller) -> GrantRecord:
        return await self._writer.run(lambda connection: _revoke(connection, grant, caller, now=self._clock.now()))

    async def record_refusal(self, grant: Grant, code: str, caller: Caller, most: int = 20) -> None:
        def job(connection: sqlite3.Connection) -> None:
            record = AuditRecord(int(self._clock.now()), AuditEvent.REFUSED, caller, code)
            audit.write_refusal(connection, grant, record, most)

        await self._writer.run(job)

    async def find_asset(self, name: AssetName) -> Asset | None:
        def look(connection: sqlite3.Connection) -> Asset | None:
            self.glance.prepare()
            return catalog.find(connection, name)

        return await self._readers.run(look)

    async def purge(self, audit_seconds: int) -> int:
        def grants(connection: sqlite3.Connection) -> int:
            return ledger.purge(connection, self._clock.now(), BATCH)

        def records(connection: sqlite3.Connection) -> int:
            return audit.purge(connection, self._clock.now() - audit_seconds, BATCH)

        dropped = await in_batches(lambda: self._writer.run(grants))
        await in_batches(lambda: self._writer.run(records))
        return dropped

    async def fence(self, skew: int) -> int:
        return await self._writer.run(lambda connection: fence(connection, self._clock.now(), skew))

    async def freeze(self) -> None:
        await self._writer.run(freezing.freeze)

    async def frozen(self) -> bool:
        return await self._readers.run(freezing.is_frozen)

    async def thaw(self, skew: int) -> int:
        return await self._writer.run(lambda connection: thaw(connection, self._clock.now(), skew))

    async def count_rows(self, table: Table) -> int:
        return await self._readers.run(lambda connection: moving.count(connection, table))

    async def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        return await self._readers.run(lambda connection: moving.rows(connection, table, after, limit))

    async def last_row(self, table: Table) -> Row | None:
        return await self._readers.run(lambda connection: moving.last(connection, table))

    async def add_rows(self, table: Table, rows: Sequence[Row]) -> None:
        await self._writer.run(lambda connection: moving.add(connection, table, rows))

    async def create_series(self, new: Series, grant: Grant, *, per_key: int, in_all: int) -> Series:
        return await self._writer.run(partial(series.create, series=new, grant=grant, per_key=per_key, in_all=in_all))

    async def join_series(self, series_id: str, grant: Grant) -> Series:
        return await self._writer.run(lambda connection: series.join(connection, series_id, grant))

    async def find_series(self, series_id: str) -> Series | None:
        return await self._readers.run(lambda connection: series.find(connection, series_id))

    async def find_named_series(self, cloud: str, api_key: str, upload_id: str) -> Series | None:
        return await self._readers.run(lambda connection: series.find_named(connection, cloud, api_key, upload_id))

    async def find_series_of(self, grant_key: bytes) -> Sequence[Series]:
        return await self._readers.run(lambda connection: series.find_of(connection, grant_key))

    async def record_span(
        self, series_id: str, span: Span, total: int | None, parts: Sequence[StoredPart] = ()
    ) -> Series:
        return await self._writer.run(lambda connection: series.record(connection, series_id, span, total, parts))

    async def series_parts(self, series_id: str, span: Span, limit: int) -> Sequence[StoredPart]:
        return await self._readers.run(lambda connection: series.parts(connection, series_id, span, limit))

    async def commit_series(self, series_id: str, draft: Draft, caller: Caller) -> Committed:
        return await self._writer.run(
            lambda connection: series.commit(connection, series_id, draft, caller, self._clock.now())
        )

    async def end_series(self, series_id: str, *, if_empty: bool = False) -> bool:
        return await self._writer.run(lambda connection: series.end(connection, series_id, if_empty))

    async def note_arrival(self, series_id: str, size: int) -> None:
        await self._writer.run(lambda connection: series.note_arrival(connection, series_id, size))

    async def end_slowest_series(
        self, api_key: str, *, per_key: int, in_all: int, rate: int, seconds: int
    ) -> Sequence[str]:
        return await self._writer.run(
            lambda connection: series.end_slowest(
                connection, api_key, per_key, in_all, {"rate": rate, "seconds": seconds, "now": int(self._clock.now())}
            )
        )

    async def end_old_series(self, older_than: float, empty: float) -> Sequence[str]:
        now = self._clock.now()
        return await self._writer.run(
            lambda connection: series.end_begun_before(connection, now - older_than, now - empty, BATCH)
        )

    async def series_blobs(self) -> frozenset[str]:
        return await self._readers.run(series.blob_keys)

    async def unnamed(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self._readers.run(lambda connection: catalog.unnamed(connection, blob_keys))

    async def condemn(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self._writer.run(lambda connection: catalog.condemn(connection, blob_keys, self._clock.now()))

    async def digests(self, prefix: str) -> Mapping[str, Digest]:
        return await self._readers.run(lambda connection: catalog.digests(connection, prefix))

    async def condemned(self, blob_keys: Sequence[str]) -> Sequence[str]:
        return await self._readers.run(lambda connection: catalog.condemned(connection, blob_keys))

    async def integrity(self, *, deep: bool) -> Sequence[str]:
        return await self._readers.run(lambda connection: checks.integrity(connection, deep))

    async def violations(self, rule: Rule, audit_seconds: int) -> Sequence[str]:
        return await self._readers.run(
            lambda connection: checks.violations(connection, rule, self._clock.now(), audit_seconds)
        )

    async def newest_moment(self) -> int | None:
        return await self._readers.run(audit.newest_moment)

    async def ping(self) -> None:
        await self._readers.run(freezing.check)
        await self._writer.run(_touch)

    @property
    def _keys(self) -> KeyRing:
        return KeyRing(self._secrets, self._clock.now())

    def _migrate(self) -> None:
        connection = self._connect()
        try:
            migrate(connection)
            _try_write(connection)
        finally:
            connection.close()


def fence(connection: sqlite3.Connection, now: float, skew: int) -> int:
    mark = int(now) + skew
    ledger.raise_watermarks(connection, mark)
    series.end_all(connection)
    return mark


def thaw(connection: sqlite3.Connection, now: float, skew: int) -> int:
    freezing.thaw(connection)
    return fence(connection, now, skew)


def _commit(connection: sqlite3.Connection, grant: Grant, draft: Draft, caller: Caller, *, now: float) -> Committed:
    """Spend, publish, note: all of it, or by the caller's rollback none of it. A repeat is only told what was."""
    ledger.check_key(connection, grant)
    reply = replies.find(connection, grant.key, draft.idempotency_key)
    if reply is not None:
        return repetition(reply, draft)
    catalog.refuse_condemned_blob(connection, draft.blob_key)
    ledger.spend(connection, grant, now)
    committed = catalog.put(connection, draft, now)
    audit.write(connection, grant, spending(committed, caller, now))
    replies.keep(connection, grant, draft, committed)
    return committed


def _revoke(connection: sqlite3.Connection, grant: Grant, caller: Caller, *, now: float) -> GrantRecord:
    record, changed = ledger.revoke(connection, grant, now)
    if changed:
        audit.write(connection, grant, AuditRecord(int(now), AuditEvent.REVOKED, caller))
    return record


def _try_write(connection: sqlite3.Connection) -> None:
    """Raise sqlite3.Error if the file cannot be written, as on a read-only disk. Nothing is written."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        if not is_for_later(error):
            raise


def _touch(connection: sqlite3.Connection) -> None:
    """A write that changes nothing, yet reaches the disk: a full one is found out by nothing less."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.execute(f"PRAGMA user_version = {version}")
