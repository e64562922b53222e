"""A server that dies at any step of the first or the last chunk: the next one finds nothing torn."""

import asyncio
import gc
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.app.dying import Dead, Life, make_mortal
from tests.app.test_fsck import run as check_store
from tests.chunks import CHUNK, NO_ROWS, Client, noise, rows
from tests.world import QuickWorld, Sniffer
from uponce.app.ports import Committed
from uponce.app.sweep import sweep
from uponce.core.errors import OutcomeUnknown, ServerBusy
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts

LIMITS = Limits(min_chunk_bytes=CHUNK)
DATA = noise(2 * CHUNK + 7)
FIRST, SECOND, LAST = (0, 999), (1000, 1999), (2000, 2006)
STEPS = 60  # more than a chunk has


pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("few_places")]


def die(folder: Path, life: Life, span: tuple[int, int], *before: tuple[int, int]) -> Client:
    """A server takes the chunks `before`, and dies during `span`."""
    world = QuickWorld(folder, limits=LIMITS)
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
def test_a_crash_at_every_step(tmp_path: Path, when: str, after: bool) -> None:
    """Whatever it was, sending everything again gives one asset of the right bytes, or reports that there is one."""
    outcomes = []
    for number in range(1, STEPS):
        folder, life = tmp_path / str(number), Life(number, after)
        folder.mkdir()
        client = die(folder, life, *((FIRST,) if when == "first" else (LAST, FIRST, SECOND)))
        outcomes.append(resumed(folder, client))
        if not life.dead:
            break
    assert not life.dead
    assert set(outcomes) == ({"ok"} if when == "first" else {"ok", "signature_used"})
    assert len(outcomes) > 8


class LateCommit:
    """A database whose first commit of a series has no answer, and happens during the next try."""

    def __init__(self, real: Any) -> None:
        self._real = real
        self.happen: Callable[[], Awaitable[object]] | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def commit_series(self, *arguments: Any) -> Committed:
        self.happen = partial(self._real.commit_series, *arguments)
        raise OutcomeUnknown("unknown")


class InspectsLate(Sniffer):
    """An inspector that is busy, and so slow that the late commit happens before."""

    def __init__(self, database: LateCommit) -> None:
        self._database = database

    async def inspect(self, *_: object) -> MediaFacts:
        assert self._database.happen is not None
        await self._database.happen()
        raise ServerBusy("busy")


def test_a_commit_that_becomes_visible_during_the_next_try_has_its_bytes(tmp_path: Path) -> None:
    """The next try has the file in the spool, fails, and the file is swept there: the asset has it too."""
    world = QuickWorld(tmp_path, limits=LIMITS)
    try:
        client, healthy, database = Client(world, DATA), world.services, LateCommit(world.database)
        world.swap(database=database)
        assert asyncio.run(client.all_of())[-1].code == "outcome_unknown"
        world.swap(inspector=InspectsLate(database))
        assert asyncio.run(client.chunk(*LAST)).code == "server_busy"
        world.use(healthy)
        asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**6))
        traces = world.traces()
        assert (traces.assets, len(traces.blobs), traces.spooled) == (1, 1, frozenset())
        assert check_store(world, deep=True).damage == []
    finally:
        world.close()


def resumed(folder: Path, client: Client) -> str:
    """What a new server answers to all chunks; it must end with one asset, and nothing besides."""
    world = client.world = QuickWorld(folder, limits=LIMITS)
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
