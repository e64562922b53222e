"""A launcher of `uponce` whose equal repeats do not wait for one another, as if a look for the reply were enough."""

import random
import time
from typing import Any

from uponce.adapters.database import commits
from uponce.adapters.database.steps import Steps
from uponce.cli import main

_WINDOW_SECONDS = 0.02

spend = commits._spend


def a_lock_of_its_own(grant_key: bytes) -> int:
    return random.SystemRandom().getrandbits(62)


def spend_late(*arguments: Any) -> Steps[None]:
    time.sleep(_WINDOW_SECONDS)
    yield from spend(*arguments)


commits.of_grant = a_lock_of_its_own  # type: ignore[attr-defined]
commits._spend = spend_late  # type: ignore[assignment]

if __name__ == "__main__":
    main()
