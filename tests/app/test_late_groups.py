"""The bytes of a group are synced after the statements of its transaction, and before its commit."""

import asyncio
import errno
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import DEFAULT, Mock

import pytest

from tests.adapters.one_group import body
from tests.world import PNG, World, assert_accepted
from uponce.adapters.database.sqlite import SqliteDatabase
from uponce.adapters.store import packs as packs_module
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.packs import Packs
from uponce.config import load
from uponce.core.errors import DatabaseUnavailable, StorageUnavailable
from uponce.wiring import build


@pytest.fixture
def world(tmp_path: Path) -> Any:
    world = World(tmp_path)
    world.whole_bodies = True
    assert_accepted(world.upload(world.sign()))  # the pack is open
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
    engine.seal, engine._committed = engine._committed, engine.seal
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
    """They were never synced. The next group begins behind them, in the same pack."""
    engine, fields, pack = world.database._engine, world.sign(), packs_of(world)._name
    with monkeypatch.context() as broken, world.untouched():

        def away(*_: object) -> None:
            raise DatabaseUnavailable("The database is away.")

        broken.setattr(engine, "_run_all", away)
        assert world.upload(fields).code == "database_unavailable"
    end = packs_of(world)._end
    assert packs_of(world)._sealed < end
    assert_accepted(world.upload(fields))
    assert (packs_of(world)._name, packs_of(world)._sealed > end) == (pack, True)


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
    backend.database._engine.seal()
    assert backend.blobs._packs._sealed == backend.blobs._packs._end or not late
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
