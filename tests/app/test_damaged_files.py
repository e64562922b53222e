"""A damaged file system: one file that it cannot give costs no other one."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.app.test_copy_media import LARGE, copied, put, target
from tests.contract.databases import run
from tests.world import World
from uponce.adapters.store.blobs import Blobs
from uponce.app.copy_media import copy_media
from uponce.app.fsck import fsck
from uponce.app.ports import BlobStore
from uponce.core.errors import StorageUnavailable

__all__ = ["target"]
DAMAGED = [errno.EIO, errno.EBADMSG, 117]


class Damaged:
    """A store on a disk that cannot open one of its files."""

    def __init__(self, real: BlobStore, key: str, number: int) -> None:
        self._real, self._key, self._number = real, key, number

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def open(self, key: str) -> object:
        if key == self._key:
            raise StorageUnavailable("The storage failed.") from OSError(self._number, os.strerror(self._number))
        return await self._real.open(key)


@pytest.fixture
def damaged(world: World) -> str:
    """The key of the file that is damaged, beside one that is not."""

    async def find() -> str:
        (key,) = [blob.key async for blob in world.blobs.published() if blob.size > len(LARGE)]
        return key

    put(world, "kept", LARGE)
    put(world, "damaged", LARGE + b"damaged")
    return run(find())


@pytest.mark.parametrize("number", DAMAGED)
def test_the_rest_is_copied(world: World, target: Blobs, damaged: str, number: int) -> None:
    source: Any = Damaged(world.blobs, damaged, number)
    done = run(copy_media(world.database, source, target))
    assert copied(target) == [LARGE]
    assert list(done.lost) == ["demo/raw/upload/damaged"]


@pytest.mark.parametrize("number", DAMAGED)
def test_a_check_reports_the_blobs_of_a_damaged_pack_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    put(world, "kept", LARGE)
    world.whole_bodies = True
    put(world, "packed", b"small")
    real = os.open

    def opened(path: Any, flags: int, *more: Any, **how: Any) -> int:
        if Path(path).parent.name == "packs":
            raise OSError(number, os.strerror(number), str(path))
        return real(path, flags, *more, **how)

    monkeypatch.setattr("uponce.adapters.store.records.os", SimpleNamespace(**{**vars(os), "open": opened}))
    report = run(fsck(world.services, grace_seconds=0, audit_seconds=10**6, settle_seconds=0))
    assert [(kind.name, len(found)) for kind, found in report.findings.items()] == [("hollow", 1)]


class Unreadable:
    """An entry of a folder whose inode the disk cannot read."""

    def __init__(self, entry: os.DirEntry[str], number: int) -> None:
        self.name, self.path, self._number = entry.name, entry.path, number

    def is_file(self, *, follow_symlinks: bool) -> bool:
        return True

    def stat(self, *, follow_symlinks: bool) -> os.stat_result:
        raise OSError(self._number, os.strerror(self._number), self.path)


@pytest.mark.parametrize("number", DAMAGED)
def test_a_check_reports_it_and_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, damaged: str, number: int
) -> None:
    scandir = os.scandir

    @contextmanager
    def scan(folder: Path) -> Iterator[Iterator[Any]]:
        with scandir(folder) as entries:
            yield (Unreadable(entry, number) if entry.name == damaged else entry for entry in entries)

    monkeypatch.setattr("uponce.adapters.files.os", SimpleNamespace(**{**vars(os), "scandir": scan}))
    report = run(fsck(world.services, grace_seconds=0, audit_seconds=10**6, settle_seconds=0))
    assert [(kind.name, len(found)) for kind, found in report.findings.items()] == [("hollow", 1)]
