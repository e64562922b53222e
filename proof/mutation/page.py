"""The page of the last recorded mutation run, from its record."""

import json
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
_SOURCES = _ROOT / "src/uponce"
RECORD = _ROOT / "proof/records/mutants.json"
_KILLED = ("killed", "timeout")


def recorded() -> Mapping[str, Any]:
    record: Mapping[str, Any] = json.loads(RECORD.read_text())
    return record


def merged(before: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record after a run of some files, or of the mutants made by hand.

    Files that are gone since the run before lose their figures.
    """
    files = {file: found for file, found in before["files"].items() if (_SOURCES / file).exists()} | part["files"]
    by_hand = part["by hand"] if part["by hand"]["mutants"] else before["by hand"]
    return {"files": dict(sorted(files.items())), "by hand": by_hand}


def tables(record: Mapping[str, Any]) -> str:
    files, by_hand = record["files"], record["by hand"]
    counts = [found["counts"] for found in files.values()]
    made = by_hand["mutants"]
    summary = (
        f"**{share(counts):.1f} %** of {total(counts):,} mutants killed, and "
        f"{sum(row['killed'] for row in made)} of {len(made)} made by hand ({_run(by_hand)})."
    )
    return "\n".join(
        [
            summary,
            "",
            _table(("file", "mutants", "killed", "timeout", "survived", "%", "run"), _files(files)),
            *_listed("files have not been run yet", sorted(named() - set(files))),
            *_listed(
                "functions of these files have no mutant",
                [f"{file} {name}" for file, found in files.items() for name in found["untouched"]],
            ),
            "## Survivors",
            "",
            _table(("where", "change", "why"), _survivors(files)),
            "## Made by hand",
            "",
            _table(("file", "mutant", ""), ((f"`{r['file']}`", r["name"], _told(r["killed"])) for r in made)),
        ]
    )


def _run(found: Mapping[str, Any]) -> str:
    return f"{found['date']}, `{found['commit']}`{' with changes' * found['dirty']}, {found['tool']}"


def named() -> set[str]:
    """Return the files that pyproject.toml names for the tool, from src/uponce."""
    table = tomllib.loads((_ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    left_out = {_ROOT / path for path in table["do_not_mutate"]}
    found = {path for pattern in table["only_mutate"] for path in _ROOT.glob(pattern) if path not in left_out}
    return {str(path.relative_to(_SOURCES)) for path in found if path.name != "__init__.py"}


def _listed(words: str, names: Sequence[str]) -> Sequence[str]:
    """Without a mutant, nothing shows whether a test notices a change."""
    if not names:
        return []
    text = f"{len(names)} {words}: {', '.join(f'`{name}`' for name in names)}."
    return [*textwrap.wrap(text, 120, break_long_words=False, break_on_hyphens=False), ""]


def total(files: Iterable[Mapping[str, int]]) -> int:
    return sum(sum(counts.values()) for counts in files)


def share(files: Iterable[Mapping[str, int]]) -> float:
    """Per cent killed. One that runs into its time limit counts: no test passed."""
    counted = list(files)
    return 100 * sum(counts.get(status, 0) for counts in counted for status in _KILLED) / max(total(counted), 1)


def _files(files: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for name, found in files.items():
        counts = found["counts"]
        killed, timeout = (counts.get(status, 0) for status in _KILLED)
        number = sum(counts.values())
        figures = (number, killed, timeout, number - killed - timeout)
        yield (f"`{name}`", *map(str, figures), f"{share([counts]):.1f}", _run(found))


def _survivors(files: Mapping[str, Mapping[str, Any]]) -> Iterable[Sequence[str]]:
    for file, found in files.items():
        for row in found["survivors"]:
            was, _, became = row["change"].partition(" → ")
            yield f"`{file}` {row['function']}", f"{_code(was)} → {_code(became)}", row["reason"]


def _code(text: str) -> str:
    fence = "``" if "`" in text else "`"
    return f"{fence}{' '.join(text.split())}{fence}"


def _told(killed: bool) -> str:
    return "killed" if killed else "SURVIVED"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
