"""The page of the last recorded mutation run, from its record."""

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

RECORD = Path(__file__).parents[1] / "records/mutants.json"
_KILLED = ("killed", "timeout")


def recorded() -> Mapping[str, Any]:
    record: Mapping[str, Any] = json.loads(RECORD.read_text())
    return record


def tables(record: Mapping[str, Any]) -> str:
    by_hand, files = record["by hand"], record["files"].values()
    summary = (
        f"{record['date']}, commit `{record['commit']}`{' with changes' * record['dirty']}, {record['tool']}: "
        f"**{share(files):.1f} %** of {total(files):,} mutants killed, and "
        f"{sum(row['killed'] for row in by_hand)} of {len(by_hand)} made by hand."
    )
    return "\n".join(
        [
            summary,
            "",
            _table(("file", "mutants", "killed", "timeout", "survived", "%"), _files(record["files"])),
            *_untouched(record.get("untouched", [])),
            "## Survivors",
            "",
            _table(("where", "change", "why"), _survivors(record["survivors"])),
            "## Made by hand",
            "",
            _table(("file", "mutant", ""), ((f"`{r['file']}`", r["name"], _told(r["killed"])) for r in by_hand)),
        ]
    )


def _untouched(functions: Sequence[str]) -> Sequence[str]:
    """Without a mutant, nothing shows whether a test notices a change. Most are declarations, or call one function."""
    if not functions:
        return []
    named = f"{len(functions)} functions of these files have no mutant: {', '.join(f'`{name}`' for name in functions)}."
    return [*textwrap.wrap(named, 120, break_long_words=False, break_on_hyphens=False), ""]


def total(files: Iterable[Mapping[str, int]]) -> int:
    return sum(sum(counts.values()) for counts in files)


def share(files: Iterable[Mapping[str, int]]) -> float:
    """Per cent killed. One that runs into its time limit counts: no test passed."""
    counted = list(files)
    return 100 * sum(counts.get(status, 0) for counts in counted for status in _KILLED) / max(total(counted), 1)


def _files(files: Mapping[str, Mapping[str, int]]) -> Iterable[Sequence[str]]:
    for name, counts in files.items():
        killed, timeout = (counts.get(status, 0) for status in _KILLED)
        number = sum(counts.values())
        figures = (number, killed, timeout, number - killed - timeout)
        yield (f"`{name}`", *map(str, figures), f"{share([counts]):.1f}")


def _survivors(rows: Iterable[Mapping[str, str]]) -> Iterable[Sequence[str]]:
    for row in rows:
        was, _, became = row["change"].partition(" → ")
        yield f"`{row['file']}` {row['function']}", f"{_code(was)} → {_code(became)}", row["reason"]


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{' '.join(text.split())}{fence}"


def _told(killed: bool) -> str:
    return "killed" if killed else "SURVIVED"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
