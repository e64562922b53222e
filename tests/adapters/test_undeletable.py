"""Files that are left and cannot be deleted: no other file stays for them."""

import asyncio
import errno
from pathlib import Path

import pytest

from uponce.adapters.store.blobs import Blobs
from uponce.core.errors import StorageUnavailable


def test_a_spooled_file_that_cannot_be_deleted_keeps_no_other(store: Blobs, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        (store.folder / f"{number:032x}").write_bytes(b"left")
    stuck: list[Path] = []
    unlink = Path.unlink

    def refuse(path: Path, **how: bool) -> None:
        if not stuck:
            stuck.append(path)
            raise PermissionError(errno.EPERM, "immutable")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(StorageUnavailable):
        asyncio.run(store.sweep_spool(0))
    assert list(store.folder.iterdir()) == stuck
