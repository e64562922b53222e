"""Controls: a campaign has to find servers that are broken on purpose. Chance may hide the fault from one try."""

import math
import random
from collections.abc import Callable, Iterable, Sequence
from functools import partial

from proof.faults.tally import Tally

FALSE_ALARM = 1e-4
"""How likely a control may miss a broken server that it can find."""

EVEN = 0.3
"""The chance of one try where no run has missed yet: far below what was measured."""

Attempt = Callable[[], int]
"""One try; how much of the fault it found."""


def tries(red: float) -> int:
    """Return the number of tries after which a miss is rarer than FALSE_ALARM, if each try finds the fault with the
    chance `red`."""
    return 1 if red >= 1 else math.ceil(math.log(FALSE_ALARM) / math.log(1 - red))


def seeded(chance: random.Random, attempt: Callable[[random.Random], int], red: float = EVEN) -> Sequence[Attempt]:
    """Return as many tries as `red` needs, each with its own seed."""
    return [partial(attempt, random.Random(chance.random())) for _ in range(tries(red))]


def until_red(tally: Tally, name: str, attempts: Iterable[Attempt]) -> None:
    """Try until the broken server is found, and enter it in the tally's controls: 0 when no try found it.

    A try that waits for longer than its own limit found nothing: a broken server may answer never. The line that this
    prints says how many tries there were; the summary of pytest repeats it.
    """
    tally.controls[name] += 0
    planned = list(attempts)
    for number, attempt in enumerate(planned, 1):
        try:
            found = attempt()
        except TimeoutError:
            found = 0
        if found:
            tally.controls[name] += found
            print(f"control: {name}: red at try {number} of at most {len(planned)}")
            return
    print(f"control: {name}: NOT RED in {len(planned)} tries")
