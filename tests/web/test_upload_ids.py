"""No refusal shows the holder of another signature, or of none, whether an upload with some id exists."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import Answer
from tests.chunks import CHUNK, Client, noise, rows
from tests.world import QuickWorld, World
from uponce.core.policy import Limits

DATA = noise(2 * CHUNK)
EMPTY = {"first": 2 * CHUNK, "last": 2 * CHUNK - 1}
SECOND = {"first": CHUNK, "last": 2 * CHUNK - 1}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=Limits(min_chunk_bytes=CHUNK))
    yield world
    world.close()


def of_strangers(world: World) -> dict[str, tuple[dict[str, str], dict[str, Any], str]]:
    """By name: fields, the chunk, and the code of its refusal."""
    other, added = world.sign({"tags": "other"}), {"public_id": "added"}
    spent, stale = world.sign({"tags": "spent"}), world.sign({"tags": "other", "timestamp": "1"})
    bad, forged = world.sign({"max_bytes": "x"}), {**other, "signature": "0" * len(other["signature"])}
    file_first, beyond = {"file_first": True}, {"first": 3 * CHUNK, "last": 3 * CHUNK - 1, "total": 3 * CHUNK}
    assert world.upload(spent).status == 200
    empty = {
        "empty": (other, EMPTY, "series_gone"),
        "empty, the file first": (other, EMPTY | file_first, "series_gone"),
        "empty, of another total": (other, beyond, "series_gone"),
        "empty, spent": (spent, EMPTY, "signature_used"),
        "empty, stale": (stale, EMPTY, "stale_request"),
    }
    named = {
        "a name": (other, SECOND),
        "a name, the file first": (other, SECOND | file_first),
        "a name, empty": (other, EMPTY),
        "a name, spent": (spent, SECOND),
        "a name, stale": (stale, SECOND),
        "a name, another type": (other | {"resource_type": "video"}, SECOND),
        "a name, a bad parameter": (bad, SECOND),
        "a name, forged": (forged, SECOND),
    }
    return empty | {name: (fields | added, chunk, "invalid_signature") for name, (fields, chunk) in named.items()}


@pytest.mark.parametrize("late", [False, True], ids=["in time", "expired"])
def test_no_refusal_shows_a_stranger_whether_an_id_exists(world: World, late: bool) -> None:
    """Neither of an empty chunk, nor of one with a name that is not signed, as PHP's SDK sends it."""
    client, guessing = Client(world, DATA), Client(world, DATA, upload_id="guessed")
    assert asyncio.run(client.chunk(*client.spans[0])).status == 200
    if late:
        world.clock.time += world.services.limits.series_seconds + 1
    shown = {}
    for name, (fields, chunk, code) in of_strangers(world).items():
        exists, none = (asyncio.run(each.chunk(**chunk, fields=fields)) for each in (client, guessing))
        assert none.code == code, name
        if (exists.status, exists.body) != (none.status, none.body):
            shown[name] = exists.code
    assert shown == {}
    assert rows(world) == {"series": 1, "spans": 1, "series_grants": 1}


@pytest.mark.parametrize("added", [{}, {"public_id": "added"}], ids=["as signed", "with a name that is not signed"])
@pytest.mark.parametrize("chunk", [SECOND, EMPTY], ids=["bytes", "empty"])
def test_a_new_signature_over_equal_parameters_joins(
    world: World, chunk: dict[str, Any], added: dict[str, str]
) -> None:
    """SDKs sign each chunk again."""
    client = Client(world, DATA)

    async def play() -> Answer:
        await client.chunk(*client.spans[0], total=-1)
        return await client.chunk(**chunk, fields={**world.sign({"nonce": "another"}), **added})

    assert asyncio.run(play()).status == 200
