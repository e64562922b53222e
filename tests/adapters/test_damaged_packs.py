"""What a crash, a broken disk or a stranger leaves in a pack."""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.one_group import body, different
from tests.adapters.packing import LARGE, allocated, break_page, chance, get, listed, packs, place, put, sweep
from tests.contract.stores import local_of
from uponce.adapters.store import packs as packs_module
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.records import HEADER_BYTES, PAGE
from uponce.adapters.system import erase
from uponce.core.errors import StorageFull, StorageUnavailable


def spoil(root: Path, key: str, offset: int, data: bytes) -> None:
    pack, start = place(root, key)
    with pack.open("r+b") as file:
        file.seek(start + offset)
        file.write(data)


@pytest.mark.parametrize("offset", range(0, HEADER_BYTES, 9))
def test_a_header_with_a_flipped_bit_names_no_blob_and_deletes_none(store: Blobs, root: Path, offset: int) -> None:
    bodies = [body(chance(size, size)) for size in (5000, 6000, 7000)]
    first, broken, last = local_of(store).put_group(bodies)
    pack, start = place(root, broken)
    spoil(root, broken, offset, bytes([pack.read_bytes()[start + offset] ^ 1]))
    assert asyncio.run(get(store, broken)) is None
    assert listed(store) == {first, last}
    asyncio.run(store.delete(broken))
    assert asyncio.run(different(store, [first, last], [bodies[0], bodies[2]])) == []


@pytest.mark.parametrize("offset", range(0, HEADER_BYTES, 9))
def test_no_sweep_deletes_the_bytes_behind_a_flipped_bit(store: Blobs, root: Path, offset: int) -> None:
    """They may be all that is left of an asset, so they stay until a row condemns them."""
    (broken,) = put(store, chance(5000))
    local_of(store)._packs._end_pack()
    pack, start = place(root, broken)
    spoil(root, broken, offset, bytes([pack.read_bytes()[start + offset] ^ 1]))
    assert sweep(store) == 0
    assert packs(root) == [pack]
    asyncio.run(store.delete(broken))
    assert sweep(store) == 0
    assert packs(root) == []


def test_the_torn_end_of_a_group_hides_no_blob_before_it_and_goes_with_its_pack(store: Blobs, root: Path) -> None:
    kept, torn = put(store, chance(5000), chance(LARGE))
    local_of(store)._packs._end_pack()  # the process died
    pack, start = place(root, torn)
    spoil(root, torn, 0, bytes(PAGE))
    os.truncate(pack, start + 10 * PAGE + 17)
    assert listed(store) == {kept}
    assert sweep(store) == 0
    assert packs(root) == [pack]
    asyncio.run(store.delete(kept))
    assert sweep(store) == 0
    assert packs(root) == []


@contextmanager
def failing_hole(number: int) -> Iterator[None]:
    """Let the hole of this number, from 0, fail, as on a full disk that copies on write."""
    made: list[int] = []

    def make(descriptor: int, start: int, length: int) -> None:
        made.append(start)
        if len(made) == number + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        erase(descriptor, start, length)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(packs_module, "erase", make)
        yield


@pytest.mark.parametrize("hole", [0, 1])
def test_a_sweep_completes_a_deletion_that_broke_off(store: Blobs, root: Path, hole: int) -> None:
    kept, gone = put(store, chance(100), chance(LARGE))
    with failing_hole(hole), pytest.raises(StorageFull):
        asyncio.run(store.delete(gone))
    assert listed(store) == {kept}
    assert asyncio.run(get(store, gone)) is None
    assert sweep(store) == 0
    assert allocated(root) == PAGE
    assert asyncio.run(get(store, kept)) == chance(100)


@pytest.mark.parametrize("hole", [0, 1])
def test_a_deletion_that_broke_off_can_be_repeated(store: Blobs, root: Path, hole: int) -> None:
    _, gone = put(store, chance(100), chance(LARGE))
    with failing_hole(hole), pytest.raises(StorageFull):
        asyncio.run(store.delete(gone))
    asyncio.run(store.delete(gone))
    assert allocated(root) == PAGE


