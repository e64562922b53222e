"""A server that dies at any step of the first or the last chunk: the next one finds nothing torn."""

import asyncio
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.app.dying import Dead, Life, make_mortal
from tests.app.test_fsck import run as check_store
from tests.chunks import CHUNK, NO_ROWS, Client, noise, rows
from tests.world import World
from uponce.app.sweep import sweep
from uponce.core.policy import Limits

LIMITS = Limits(min_chunk_bytes=CHUNK)
DATA = noise(2 * CHUNK + 7)
FIRST, SECOND, LAST = (0, 999), (1000, 1999), (2000, 2006)
STEPS = 60  # more than a chunk has


pytestmark = pytest.mark.usefixtures("few_places")


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    gc.collect()
    gc.freeze()  # each crash collects: only its own objects, not those of the whole test run
    yield tmp_path
    gc.unfreeze()
    gc.collect()


def die(root: Path, life: Life, span: tuple[int, int], *before: tuple[int, int]) -> Client:
    """A server takes the chunks `before`, and ends in the midst of `span`."""
    world = World(root, limits=LIMITS)
    try:
        client = Client(world, DATA)

        async def play() -> None:
            for early in before:
                assert (await client.chunk(*early)).status == 200
            make_mortal(world, life)
            with suppress(Dead):
                await client.chunk(*span)

        asyncio.run(play())
    finally:
        world.close()
    gc.collect()  # the kernel closes what the process had open
    return client


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("when", ["first", "last"])
def test_a_crash_at_every_step(root: Path, when: str, after: bool) -> None:
    """Whatever it was, sending everything again gives one asset of the right bytes, or tells that there is one."""
    outcomes = []
    for number in range(1, STEPS):
        folder, life = root / str(number), Life(number, after)
        folder.mkdir()
        client = die(folder, life, *((FIRST,) if when == "first" else (LAST, FIRST, SECOND)))
        outcomes.append(resumed(folder, client))
        if not life.dead:
            break
    assert not life.dead
    assert set(outcomes) == ({"ok"} if when == "first" else {"ok", "signature_used"})
    assert len(outcomes) > 8


def resumed(folder: Path, client: Client) -> str:
    """What a new server answers to all chunks; it must end with one asset, and nothing besides."""
    world = client.world = World(folder, limits=LIMITS)
    try:
        answers = asyncio.run(client.all_of())
        done = next((n for n, answer in enumerate(answers) if answer.status == 200 and answer.json["done"]), None)
        # Where only the commit was missing, the first chunk that comes again completes it.
        assert all(answer.code == "signature_used" for answer in answers[0 if done is None else done + 1 :])
        assert check_store(world, deep=True).damage == []
        asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**6))
        traces = world.traces()
        assert (traces.assets, traces.grants, len(traces.blobs), traces.spooled) == (1, 1, 1, frozenset())
        assert rows(world) == NO_ROWS
        (blob,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
        assert blob.read_bytes() == DATA
        return "signature_used" if done is None else "ok"
    finally:
        world.close()
