"""A waiting list for the decoders, ordered by the decoder time that each payer used lately.

A payer has three names: its grant, its address and its API key. A slow file makes the files under all three names wait
longer, and the files of others go first. One grant has one decoder at most. Greedy payers leave one decoder free.
"""

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from uponce.core.values import Payer

_HALF_LIFE = 30.0
_SLOW_SECONDS = 0.2  # an ordinary file takes less
_GREEDY_SECONDS = 4.0
_FORGOTTEN_SECONDS = 0.0001
_MOST_NAMES = 10_000
D = TypeVar("D")


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
class Turn(Generic[D]):
    """A payer's use of one decoder, from `Turns.take` to `Turns.end`."""

    payer: Payer
    decoder: D
    is_greedy: bool


@dataclass(eq=False, slots=True)
class _Waiter(Generic[D]):
    payer: Payer
    turn: "asyncio.Future[Turn[D]]"


class Turns(Generic[D]):
    """Gives the free ones of `size` decoders to waiting payers. `now` returns seconds. For one event loop."""

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self._most_greedy = max(size - 1, 1)
        self._free: deque[D] = deque()
        self._waiting: list[_Waiter[D]] = []
        self._grants, self._addresses, self._keys = Costs(now), Costs(now), Costs(now)
        self._busy_grants: Counter[str] = Counter()
        self._greedy = 0

    def put(self, decoder: D) -> None:
        """Take a free decoder, and give it to the payer whose turn it is."""
        self._free.append(decoder)
        self._match()

    async def take(self, payer: Payer) -> Turn[D]:
        """Return a turn with a decoder when one is free for this payer."""
        waiter = _Waiter(payer, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._match()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            if waiter in self._waiting:
                self._waiting.remove(waiter)
            elif not waiter.turn.cancelled():
                turn = waiter.turn.result()
                self.end(turn, 0)
                self.put(turn.decoder)
            raise

    def take_free(self, payer: Payer) -> Turn[D] | None:
        """Return a turn with a decoder that no waiting payer may use now, or None without such a decoder."""
        return self._give_free(payer) if self._free else None

    def end(self, turn: Turn[D], seconds: float) -> None:
        """Charge the payer. The decoder is free again after `put`."""
        self._greedy -= turn.is_greedy
        self._busy_grants[turn.payer.grant] -= 1
        for costs, name in self._names(turn.payer):
            costs.charge(name, seconds)
        self._busy_grants += Counter()  # drops the zeros
        self._match()

    def _match(self) -> None:
        while self._free and (waiter := self._next()) is not None:
            self._waiting.remove(waiter)
            waiter.turn.set_result(self._give_free(waiter.payer))

    def _give_free(self, payer: Payer) -> Turn[D]:
        turn = Turn(payer, self._free.popleft(), self._is_greedy(payer))
        self._greedy += turn.is_greedy
        self._busy_grants[payer.grant] += 1
        return turn

    def _next(self) -> "_Waiter[D] | None":
        """Return the waiter of the cheapest payer; of equal payers, the one that has waited longest."""
        ready = [waiter for waiter in self._waiting if not waiter.turn.done() and self._may_run(waiter.payer)]
        return min(ready, key=lambda waiter: self._cost(waiter.payer), default=None)

    def _may_run(self, payer: Payer) -> bool:
        if payer.grant and self._busy_grants[payer.grant]:
            return False
        return self._greedy < self._most_greedy or not self._is_greedy(payer)

    def _is_greedy(self, payer: Payer) -> bool:
        """Return whether this grant sent a slow file lately, or its address or key sent many and there are others."""
        if self._grants.slow(payer.grant):
            return True
        return any(
            costs.slow(name) > _GREEDY_SECONDS and costs.has_others(name)
            for costs, name in self._names(payer)
            if costs is not self._grants
        )

    def _cost(self, payer: Payer) -> float:
        return sum(costs.used(name) for costs, name in self._names(payer))

    def _names(self, payer: Payer) -> list[tuple[Costs, str]]:
        named = ((self._grants, payer.grant), (self._addresses, payer.address), (self._keys, payer.api_key))
        return [(costs, name) for costs, name in named if name]