@pytest.mark.skipif(not hasattr(os, "RWF_DSYNC"), reason="the system has no such flag: of Linux alone")
def test_the_mark_is_durable_before_the_first_hole(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a power cut could leave a header that promises bytes where only zeros are left."""
    order: list[object] = []
    write = os.pwritev

    def mark(descriptor: int, data: Any, start: int, flags: int = 0) -> int:
        order.append(flags)
        return write(descriptor, data, start, flags)

    def hole(descriptor: int, start: int, length: int) -> None:
        order.append("hole")
        erase(descriptor, start, length)

    (gone,) = put(store, chance(LARGE))
    monkeypatch.setattr(os, "pwritev", mark)
    monkeypatch.setattr(packs_module, "erase", hole)
    asyncio.run(store.delete(gone))
    assert order == [os.RWF_DSYNC, "hole", "hole"]


def test_a_pack_of_deletions_that_broke_off_is_empty(store: Blobs, root: Path) -> None:
    (gone,) = put(store, chance(LARGE))
    local_of(store)._packs._end_pack()
    with failing_hole(0), pytest.raises(StorageFull):
        asyncio.run(store.delete(gone))
    with failing_hole(0):  # a full disk still deletes files
        assert sweep(store) == 0
    assert packs(root) == []


def test_a_deletion_that_cannot_be_completed_stops_no_sweep(
    store: Blobs, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kept, gone = put(store, chance(100), chance(LARGE))
    with failing_hole(0), pytest.raises(StorageFull):
        asyncio.run(store.delete(gone))
    with failing_hole(0):
        assert sweep(store) == 0
    assert f"a deletion in the pack {place(root, kept)[0]} cannot be completed" in caplog.text
    assert listed(store) == {kept}


def test_a_sweep_of_a_full_disk_keeps_the_mark_of_a_deletion_that_broke_off(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the mark, no later sweep would find the rest of the blob."""
    kept, gone = put(store, chance(100), chance(LARGE))
    with failing_hole(0), pytest.raises(StorageFull):
        asyncio.run(store.delete(gone))
    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", refuse_for_space)
        for hole in (1, 0):
            with failing_hole(hole):
                assert sweep(store) == 0
    assert sweep(store) == 0
    assert listed(store) == {kept}
    assert allocated(root) == PAGE


def refuse_for_space(*_: object) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_that_takes_no_mark_still_deletes(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, gone = put(store, chance(100), chance(LARGE))
    holes: list[int] = []

    def make(descriptor: int, start: int, length: int) -> None:
        holes.append(start)
        erase(descriptor, start, length)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwritev", refuse_for_space)
        patched.setattr(packs_module, "erase", make)
        asyncio.run(store.delete(gone))
    assert holes == [PAGE, 2 * PAGE]  # the header first
    assert listed(store) == {kept}
    assert allocated(root) == PAGE


def test_bytes_that_look_like_a_blob_inside_of_another_are_none(store: Blobs) -> None:
    """Even if a client knew the name of the pack: neither while the outer one is there, nor afterwards."""
    (first,) = put(store, b"abc")
    inner = f"{first[:11]}{2:05x}{'0' * 16}"
    header = packs_module._header(inner, 0, 3 * PAGE, "0" * 64)
    bodies = [body(bytes(PAGE - HEADER_BYTES) + header + chance(PAGE)), body(chance(3 * PAGE))]
    outer, last = local_of(store).put_group(bodies)
    assert outer[:16] == f"{first[:11]}{1:05x}"
    assert listed(store) == {first, outer, last}
    asyncio.run(store.delete(outer))
    assert listed(store) == {first, last}
    assert asyncio.run(different(store, [last], bodies[1:])) == []


def test_what_others_left_among_the_packs_is_left_alone(store: Blobs, root: Path) -> None:
    (key,) = put(store, b"abc")
    strangers = [root / "packs" / name for name in ("README", "0" * 11, "lost+found")]
    for path in strangers:
        path.write_bytes(b"")
    assert sweep(store) == 0
    assert listed(store) == {key}
    assert all(path.exists() for path in strangers)


def test_a_pack_of_the_same_name_takes_the_place_of_one_that_was_open(store: Blobs, root: Path) -> None:
    """As after a restore beside a running server."""
    (key,) = put(store, b"abc")
    assert asyncio.run(get(store, key)) == b"abc"
    pack = packs(root)[0]
    data = pack.read_bytes()
    asyncio.run(store.delete(key))
    pack.unlink()
    pack.write_bytes(data)
    assert asyncio.run(get(store, key)) == b"abc"


def test_a_pack_that_was_copied_under_another_name_has_no_blobs(store: Blobs, root: Path) -> None:
    """Nor would a record at another place. Listed twice, a blob could be deleted at the wrong one."""
    keys = put(store, chance(100), b"abc", chance(LARGE))
    pack = packs(root)[0]
    (root / "packs" / ("0" * 10)).write_bytes(pack.read_bytes())
    (root / "packs" / ("1" * 10)).write_bytes(pack.read_bytes()[PAGE:])
    assert sorted(blob.key for blob in local_of(store)._packs.records()) == sorted(keys)


# A page that the disk cannot read, with a header on it.


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_header_that_the_disk_cannot_read_hides_no_other_blob(
    store: Blobs, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    lost, last = put(store, chance(size), chance(5000))
    break_page(monkeypatch, 0)
    assert listed(store) == {last}
    assert asyncio.run(get(store, last)) == chance(5000)
    with pytest.raises(StorageUnavailable):
        asyncio.run(store.open(lost))


@pytest.mark.parametrize("size", [100, LARGE])
def test_a_copy_replaces_a_blob_whose_header_the_disk_cannot_read(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    lost, last = put(store, chance(size), chance(5000))
    break_page(monkeypatch, 0)
    before = allocated(root)

    async def publish() -> None:
        copy = await store.receive(lost)
        await copy.write(chance(size))
        await copy.seal()
        await copy.publish()

    asyncio.run(publish())
    assert listed(store) == {lost, last}
    assert asyncio.run(get(store, lost)) == chance(size)
    assert asyncio.run(get(store, last)) == chance(5000)
    assert before - allocated(root) == PAGE


def test_a_pack_stays_while_the_disk_cannot_read_one_of_its_headers(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk may read the header the next time."""
    (kept,) = put(store, b"abc")
    local_of(store)._packs._end_pack()
    with monkeypatch.context() as patched:
        break_page(patched, 0)
        assert sweep(store) == 0
    assert packs(root) == [place(root, kept)[0]]
    assert asyncio.run(get(store, kept)) == b"abc"


def test_a_pack_that_cannot_be_opened_keeps_no_spooled_file_and_no_pack_of_another_place(
    store: Blobs, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk, the deletion of old spooled files makes room."""
    while len({path.name[:2] for path in packs(root)}) < 2:
        (key,) = put(store, b"abc")
        local_of(store)._packs._end_pack()
        asyncio.run(store.delete(key))
    broken, *_, other = packs(root)
    spooled = store.folder / ("0" * 32)
    spooled.write_bytes(b"old")
    open_ = os.open

    def refuse(path: Any, *flags: Any, **named: Any) -> int:
        if path == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return open_(path, *flags, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert asyncio.run(store.sweep_spool(0)) == 1
        assert sweep(store) == 1
    assert (spooled.exists(), broken.exists(), other.exists()) == (False, True, False)


def test_a_disk_that_fails_in_another_way_ends_the_listing_and_erases_nothing(
    store: Blobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    (key,) = put(store, b"abc")
    with monkeypatch.context() as patched:
        break_page(patched, 0, errno.ESTALE)
        with pytest.raises(StorageUnavailable):
            listed(store)
        with pytest.raises(StorageUnavailable):
            asyncio.run(store.delete(key))
    assert asyncio.run(get(store, key)) == b"abc"
