"""How long a series may take, and what sweeps, purges and fences do to it."""

import asyncio

from tests.app.test_fsck import run as check_store
from tests.app.test_series import DATA, LAST, LIMITS, client, send, swept, world
from tests.chunks import NO_ROWS, Client, rows, stored
from tests.world import World, assert_refused
from uponce.app.sweep import Swept

__all__ = ["client", "world"]  # the fixtures of the neighbour


def test_a_series_that_began_in_time_may_finish(world: World, client: Client) -> None:
    """Its signature is stale for everything else by then."""
    world.clock.time += 3601
    assert_refused(world.upload(client.fields), 400, "stale_request")
    assert stored(world, send(client, LAST)) == DATA


def test_a_new_signature_has_to_be_fresh(world: World, client: Client) -> None:
    late = world.sign()
    world.clock.time += 3601
    assert_refused(send(client, LAST, fields=late), 400, "stale_request")
    assert rows(world)["series_grants"] == 1


def test_an_old_series_is_refused_and_swept_with_its_bytes(world: World, client: Client) -> None:
    world.clock.time += LIMITS.series_seconds
    assert swept(world, grace=0) == Swept(0, 0, 0, 0, 0)
    world.clock.time += 1
    refused = send(client, LAST)
    assert_refused(refused, 400, "stale_request")
    assert "begun at 2026-01-01 00:00:00 +0000 which is more than 24 hours ago" in refused.message
    assert swept(world, grace=10**6).series == 1
    assert rows(world) == NO_ROWS
    assert world.traces().spooled == frozenset()


def test_a_purge_forgets_no_grant_of_a_live_series(world: World, client: Client) -> None:
    """A plain upload has spent the grant. The series must not spend it again when the grant's time is over."""
    assert world.upload(client.fields).status == 200
    world.clock.time += 10 * 3600
    swept(world)
    assert check_store(world, grace=0).findings == []
    assert_refused(send(client, LAST), 400, "signature_used")
    assert (world.traces().assets, rows(world)) == (1, {**NO_ROWS, "series": 1, "spans": 1, "series_grants": 1})


def test_watermarks_of_other_signatures_do_not_stop_a_series(world: World, client: Client) -> None:
    world.clock.time += 1
    assert world.upload(world.sign()).status == 200
    world.clock.time += 10 * 3600
    assert swept(world).grants == 1
    assert stored(world, send(client, LAST)) == DATA


def test_a_fence_ends_every_series(world: World, client: Client) -> None:
    """A restored backup knows series that were completed after it was made."""
    asyncio.run(world.database.fence(0))
    assert_refused(send(client, LAST), 400, "stale_request")
    assert rows(world) == NO_ROWS


def test_fsck_finds_nothing_wrong_with_a_live_series(world: World, client: Client) -> None:
    assert check_store(world, grace=0).findings == []
