"""Fixtures of the tests of adapters."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.packing import opened
from uponce.adapters.store.blobs import Blobs


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def store(root: Path) -> Iterator[Blobs]:
    store = opened(root)
    yield store
    store.close()
