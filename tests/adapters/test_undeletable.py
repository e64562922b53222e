"""Files that are left and cannot be deleted: no other file stays for them."""

import asyncio
import errno
from pathlib import Path

import pytest

from tests.adapters.packing import packs, sweep
from uponce.adapters.store.blobs import Blobs
from uponce.core.errors import StorageUnavailable


@pytest.fixture
def stuck(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The first file that is to be deleted: it stays at that time."""
    stuck: list[Path] = []
    unlink = Path.unlink

    def refuse(path: Path, **how: bool) -> None:
        if not stuck:
            stuck.append(path)
            raise PermissionError(errno.EPERM, "immutable")
        unlink(path, **how)

    monkeypatch.setattr(Path, "unlink", refuse)
    return stuck


def test_a_spooled_file_keeps_no_other(store: Blobs, stuck: list[Path]) -> None:
    for number in range(3):
        (store.folder / f"{number:032x}").write_bytes(b"left")
    with pytest.raises(StorageUnavailable):
        asyncio.run(store.sweep_spool(0))
    assert list(store.folder.iterdir()) == stuck


def test_an_empty_pack_hides_no_other_pack_of_its_place(
    store: Blobs, root: Path, stuck: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(5):
        (root / "packs" / f"{number:010x}").write_bytes(b"")
    assert sweep(store) == 0
    assert packs(root) == stuck
    assert f"the empty pack {stuck[0]} cannot be deleted: [Errno 1] immutable" in caplog.messages
    assert sweep(store) == 0
    assert packs(root) == []
