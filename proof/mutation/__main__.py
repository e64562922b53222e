"""Mutation check: is every change of the signing and ledger code noticed by a test? `make mutants`.

    python -m proof.mutation [FILE…] [--by-hand | --left] [--processes 2] [--record]

Files are named from `src/uponce`, as `core/ranges.py`; without any all run, and the mutants made by hand too. Exit code
0 when at least 96 of 100 are killed, all those made by hand, and every survivor has a reason. A recorded run begins
with no result of the tool's earlier runs. Of those made by hand each verdict is recorded at once, so a run that was
stopped goes on with `--left`.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proof.mutation import page, tool, trial
from proof.mutation.by_hand import BY_HAND, HandMade
from proof.mutation.survivors import reason, stale
from proof.mutation.tool import ROOT, Mutant

_LEAST = 96.0
_MEMORY = Path("/dev/shm")  # where nothing waits for a disk


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make mutants", description="Change the code and see whether tests notice.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="from src/uponce; all that pyproject.toml names")
    parser.add_argument("--by-hand", action="store_true", help="only the mutants made by hand")
    parser.add_argument("--left", action="store_true", help="only those made by hand that no recorded run killed")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", action="store_true", help="write proof/records/mutants.json; of FILEs their part")
    options = parser.parse_args(arguments)
    options.by_hand |= options.left
    if options.record:
        shutil.rmtree(tool.MUTANTS, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix="mutants-", dir=_MEMORY if _MEMORY.is_dir() else None) as scratch:
        if not options.by_hand:
            tool.run(options.files, options.processes, Path(scratch))
        made = {} if options.files else _tried(options, Path(scratch))
    found = [] if options.by_hand else tool.results()
    mutants = [mutant for mutant in found if not options.files or mutant.file in options.files]
    untouched = {} if options.by_hand else tool.untouched()
    report, partly = described(mutants, made, untouched), bool(options.files) or options.by_hand
    if partly:
        report = page.merged(page.recorded(), report)
    problems = complaints(mutants, made, partly=partly)
    if options.record:
        _write(report)
    print(page.tables(report), *problems, sep="\n")
    return 1 if problems else 0


def _tried(options: argparse.Namespace, scratch: Path) -> Mapping[HandMade, str]:
    """Return the test that kills each mutant made by hand. Show them as they come, and record them if so asked."""
    killed = page.killed(page.recorded()) if options.left else ()
    mutants = [mutant for mutant in BY_HAND if mutant.key not in killed]
    made: dict[HandMade, str] = {}
    for mutant, by in trial.run(mutants, options.processes, scratch):
        made[mutant] = by
        told = f"killed by {by}" if by else "SURVIVED"
        print(f"{len(made)} of {len(mutants)}  {': '.join(filter(None, mutant.key))}: {told}", file=sys.stderr)
        if options.record:
            _write(page.merged(page.recorded(), described([], {mutant: by}, {})))
    return made


def _write(report: Mapping[str, Any]) -> None:
    page.RECORD.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")


def described(
    mutants: Sequence[Mutant], made: Mapping[HandMade, str], untouched: Mapping[str, Sequence[str]]
) -> Mapping[str, Any]:
    """Return what is recorded of a run: of each file, and of the mutants made by hand, if there are any."""
    run = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", "src", "tests", "proof/mutation", "pyproject.toml")),
        "tool": tool.tool(),
    }
    files = {mutant.file for mutant in mutants}
    return {
        "files": {file: {**run, **_of_file(file, mutants), "untouched": untouched[file]} for file in sorted(files)},
        "by hand": [
            {"file": one.key[0], "name": one.key[1], "database": one.key[2], "killed": bool(by), "by": by, **run}
            for one, by in made.items()
        ],
    }


def _of_file(file: str, mutants: Sequence[Mutant]) -> Mapping[str, Any]:
    of_file = [mutant for mutant in mutants if mutant.file == file]
    return {
        "counts": Counter(mutant.status for mutant in of_file),
        "survivors": [
            {"function": one.function, "change": one.change, "reason": reason(one) or "NOT EXPLAINED"}
            for one in survivors(of_file)
        ],
    }


def survivors(mutants: Sequence[Mutant]) -> list[Mutant]:
    return [mutant for mutant in mutants if not mutant.is_killed]


def complaints(mutants: Sequence[Mutant], made: Mapping[HandMade, str], *, partly: bool) -> list[str]:
    """Why the run does not hold; of a part of the files not whether the table names more than survived in it."""
    left = survivors(mutants)
    share = page.share([Counter(mutant.status for mutant in mutants)])
    return [
        *([f"{share:.1f} % are killed, {_LEAST:.0f} % are asked for"] if mutants and share < _LEAST else []),
        *(f"survived: {one.file}: {one.name}" for one, by in made.items() if not by),
        *(f"no reason: {one.file} {one.function}: {one.change}" for one in left if reason(one) is None),
        *([] if partly else [f"killed, yet it has a reason: {place}" for place in stale(left)]),
    ]


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
