"""A launcher of `uponce` whose equal repeats do not wait for one another, as if a look for the reply were enough."""

import asyncio
import random
from typing import Any

from uponce.adapters.database.postgres import commits, locks
from uponce.cli import main

_WINDOW_SECONDS = 0.02

spend = commits._spend


def a_lock_of_its_own(grant_key: bytes, idempotency_key: str) -> int:
    return random.SystemRandom().getrandbits(62)


async def spend_late(*arguments: Any) -> Any:
    await asyncio.sleep(_WINDOW_SECONDS)
    return await spend(*arguments)


locks.of_repeat = a_lock_of_its_own
commits._spend = spend_late  # type: ignore[assignment]

if __name__ == "__main__":
    main()
