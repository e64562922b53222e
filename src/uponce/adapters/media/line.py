"""A line of payers, ordered by the decoder time that each used lately. It takes as long however many stand in it."""

import asyncio
from bisect import insort
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from math import inf, log2
from typing import Generic, TypeVar

from uponce.core.values import Payer

_HALF_LIFE = 30.0
_SLOW_SECONDS = 0.2  # an ordinary file takes less
_FORGOTTEN_SECONDS = 0.0001
_MOST_NAMES = 10_000
_MOST_LEFT = 64
T = TypeVar("T")


class Costs:
    """Decoder seconds by name. Half of them are forgotten every 30 seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._costs: OrderedDict[str, tuple[float, float, float]] = OrderedDict()

    def charge(self, name: str, seconds: float) -> None:
        """Add the seconds of one file."""
        used, slow = self._left(name)
        slow += seconds if seconds > _SLOW_SECONDS else 0
        self._costs[name] = (used + seconds, slow, self._now())
        self._costs.move_to_end(name)
        self._forget()

    def used(self, name: str) -> float:
        """Return the seconds of all files."""
        return self._left(name)[0]

    def slow(self, name: str) -> float:
        """Return the seconds of slow files alone."""
        return self._left(name)[1]

    def has_others(self, name: str) -> bool:
        """Return whether another name used decoders lately."""
        self._forget()
        return len(self._costs) > (name in self._costs)

    def rank(self, seconds: float) -> float:
        """Return the logarithm of seconds that are left now, as they were at one time for all.

        All costs halve alike, so their ranks stay, and ranks of different times can be compared. Rounded: equal costs
        have equal ranks.
        """
        return round(log2(seconds) + self._now() / _HALF_LIFE, 6) if seconds else -inf

    def _left(self, name: str) -> tuple[float, float]:
        used, slow, at = self._costs.get(name, (0.0, 0.0, 0.0))
        kept = 0.5 ** ((self._now() - at) / _HALF_LIFE)
        return used * kept, slow * kept

    def _forget(self) -> None:
        while self._costs:
            oldest = next(iter(self._costs))
            if len(self._costs) <= _MOST_NAMES and self.used(oldest) >= _FORGOTTEN_SECONDS:
                return
            del self._costs[oldest]


@dataclass(eq=False, slots=True)
class Waiter(Generic[T]):
    """`number` is in the order of arrival. `line` is where the waiter stands."""

    payer: Payer
    turn: "asyncio.Future[T]"
    number: int
    line: "Line[T] | None" = None


Front = tuple[float, int, Waiter[T]]  # seconds, number, and the waiter
_Place = tuple[float, int, str]  # rank, number, and the name of a part


class Line(Generic[T]):
    """Waiters: that of the cheapest payer first; of equal payers, the one that has waited longest.

    `levels` are costs, and the name of a payer that has them. A line has a part for each name of its first level, with
    the other levels. So a charge moves one part, however many wait there. Parts only get dearer: each is in its place
    or too early, and moves back when it comes to the front.
    """

    def __init__(self, levels: Sequence[tuple[Costs, Callable[[Payer], str]]]) -> None:
        (self._costs, self._name), *self._levels = levels
        self._parts: dict[str, Line[T] | _Queue[T]] = {}
        self._places: dict[str, _Place] = {}
        self._heap: list[_Place] = []  # also places that a part has left

    def __len__(self) -> int:
        return len(self._parts)

    def add(self, waiter: Waiter[T]) -> None:
        name = self._name(waiter.payer)
        if name not in self._parts:
            self._parts[name] = Line(self._levels) if self._levels else _Queue()
        self._parts[name].add(waiter)
        place, _ = self._look(name)
        if name not in self._places or place < self._places[name]:
            self._places[name] = place
            heappush(self._heap, place)
        if len(self._heap) > 2 * len(self._places) + _MOST_LEFT:
            self._heap = list(self._places.values())
            heapify(self._heap)

    def remove(self, waiter: Waiter[T]) -> None:
        name = self._name(waiter.payer)
        self._parts[name].remove(waiter)
        if not self._parts[name]:
            del self._parts[name], self._places[name]

    def front(self) -> Front[T]:
        """Return the first waiter. The line must have one."""
        while True:
            place = self._heap[0]
            if self._places.get(place[2]) is not place:
                heappop(self._heap)
                continue
            now, front = self._look(place[2])
            if now <= place:
                return front
            self._places[place[2]] = now
            heapreplace(self._heap, now)

    def _look(self, name: str) -> tuple[_Place, Front[T]]:
        """Return where a part belongs, and its first waiter."""
        seconds, number, waiter = self._parts[name].front()
        seconds += self._costs.used(name)
        return (self._costs.rank(seconds), number, name), (seconds, number, waiter)


class _Queue(list[Waiter[T]]):
    """Waiters of one name on the last level, in the order of arrival."""

    def add(self, waiter: Waiter[T]) -> None:
        insort(self, waiter, key=lambda each: each.number)

    def front(self) -> Front[T]:
        return 0.0, self[0].number, self[0]
