"""The outbox runs what is due: a slow effect delays no other, and a failure leaves nothing running."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from tests.world import World
from uponce.app import outbox
from uponce.app.outbox import Later, Work, run_due
from uponce.app.ports import Effect
from uponce.app.services import Services
from uponce.core.errors import DatabaseUnavailable

SLOW, QUICK = (Effect(number, "work", name, name, 0, 1, 0) for number, name in enumerate(("slow", "quick")))
PATIENCE = 30


class Due:
    """A database in which the effects of one claim after the other are due, and then none. An error is raised."""

    def __init__(self, *claims: Sequence[Effect] | Exception) -> None:
        self._claims = iter(claims)
        self.finished: list[int] = []
        self.died: list[bool] = []

    async def list_receivers(self, name: str, after: str, most: int) -> Sequence[str]:
        return ["some"]

    async def claim_effects(self, name: str, shares: Mapping[str, int], lease: int) -> Sequence[Effect]:
        claim = next(self._claims, ())
        if isinstance(claim, Exception):
            raise claim
        return claim

    async def finish_effect(self, effect_id: int) -> None:
        self.finished.append(effect_id)

    async def postpone_effect(self, effect: Effect, seconds: int, error: str = "", *, dead: bool = False) -> None:
        self.died.append(dead)


class Backlogs:
    """A database in which so many effects are due for each receiver. `order` has the receivers that got one."""

    def __init__(self, **counts: int) -> None:
        self.counts, self.order, self._ids = counts, list[str](), count()

    async def list_receivers(self, name: str, after: str, most: int) -> Sequence[str]:
        due = sorted(receiver for receiver, left in self.counts.items() if left)
        return [*(each for each in due if each > after), *(each for each in due if each <= after)][:most]

    async def claim_effects(self, name: str, shares: Mapping[str, int], lease: int) -> Sequence[Effect]:
        got = [each for each, share in shares.items() for _ in range(min(share, self.counts[each]))]
        for receiver in got:
            self.counts[receiver] -= 1
        self.order += got
        return [Effect(next(self._ids), name, receiver, receiver, 0, 1, 0) for receiver in got]

    async def finish_effect(self, effect_id: int) -> None:
        pass


def with_due(world: World, due: Due | Backlogs) -> Services:
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


@pytest.mark.parametrize(("receivers", "each"), [(1, 12), (2, 8), (3, 6), (4, 5), (11, 2), (23, 1), (24, 1), (40, 1)])
def test_receivers_that_hang_share_the_places(world: World, receivers: int, each: int) -> None:
    """As many stay free for others as one of them has, while there are places."""
    backlogs, running = Backlogs(**{f"r{number:02}": 100 for number in range(receivers)}), Counter[str]()

    async def hang(_: Services, effect: Effect) -> None:
        running[effect.receiver] += 1
        await asyncio.Event().wait()

    async def play() -> None:
        async with asyncio.timeout(PATIENCE):
            serving = asyncio.create_task(run_due(with_due(world, backlogs), "work", Work(hang)))
            while running.total() < min(receivers, 24) * each:
                await asyncio.sleep(0)
            for _ in range(1000):  # no further one begins
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(play())
    assert running == {f"r{number:02}": each for number in range(min(receivers, 24))}


def test_the_backlog_of_a_slow_receiver_delays_no_other_receiver(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "_LOOK_SECONDS", 0.01)
    backlogs, running = Backlogs(slow=5000), Counter[str]()

    async def work(_: Services, effect: Effect) -> None:
        running[effect.receiver] += 1
        if effect.receiver == "slow":
            await asyncio.Event().wait()

    async def play() -> None:
        async with asyncio.timeout(PATIENCE):
            serving = asyncio.create_task(run_due(with_due(world, backlogs), "work", Work(work)))
            while running["slow"] < 12:
                await asyncio.sleep(0)
            backlogs.counts["quick"] = 100
            while running["quick"] < 100:
                await asyncio.sleep(0)
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)

    asyncio.run(play())
    assert running["slow"] == 12


def test_receivers_have_their_turns_one_after_the_other(world: World) -> None:
    receivers = [f"r{number}" for number in range(40)]
    backlogs = Backlogs(**dict.fromkeys(receivers, 3))

    async def work(*_: object) -> None: ...

    assert asyncio.run(run_due(with_due(world, backlogs), "work", Work(work))) == 120
    for turn in range(3):
        assert sorted(backlogs.order[turn * 40 : turn * 40 + 40]) == sorted(receivers)
