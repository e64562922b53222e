"""Runs campaigns and says what they found; `make campaign` and `make campaigns`.

    python -m proof.faults.campaign NAME… [--seconds 60] [--seed N] [--record]

Without a name all run, one after the other. `--record` adds one line for each to the published figures, also for one
that does not hold. Exit code 0 when all hold and each fault had something to break.
"""

import argparse
import json
import os
import pkgutil
import platform
import random
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path

import pytest

from proof.faults import campaigns
from proof.faults.report import Campaign, Report
from uponce.adapters.system import file_system

ROOT = Path(__file__).parents[2]
RECORDS = ROOT / "proof/records/campaigns.jsonl"
_PROGRESS_SECONDS = 10
# What the servers do with uploads. Each change here makes a new column of figures, and proof/records/campaigns.md says
# what it means.
SHAPE = "late sync"
# What a change of would make figures of another program.
_CODE = ("src", "tests", "proof/faults", "pyproject.toml", "requirements.lock")


@dataclass(frozen=True, slots=True)
class Record:
    """One line of the published figures. `took` and `seconds` are what the run needed and what it was given.

    `shape` names how servers stored uploads at that commit.
    """

    date: str
    commit: str
    dirty: bool
    machine: Mapping[str, str | int]
    seconds: float
    took: float
    report: Report
    shape: str = SHAPE

    def line(self) -> str:
        return json.dumps(asdict(self), sort_keys=True) + "\n"


def names() -> list[str]:
    return sorted(module.name for module in pkgutil.iter_modules(campaigns.__path__))


def campaign(name: str) -> Campaign:
    run: Campaign = import_module(f"proof.faults.campaigns.{name}").run
    return run


def machine() -> dict[str, str | int]:
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    return {
        "cores": os.cpu_count() or 0,
        "kernel": platform.release(),
        "python": platform.python_version(),
        "file system": file_system(Path(tempfile.gettempdir()).resolve(), mounts),
    }


def record(name: str, seconds: float, seed: int) -> Record:
    begun = time.monotonic()
    with _progress(name, seconds):
        report = campaign(name)(seconds, seed)
    date, took = f"{datetime.now(UTC):%Y-%m-%d}", round(time.monotonic() - begun, 1)
    dirty = bool(_git("status", "--porcelain", "--", *_CODE))
    return Record(date, _git("rev-parse", "--short", "HEAD"), dirty, machine(), seconds, took, report)


def proves(report: Report) -> bool:
    """Nothing was broken, what is broken on purpose was there and was found, and something could have been broken."""
    return report.holds and report.inside > 0


def printed(done: Record) -> str:
    report = done.report
    where = ", ".join(f"{name} {value}" for name, value in done.machine.items())
    lines = [
        f"campaign {report.campaign}, seed {report.seed}, commit {done.commit}{' with changes' if done.dirty else ''}",
        f"  {done.took:.0f} s on {where}",
        *(f"  {number:>10,}  {name}" for name, number in report.counts.items()),
        f"  {report.inside:>10,}  inside: landed while something was under way",
        *(f"  {number:>10,}  must be 0: {name}{' <-- BROKEN' * bool(number)}" for name, number in report.zeros.items()),
        *(
            f"  {number:>10,}  control, must be above 0: {name}{' <-- NOT FOUND' * (not number)}"
            for name, number in report.controls.items()
        ),
        *(f"  control, must be in the run and in CONTROLS: {name} <-- MISSING" for name in sorted(report.mismatched)),
        *(f"  check, must be in the run: {name} <-- NOT REACHED" for name in sorted(report.unreached)),
        f"  {'HOLDS' if proves(report) else 'DOES NOT HOLD'}",
    ]
    return "\n".join(lines)


def attempt(name: str, seconds: float, seed: int, keep: bool) -> bool:
    """Return whether the campaign holds. If it could not run, it proves nothing, and the other campaigns go on."""
    try:
        done = record(name, seconds, seed)
    except pytest.skip.Exception as skipped:
        print(f"campaign {name}: {skipped}", flush=True)
        return False
    except Exception:
        print(f"campaign {name}, seed {seed}, ended early:\n{traceback.format_exc()}", flush=True)
        return False
    print(printed(done), flush=True)
    if keep:
        with RECORDS.open("a") as file:
            file.write(done.line())
    return proves(done.report)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make campaign", description="Run fault campaigns.")
    parser.add_argument("names", nargs="*", choices=[*names(), []], metavar="NAME", help=", ".join(names()))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--record", action="store_true", help="add it to proof/records/campaigns.jsonl")
    options = parser.parse_args(arguments)
    seed = random.SystemRandom().randrange(1, 2**32) if options.seed is None else options.seed
    held = {name: attempt(name, options.seconds, seed, options.record) for name in options.names or names()}
    if len(held) > 1:
        print(", ".join(f"{name} {'holds' if holds else 'DOES NOT HOLD'}" for name, holds in held.items()))
    return 0 if all(held.values()) else 1


@contextmanager
def _progress(name: str, seconds: float) -> Iterator[None]:
    """Print a line every few seconds on stderr, so that a long run does not look like one that hangs."""
    done, begun = threading.Event(), time.monotonic()

    def tell() -> None:
        while not done.wait(_PROGRESS_SECONDS):
            print(f"{name}: {time.monotonic() - begun:.0f} of about {seconds:.0f} s", file=sys.stderr, flush=True)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
