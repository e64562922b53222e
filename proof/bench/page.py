"""The tables of proof/records/benchmarks.md; the newest recorded result of each row counts."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from proof.bench.report import spread, target, verdict
from proof.bench.result import CaseResult, ClaimResult, Result

RECORDS = Path(__file__).parents[1] / "records/benchmarks.jsonl"

_NOTHING = "No run is recorded.\n"


def recorded(records: Path = RECORDS) -> list[Result]:
    """Return the newest result of each row, in the order of their numbers."""
    lines = records.read_text().splitlines() if records.exists() else []
    newest = {result.row: result for result in (msgspec.json.decode(line, type=Result) for line in lines)}
    return [newest[row] for row in sorted(newest, key=lambda row: (row[:1], len(row), row))]  # P10 after P9


def sections(results: Sequence[Result], level: str = "##") -> str:
    return "\n".join(_section(result, level) for result in results) or _NOTHING


def _section(result: Result, level: str) -> str:
    claims = [
        (claim.text, _subject(claim), spread(claim.values), target(claim), verdict(claim)) for claim in result.claims
    ]
    groups: dict[tuple[str, ...], list[CaseResult]] = {}
    for case in result.cases:
        groups.setdefault(tuple(case.samples[0]), []).append(case)
    measured = [
        _table(("", *names), [(case.name, *(spread(case.figures(name)) for name in names)) for case in cases])
        for names, cases in groups.items()
    ]
    if claims:
        measured.insert(0, _table(("target", "of", "measured", "wanted", ""), claims))
    missing = [f"{name} was not measured: {reason}\n" for name, reason in result.unmeasured.items()]
    return "\n".join([f"{level} {result.row}: {result.title}\n", *measured, *missing, _origin(result)])


def _subject(claim: ClaimResult) -> str:
    return claim.of if claim.over is None else f"{claim.of} / {claim.over}"


def _origin(result: Result) -> str:
    rounds = max(len(case.samples) for case in result.cases)
    commit = f"`{result.commit}`{' + changes' * result.dirty}"
    facts = [f"{name} {value}" for name, value in {**result.machine, **result.versions}.items()]
    return f"{result.date}, commit {commit}, {rounds} rounds, `{result.command}`. {', '.join(facts)}.\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
