"""The state of signatures, as their owner sees it."""

import asyncio

from tests.world import START, World
from uponce.app.manage_signatures import show_signed


def test_a_fence_ends_a_signature_before_its_time(world: World) -> None:
    fields = world.sign()
    assert asyncio.run(show_signed(world.services, world.browser, fields)).expires_at == START + 3600
    asyncio.run(world.database.fence(300))
    assert asyncio.run(show_signed(world.services, world.browser, fields)).expires_at == START
