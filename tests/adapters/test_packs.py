"""Packs: what a deletion leaves, what a reader sees beside one, and that no place in a pack is ever written twice."""

import asyncio
import ctypes
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.one_group import SeededIds, body, different
from tests.adapters.packing import LARGE, allocated, chance, get, listed, opened, packs, place, put, sweep
from tests.contract.stores import local_of
from uponce.adapters import system
from uponce.adapters.spool import locks
from uponce.adapters.store import packs as packs_module
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.packs import Packs
from uponce.adapters.store.records import HEADER_BYTES, PAGE, room_of, walk
from uponce.adapters.system import RandomIds
from uponce.core.errors import StorageFull, StorageUnavailable

# Where a blob goes.


def test_only_small_blobs_go_into_a_pack(root: Path) -> None:
    store = LocalBlobs(root, ids=RandomIds(), pack_bytes=1000)
    store.open_store()
    bodies = [body(chance(size)) for size in (0, 1000, 1001, 5000)]
    keys = local_of(store).put_group(bodies)
    assert [key[0] == "p" for key in keys] == [True, True, False, False]
    assert {key[1:11] for key in keys[:2]} == {path.name for path in packs(root)}
    assert asyncio.run(different(store, keys, bodies)) == []
    store.close()


def test_a_file_system_that_frees_no_part_of_a_file_gets_files(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoHoles:
        def fallocate(self, *arguments: object) -> int:
            ctypes.set_errno(errno.EOPNOTSUPP)
            return -1

    monkeypatch.setattr(system, "_LIBC", NoHoles())
    (key,) = put(store, b"abc")
    assert (key[0] == "p", packs(root)) == (False, [])
    assert asyncio.run(get(store, key)) == b"abc"
    assert "file system" in store.describe()


def test_a_deletion_erases_also_where_no_hole_can_be_made(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that was copied to another file system."""
    kept, gone = put(store, chance(5000), chance(LARGE))
    monkeypatch.setattr(system, "LINUX", False)
    asyncio.run(store.delete(gone))
    assert listed(store) == {kept}
    pack, start = place(root, gone)
    assert not any(pack.read_bytes()[start:])


def test_a_probe_that_could_not_be_made_is_tried_again(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk at the start must not turn packs off."""

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched, pytest.raises(StorageFull):
        patched.setattr(packs_module, "write_all", full)
        put(store, b"abc")
    assert put(store, b"abc")[0].startswith("p")


def test_a_pack_that_is_full_takes_no_other_group(store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packs_module, "PACK_BYTES", 3 * PAGE)
    monkeypatch.setattr(packs_module, "_MOST_OPEN", 2)
    bodies = [body(chance(100, seed)) for seed in range(20)]
    keys = [key for one in bodies for key in local_of(store).put_group([one])]
    assert len(packs(root)) == 7
    for _ in range(2):
        assert asyncio.run(different(store, keys, bodies)) == []


# What a deletion leaves.


def test_a_deletion_gives_the_space_back_and_touches_no_neighbour(store: Blobs, root: Path) -> None:
    bodies = [body(chance(size, size)) for size in (1, PAGE - HEADER_BYTES, PAGE - HEADER_BYTES + 1, LARGE, 5000)]
    keys = local_of(store).put_group(bodies)
    for number in (1, 3, 2, 0, 4):
        before = allocated(root)
        asyncio.run(store.delete(keys[number]))
        assert before - allocated(root) == room_of(len(bodies[number][0]))
        left = [other for other in range(5) if keys[other] in listed(store)]
        assert number not in left
        assert asyncio.run(different(store, [keys[n] for n in left], [bodies[n] for n in left])) == []
    assert allocated(root) == 0


def test_a_key_of_the_same_place_with_another_chance_is_another_blob(store: Blobs) -> None:
    (key,) = put(store, b"abc")
    other = key[:-1] + ("0" if key[-1] != "0" else "1")
    assert asyncio.run(get(store, other)) is None
    assert asyncio.run(store.digest(other)) is None
    asyncio.run(store.delete(other))
    assert asyncio.run(get(store, key)) == b"abc"


def test_keys_that_lead_into_the_middle_of_a_blob_or_behind_the_end_name_nothing(store: Blobs) -> None:
    (key,) = put(store, chance(LARGE))
    for page in (1, 2, 0xFFFFF):
        other = f"{key[:11]}{page:05x}{key[16:]}"
        assert asyncio.run(get(store, other)) is None
        asyncio.run(store.delete(other))
    assert asyncio.run(get(store, key)) == chance(LARGE)


# Packs that are over.


def test_each_store_makes_its_own_packs(root: Path) -> None:
    """Also one that is opened again: nothing is ever appended to a pack of before."""
    names = []
    for _ in range(3):
        stores = [opened(root) for _ in range(2)]
        names += [put(store, b"abc")[0][1:11] for store in stores]
        for store in stores:
            store.close()
    assert len(set(names)) == 6


def resume(self: Packs) -> int:
    """The broken way: go on with the newest pack, behind its last record."""
    path = max(self._folder.iterdir(), key=lambda pack: pack.stat().st_mtime)
    descriptor, last = os.open(path, os.O_RDWR), list(filter(None, walk(path)))[-1]
    self._name, self._end = path.name, last.start - HEADER_BYTES + room_of(last.size)
    os.lseek(descriptor, self._end, os.SEEK_SET)
    return descriptor


@pytest.mark.parametrize("way", ["as it is", "resuming"])
def test_servers_that_went_on_with_an_old_pack_after_a_crash_would_lose_blobs(
    root: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Two workers that died and start again. The broken way is the control."""
    crashed = opened(root)
    put(crashed, b"before")
    local_of(crashed)._packs._end_pack()
    if way == "resuming":
        monkeypatch.setattr(Packs, "_new_pack", resume)
    workers, bodies = [opened(root) for _ in range(2)], [body(b"one"), body(b"two")]
    for worker in workers:
        local_of(worker)._packs._writer = local_of(worker)._packs._new_pack()
    keys = [local_of(worker).put_group([each])[0] for worker, each in zip(workers, bodies, strict=True)]
    lost = asyncio.run(different(workers[0], keys, bodies))
    assert len(lost) == (1 if way == "resuming" else 0)


@pytest.mark.parametrize("way", ["as it is", "resuming"])
def test_a_deletion_that_was_paused_would_erase_what_took_the_place(
    root: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """A sweep that has looked at an orphan, and makes the hole when a server has started again."""
    crashed, sweeper = opened(root), opened(root)
    _, orphan = put(crashed, b"before", chance(LARGE))
    local_of(crashed)._packs._end_pack()
    bodies, keys, erase = [body(chance(LARGE, 2))], list[str](), system.erase
    restarted = opened(root)
    assert restarted.describe()  # it has made its hole to try

    def paused(descriptor: int, start: int, length: int) -> None:
        if not keys:
            if way == "resuming":
                os.truncate(*place(root, orphan))  # what no row names is taken off the end
                monkeypatch.setattr(Packs, "_new_pack", resume)
            keys.extend(local_of(restarted).put_group(bodies))
        erase(descriptor, start, length)

    monkeypatch.setattr(packs_module, "erase", paused)
    asyncio.run(sweeper.delete(orphan))
    lost = asyncio.run(different(sweeper, keys, bodies))
    assert len(lost) == (1 if way == "resuming" else 0)


def test_a_name_that_is_taken_is_left_alone(root: Path) -> None:
    for _ in range(2):
        store = LocalBlobs(root, ids=SeededIds())
        store.open_store()
        put(store, b"abc")
        store.close()
    assert len(packs(root)) == 2


def test_only_a_pack_without_blobs_that_no_store_appends_to_is_deleted(root: Path) -> None:
    ended, running, sweeper = opened(root), opened(root), opened(root)
    (kept, gone), (last,) = put(ended, b"abc", b"def"), put(running, b"ghi")

    def left() -> list[str]:
        sweep(sweeper)
        return [path.name for path in packs(root)]

    asyncio.run(sweeper.delete(gone))
    asyncio.run(sweeper.delete(last))
    ended.close()
    assert left() == sorted([kept[1:11], last[1:11]])
    asyncio.run(sweeper.delete(kept))
    assert left() == [last[1:11]]
    (later,) = put(running, b"later")
    assert later[1:11] == last[1:11]
    running.close()
    assert left() == [last[1:11]]
    assert asyncio.run(get(sweeper, later)) == b"later"
    asyncio.run(sweeper.delete(later))
    assert left() == []
    assert asyncio.run(get(sweeper, later)) is None
    sweeper.close()


def test_only_a_sweep_of_the_store_reads_packs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The purge comes every few minutes in each worker, and does not rest. There may be a million packs."""
    store = opened(root)
    for _ in range(5):
        put(store, b"abc")
        local_of(store)._packs._end_pack()
    opened_paths: list[object] = []
    open_ = os.open

    def note(path: Any, *flags: Any, **named: Any) -> int:
        opened_paths.append(path)
        return open_(path, *flags, **named)

    monkeypatch.setattr(os, "open", note)
    assert asyncio.run(store.sweep_spool(0)) == 0
    assert opened_paths == []
    assert sweep(store) == 0
    assert sorted(path for path in opened_paths if path in packs(root)) == packs(root)  # each once
    store.close()


@pytest.mark.parametrize("moment", ["before it is locked", "while it is locked"])
def test_a_sweep_that_comes_while_a_pack_is_made_takes_no_blob_along(
    root: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    store, sweeper = opened(root), opened(root)
    put(store, b"abc")
    local_of(store)._packs._end_pack()
    lock = locks.LOCKS.lock
    swept: list[bool] = []

    def late(descriptor: int, *arguments: object, **more: object) -> bool:
        if not swept:  # the first lock is that of the store
            swept.append(True)
            if moment == "before it is locked":
                sweep(sweeper)
            else:
                other = os.open(os.readlink(f"/proc/self/fd/{descriptor}"), os.O_RDWR)
                assert lock(other, packs_module._APPENDING)
        return lock(descriptor, *arguments, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(locks.LOCKS, "lock", late)
    (key,) = put(store, b"def")
    assert swept
    sweep(sweeper)
    assert asyncio.run(get(sweeper, key)) == b"def"
    assert key in listed(sweeper)
    store.close()
    sweeper.close()


@pytest.mark.parametrize("stored_before", [True, False])
def test_a_failed_group_gives_its_space_back_and_its_pack_takes_no_other(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch, stored_before: bool
) -> None:
    before = put(store, b"abc") if stored_before else []

    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, "broken")

    with monkeypatch.context() as patched:
        patched.setattr(packs_module, "sync_data", fail)
        with pytest.raises(StorageUnavailable):
            put(store, chance(5000), chance(LARGE))
    assert allocated(root) == (PAGE if stored_before else 0)
    assert listed(store) == set(before)
    after = put(store, b"def")
    assert {key[1:11] for key in before}.isdisjoint(key[1:11] for key in after)
    assert listed(store) == {*before, *after}


def test_a_folder_that_is_replaced_under_its_server_takes_the_next_group(store: Blobs, root: Path) -> None:
    """Bytes in the old folder would be lost, while their rows are in the new database."""
    put(store, b"before")
    root.rename(root.with_name("old"))
    opened(root).close()
    with pytest.raises(StorageUnavailable):
        put(store, b"lost")
    (key,) = put(store, b"after")
    assert {path.name for path in packs(root)} == {key[1:11]}
    assert asyncio.run(get(store, key)) == b"after"


def test_a_disk_that_is_full_for_long_collects_no_empty_packs(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"abc")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(packs_module, "write_all", full)
    for _ in range(5):
        with pytest.raises(StorageFull):
            put(store, b"def")
    assert len(packs(root)) == 1
