"""A relay and its upstream, both uponce, under racers: both are killed, and replies between them are lost.

The sittings are those of proof/faults/relayed.py. One has 50 racers a signature without faults. One has kills and
broken connections at random moments, and one a kill of one side at every message of the exchange. On PostgreSQL, a
relay also stops after its commit, and wakes when another attempt has spent the released grant. Afterwards the outbox of
the relay finds each outcome. Then a spent signature has made exactly one asset upstream, and a free one none: it still
works.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from proof.faults.control import seeded, until_red
from proof.faults.fleet import POSTGRES
from proof.faults.proxy import Fault, Kind
from proof.faults.relayed import IN_CHUNKS, PATIENT, RACERS, RACERS_UNDER_KILLS, SIZES, STRUCK_WITHIN, Rules, sitting
from proof.faults.report import Report
from proof.faults.tally import Tally

SITTING_SECONDS, SHORTEST_SITTING = 15.0, 6.0
CONTROL_SECONDS = 3.0

Sit = Callable[[Path, random.Random, Tally, float], None]

MUTANTS = Path(__file__).parents[1] / "mutants"
STOPPING = ("-m", "proof.faults.stopping")
CONTROLS = {
    "signatures that a relay spent twice which signs before the commit": "signs_before_commit.py",
    "signatures that a relay spent twice which frees an unknown outcome": "frees_when_unknown.py",
}


def run(seconds: float, seed: int) -> Report:
    return series_of("relay", SITTINGS, SITTING_SECONDS, seconds, seed)


def series_of(name: str, sittings: Sequence[Sit], longest: float, seconds: float, seed: int) -> Report:
    """Run the controls, then the sittings in turns, each of them at least once."""
    chance, tally, deadline = random.Random(seed), Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix="uponce-relay-") as folder:
        controls(Path(folder), chance, tally)
        control_stops(Path(folder), chance, tally)
        for number in itertools.count():
            left = deadline - time.monotonic()
            if number >= len(sittings) and left < SHORTEST_SITTING:
                break
            sit = sittings[number % len(sittings)]
            sit(Path(folder), chance, tally, min(longest, max(left, SHORTEST_SITTING)))
    return tally.report(name, seed)


def race(rules: Rules, folder: Path, chance: random.Random, tally: Tally, seconds: float) -> None:
    """Without faults, as many racers as there are; each lane has one signature at least."""
    with sitting(folder, chance, rules) as both:
        asyncio.run(both.race(seconds))
        tally.counts[f"signatures of a race of {rules.racers}, {rules.ground.size(rules.workers)}"] += len(
            both.signatures
        )
        tally.inside += both.verdicts["signature_used"] + both.verdicts["outcome_unknown"]
        both.judge(tally)


def suffer(rules: Rules, folder: Path, chance: random.Random, tally: Tally, seconds: float) -> None:
    with sitting(folder, chance, rules) as both:
        asyncio.run(both.suffer(seconds))
        both.judge(tally)


# How much of the exchange has passed.
MESSAGES = {
    "the head": (Kind.MESSAGE, 0.0),
    "the middle of the file": (Kind.MESSAGE, 0.5),
    "the signature": (Kind.MESSAGE, 1.0),
    "the answer": (Kind.ANSWER, 1.0),
}


def kill_at_messages(rules: Rules, folder: Path, chance: random.Random, tally: Tally, _: float) -> None:
    """Kill each side at every message, for each way in which a file is passed on."""
    with sitting(folder, chance, rules) as both:
        victims = {"the relay": both.relay.first, "the upstream": both.upstream}
        for size, at, name in itertools.product(rules.sizes, MESSAGES, victims):
            asyncio.run(both.die_at(size, *MESSAGES[at], victims[name], f"{name} at {at}"))
        both.judge(tally)


def stop(rules: Rules, folder: Path, chance: random.Random, tally: Tally, _: float) -> None:
    """Stop the relay after its commit, and wake it when another attempt has spent the released grant."""
    with sitting(folder, chance, rules) as both:
        stopped, rival = asyncio.run(both.wake_late())
        tally.expect(
            stopped, "grants of a stopped relay that were not released", both.relay.place.rows("SELECT * FROM relays")
        )
        tally.counts["relays that stopped after their commit"] += stopped
        tally.counts[f"rivals of a relay that wakes late, answered {rival}"] += 1
        tally.inside += stopped and rival == "ok"
        both.judge(tally)


SITTINGS: Sequence[Sit] = (
    partial(suffer, Rules()),
    partial(race, Rules(1, RACERS)),
    partial(kill_at_messages, Rules(1, 1, sizes=(*SIZES, IN_CHUNKS))),
    partial(race, Rules(4, RACERS)),
    partial(suffer, Rules(4, RACERS_UNDER_KILLS, POSTGRES)),
    partial(race, Rules(4, RACERS, POSTGRES)),
    partial(stop, Rules(2, 1, POSTGRES, STOPPING)),
)


# Without random moments, and with times that suit a busy machine.
SMALL: Sequence[Sit] = (
    partial(race, Rules(1, RACERS, times=PATIENT)),
    partial(kill_at_messages, Rules(1, 1, sizes=SIZES[1:2], times=PATIENT)),
    partial(stop, Rules(2, 1, POSTGRES, STOPPING, times=PATIENT)),
)


def small(sit: Sit, seed: int) -> Report:
    """Run one sitting of SMALL."""
    tally = Tally()
    with TemporaryDirectory(prefix="uponce-relay-") as folder:
        sit(Path(folder), random.Random(seed), tally, 0)
    return tally.report("relay, one sitting", seed)


def controls(folder: Path, chance: random.Random, tally: Tally) -> None:
    for name, program in CONTROLS.items():
        control(folder, chance, tally, name, program)


def control(folder: Path, chance: random.Random, tally: Tally, name: str, program: str) -> None:
    """Run without kills: the relay itself makes what must be found."""

    def attempt(chance: random.Random) -> int:
        with sitting(folder, chance, Rules(program=(str(MUTANTS / program),))) as both:
            both.line.plan = lambda _: Fault(Kind.SWALLOW, after=chance.randrange(STRUCK_WITHIN))
            asyncio.run(both.race(CONTROL_SECONDS))
            return sum(number > 1 for number in both.completed().values())

    until_red(tally, name, seeded(chance, attempt))


def control_stops(folder: Path, chance: random.Random, tally: Tally) -> None:
    def attempt(chance: random.Random) -> int:
        with sitting(folder, chance, Rules(2, 1, POSTGRES, (str(MUTANTS / "signs_when_awake.py"),))) as both:
            asyncio.run(both.wake_late())
            return sum(number > 1 for number in both.completed().values())

    until_red(tally, "signatures that a relay spent twice which signs when it wakes", seeded(chance, attempt))
