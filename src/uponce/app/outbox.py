"""Run the effects that transactions left in the outbox: each at least once, with back-off, until it is done or dead."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from uponce.app.ports import Effect, Outbox
from uponce.app.services import EffectOf, Services
from uponce.core.errors import Unavailable, UponceError

log = logging.getLogger("uponce")

_LEASE_SECONDS = 120
_PLACES = 24  # for effects of one name that run at once
_LOOK_SECONDS = 1  # between looks for further due effects, while some run
# Of an effect that fails by a defect. One that returns Later decides itself when it is dead. A part of the server that
# is away for a moment kills nothing.
_MOST_TRIES = 1000
_PASSING = (Unavailable, TimeoutError)
_MOST_WAIT = 300


@dataclass(frozen=True, slots=True)
class Later:
    """Run the effect again after so many seconds. If it is `dead`, run it only when an operator asks for it.

    `error` is for the operator.
    """

    seconds: int
    error: str = ""
    dead: bool = False


Handler = Callable[[Services, Effect], Awaitable[Later | None]]


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of effect. `run` does it. `effect_of` is its row in `Services.after_commit`."""

    run: Handler
    effect_of: EffectOf = lambda *_: None


async def run_due(services: Services, name: str, work: Work) -> int:
    """Run effects of this name until none is due, some at once. Return how many.

    A slow effect delays none that becomes due while it runs, and none of another name. Receivers have their turns one
    after the other, so a backlog of one delays those of no other.

    If the database fails, or the caller is cancelled, running effects are given up. They run again after their lease.
    """
    count, last, running = 0, "", dict[asyncio.Task[None], str]()
    try:
        while True:
            for effect in await _claim(services.database, name, last, Counter(running.values())):
                last = effect.receiver
                running[asyncio.create_task(_run(services, effect, work))] = last
                count += 1
            if not running:
                return count
            done, _ = await asyncio.wait(running, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                del running[task]
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def _claim(outbox: Outbox, name: str, last: str, running: Counter[str]) -> Sequence[Effect]:
    """Take effects for the free places. `running` counts those of each receiver. `last` had the last turn."""
    if running.total() == _PLACES:
        return ()
    receivers = await outbox.list_receivers(name, last, _PLACES)
    shares = _shares(receivers, running)
    return await outbox.claim_effects(name, shares, _LEASE_SECONDS) if shares else ()


def _shares(receivers: Sequence[str], running: Counter[str]) -> Mapping[str, int]:
    """Return how many of the free places each receiver gets: one after the other, while it has fewer than are free.

    So one slow receiver has half of the places, and two have a third each. The rest is for receivers that come later.
    This is the "dynamic threshold" of shared buffers (Choudhury and Hahne, 1998).
    """
    shares, free = Counter[str](), _PLACES - running.total()
    while True:
        before = free
        for receiver in receivers:
            if running[receiver] + shares[receiver] < free:
                shares[receiver] += 1
                free -= 1
        if free == before:
            return shares


async def _run(services: Services, effect: Effect, work: Work) -> None:
    database = services.database
    try:
        async with asyncio.timeout(_LEASE_SECONDS / 2):
            later = await work.run(services, effect)
    except Exception as error:
        log.exception("effect %d, %s of %s, failed", effect.id, effect.name, effect.subject)
        detail = error.for_operator if isinstance(error, UponceError) else repr(error)
        dead = effect.tries >= _MOST_TRIES and not isinstance(error, _PASSING)
        later = Later(min(_MOST_WAIT, 2 ** min(effect.tries, 10)), detail, dead)
    if later is None:
        await database.finish_effect(effect.id)
    else:
        if later.dead:
            log.error("effect %d, %s of %s, is dead: %s", effect.id, effect.name, effect.subject, later.error)
        await database.postpone_effect(effect, later.seconds, later.error, dead=later.dead)
