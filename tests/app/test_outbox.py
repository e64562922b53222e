"""The outbox runs what is due: a slow effect delays no other, and a failure leaves nothing running."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from tests.world import World
from uponce.app.outbox import Later, Work, run_due
from uponce.app.ports import Effect
from uponce.app.services import Services
from uponce.core.errors import DatabaseUnavailable

SLOW, QUICK = (Effect(number, "work", subject, 0, 1, 0) for number, subject in enumerate(("slow", "quick")))
PATIENCE = 30


class Due:
    """A database in which the effects of one claim after the other are due, and then none. An error is raised."""

    def __init__(self, *claims: Sequence[Effect] | Exception) -> None:
        self._claims = iter(claims)
        self.asked: list[int] = []
        self.finished: list[int] = []
        self.died: list[bool] = []

    async def claim_effects(self, name: str, most: int, lease: int) -> Sequence[Effect]:
        self.asked.append(most)
        claim = next(self._claims, ())
        if isinstance(claim, Exception):
            raise claim
        return claim

    async def finish_effect(self, effect_id: int) -> None:
        self.finished.append(effect_id)

    async def postpone_effect(self, effect: Effect, seconds: int, error: str = "", *, dead: bool = False) -> None:
        self.died.append(dead)


def with_due(world: World, due: Due) -> Services:
    database: Any = due
    return replace(world.services, database=database)


def test_a_slow_effect_delays_none_that_becomes_due_later(world: World) -> None:
    due = Due([SLOW], [QUICK])

    async def play() -> int:
        done = asyncio.Event()

        async def work(_: Services, effect: Effect) -> Later | None:
            if effect is QUICK:
                done.set()
            await done.wait()
            return None

        async with asyncio.timeout(PATIENCE):
            return await run_due(with_due(world, due), "work", Work(work))

    assert asyncio.run(play()) == 2
    assert sorted(due.finished) == [SLOW.id, QUICK.id]
    assert due.asked[:2] == [16, 15]


def test_a_database_that_fails_leaves_nothing_running(world: World) -> None:
    due, ended = Due([SLOW], DatabaseUnavailable("gone")), []

    async def slow(_: Services, __: Effect) -> Later | None:
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            ended.append(True)
        return None

    async def play() -> None:
        with pytest.raises(DatabaseUnavailable):
            await run_due(with_due(world, due), "work", Work(slow))
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(play())
    assert (ended, due.finished) == ([True], [])


@pytest.mark.parametrize("error", [DatabaseUnavailable("away"), TimeoutError()])
def test_a_failure_that_passes_kills_no_effect(world: World, error: Exception) -> None:
    """A look-up of a relay goes on for days while the account is away. Then the database fails once."""
    due = Due([replace(SLOW, tries=1000)])

    async def work(_: Services, effect: Effect) -> Later | None:
        raise error

    assert asyncio.run(run_due(with_due(world, due), "work", Work(work))) == 1
    assert due.died == [False]


def test_only_an_effect_that_goes_on_raising_dies_of_its_tries(world: World) -> None:
    """What returns Later says itself when it gives up."""
    due = Due([replace(SLOW, tries=999)], [replace(SLOW, tries=1000)], [replace(QUICK, tries=1000)])

    async def work(_: Services, effect: Effect) -> Later | None:
        if effect.id == SLOW.id:
            raise ValueError
        return Later(1)

    assert asyncio.run(run_due(with_due(world, due), "work", Work(work))) == 3
    assert due.died == [False, True, False]
