"""Requests of tus that come at once for one upload."""

import asyncio
from typing import Any

from tests.tus import Client
from tests.world import World


def test_of_two_equal_last_requests_none_is_refused_as_a_reuse(world: World) -> None:
    """The one that comes second between two reads of the other one would spend, and end that one for good."""
    real, client = world.database, Client(world, bytes(5007))

    class Paused:
        def __init__(self) -> None:
            self.reached, self.go_on = asyncio.Event(), asyncio.Event()

        def __getattr__(self, name: str) -> Any:
            return self.find_grant if name == "find_grant" and not self.reached.is_set() else getattr(real, name)

        async def find_grant(self, key: bytes) -> Any:
            self.reached.set()
            await self.go_on.wait()
            return await real.find_grant(key)

    async def race() -> list[int]:
        paused: Any = Paused()
        await client.create()
        await client.patch(0, 5000)
        world.swap(database=paused)
        first = asyncio.create_task(client.patch(5000))
        await paused.reached.wait()
        second = await client.patch(5000)
        paused.go_on.set()
        return [(await first).status, second.status]

    assert asyncio.run(race()) == [204, 423]
    assert world.sql("SELECT count(*) FROM audit WHERE event = 'refused'") == 0
