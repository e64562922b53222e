"""The tables of docs/reference/benchmarks.md and their chart; the newest recorded result of each row counts."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import msgspec

from bench.report import number, spread, target, verdict
from bench.result import CaseResult, ClaimResult, Result

RECORDS = Path(__file__).parents[1] / "docs/reference/benchmarks.jsonl"

_NOTHING = "No run is recorded.\n"


def recorded(records: Path = RECORDS) -> list[Result]:
    """The newest result of each row, in the order of their numbers."""
    lines = records.read_text().splitlines() if records.exists() else []
    newest = {result.row: result for result in (msgspec.json.decode(line, type=Result) for line in lines)}
    return [newest[row] for row in sorted(newest)]


def tables(results: Sequence[Result]) -> str:
    """What was measured, row by row, under a picture of the ratios."""
    if not results:
        return _NOTHING
    picture = "![Each ratio to a peer, beside what was wanted](benchmarks.svg)\n\n"
    return picture + sections(results)


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


_WIDTH, _LABELS, _BAR, _LINE = 860, 320, 340, 26
# Readable on a white page and on a dark one; nothing is said by colour alone.
_STYLE = """text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.met { fill: #2f8f4e } .missed { fill: #c4651a } .wanted { stroke: #1f2328; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .wanted { stroke: #e6edf3 } }"""


def chart(results: Sequence[Result]) -> str:
    """One bar for each ratio that has a target, up to where the target's line stands and beyond."""
    claims = [(result.row, claim) for result in results for claim in result.claims if claim.over and verdict(claim)]
    longest = max((max(claim.median, _wanted(claim)) for _, claim in claims), default=1.0)
    bars = "".join(_bar(place, row, claim, _BAR / longest) for place, (row, claim) in enumerate(claims))
    height = _LINE * (len(claims) or 1) + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">\n'
        f"<title>Ratios to peers; the line is what was wanted</title>\n<style>{_STYLE}</style>\n{bars}</svg>\n"
    )


def _bar(place: int, row: str, claim: ClaimResult, scale: float) -> str:
    top, length, line = 5 + place * _LINE, claim.median * scale, _LABELS + _wanted(claim) * scale
    told = f"{number(claim.median)} {verdict(claim)}, wanted {target(claim)}"
    return (
        f'<text x="{_LABELS - 8}" y="{top + 16}" text-anchor="end">{escape(f"{row} {claim.text}")}</text>\n'
        f'<rect class="{verdict(claim)}" x="{_LABELS}" y="{top + 4}" width="{length:.1f}" height="16"/>\n'
        f'<line class="wanted" x1="{line:.1f}" x2="{line:.1f}" y1="{top + 1}" y2="{top + 23}"/>\n'
        f'<text x="{_LABELS + max(length, line - _LABELS) + 8:.1f}" y="{top + 16}">{escape(told)}</text>\n'
    )


def _wanted(claim: ClaimResult) -> float:
    return claim.at_least if claim.at_least is not None else claim.at_most or 0.0
