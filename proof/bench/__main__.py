"""Run benchmarks: `make bench`, `make bench-peers`.

    python -m proof.bench [P1 P3 …] [--rounds 3] [--seconds 2] [--against COMMIT] [--peers] [--record]

Exit code 0 when every row could be measured, whatever came out.
"""

import argparse
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from proof.bench import folders, place
from proof.bench.measure import Sample
from proof.bench.peers import install
from proof.bench.report import printed
from proof.bench.result import CaseResult, Result, compared, judged
from proof.bench.row import Case, Row, Setup, Version
from proof.bench.rows import ROWS
from proof.bench.servers import BenchmarkError, Server

CACHE = Path(__file__).parent / ".cache"
RECORDS = Path(__file__).parents[1] / "records/benchmarks.jsonl"


def main(arguments: Sequence[str] | None = None) -> int:
    words = sys.argv[1:] if arguments is None else arguments
    try:
        return 0 if _all_rows(_options(words), words) else 1
    except BenchmarkError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1


def _all_rows(options: argparse.Namespace, words: Sequence[str]) -> bool:
    """Return whether all rows could be measured."""
    setup = Setup(options.cache, options.seconds, options.latency_seconds, options.fill, options.film)
    versions = [Version("uponce", sys.executable)]
    options.cache.mkdir(parents=True, exist_ok=True)
    if options.against:
        versions.append(place.other_version(options.cache, options.against))
    facts = {**place.facts(), "command": shlex.join(["python", "-m", "proof.bench", *words])}
    if options.peers:
        install.all_peers()
        facts["versions"] = facts["versions"] | install.versions()
    measured = True
    with folders.scratch(options.cache) as scratch:
        for row in ROWS:
            if not options.rows or row.number in options.rows:
                measured &= _run(row, setup, versions, options, facts, scratch)
    return measured


def _options(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m proof.bench", description="Run benchmarks.")
    parser.add_argument("rows", nargs="*", choices=[*(row.number for row in ROWS), []], metavar="ROW", help="P1 … P12")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2, help="of one measurement")
    parser.add_argument("--latency-seconds", type=float, default=30, help="of P7")
    parser.add_argument("--fill", type=int, default=1_000_000, help="rows of the filled database of P5")
    parser.add_argument("--film", type=int, default=500, help="megabytes of the film of P6, P9 and P10")
    parser.add_argument("--against", metavar="COMMIT", default="", help="measure this commit too, in the same rounds")
    parser.add_argument("--peers", action="store_true", help="install the peers and measure them too")
    parser.add_argument("--record", action="store_true", help="add the results to proof/records/benchmarks.jsonl")
    parser.add_argument("--cache", type=Path, default=CACHE, help="what is installed, filled and stored")
    return parser.parse_args(words)


def _run(
    row: Row,
    setup: Setup,
    versions: Sequence[Version],
    options: argparse.Namespace,
    facts: Mapping[str, Any],
    scratch: Path,
) -> bool:
    """Measure, print and record one row; whether all of it could be measured."""
    own = [row.own(setup, version) for version in versions]
    cases = [case for group in own for case in group] + [*(row.peers(setup) if options.peers else ())]
    results, reasons = _rounds(cases, setup, row.rounds or options.rounds, scratch)
    pairs = {new.name: old.name for old_cases in own[1:] for new, old in zip(own[0], old_cases, strict=True)}
    claims = [*judged(row, results), *compared(results, pairs)]
    result = Result(row=row.number, title=row.title, cases=results, claims=claims, unmeasured=reasons, **facts)
    print(printed(result), flush=True)
    if options.record and results:
        with RECORDS.open("ab") as file:
            file.write(msgspec.json.encode(result) + b"\n")
    return not reasons


def _rounds(
    cases: Sequence[Case], setup: Setup, rounds: int, scratch: Path
) -> tuple[list[CaseResult], Mapping[str, str]]:
    """Measure all cases round by round, every other round backwards.

    So a slow change of the machine affects all cases alike.

    If a case fails, print the first line of its reason, and measure it no more.
    """
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    reasons: dict[str, str] = {}
    for number in range(rounds):
        for case in cases[:: -1 if number % 2 else 1]:
            if case.name in reasons:
                continue
            print(f"  round {number + 1} of {rounds}: {case.name}", file=sys.stderr, flush=True)
            try:
                samples[case.name].append(_measure(case, setup, scratch))
            except BenchmarkError as error:
                print(error, file=sys.stderr, flush=True)
                reasons[case.name] = str(error).partition("\n")[0]
    return [CaseResult(name, found) for name, found in samples.items() if name not in reasons], reasons


def _measure(case: Case, setup: Setup, scratch: Path) -> Sample:
    folder = case.kept() if case.kept else folders.fresh(scratch)
    try:
        with Server(case.program, folder) as server:
            return case.measure(server, setup)
    finally:
        for used in _stored(folder) if case.kept else [folder]:
            folders.put_aside(used, scratch)


def _stored(folder: Path) -> list[Path]:
    """Return the folders of a data folder that have stored files.

    The file `media/owner` is not in them. Without it no server starts beside the database.
    """
    return [entry for entry in (folder / "media").glob("*") if entry.is_dir()]


if __name__ == "__main__":
    sys.exit(main())
