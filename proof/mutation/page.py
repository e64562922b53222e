"""The page of the last recorded mutation run, from its record."""

import json
import textwrap
import tomllib
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proof.mutation.by_hand import BY_HAND

_ROOT = Path(__file__).parents[2]
_SOURCES = _ROOT / "src/uponce"
RECORD = _ROOT / "proof/records/mutants.json"
_KILLED = ("killed", "timeout")


def recorded() -> Mapping[str, Any]:
    record: Mapping[str, Any] = json.loads(RECORD.read_text())
    return record


def merged(before: Mapping[str, Any], part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the record after a run of some files, or of some mutants made by hand.

    Files that are gone since the run before lose their figures, and so do mutants made by hand.
    """
    files = {file: found for file, found in before["files"].items() if (_SOURCES / file).exists()} | part["files"]
    by_hand = {key_of(row): row for row in (*before["by hand"], *part["by hand"])}
    return {"files": dict(sorted(files.items())), "by hand": standing(by_hand.values())}


def key_of(row: Mapping[str, Any]) -> tuple[str, str, str]:
    """Return the `key` of the mutant made by hand that a row is about."""
    return row["file"], row["name"], row["database"]


def killed(record: Mapping[str, Any]) -> Collection[tuple[str, str, str]]:
    """Return the `key` of each mutant made by hand whose last recorded run killed it."""
    return {key_of(row) for row in record["by hand"] if row["killed"]}


def standing(rows: Iterable[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the recorded mutants made by hand that still exist, in the order of their table."""
    by_key = {key_of(row): row for row in rows}
    return [by_key[mutant.key] for mutant in BY_HAND if mutant.key in by_key]


def quoted(record: Mapping[str, Any], names: Collection[str]) -> str:
    """Return what is recorded of the mutants made by hand that a page quotes."""
    known = {mutant.name for mutant in BY_HAND} & {*names}
    ran = {key_of(row) for row in standing(record["by hand"])}
    left = {mutant.name for mutant in BY_HAND if mutant.name in known and mutant.key not in ran}
    return (
        f"`make mutants` runs the {len(known)} broken variants in quotation marks, those of the database on SQLite and "
        f"on PostgreSQL. {len(known - left)} of them have a recorded run, and {len(left)} have none."
    )


def tables(record: Mapping[str, Any]) -> str:
    files, by_hand = record["files"], record["by hand"]
    counts = [found["counts"] for found in files.values()]
    made = standing(by_hand)
    summary = (
        f"**{share(counts):.1f} %** of {total(counts):,} mutants killed, and "
        f"{sum(row['killed'] for row in made)} of {len(made)} made by hand. "
        f"{len(BY_HAND) - len(made)} of {len(BY_HAND)} made by hand have not been run yet."
    )
    return "\n".join(
        [
            *textwrap.wrap(summary, 120),
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
            _table(
                ("file", "mutant", "on", "", "run"),
                ((f"`{row['file']}`", row["name"], row["database"], _told(row), _run(row)) for row in made),
            ),
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


def _told(row: Mapping[str, Any]) -> str:
    by = f" by `{row['by']}`" if row.get("by") else ""
    return f"killed{by}" if row["killed"] else "SURVIVED"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"
