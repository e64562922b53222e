"""Whose turn it is: a waiting list for the decoders, ordered by the decoder time that each payer used lately.

A payer has three names: its grant, its address and its API key. A slow file makes the files under all three names wait
longer, and the files of others go first. One grant has one decoder at most. Greedy payers leave one decoder free.
"""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Generic, TypeVar

from uponce.adapters.media.line import Costs, Line, Waiter
from uponce.core.values import Payer

_GREEDY_SECONDS = 4.0
D = TypeVar("D")


@dataclass(eq=False, slots=True)
class Turn(Generic[D]):
    """A payer's use of one decoder, from `Turns.take` to `Turns.end`."""

    payer: Payer
    decoder: D
    is_greedy: bool


_Name = tuple[Costs, str]


class Turns(Generic[D]):
    """Gives the free ones of `size` decoders to those that wait. `now` returns seconds. For one event loop.

    Waiters that may not run stand apart, each behind the name that stops it: a busy grant, or a greedy name. Few names
    can be greedy at a time, because each of them used a decoder for seconds.
    """

    def __init__(self, size: int, now: Callable[[], float]) -> None:
        self._most_greedy = max(size - 1, 1)
        self._free: deque[D] = deque()
        self._grants, self._addresses, self._keys = Costs(now), Costs(now), Costs(now)
        self._line, self._numbers = self._new_line(), count()
        self._behind_grant: dict[str, Line[Turn[D]]] = {}
        self._behind_greedy: dict[_Name, Line[Turn[D]]] = {}
        self._busy_grants: Counter[str] = Counter()
        self._greedy = 0

    def put(self, decoder: D) -> None:
        """Take a free decoder and give it to the payer whose turn it is."""
        self._free.append(decoder)
        self._match()

    async def take(self, payer: Payer) -> Turn[D]:
        """Return a turn with a decoder when one is free for this payer."""
        waiter = Waiter[Turn[D]](payer, asyncio.get_running_loop().create_future(), next(self._numbers))
        self._stand(waiter, self._line)
        self._match()
        try:
            return await waiter.turn
        except asyncio.CancelledError:
            self._leave(waiter)
            if not waiter.turn.cancelled():
                turn = waiter.turn.result()
                self.end(turn, 0)
                self.put(turn.decoder)
            self._bring_back(payer.grant)
            self._match()
            raise

    def end(self, turn: Turn[D], seconds: float) -> None:
        """Charge the payer. The decoder is free again after `put`."""
        self._greedy -= turn.is_greedy
        self._busy_grants[turn.payer.grant] -= 1
        for costs, name in self._names(turn.payer):
            costs.charge(name, seconds)
        self._busy_grants += Counter()  # drops the zeros
        self._bring_back(turn.payer.grant)
        self._match()

    def _match(self) -> None:
        while self._free and (waiter := self._next()) is not None:
            turn = Turn(waiter.payer, self._free.popleft(), self._greedy_name(waiter.payer) is not None)
            self._greedy += turn.is_greedy
            self._busy_grants[turn.payer.grant] += 1
            waiter.turn.set_result(turn)

    def _next(self) -> Waiter[Turn[D]] | None:
        """Take away the waiter of the cheapest payer that may run; of equal payers, the one that has waited longest."""
        while (waiter := self._first()) is not None:
            self._leave(waiter)
            grant, greedy = waiter.payer.grant, self._greedy_name(waiter.payer)
            if waiter.turn.done():  # its request has ended
                continue
            if grant and self._busy_grants[grant]:
                self._stand(waiter, self._behind_grant.setdefault(grant, self._new_line()))
            elif greedy is not None and self._stops(*greedy):
                self._stand(waiter, self._behind_greedy.setdefault(greedy, self._new_line()))
            else:
                return waiter
        return None

    def _first(self) -> Waiter[Turn[D]] | None:
        """Return the first waiter of the line, and of those whose name stops them no more."""
        self._behind_greedy = {name: line for name, line in self._behind_greedy.items() if line}
        lines = [self._line, *(line for name, line in self._behind_greedy.items() if not self._stops(*name))]
        fronts = [line.front() for line in lines if line]
        return min(fronts, key=lambda front: (self._keys.rank(front[0]), front[1]))[2] if fronts else None

    def _stand(self, waiter: Waiter[Turn[D]], line: Line[Turn[D]]) -> None:
        line.add(waiter)
        waiter.line = line

    def _leave(self, waiter: Waiter[Turn[D]]) -> None:
        if waiter.line is not None:
            waiter.line.remove(waiter)
            waiter.line = None

    def _bring_back(self, grant: str) -> None:
        """Let the first waiter behind a grant stand in the line again."""
        if behind := self._behind_grant.get(grant):
            waiter = behind.front()[2]
            self._leave(waiter)
            self._stand(waiter, self._line)
        else:
            self._behind_grant.pop(grant, None)

    def _stops(self, costs: Costs, name: str) -> bool:
        """Return whether a payer with this name must wait because it is greedy."""
        return self._greedy >= self._most_greedy and self._is_greedy(costs, name)

    def _greedy_name(self, payer: Payer) -> _Name | None:
        """Return the name that makes a payer greedy. Greedy grants have one name: each has few waiters."""
        if self._grants.slow(payer.grant):
            return self._grants, ""
        return next(
            (named for named in self._names(payer) if named[0] is not self._grants and self._is_greedy(*named)), None
        )

    def _is_greedy(self, costs: Costs, name: str) -> bool:
        """Return whether this grant sent a slow file lately, or this address or key many and there are others."""
        return costs is self._grants or (costs.slow(name) > _GREEDY_SECONDS and costs.has_others(name))

    def _new_line(self) -> Line[Turn[D]]:
        return Line(
            (
                (self._keys, lambda payer: payer.api_key),
                (self._addresses, lambda payer: payer.address),
                (self._grants, lambda payer: payer.grant),
            )
        )

    def _names(self, payer: Payer) -> list[_Name]:
        named = ((self._grants, payer.grant), (self._addresses, payer.address), (self._keys, payer.api_key))
        return [(costs, name) for costs, name in named if name]
