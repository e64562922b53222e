"""Tries the mutants made by hand: each in a copy of the sources, with the tests that must kill it."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from proof.mutation.by_hand import BY_HAND, POSTGRES, SQLITE, SUITES, HandMade
from proof.mutation.tool import ROOT

_PLAIN = "tests/contract/test_database.py::test_a_commit_spends_the_grant_and_publishes_the_asset"


def killed_by(mutant: HandMade | None, suite: Sequence[str], scratch: Path) -> str:
    """Return the first test of the suite that fails, or nothing. Without a mutant the code is as it is."""
    folder = Path(tempfile.mkdtemp(dir=scratch))
    shutil.copytree(ROOT / "src", folder / "src", ignore=shutil.ignore_patterns("__pycache__"))
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


def allows_a_commit(mutant: HandMade, scratch: Path) -> bool:
    """Return whether a plain commit works with this mutant of a database.

    Otherwise any test kills it, as with SQL that no engine can read. Such a kill says nothing about the change.
    """
    return not killed_by(mutant, (_PLAIN, *mutant.suite[-2:]), scratch)


def run(processes: int, scratch: Path) -> dict[HandMade, str]:
    """Return for each mutant the test that kills it.

    Raise AssertionError when a suite fails without a mutant, or when a mutant of a database allows no commit at all.
    """
    of_databases = [mutant for mutant in BY_HAND if mutant.suite in (SQLITE, POSTGRES)]
    with ThreadPoolExecutor(processes) as pool:
        broken = pool.map(lambda suite: killed_by(None, suite, scratch), SUITES)
        assert not any(list(broken)), "a suite fails without a mutant"
        allowed = pool.map(lambda mutant: allows_a_commit(mutant, scratch), of_databases)
        useless = [mutant.name for mutant, works in zip(of_databases, allowed, strict=True) if not works]
        assert not useless, f"no commit works with {useless}"
        told = pool.map(lambda mutant: killed_by(mutant, mutant.suite, scratch), BY_HAND)
        return dict(zip(BY_HAND, told, strict=True))
