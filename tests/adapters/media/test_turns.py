"""Whose turn it is, with a clock that the test moves."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from uponce.adapters.media.turns import Turn, Turns
from uponce.core.values import Payer

Take = Callable[[Payer], "asyncio.Task[Turn[str]]"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def play(size: int, scenario: Callable[[Turns[str], Clock, Take], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = Clock()
        turns: Turns[str] = Turns(size, clock)
        for number in range(size):
            turns.put(f"decoder {number}")
        await scenario(turns, clock, lambda payer: asyncio.create_task(turns.take(payer)))

    asyncio.run(asyncio.wait_for(run(), 60))


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def use(turns: Turns[str], payer: Payer, seconds: float) -> None:
    turn = await turns.take(payer)
    turns.end(turn, seconds)
    turns.put(turn.decoder)


@pytest.mark.parametrize("name", ["grant", "api_key", "address"])
def test_the_cheapest_payer_goes_first(name: str) -> None:
    """Whichever of its names it has in common with a slow file; equal payers in the order of arrival."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        costly = Payer(**{"grant": "new", "api_key": "K", "address": "A", name: "costly"})
        await use(turns, Payer(**{"grant": "old", "api_key": "other", "address": "other", name: "costly"}), 0.1)
        running = await take(Payer("running"))
        waiting = [take(payer) for payer in (costly, Payer("g1", "K", "A"), Payer("g2", "K", "A"))]
        await settled()
        for first in (waiting[1], waiting[2], waiting[0]):
            turns.end(running, 0)
            turns.put(running.decoder)
            running = await first
        assert all(task.done() for task in waiting)

    play(1, scenario)


def test_only_a_decoder_that_no_waiting_payer_may_use_is_free() -> None:
    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        await use(turns, Payer("costly"), 1)
        running = await take(Payer("running"))
        waiting = take(Payer("costly"))
        await settled()
        assert turns.take_free(Payer()) is None
        turns.end(running, 0)
        turns.put(running.decoder)
        assert turns.take_free(Payer()) is None  # it is the turn of the payer
        turn = await waiting
        turns.end(turn, 0)
        turns.put(turn.decoder)
        free = turns.take_free(Payer())
        assert free is not None and free.decoder == turn.decoder
        turns.end(free, 0)

    play(1, scenario)


@pytest.mark.parametrize(("seconds", "is_forgotten"), [(0, False), (300, False), (600, True)])
def test_costs_are_forgotten(seconds: float, is_forgotten: bool) -> None:
    """Half of them every 30 seconds, and at last all. Then the first to ask is the first to get a decoder."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        await use(turns, Payer("old"), 2)
        clock.now = seconds
        running = await take(Payer("running"))
        await use_later(turns, running, take(Payer("old")), take(Payer("new")))

    async def use_later(turns: Turns[str], running: Turn[str], *expected: "asyncio.Task[Turn[str]]") -> None:
        await settled()
        turns.end(running, 1)
        turns.put(running.decoder)
        await settled()
        assert [task.done() for task in expected] == [is_forgotten, not is_forgotten]
        expected[is_forgotten].cancel()  # the one that waits still

    play(1, scenario)


def test_one_grant_has_one_decoder() -> None:
    """A second file of the same grant waits, and a file of another grant does not."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        first = await take(Payer("one"))
        second, other = take(Payer("one")), take(Payer("two"))
        await settled()
        assert (second.done(), other.done()) == (False, True)
        turns.end(first, 0)
        turns.put(first.decoder)
        await second

    play(3, scenario)


def test_greedy_grants_leave_one_decoder_free() -> None:
    """Eight grants that sent slow files have one of two decoders; the other takes every honest file at once."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        greedy = [Payer(f"greedy {number}", "K", "A") for number in range(8)]
        for payer in greedy:
            await use(turns, payer, 2)
        hostile = [take(payer) for payer in greedy]
        await settled()
        assert sum(task.done() for task in hostile) == 1
        for number in range(3):
            await use(turns, Payer(f"honest {number}", "K", "A"), 0.001)
        for task in hostile:
            task.cancel()

    play(2, scenario)


@pytest.mark.parametrize("name", ["api_key", "address"])
def test_a_greedy_key_or_address_leaves_one_decoder_free_for_others(name: str) -> None:
    """Also under fresh grants."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        await use(turns, Payer("honest", **{name: "honest"}), 0.01)
        for number in range(3):
            await use(turns, Payer(f"old {number}", **{name: "greedy"}), 2)
        hostile = [take(Payer(f"new {number}", **{name: "greedy"})) for number in range(4)]
        await settled()
        assert sum(task.done() for task in hostile) == 1
        await use(turns, Payer("honest again", **{name: "honest"}), 0.01)
        for task in hostile:
            task.cancel()

    play(2, scenario)


def test_the_only_key_and_address_may_have_every_decoder() -> None:
    """A busy server with one key, behind one proxy, keeps its whole speed."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        for number in range(9):
            await use(turns, Payer(f"slow {number}", "K", "A"), 1)
        await take(Payer("a", "K", "A"))
        await take(Payer("b", "K", "A"))

    play(2, scenario)


def test_a_payer_that_leaves_loses_no_decoder() -> None:
    """While it waits, and when its turn has just come."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        running = await take(Payer("running"))
        leaves, stays = take(Payer("leaves")), take(Payer("stays"))
        await settled()
        leaves.cancel()
        await settled()
        turns.end(running, 0)
        turns.put(running.decoder)
        stays.cancel()
        await settled()
        await use(turns, Payer("stays"), 0)

    play(1, scenario)
