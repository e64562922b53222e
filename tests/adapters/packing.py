"""What the tests of packs are written with."""

import asyncio
import errno
import os
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.adapters.one_group import body
from tests.contract.stores import local_of
from uponce.adapters.files import read_at
from uponce.adapters.store import packs as packs_module
from uponce.adapters.store import records as records_module
from uponce.adapters.store.blobs import Blobs
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.store.records import PAGE
from uponce.adapters.system import RandomIds, erase
from uponce.app.ports import PLACES
from uponce.core.errors import StorageUnavailable

LARGE = 200_000  # more than what is read when a blob is opened


def opened(root: Path) -> Blobs:
    store = LocalBlobs(root, ids=RandomIds())
    store.open_store()
    return store


def put(store: Blobs, *bodies: bytes) -> Sequence[str]:
    return local_of(store).put_group([body(data) for data in bodies])


def chance(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


async def get(store: Blobs, key: str) -> bytes | None:
    blob = await local_of(store).open(key)
    return None if blob is None else b"".join(blob.blocks())


def listed(store: Blobs) -> set[str]:
    async def keys() -> set[str]:
        return {blob.key async for blob in store.published()}

    return asyncio.run(keys())


def sweep(store: Blobs) -> int:
    """List the store as a sweep does. Return how many of its places cannot be read."""

    async def sweep() -> int:
        failed = 0
        for listing in store.listings(PLACES[0]):
            try:
                async for _ in listing:
                    pass
            except StorageUnavailable:
                failed += 1
        return failed

    return asyncio.run(sweep())


def packs(root: Path) -> list[Path]:
    return sorted((root / "packs").iterdir())


def allocated(root: Path) -> int:
    return sum(path.stat().st_blocks * 512 for path in packs(root))


def place(root: Path, key: str) -> tuple[Path, int]:
    return root / "packs" / key[1:11], int(key[11:16], 16) * PAGE


def break_page(monkeypatch: pytest.MonkeyPatch, at: int, error: int = errno.EIO) -> None:
    """Let the disk read no header at this offset of any pack, until the page is erased."""
    broken = {at}

    def read(descriptor: int, offset: int, length: int, flags: int = 0) -> bytes:
        if offset in broken:
            raise OSError(error, os.strerror(error))
        return read_at(descriptor, offset, length, flags)

    def erase_page(descriptor: int, start: int, length: int) -> None:
        erase(descriptor, start, length)
        broken.difference_update(range(start, start + length))

    monkeypatch.setattr(records_module, "read_at", read)
    monkeypatch.setattr(packs_module, "erase", erase_page)
