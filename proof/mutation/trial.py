"""Tries the mutants made by hand: each in a copy of the sources, with the tests that must kill it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from proof.mutation.by_hand import PLAIN_COMMIT, HandMade
from proof.mutation.tool import ROOT


def killed_by(mutant: HandMade | None, suite: Sequence[str], scratch: Path) -> str:
    """Return the first test of the suite that fails, or nothing. Without a mutant the code is as it is."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(ROOT / "src", folder / "src")  # with its bytecode, of all but the changed file
    if mutant:
        file = folder / "src" / "uponce" / mutant.file
        file.write_text(mutant.apply(file.read_text()))
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder / "src"),
        "TMPDIR": str(folder),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *suite]
    done = subprocess.run(command, cwd=ROOT, env=environment, check=False, capture_output=True, text=True)
    shutil.rmtree(folder, ignore_errors=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    failed = re.search(r"^(?:FAILED|ERROR) (\S.*?)(?: - .*)?$", done.stdout, re.MULTILINE)
    assert (failed is not None) == (done.returncode == 1), done.stdout
    return failed[1] if failed else ""


def run(mutants: Sequence[HandMade], processes: int, scratch: Path) -> Iterator[tuple[HandMade, str]]:
    """Yield each mutant with the test that kills it, or with nothing, as soon as that is known.

    Raise AssertionError when a suite fails without a mutant, or when a mutant of a database allows no commit at all.
    """
    pool = ThreadPoolExecutor(processes)
    try:
        suites = dict.fromkeys(mutant.suite for mutant in mutants)
        broken = list(pool.map(lambda suite: killed_by(None, suite, scratch), suites))
        assert not any(broken), f"without a mutant these fail: {broken}"
        trials = {pool.submit(verdict, mutant, scratch): mutant for mutant in mutants}
        for done in as_completed(trials):
            yield trials[done], done.result()
    finally:
        pool.shutdown(cancel_futures=True)


def verdict(mutant: HandMade, scratch: Path) -> str:
    """Return the test that kills the mutant, or nothing. Raise AssertionError if no commit works with it."""
    by = killed_by(mutant, mutant.suite, scratch)
    assert not by.startswith(PLAIN_COMMIT), f"no commit works with the mutant: {mutant.name}"
    return by
