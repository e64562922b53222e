"""A server that dies at any step of a request of tus: its client goes on with the next one, and nothing is torn."""

import asyncio
import gc
from contextlib import suppress
from pathlib import Path

import pytest

from tests.app.dying import Dead, Life, make_mortal
from tests.app.test_fsck import run as check_store
from tests.chunks import NO_ROWS, noise, rows
from tests.tus import Client, assert_refused
from tests.world import QuickWorld, World
from uponce.app.sweep import sweep
from uponce.core.policy import Limits

DATA = noise(3007)
LIMITS = Limits(record_bytes=400)
STEPS = 60  # more than a request has
REQUESTS = {"the creation": 0, "the first bytes": 1, "bytes between": 2, "the last bytes": 3, "the question": 4}


pytestmark = [pytest.mark.proof, pytest.mark.usefixtures("few_places")]


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_at_every_step_of_a_creation_with_all_bytes(tmp_path: Path, after: bool) -> None:
    """Its client has no address, and sends it again."""
    for number in range(1, STEPS):
        folder, life = tmp_path / str(number), Life(number, after)
        folder.mkdir()
        world = QuickWorld(folder, limits=LIMITS)
        client = Client(world, DATA)
        make_mortal(world, life)
        with suppress(Dead):
            asyncio.run(client.create(body=[DATA]))
        world.close()
        gc.collect()  # the kernel closes what the process had open
        created_again(folder, client)
        if not life.dead:
            break
    assert not life.dead
    assert number > 3


def created_again(folder: Path, client: Client) -> None:
    world = client.world = QuickWorld(folder, limits=LIMITS)
    try:
        stored = world.traces().assets
        answer = asyncio.run(client.create(body=[DATA]))
        if stored:
            assert_refused(answer, 400, "signature_used")
        else:
            assert answer.status == 201, answer.body
        asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**6))
        assert_whole(world)
    finally:
        world.close()


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("when", REQUESTS)
def test_a_crash_at_every_step(tmp_path: Path, when: str, after: bool) -> None:
    for number in range(1, STEPS):
        folder, life = tmp_path / str(number), Life(number, after)
        folder.mkdir()
        resumed(folder, die(folder, life, REQUESTS[when]))
        if not life.dead:
            break
    assert not life.dead
    assert number > 3


def die(folder: Path, life: Life, number: int) -> Client:
    """A server takes some requests, and dies during the one with this number."""
    world = QuickWorld(folder, limits=LIMITS)
    try:
        client = Client(world, DATA)

        async def play() -> None:
            requests = [
                client.create,
                lambda: client.patch(0, 1000),
                lambda: client.patch(1000, 2000),
                lambda: client.patch(2000),
                client.head,
            ]
            for request in requests[:number]:
                assert (await request()).status < 300
            make_mortal(world, life)
            with suppress(Dead):
                await requests[number]()

        asyncio.run(play())
    finally:
        world.close()
    gc.collect()  # the kernel closes what the process had open
    return client


def resumed(folder: Path, client: Client) -> None:
    world = client.world = QuickWorld(folder, limits=LIMITS)
    try:
        state = asyncio.run(client.go_on())
        assert state.headers["upload-offset"] == str(len(DATA))
        assert check_store(world, deep=True).damage == []
        asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**6))
        assert_whole(world)
    finally:
        world.close()


def assert_whole(world: World) -> None:
    traces = world.traces()
    assert (traces.assets, traces.grants, len(traces.blobs), traces.spooled) == (1, 1, 1, frozenset())
    assert rows(world) == NO_ROWS
    (blob,) = (path for path in (world.media / "blobs").rglob("*") if path.is_file())
    assert blob.read_bytes() == DATA
