"""The bytes of a group are synced after the statements of its transaction, and before its commit."""

import asyncio
import ctypes
import errno
import sqlite3
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest

from tests.adapters.one_group import body
from tests.chunks import stored
from tests.world import OTHER_PNG, PNG, QuickWorld, World, assert_accepted
from uponce.adapters import system
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.store import packs as packs_module
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.packs import Packs
from uponce.adapters.system import RandomIds
from uponce.config import load
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown, StorageFull, StorageUnavailable, UponceError
from uponce.wiring import build


@pytest.fixture
def world(tmp_path: Path) -> Any:
    world = QuickWorld(tmp_path)
    world.whole_bodies = True
    assert_accepted(world.upload(world.sign()))  # the pack is open
    packs_of(world)._is_slow = False  # whatever the disk of this machine did
    yield world
    world.close()


def packs_of(world: World) -> Packs:
    assert isinstance(world.blobs, LocalBlobs)
    return world.blobs._packs


def _append(calls: list[str], name: str, *_: object) -> object:
    calls.append(name)
    return DEFAULT  # go on with the real one


def order(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What an upload writes and syncs, without the statements between its first and its last one."""
    calls: list[str] = []
    for name in ("start_writeback", "sync_data"):
        noted = Mock(wraps=vars(packs_module)[name], side_effect=partial(_append, calls, name))
        monkeypatch.setattr(packs_module, name, noted)
    world.database._engine._held.connected().set_trace_callback(lambda text: calls.append(text.split()[0]))
    assert_accepted(world.upload(world.sign()))
    writes = [call for call in calls if call not in ("SELECT", "PRAGMA")]
    return [*writes[:3], *writes[-2:]]


ORDER = ["start_writeback", "BEGIN", "INSERT", "sync_data", "COMMIT"]


def test_the_sync_comes_before_the_commit_and_after_the_statements(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert order(world, monkeypatch) == ORDER


def test_the_check_goes_red_when_the_sync_comes_after_the_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = world.database._engine
    late = engine.late
    assert late is not None
    log = Mock(is_long=False, note_commit=lambda _: late.seal())
    engine.late, engine._log = replace(late, seal=engine._log.note_commit), log
    assert order(world, monkeypatch) != ORDER


@pytest.mark.parametrize("step", ["sync_data", "facts_of"])
def test_a_failed_sync_spends_nothing_and_ends_the_pack(
    world: World, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    def fail(_: object) -> None:
        raise OSError(errno.EIO, "broken")

    fields, pack = world.sign(), packs_of(world)._name
    with monkeypatch.context() as broken, world.untouched():
        broken.setattr(packs_module, step, fail)
        refused = world.upload(fields)
    assert (refused.status, refused.code) == (503, "storage_unavailable")
    assert_accepted(world.upload(fields))
    assert packs_of(world)._name != pack


def test_bytes_of_a_transaction_that_failed_do_not_spoil_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They were never synced, and their pack ends."""
    engine, fields, pack = world.database._engine, world.sign(), packs_of(world)._name
    with monkeypatch.context() as broken, world.untouched():

        def away(*_: object) -> None:
            raise DatabaseUnavailable("The database is away.")

        broken.setattr(engine, "_run_all", away)
        assert world.upload(fields).code == "database_unavailable"
    size = (world.media / "packs" / pack).stat().st_size
    assert size == packs_of(world)._sealed
    assert_accepted(world.upload(fields))
    assert packs_of(world)._name != pack


def test_a_commit_without_an_upload_syncs_no_pack(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def sync(_: int) -> None:
        raise AssertionError

    monkeypatch.setattr(packs_module, "sync_data", sync)
    asyncio.run(world.database.note_settings({"audit_days": "1"}))


@pytest.mark.parametrize(("workers", "late"), [("1", True), ("2", False)])
def test_workers_do_not_wait_for_the_sync_of_another_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: str, late: bool
) -> None:
    """A transaction of SQLite holds the lock of the database."""
    backend = build(load({"UPONCE_DATA": str(tmp_path), "UPONCE_WORKERS": workers}))
    backend.database.open()
    backend.blobs.open_store()
    assert isinstance(backend.database, SqliteDatabase)
    assert isinstance(backend.blobs, LocalBlobs)
    put_group = backend.services.put_group
    assert put_group is not None
    put_group([body(PNG)])
    assert (backend.blobs._packs._sealed < backend.blobs._packs._end) is late
    assert (backend.database._engine.late is not None) is late
    backend.database.close()
    backend.blobs.close()


def test_an_error_of_the_seal_is_that_of_the_store(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.ESTALE, "gone")

    packs_of(world).write_group([body(PNG)])
    monkeypatch.setattr(packs_module, "sync_data", fail)
    with pytest.raises(StorageUnavailable):
        packs_of(world).seal()
    packs_of(world).seal()  # nothing is left to sync


@pytest.mark.parametrize("is_slow", [True, False])
def test_a_sync_that_would_hold_the_database_for_long_comes_before(
    world: World, monkeypatch: pytest.MonkeyPatch, is_slow: bool
) -> None:
    packs_of(world)._is_slow = is_slow
    synced = ["start_writeback", "sync_data", "BEGIN", "INSERT", "COMMIT"]
    assert order(world, monkeypatch) == (synced if is_slow else ORDER)


def beside(world: World, monkeypatch: pytest.MonkeyPatch, outcomes: list[str]) -> list[threading.Thread]:
    """The next upload shares its transaction with an operation that needs no bytes, whose outcome is noted."""
    committer: Any = world.database._committer
    take_steps, started = committer._take_steps, list[threading.Thread]()

    async def note() -> None:
        try:
            await world.database.note_settings({"audit_days": "7"})
            outcomes.append("ok")
        except UponceError as error:
            outcomes.append(error.code)

    def steps(group: Any) -> None:
        take_steps(group)
        if not started:
            started.append(threading.Thread(target=lambda: asyncio.run(note())))
            started[0].start()
            while committer._queue.empty() and started[0].is_alive():  # the transaction takes it along
                time.sleep(0.001)

    monkeypatch.setattr(committer, "_take_steps", steps)
    return started


@pytest.mark.parametrize(("error", "code"), [(errno.EIO, "storage_unavailable"), (errno.ENOSPC, "storage_full")])
@pytest.mark.parametrize("lost", [False, True], ids=["answered", "its reply is lost"])
def test_what_needs_no_bytes_has_its_own_outcome_though_the_sync_fails(
    world: World, monkeypatch: pytest.MonkeyPatch, error: int, code: str, lost: bool
) -> None:
    """Else no client could delete an asset while uploads meet a disk that fails.

    A streamed upload would delete its bytes after a failure of the sync, and its row may be committed.
    """
    engine, outcomes, fields = world.database._engine, list[str](), world.sign()
    transact, started = engine.transact, beside(world, monkeypatch, outcomes)

    def fail(_: int) -> None:
        raise OSError(error, "broken")

    def lose(*args: Any) -> Any:
        done = transact(*args)  # the first one raises
        if lost:
            raise OutcomeUnknown("The reply was lost.")
        return done

    with monkeypatch.context() as broken:
        broken.setattr(packs_module, "sync_data", fail)
        broken.setattr(engine, "transact", lose)
        assert world.upload(fields).code == code
        started[0].join()
    assert outcomes == ["outcome_unknown" if lost else "ok"]
    assert asyncio.run(world.database.noted_settings())["audit_days"] == "7"
    assert_accepted(world.upload(fields))


def test_bytes_stay_when_the_reply_to_their_commit_is_lost(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """They were sealed before, so the row that is read back has its bytes."""
    connection: Any = world.database._engine._held.connected()
    execute, lost = connection.execute, list[str]()

    def lose_the_reply(sql: str, *parameters: Any) -> Any:
        done = execute(sql, *parameters)
        if sql == "COMMIT":
            lost.append(sql)
            raise sqlite3.OperationalError("disk I/O error")
        return done

    monkeypatch.setattr(connection, "execute", lose_the_reply)
    answer = world.upload(world.sign(), OTHER_PNG)
    assert lost == ["COMMIT"]
    assert stored(world, answer) == OTHER_PNG


def test_no_seal_succeeds_if_bytes_went_with_their_pack(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two groups of one transaction: the second one could not be written."""

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "broken")

    packs_of(world).write_group([body(PNG)])
    with monkeypatch.context() as broken:
        broken.setattr(packs_module, "write_all", fail)
        for _ in range(2):
            with pytest.raises(StorageUnavailable):
                packs_of(world).write_group([body(PNG)])
    packs_of(world).write_group([body(PNG)])
    with pytest.raises(StorageUnavailable):
        packs_of(world).seal()
    packs_of(world).seal()


def test_room_on_the_disk_again_is_room_for_the_next_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A database without room, then a pack without room. Nothing of these attempts is in the way later."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    def no_room(*_: object) -> None:
        raise StorageFull("The database is full.")

    fields = world.sign()
    with monkeypatch.context() as broken, world.untouched():
        broken.setattr(world.database._engine, "_run_all", no_room)
        assert world.upload(fields).code == "storage_full"
        broken.setattr(packs_module, "write_all", full)
        assert world.upload(fields).code == "storage_full"
    assert_accepted(world.upload(fields))


def test_a_sync_that_fails_slowly_keeps_no_other_process_waiting_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as broken:
        broken.setattr(packs_module, "sync_data", fail)
        assert world.upload(world.sign()).code == "storage_unavailable"
    packs_of(world).write_group([body(PNG)])
    assert packs_of(world)._sealed == packs_of(world)._end > 0


def test_a_full_pack_is_synced_before_it_ends(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    (key,) = packs_of(world).write_group([body(PNG)])
    monkeypatch.setattr(packs_module, "PACK_BYTES", 1)
    with monkeypatch.context() as broken:
        broken.setattr(packs_module, "sync_data", fail)
        with pytest.raises(StorageUnavailable):
            packs_of(world).write_group([body(PNG)])
    assert packs_of(world).find(key) is None
    with pytest.raises(StorageUnavailable):
        packs_of(world).seal()
    packs_of(world).write_group([body(PNG)])
    packs_of(world).write_group([body(PNG)])
    assert packs_of(world)._sealed == 0
    packs_of(world).seal()


@pytest.mark.parametrize(("error", "is_lost"), [(errno.EIO, True), (errno.ENOSPC, True), (errno.EPERM, False)])
def test_a_disk_that_fails_as_writing_begins(
    world: World, monkeypatch: pytest.MonkeyPatch, error: int, is_lost: bool
) -> None:
    """ext4 may report lost pages only there. A filter of system calls may forbid the call."""

    def refuse(*_: object) -> int:
        ctypes.set_errno(error)
        return -1

    fields = world.sign()
    with monkeypatch.context() as broken:
        broken.setattr(system, "_LIBC", SimpleNamespace(sync_file_range=refuse))
        assert (world.upload(fields).status == 200) is not is_lost
    if is_lost:
        assert_accepted(world.upload(fields))


def test_a_failed_sync_leaves_no_file_of_its_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several processes sync before the large blobs of a group become files: no row would name these."""

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "broken")

    store = LocalBlobs(tmp_path, ids=RandomIds(), pack_bytes=100)
    store.open_store()
    monkeypatch.setattr(packs_module, "sync_data", fail)
    with pytest.raises(StorageUnavailable):
        store.put_group([body(b"small"), body(bytes(1000))])
    assert not [path for path in (tmp_path / "blobs").rglob("*") if path.is_file()]
    store.close()


def test_postgresql_gets_only_bytes_that_are_durable(tmp_path: Path) -> None:
    backend = build(load({"UPONCE_DATA": str(tmp_path), "UPONCE_DATABASE": "postgresql://db/uponce"}))
    assert backend.services.put_group == backend.blobs.put_group
