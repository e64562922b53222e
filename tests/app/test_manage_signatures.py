"""The state of signatures, as their owner sees it."""

import asyncio

import pytest

from tests.app.failing import Failing
from tests.world import START, World, assert_accepted
from uponce.app.manage_signatures import revoke_signature, show_signature
from uponce.core.errors import FutureTimestamp, NotFound, OutcomeUnknown
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


@pytest.mark.parametrize("by", ["fields", "id"])
def test_its_owner_learns_of_no_state_that_a_failover_could_forget(world: World, by: str) -> None:
    """Else a back end notes an upload that is lost later, or a repeated revocation seems to be done."""
    fields = world.sign()
    revoked = asyncio.run(revoke_signature(world.services, world.browser, fields, CALLER))
    named = fields if by == "fields" else revoked.grant.key.hex()
    world.swap(database=Failing(world.database, before={"confirm_grant": OutcomeUnknown("the standby is away")}))
    with pytest.raises(OutcomeUnknown):
        asyncio.run(show_signature(world.services, world.browser, named))
    with pytest.raises(OutcomeUnknown):
        asyncio.run(revoke_signature(world.services, world.browser, named, CALLER))


@pytest.mark.parametrize("at", [START + 301, START + 7 * 3600, 999_999_999_999], ids=str)
def test_a_signature_of_the_future_is_revoked_when_uploads_may_use_it(world: World, at: int) -> None:
    """Its row would stay in the ledger until its time is over, outside of the partitions. To look it up is harmless."""
    fields = world.sign({"timestamp": at})
    with world.untouched():
        for owner in (world.browser, world.server):
            with pytest.raises(FutureTimestamp, match=r"The limit is 300 seconds\. .* Revoke it then, or rotate"):
                asyncio.run(revoke_signature(world.services, owner, fields, CALLER))
        assert asyncio.run(show_signature(world.services, world.browser, fields)).record.status == "unused"
    world.clock.time = at - 300
    assert asyncio.run(revoke_signature(world.services, world.browser, fields, CALLER)).status == "revoked"


@pytest.mark.parametrize("by", ["fields", "id"])
def test_a_clock_that_was_set_back_keeps_no_used_signature_from_its_end(world: World, by: str) -> None:
    """Its row exists, so a revocation adds none."""
    fields = world.sign({"max_uses": 2})
    assert_accepted(world.upload(fields))
    grant_id = asyncio.run(show_signature(world.services, world.browser, fields)).record.grant.key.hex()
    world.clock.time -= 7 * 3600
    named = fields if by == "fields" else grant_id
    assert asyncio.run(revoke_signature(world.services, world.browser, named, CALLER)).status == "revoked"
