"""The state of signatures, as their owner sees it."""

import asyncio

import pytest

from tests.world import START, World, assert_accepted
from uponce.app.manage_signatures import revoke_signature, show_signature
from uponce.core.errors import NotFound
from uponce.core.values import Caller

CALLER = Caller("192.0.2.1", "request")


def test_a_fence_ends_a_signature_before_its_time(world: World) -> None:
    fields = world.sign()
    assert asyncio.run(show_signature(world.services, world.browser, fields)).expires_at == START + 3600
    asyncio.run(world.database.fence(300))
    assert asyncio.run(show_signature(world.services, world.browser, fields)).expires_at == START


def test_the_id_of_a_signature_that_was_only_refused_revokes_nothing(world: World) -> None:
    """The ledger has no row of it. One without its time would be forgotten at once."""
    fields = world.sign()
    grant = asyncio.run(show_signature(world.services, world.browser, fields)).record.grant
    asyncio.run(world.database.record_refusal(grant, "scope_denied", CALLER))
    grant_id = grant.key.hex()
    with pytest.raises(NotFound, match="send its signed fields"):
        asyncio.run(revoke_signature(world.services, world.browser, grant_id, CALLER))
    assert_accepted(world.upload(fields))


def test_a_revoked_signature_stays_revoked_when_the_ledger_has_forgotten_it(world: World) -> None:
    fields = world.sign()
    revoked = asyncio.run(revoke_signature(world.services, world.browser, fields, CALLER))
    world.clock.time += 10**5
    asyncio.run(world.database.purge(audit_seconds=10**6))
    for _ in range(2):
        again = asyncio.run(revoke_signature(world.services, world.browser, fields, CALLER))
        assert (again.status, again.revoked_at) == ("revoked", revoked.revoked_at)
    assert world.sql("SELECT count(*) FROM grants") == 0
