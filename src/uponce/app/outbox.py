"""Run the effects that transactions left in the outbox: each at least once, with back-off, until it is done or dead."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace

from uponce.app.ports import Effect
from uponce.app.services import DetailsOf, Services
from uponce.core.errors import Unavailable, UponceError

log = logging.getLogger("uponce")

_LEASE_SECONDS = 120
_AT_ONCE = 16  # of one kind, unless its Work says otherwise
_LOOK_SECONDS = 1  # between looks for further due effects, while some run
# Of an effect that fails by a defect. One that returns Later decides itself when it is dead. A part of the server that
# is away for a moment kills nothing.
_MOST_TRIES = 1000
_PASSING = (Unavailable, TimeoutError)
_MOST_WAIT = 300


@dataclass(frozen=True, slots=True)
class Later:
    """Run the effect again after so many seconds. If it is `dead`, run it only when an operator asks for it.

    `error` is for the operator. A run that was `untried` does not count as a try.
    """

    seconds: int
    error: str = ""
    dead: bool = False
    untried: bool = False


Handler = Callable[[Services, Effect], Awaitable[Later | None]]


@dataclass(frozen=True, slots=True)
class Work:
    """One kind of effect. `run` does it, `at_once` at a time. `details_of` is its row in `Services.after_commit`."""

    run: Handler
    details_of: DetailsOf = lambda *_: None
    at_once: int = _AT_ONCE


async def run_due(services: Services, name: str, work: Work) -> int:
    """Run effects of this name until none is due, some at once. Return how many.

    A slow effect delays none that becomes due while it runs, and none of another name.

    If the database fails, or the caller is cancelled, running effects are given up. They run again after their lease.
    """
    count, running = 0, set[asyncio.Task[None]]()
    try:
        while True:
            effects = await services.database.claim_effects(name, work.at_once - len(running), _LEASE_SECONDS)
            count += len(effects)
            running |= {asyncio.create_task(_run(services, effect, work)) for effect in effects}
            if not running:
                return count
            done, running = await asyncio.wait(running, timeout=_LOOK_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


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
        if later.untried:
            effect = replace(effect, tries=effect.tries - 1)
        await database.postpone_effect(effect, later.seconds, later.error, dead=later.dead)
