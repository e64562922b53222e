"""Uploads into a bucket that fails: 503, nothing spent, no byte deleted while a commit's outcome is unknown."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import chain
from pathlib import Path

import pytest

from tests.app.failing import Failing
from tests.asgi import Answer
from tests.chunks import CHUNK, Client, noise
from tests.contract.stores import SECONDS, objects
from tests.stores import seaweedfs
from tests.stores.sick import Illness, SickStore, healthy, sick, unnamed
from tests.world import PNG, World, assert_accepted, assert_refused, run
from uponce.adapters.store.blobs import Blobs
from uponce.app.fsck import FsckFinding, fsck
from uponce.app.sweep import Swept, sweep
from uponce.core.errors import DatabaseUnavailable, OutcomeUnknown
from uponce.core.policy import Limits

UNKNOWN, DOWN = OutcomeUnknown("unknown"), DatabaseUnavailable("down")
LIMITS = Limits(min_chunk_bytes=CHUNK)
DATA = noise(3 * CHUNK)


@pytest.fixture
def proxy() -> Iterator[SickStore]:
    with sick(seaweedfs.shared().endpoint) as proxy:
        yield proxy


Opened = Callable[[int], AbstractContextManager[Blobs]]


@pytest.fixture
def opened(tmp_path: Path, proxy: SickStore) -> Opened:
    """What opens the place in the bucket, with so many seconds for a request."""
    server = seaweedfs.shared()
    url, environment = server.fresh_url(), server.environment | {"AWS_ENDPOINT_URL": proxy.endpoint}
    return lambda seconds: objects(url, environment, tmp_path, seconds=seconds)


@pytest.fixture
def world(tmp_path: Path, opened: Opened) -> Iterator[World]:
    with opened(SECONDS) as blobs:
        world = World(tmp_path, limits=LIMITS, blobs=blobs)
        yield world
        world.database.close()


def keys(world: World) -> set[str]:
    async def collect() -> set[str]:
        return {blob.key async for blob in world.blobs.published()}

    return asyncio.run(collect())


def spooled(world: World) -> list[Path]:
    return list(world.blobs.folder.iterdir())


def findings(world: World) -> list[FsckFinding]:
    async def collect() -> list[FsckFinding]:
        report = await fsck(world.services, grace_seconds=0, audit_seconds=10**6, settle_seconds=0)
        return list(chain.from_iterable(report.findings.values()))

    return asyncio.run(collect())


def swept(world: World) -> Swept:
    return asyncio.run(sweep(world.services, grace_seconds=0, audit_seconds=10**6))


@pytest.mark.parametrize(
    ("illness", "seconds"), [(Illness.ERROR, SECONDS), (Illness.HANG, 1), (Illness.EATEN, SECONDS)]
)
@pytest.mark.parametrize("method", ["PUT", "HEAD"])
def test_a_store_that_fails_spends_nothing(
    world: World, opened: Opened, proxy: SickStore, illness: Illness, seconds: int, method: str
) -> None:
    fields, patient = world.sign(), world.services
    proxy.rule = lambda seen, path: illness if seen == method else unnamed(seen, path)  # which is asked for by HEAD
    with opened(seconds) as blobs:
        world.swap(blobs=blobs)
        refused = world.upload(fields)
        assert_refused(refused, 503, "storage_unavailable")
        assert int(refused.headers["retry-after"]) > 0
        proxy.rule = healthy
        proxy.released.set()
    world.use(patient)
    swept(world)  # on a slow machine the deletion may have failed too
    assert (keys(world), spooled(world)) == (set(), [])
    assert_accepted(world.upload(fields))
    assert_refused(world.upload(fields), 400, "signature_used")


@pytest.mark.usefixtures("few_places")
def test_what_could_not_be_deleted_is_left_to_the_sweeper(world: World, proxy: SickStore) -> None:
    """The reply to the PUT is lost, and nothing works any more."""
    fields, lost = world.sign(), False

    def dying(method: str, path: str) -> Illness:
        nonlocal lost
        lost, before = True, lost
        return Illness.ERROR if before else Illness.EATEN

    proxy.rule = dying
    assert_refused(world.upload(fields), 503, "storage_unavailable")
    proxy.rule = healthy
    (orphan,) = keys(world)
    assert [(finding.kind.name, finding.subject) for finding in findings(world)] == [("orphan", orphan)]
    assert swept(world).blobs == 1
    assert keys(world) == set()
    assert_accepted(world.upload(fields))


@pytest.mark.parametrize("happened", [True, False])
def test_while_nobody_knows_nothing_is_deleted(world: World, happened: bool) -> None:
    fields = world.sign()
    moment = {"after" if happened else "before": {"commit": UNKNOWN}}
    real = world.services
    database = Failing(Failing(world.database, **moment), before={"confirm_commit": DOWN})
    world.swap(database=database)
    assert_refused(world.upload(fields), 503, "outcome_unknown")
    world.use(real)
    assert len(keys(world)) == 1
    assert swept(world).blobs == (0 if happened else 1)
    again = world.upload(fields)
    assert again.status == (400 if happened else 200)


def test_chunks_survive_a_store_that_fails(world: World, proxy: SickStore) -> None:
    """The series stays complete; its last chunk sent again completes it."""
    client = Client(world, DATA)

    def send(first: int, last: int) -> Answer:
        return run(client.chunk(first, last))

    for first, last in client.spans[:-1]:
        assert_accepted(send(first, last))
    proxy.rule = lambda method, path: Illness.ERROR if method == "PUT" else Illness.NONE
    assert_refused(send(*client.spans[-1]), 503, "storage_unavailable")
    proxy.rule = healthy
    done = assert_accepted(send(*client.spans[-1])).json
    assert (done["bytes"], spooled(world)) == (len(DATA), [])


def test_deliveries_from_a_store_that_fails(world: World, proxy: SickStore) -> None:
    answer = assert_accepted(world.upload(world.sign(), PNG))
    path = answer.json["url"].partition("://")[2].partition("/")[2]
    assert world.get(f"/{path}", range="bytes=8-15").body == PNG[8:16]
    proxy.rule = lambda method, path: Illness.ERROR
    refused = world.get(f"/{path}")
    assert_refused(refused, 503, "storage_unavailable")
    proxy.rule = healthy
    assert world.get(f"/{path}").body == PNG
