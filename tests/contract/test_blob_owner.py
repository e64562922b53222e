"""What any BlobStore must do, run on every back end: know whose it is."""

import asyncio
import errno
from pathlib import Path

import pytest

from tests.contract.databases import run
from tests.contract.stores import STORES, back_ends
from tests.contract.test_blobs import listed
from uponce.app.ports import BlobStore


@pytest.mark.parametrize("name", back_ends(STORES))
def test_a_store_has_the_owner_that_came_first_and_it_is_no_blob(name: str, tmp_path: Path) -> None:
    first, second = "1" * 32, "2" * 32

    async def scenario(store: BlobStore) -> None:
        assert await store.owner() is None
        await asyncio.gather(*(store.set_owner(first) for _ in range(2)))
        await store.set_owner(second)
        assert await store.owner() == first
        await store.sweep_spool(0)
        assert (await listed(store), [blob async for blob in store.spooled()]) == ([], [])
        await store.set_owner(second, replace=True)
        assert await store.owner() == second

    with STORES[name].opened(tmp_path) as store:
        run(scenario(store))


def test_the_first_owner_stays_where_files_have_no_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    async def scenario(store: BlobStore) -> None:
        for owner in ("1" * 32, "2" * 32):
            await store.set_owner(owner)
        assert await store.owner() == "1" * 32

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with STORES["local"].opened(tmp_path) as store:
        run(scenario(store))
