"""The last chunk is sent again, because its reply was lost."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.asgi import Answer
from tests.chunks import CHUNK, Client, noise, stored
from tests.world import QuickWorld, World, assert_refused
from uponce.core.policy import Limits


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=Limits(min_chunk_bytes=CHUNK))
    yield world
    world.close()


@pytest.mark.parametrize("uses", ["once", "two", "unlimited"])
def test_only_a_signature_without_uses_says_that_the_file_is_stored(world: World, uses: str) -> None:
    """With uses left the chunk begins another upload, as the guide for large files says."""
    params = {"max_uses": 2} if uses == "two" else {}
    fields = world.sign(params, key=world.server if uses == "unlimited" else world.browser)
    client = Client(world, noise(2 * CHUNK), fields=fields)

    async def play() -> list[Answer]:
        return [*await client.all_of(), await client.chunk(*client.spans[-1])]

    *_, final, again = asyncio.run(play())
    assert stored(world, final) == client.data
    if uses == "once":
        assert_refused(again, 400, "signature_used")
    else:
        assert (again.status, again.json["done"]) == (200, False)
    assert world.traces().assets == 1
