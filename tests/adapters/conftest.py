"""Fixtures of the tests of adapters."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.packing import opened
from uponce.adapters.store.blobs import Blobs


@pytest.fixture
def tmp_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """On the disk: an adapter asks its file system for what a file system in memory may lack."""
    return tmp_path_factory.mktemp("adapter")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "media"


@pytest.fixture
def store(root: Path) -> Iterator[Blobs]:
    store = opened(root)
    yield store
    store.close()
