"""A fresh server for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.world import QuickWorld, World


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    """It has two shards, or all of them for a module with `WORLD = World`: its blobs have their own keys."""
    world: World = getattr(request.module, "WORLD", QuickWorld)(tmp_path)
    yield world
    world.close()
