"""The decoder time of an upload is charged to its grant, key and address, however the upload arrives."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import chunks, tus
from tests.asgi import Answer
from tests.world import PNG, QuickWorld, Sniffer, World, run
from uponce.app.authorise import Admitted, UploadRequest, verify_signed
from uponce.core.policy import Limits
from uponce.core.values import Caller, MediaFacts, Payer, ResourceType

HALF = len(PNG) // 2
Fields = dict[str, str]


class Noting(Sniffer):
    """An inspector that notes the payers."""

    def __init__(self) -> None:
        self.payers: list[Payer] = []

    async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
        self.payers.append(payer)
        return await super().inspect(path, requested, payer)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=Limits(min_chunk_bytes=1))
    yield world
    world.close()


def one_request(world: World, fields: Fields) -> Answer:
    return world.upload(fields)


def two_chunks(world: World, fields: Fields) -> Answer:
    client = chunks.Client(world, PNG, fields=fields, kind="auto")
    return [run(client.chunk(*span)) for span in ((0, HALF - 1), (HALF, len(PNG) - 1))][-1]


def two_patches(world: World, fields: Fields) -> Answer:
    client = tus.Client(world, PNG, fields=fields)
    return tus.play(client.create, lambda: client.patch(0, HALF), lambda: client.patch(HALF))[-1]


@pytest.mark.parametrize("send", [one_request, two_chunks, two_patches])
def test_an_inspector_knows_who_pays(world: World, send: Callable[[World, Fields], Answer]) -> None:
    inspector = Noting()
    world.swap(inspector=inspector)
    fields = world.sign()
    grant = run(verify_signed(world.services, "demo", fields)).grant
    assert send(world, fields).status in (200, 204)
    assert inspector.payers == [Payer(grant.key.hex(), world.browser.api_key, "192.0.2.7")]


@pytest.mark.parametrize(("other", "count"), [("2001:db8:1:2:ffff::9", 1), ("2001:db8:1:3::1", 2)])
def test_addresses_of_one_network_of_ipv6_pay_as_one(world: World, other: str, count: int) -> None:
    """One home has a whole /64, so its files would each begin without a cost."""
    verified = run(verify_signed(world.services, "demo", world.sign()))
    callers = [Caller(address, "request") for address in ("2001:db8:1:2::1", other)]
    uploads = [Admitted.of(UploadRequest("demo", None, (), None, caller), verified, None) for caller in callers]
    assert len({upload.payer for upload in uploads}) == count
