"""Whose turn it is, with a clock that the test moves."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import pytest

from uponce.adapters.media.turns import Turn, Turns
from uponce.core.values import Payer

Take = Callable[[Payer], "asyncio.Task[Turn[str]]"]


class Clock:
    """Counts how often it was read: once for each cost that is computed."""

    now = 0.0
    reads = 0

    def __call__(self) -> float:
        self.reads += 1
        return self.now


def play(size: int, scenario: Callable[[Turns[str], Clock, Take], Awaitable[None]]) -> None:
    async def run() -> None:
        clock = Clock()
        turns: Turns[str] = Turns(size, clock)
        for number in range(size):
            turns.put(f"decoder {number}")
        await scenario(turns, clock, lambda payer: asyncio.create_task(turns.take(payer)))

    asyncio.run(asyncio.wait_for(run(), 10))


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


def test_costs_are_forgotten() -> None:
    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        await use(turns, Payer("old"), 2)
        clock.now = 300
        running = await take(Payer("running"))
        await use_later(turns, running, take(Payer("old")), take(Payer("new")))

    async def use_later(turns: Turns[str], running: Turn[str], *expected: "asyncio.Task[Turn[str]]") -> None:
        await settled()
        turns.end(running, 1)
        turns.put(running.decoder)
        await settled()
        assert [task.done() for task in expected] == [False, True]
        expected[0].cancel()

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


def test_of_equal_payers_the_one_that_has_waited_longest_goes_first() -> None:
    """Also when time has passed between them, and a payer that became costly in the meantime goes last."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        await use(turns, Payer("old", "K"), 0.1)
        running = await take(Payer("running", "K2"))
        waiting = []
        for number in range(20):
            clock.now += 1.37
            waiting.append(take(Payer(f"g{number}", "K" if number else "K2")))
            await settled()
        for first in [*waiting[1:], waiting[0]]:
            turns.end(running, 0.9 if running.payer.grant == "running" else 0)
            turns.put(running.decoder)
            await settled()
            assert first.done()
            running = await first

    play(1, scenario)


@pytest.mark.parametrize("is_greedy", [False, True])
def test_a_turn_costs_the_same_however_many_wait(is_greedy: bool) -> None:
    """Those that may run, and greedy payers that wait while others do not."""
    reads = list[int]()

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        many = [Payer(f"g{number}", "K", f"a{number}") for number in range(20 if not reads else 400)]
        for payer in many if is_greedy else ():
            await use(turns, payer, 2)
        running = await take(many[0] if is_greedy else Payer("running"))
        waiting = [take(payer) for payer in many]
        await settled()
        before = clock.reads
        for number in range(15):
            if is_greedy:
                await use(turns, Payer(f"honest {number}", "K2", f"b{number}"), 0.001)
            else:
                turns.end(running, 0.001)
                turns.put(running.decoder)
                running = await waiting[number]
        reads.append(clock.reads - before)
        for task in waiting:
            task.cancel()

    for _ in range(2):
        play(2 if is_greedy else 1, scenario)
    assert reads[1] < 1.5 * reads[0]


def test_those_that_left_take_no_room() -> None:
    """Also behind a greedy payer that waits on."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        await use(turns, Payer("greedy"), 2)
        await use(turns, Payer("more"), 3)
        await take(Payer("greedy"))
        waits = take(Payer("greedy"))
        for _ in range(500):
            leaves = take(Payer("more"))
            await settled()
            leaves.cancel()
        await settled()
        assert sum(type(each).__name__ == "_Waiter" for each in gc.get_objects()) < 200
        waits.cancel()

    play(2, scenario)


@pytest.mark.parametrize("pause", [0, 1], ids=["at once", "later"])
def test_a_file_of_a_grant_that_leaves_lets_the_next_one_run(pause: int) -> None:
    """Before a decoder is free, and when its turn has just come."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        running = await take(Payer("grant"))
        first, second, third, fourth = (take(Payer("grant")) for _ in range(4))
        await take_all(turns)
        turns.end(running, 0)
        first.cancel()
        for _ in range(pause):
            await settled()
        turns.put(running.decoder)
        running = await second
        turns.end(running, 0)
        turns.put(running.decoder)
        third.cancel()
        await fourth

    async def take_all(turns: Turns[str]) -> None:
        """All stand behind their grant once another one has looked for its turn."""
        await settled()
        turns.put("another decoder")
        await use(turns, Payer("other"), 0)
        await turns.take(Payer("holds the other decoder"))

    play(1, scenario)


def test_a_payer_that_is_greedy_no_more_stops_waiting() -> None:
    """While one that is greedy has the other decoder, and while dearer ones are greedy."""

    async def scenario(turns: Turns[str], clock: Clock, take: Take) -> None:
        for payer, seconds in ((Payer("honest", "K2", "B"), 0.01), (Payer("a", "K", "A"), 5), (Payer("b", "K3"), 2)):
            await use(turns, payer, seconds)
        await take(Payer("b", "K3"))
        waiting = [take(Payer("new", "K", "A")), take(Payer("b", "K3"))]
        await settled()
        assert [task.done() for task in waiting] == [False, False]
        clock.now = 30
        await use(turns, Payer("honest", "K2", "B"), 0.01)
        await settled()
        assert [task.done() for task in waiting] == [True, False]
        waiting[1].cancel()

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
