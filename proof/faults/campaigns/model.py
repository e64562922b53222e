"""The state machine (proof/faults/machine.py) against the model, and against servers that are broken on purpose."""

import tempfile
import time
import traceback
from collections import Counter
from functools import partial
from pathlib import Path

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from proof.faults.broken import variants
from proof.faults.control import tries, until_red
from proof.faults.machine import Machine
from proof.faults.operator import check
from proof.faults.report import Report
from proof.faults.tally import Tally
from uponce.adapters.database.sqlite import SqliteDatabase

STEPS = 20
BATCH = 50
"""Examples between two looks at the clock."""
RED = 0.25
"""The chance that a batch finds a broken variant. Measured over 16 runs, the best hidden one: 0.36."""
MEMORY = Path("/dev/shm")
"""Processes die here, machines do not: what an fsync costs would only make it slower."""


def drive(number: int, tally: Counter[str], database: type[SqliteDatabase] = SqliteDatabase) -> str:
    """Run one batch; how an example of it disagrees with the model, what fsck finds of the last one, or nothing."""
    with tempfile.TemporaryDirectory(prefix="uponce-model-", dir=MEMORY if MEMORY.is_dir() else None) as root:
        attributes = {"root": Path(root), "database": database, "tally": tally}
        machine = seed(number)(type("Run", (Machine,), attributes))
        trouble = ""
        try:
            run_state_machine_as_test(
                machine,
                settings=settings(
                    max_examples=BATCH,
                    stateful_step_count=STEPS,
                    database=None,
                    derandomize=False,
                    deadline=None,
                    phases=[Phase.generate],
                    report_multiple_bugs=False,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        except* AssertionError as errors:  # one that Hypothesis does not see again is in a group
            trouble = "".join(traceback.format_exception(errors))
        return trouble or "; ".join(check(Path(root)))


def control(name: str, number: int, tally: Tally) -> None:
    """Count how many examples it takes to find a broken variant, chosen as in the run itself. 0: it was not found."""
    examples: Counter[str] = Counter()
    broken = variants()[name]

    def attempt(batch: int) -> int:
        return examples["examples"] if drive(number + batch, examples, broken.database) else 0

    with broken.patched:
        until_red(tally, f"examples until red: {name}", [partial(attempt, batch) for batch in range(tries(RED))])


def run(seconds: float, seed: int, *, batches: int = 1) -> Report:
    """Run so many batches at least, and more of them until the time is over."""
    until = time.monotonic() + seconds
    first = seed * 1_000_000
    controls = Tally()
    for name in variants():
        control(name, first, controls)
    tally: Counter[str] = Counter()
    disagreements = batch = 0
    while batch < batches or time.monotonic() < until:
        if trouble := drive(first + batch, tally):
            print(trouble)
            disagreements += 1
        batch += 1
    inside = tally["crashes amid uploads"] + tally["amid a commit"]
    zeros = {"disagreements with the model": disagreements}
    return Report("model", seed, dict(tally), inside, zeros, dict(controls.controls))
