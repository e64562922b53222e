"""SIGKILL of a relay, or of its upstream, at each system call of one upload that passes through both.

A point is a way to pass a file on, a server, a call and a number. Of two threads that make the same call, the one that
is first at its number is struck. The points of one undisturbed upload are struck in a seeded order, one after another,
by strace on the running server. The rest is as in the relay campaign.
"""

import asyncio
import math
import random
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import pytest

from proof.faults.campaigns.relay import MUTANTS
from proof.faults.control import Attempt, until_red
from proof.faults.relayed import IN_CHUNKS, PATIENT, SIZES, Rules, Sitting, sitting
from proof.faults.report import Report
from proof.faults.strace import ABSENT, can_trace
from proof.faults.tally import Tally
from tests.server import Server

RULES = Rules(1, 1, times=PATIENT)
WAYS = (*SIZES, IN_CHUNKS)
RELAY, UPSTREAM = "the relay", "the upstream"
FREES = Rules(1, 1, program=(str(MUTANTS / "frees_when_unknown.py"),), times=PATIENT)
COMMITS = ("fdatasync", "fsync", "pwrite64")


class Point(NamedTuple):
    """Before the `number`-th `call` of `victim`, in a file of `size` bytes."""

    size: int
    victim: str
    call: str
    number: int


def run(seconds: float, seed: int) -> Report:
    """Each way to pass a file on has its share of the time, and what is left of the shares before."""
    if not can_trace():
        pytest.skip(ABSENT)
    chance, tally, begun = random.Random(seed), Tally(), time.monotonic()
    with TemporaryDirectory(prefix="uponce-relay-points-") as folder:
        control(Path(folder), tally)
        for number, size in enumerate(WAYS, 1):
            strike(Path(folder), chance, tally, size, begun + seconds * number / len(WAYS))
    return tally.report("relay_points", seed)


def strike(
    folder: Path, chance: random.Random, tally: Tally, size: int, deadline: float = math.inf, most: int | None = None
) -> None:
    """Points of one size until the time, or so many points, are used up."""
    with sitting(folder, chance, RULES) as both:
        every = list(points(both, size, folder / "calls.log"))
        tally.counts["known kill points"] += len(every)
        for point in chance.sample(every, len(every))[:most]:
            died = asyncio.run(both.die_at_call(size, _server(both, point.victim), point.call, point.number))
            tally.counts[f"kills of {point.victim}" if died else "kill points not reached"] += 1
            if time.monotonic() > deadline:
                break
        both.judge(tally)


def points(both: Sitting, size: int, log: Path) -> Iterator[Point]:
    for victim in (RELAY, UPSTREAM):
        calls = asyncio.run(both.calls(size, _server(both, victim), log))
        for call, times in calls.items():
            yield from (Point(size, victim, call, number) for number in range(1, times + 1))


def control(folder: Path, tally: Tally) -> None:
    """Find a relay that frees an unknown outcome, by a kill of the upstream between its commit and its answer.

    Before the `fdatasync` of its commit the upstream has written all of it, so a kill there loses nothing. Another
    thread may make that call first, and is struck in its place. So this point is struck up to ten times.
    """

    def attempt(call: str, number: int) -> int:
        with sitting(folder, random.Random(0), FREES) as both:
            asyncio.run(both.post(both.sign(), b"b" * SIZES[1]))  # the first upload makes other calls
            asyncio.run(both.die_at_call(SIZES[1], both.upstream, call, number))
            asyncio.run(both.use_free_ones())
            return sum(times > 1 for times in both.completed().values())

    def attempts() -> Iterator[Attempt]:
        with sitting(folder, random.Random(0), FREES) as both:
            calls = asyncio.run(both.calls(SIZES[1], both.upstream, folder / "calls.log"))
        last_first = [(call, number) for call in (*COMMITS, "sendto", "write") for number in range(calls[call], 0, -1)]
        return (partial(attempt, call, number) for call, number in (*9 * [("fdatasync", 1)], *last_first))

    until_red(tally, "signatures that a relay spent twice which frees an unknown outcome", attempts())


def _server(both: Sitting, victim: str) -> Server:
    return both.relay.first if victim == RELAY else both.upstream
