"""The connection to PostgreSQL cut at every message of its protocol: a request is lost, or a reply, once or for good.

Each point is one act of a server, from its connection on: an upload, an overwrite, a repeat, a race, an upload in
chunks, a revocation, a sweep. The first four also come in groups. Every answer must be true. While the outcome is
unknown, no byte may be deleted. What is sent again over a sound line makes exactly one asset.
"""

import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from proof.faults.broken_groups import GATHERED
from proof.faults.broken_line import STORIES, DatabaseStage, Stage, Upload
from proof.faults.control import Attempt, until_red
from proof.faults.report import Report
from proof.faults.tally import Tally
from proof.faults.wire import SIDES, Cut
from tests.postgres import shared
from uponce.adapters.database.postgres import connection, pool

Staged = Callable[[Path], AbstractContextManager[Stage]]

CONTROL = 24  # of the last messages of an upload, about its COMMIT
AUDIT_EVERY = 100
STRIDE = 1700
FEWEST = 20  # points, however late it is
SPENT_ALL_THE_SAME = "wrong answers when sent again"


def run(seconds: float, seed: int) -> Report:
    return strikes("wire", seconds, seed, on_database, (*STORIES, *GATHERED), control)


def strikes(
    name: str,
    seconds: float,
    seed: int,
    staged: Staged,
    stories: Sequence[type[Upload]],
    control: Callable[[Path, Tally], None],
) -> Report:
    """Points of all stories, mixed, until the time or the points are used up; each seed begins elsewhere.

    So runs with seeds in a row come to all of them, if each is long enough for STRIDE.
    """
    tally, deadline = Tally(), time.monotonic() + seconds
    with TemporaryDirectory(prefix=f"uponce-{name}-") as folder, ExitStack() as stack:
        control(Path(folder) / "control", tally)
        stage = stack.enter_context(staged(Path(folder) / "stage"))
        jobs = [(story, cut) for story in stories for cut in cuts(stage, story)]
        tally.counts["known points"] += len(jobs)
        random.Random(name).shuffle(jobs)
        begin = seed * STRIDE % len(jobs)
        for number, (story, cut) in enumerate(jobs[begin:] + jobs[:begin]):
            if number >= FEWEST and time.monotonic() > deadline:
                break
            strike(stage, story, cut, tally)
            if number % AUDIT_EVERY == AUDIT_EVERY - 1:
                stage.audit(tally)
        stage.audit(tally)
    return tally.report(name, seed)


def control(folder: Path, tally: Tally) -> None:
    """Find a server that treats a COMMIT without an answer as a failed one: some lost reply makes its answer untrue."""
    with on_database(folder) as stage, patch.object(pool, "outcome_unknown", connection.unavailable):
        assert not struck(stage, None, SPENT_ALL_THE_SAME), "without a fault too"
        last = [cut for cut in cuts(stage, Upload) if cut.side == "reply"][-2 * CONTROL :]
        name = "untrue answers when an unknown outcome counts as failed"
        until_red(tally, name, each(stage, last, SPENT_ALL_THE_SAME))


def each(stage: Stage, some: Sequence[Cut], zero: str) -> Iterator[Attempt]:
    """Return a try for every cut of an upload. The fault is at one of them, so no chance is left."""
    return (partial(struck, stage, cut, zero) for cut in some)


def struck(stage: Stage, cut: Cut | None, zero: str) -> int:
    """Return how often an upload over this line has violated `zero`."""
    found = Tally()
    strike(stage, Upload, cut, found)
    return found.zeros[zero]


@contextmanager
def on_database(folder: Path) -> Iterator[Stage]:
    folder.mkdir(parents=True)
    with quiet(DatabaseStage(folder, shared())) as stage:
        yield stage


@contextmanager
def quiet(stage: Stage) -> Iterator[Stage]:
    """Yield the stage, and close it at the end. What our code and drivers log about each cut is not shown."""
    logging.disable(logging.CRITICAL)
    try:
        yield stage
    finally:
        logging.disable(logging.NOTSET)
        stage.close()


def cuts(stage: Stage, story: type[Upload]) -> list[Cut]:
    """Return all cuts that exist, found by one undisturbed run."""
    with stage.line(None) as wire:
        story(stage).act()
        passed = dict(wire.passed)
    return [
        Cut(side, number, lasting)
        for side in SIDES
        for number in range(1, passed[side] + 1)
        for lasting in (False, True)
    ]


def strike(stage: Stage, story: type[Upload], cut: Cut | None, tally: Tally) -> None:
    told = story(stage)
    with stage.line(cut) as wire:
        told.act()
        broke = wire.broke
    tally.inside += broke
    tally.counts[f"cuts in {story.__doc__}"] += broke
    violations = tally.violations
    told.judge(tally)
    if tally.violations > violations:
        tally.notes.append(f"that was {cut} in {story.__doc__}, told {told.told}")
