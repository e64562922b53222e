"""A stored file that was cut short on the disk is never delivered as the whole asset."""

import os
from typing import Any

import pytest

from tests.web.test_delivery import store
from tests.world import World

FILE = bytes(range(256)) * 4096


@pytest.fixture
def path(world: World) -> Any:
    path = store(world, FILE, kind="raw")["path"]
    (blob,) = (found for found in (world.media / "blobs").rglob("*") if found.is_file())
    assert world.get(path).body == FILE
    os.truncate(blob, 1000)
    return path


@pytest.mark.parametrize("range_", [{}, {"range": "bytes=0-9"}], ids=["whole", "a range"])
def test_a_file_that_was_cut_short_is_an_error(world: World, path: str, range_: dict[str, str]) -> None:
    answer = world.get(path, **range_)
    assert (answer.status, answer.json["error"]["code"]) == (503, "storage_unavailable")
    assert "etag" not in answer.headers
