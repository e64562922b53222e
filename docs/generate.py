"""Writes the reference pages that come from the code: `make docs`. A test fails when one is out of date."""

import inspect
import json
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec
import typer

from bench import page as benchmarks
from bench.scale.__main__ import RECORDS as SCALE
from tests.mutation import page as mutation
from uponce.cli import app as command_line
from uponce.config import PREFIX, Settings
from uponce.core.parameters import OF_DESTROY, SUPPORTED, UNSUPPORTED
from uponce.core.policy import Limits
from uponce.web.errors import STATUS

HERE = Path(__file__).parent / "reference"
NOTICE = "<!-- Made by `make docs` from the code. -->\n\n"


def settings_page() -> str:
    rows = [*_setting_rows(), *_limit_rows()]
    return (
        "# Settings\n\n"
        + NOTICE
        + "Every setting is an environment variable, or the lower-case name without `UPONCE_` in a TOML file named by\n"
        "`UPONCE_CONFIG`. The command line wins over the environment, the environment over the file. A name that does\n"
        "not stand here is refused at start-up: a misspelt limit would be no limit.\n\n"
        + _table(("variable", "default", "meaning"), rows)
    )


def _setting_rows() -> Iterator[tuple[str, str, str]]:
    for field in msgspec.structs.fields(Settings):
        if field.name != "limits":
            annotation = inspect.get_annotations(Settings)[field.name]
            default = "" if field.default is None else f"`{field.default}`"
            yield f"`{PREFIX}{field.name.upper()}`", default, get_args(annotation)[1]


def _limit_rows() -> Iterator[tuple[str, str, str]]:
    for field in Limits.__dataclass_fields__.values():
        yield f"`{PREFIX}{field.name.upper()}`", f"`{field.default}`", field.metadata["meaning"]


def errors_page() -> str:
    rows = [(f"`{error.code}`", str(status), inspect.getdoc(error) or "") for error, status in STATUS.items()]
    return (
        "# Errors\n\n"
        + NOTICE
        + 'Every refusal is `{"error": {"message": "…", "code": "…"}}` with the headers `X-Cld-Error` (the\n'
        "message) and `X-Request-Id`. The code is for programs and does not change; the message is for people.\n"
        "Whatever a person has to read comes with 400, 401 or 404, since SDKs hide the bodies of other statuses.\n"
        "A 503 or 507 never spends a signature, and says in `Retry-After` when to try again.\n\n"
        + _table(("code", "status", "meaning"), rows)
    )


def parameters_page() -> str:
    return (
        "# Signed parameters\n\n"
        + NOTICE
        + "In uploads. All but `file`, `api_key`, `signature`, `cloud_name` and `resource_type` are signed:\n\n"
        + ", ".join(f"`{name}`" for name in SUPPORTED)
        + ".\n\n`stream`, which npm's `upload_stream` sends with presigned options, is not signed and does nothing.\n\n"
        + "In deletions: "
        + ", ".join(f"`{name}`" for name in OF_DESTROY)
        + ". With `invalidate` nothing happens: there is no CDN of ours whose copies could be invalidated.\n\n"
        + "Known to Cloudinary and refused by name for now, in uploads:\n\n"
        + ", ".join(f"`{name}`" for name in sorted(UNSUPPORTED))
        + ".\n\nAny other name is refused as unknown. Nothing is ignored silently.\n"
    )


def commands_page() -> str:
    group = typer.main.get_command(command_line)
    sections = "\n".join(_command_sections("uponce", group))
    return f"# Command line\n\n{NOTICE}Exit codes: 0 done, 1 refused or failed, 2 usage.\n\n{sections}"


def _command_sections(path: str, command: Any) -> Iterator[str]:
    for name, child in getattr(command, "commands", {}).items():
        if hasattr(child, "commands"):
            yield from _command_sections(f"{path} {name}", child)
            continue
        rows = [(_usage(p), getattr(p, "help", None) or "") for p in child.params if p.name != "help"]
        yield f"## `{path} {name}`\n\n{inspect.cleandoc(child.help or '')}\n\n" + _table(("option", "meaning"), rows)


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar or parameter.name.upper()}`"
    return " ".join(f"`{option}`" for option in parameter.opts)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


CAMPAIGNS = HERE / "campaigns.jsonl"
MUTANTS = """# Mutants

The code that signs, judges and spends is changed in one place at a time, and its tests have to notice: `make mutants`,
in about an hour. Those that survive stand below with the reason why that is no gap; a run fails when one has no reason,
or a reason no survivor.
"""
# Counts that do not add up over runs: of these the largest is told.
_MEASURES = ("worst ", "known ")


def guarantees_page() -> str:
    records = [json.loads(line) for line in CAMPAIGNS.read_text().splitlines()] if CAMPAIGNS.exists() else []
    return _with_part("guarantees.md", "campaigns", campaigns_section(records))


def benchmarks_page() -> str:
    return _with_part("benchmarks.md", "benchmarks", benchmarks.tables(benchmarks.recorded()))


def scale_page() -> str:
    return _with_part("scale.md", "scale", benchmarks.sections(benchmarks.recorded(SCALE), "###"))


def mutants_page() -> str:
    return f"{NOTICE}{MUTANTS}\n{mutation.tables(mutation.recorded())}"


def _with_part(page: str, records: str, part: str) -> str:
    """The page as it stands, with what is between its two marks made anew."""
    begin = f"<!-- {records.capitalize()}: made by `make docs` from {records}.jsonl. -->\n"
    end = f"<!-- End of the {records}. -->\n"
    before, _, rest = (HERE / page).read_text().partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{part}\n{end}{after}"


def campaigns_section(records: Iterable[Mapping[str, Any]]) -> str:
    """One table for each campaign: its figures over all of its runs, and what each run was made of."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["report"]["campaign"], []).append(record)
    return "\n".join(_campaign(name, runs) for name, runs in sorted(groups.items())) or "No run is recorded.\n"


def _campaign(name: str, runs: list[Mapping[str, Any]]) -> str:
    reports = [run["report"] for run in runs]
    rows = [
        ("runs, minutes", f"{len(runs)}, {sum(run['took'] for run in runs) / 60:.1f}"),
        ("done", _figures(report["counts"] for report in reports)),
        ("inside the window", f"{sum(report['inside'] for report in reports):,}"),
        ("violations", _figures(report["zeros"] for report in reports)),
        ("found by the controls", _figures(report["controls"] for report in reports)),
        ("commits", ", ".join(dict.fromkeys(f"`{run['commit']}`{' + changes' * run['dirty']}" for run in runs))),
        ("seeds", ", ".join(str(report["seed"]) for report in reports)),
        ("dates", ", ".join(sorted({run["date"] for run in runs}))),
        ("machines", "; ".join(dict.fromkeys(_machine(run["machine"]) for run in runs))),
    ]
    return f"### {name}\n\n" + _table(("", f"`make campaign CAMPAIGN={name}`"), rows)


def _figures(parts: Iterable[Mapping[str, int]]) -> str:
    """Added up over the runs."""
    total: dict[str, int] = {}
    for part in parts:
        for name, number in part.items():
            known = total.get(name, 0)
            total[name] = max(known, number) if name.startswith(_MEASURES) else known + number
    return "<br>".join(f"{number:,} {name}" for name, number in total.items())


def _machine(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in facts.items())


PAGES = {
    "settings.md": settings_page,
    "errors.md": errors_page,
    "parameters.md": parameters_page,
    "commands.md": commands_page,
    "guarantees.md": guarantees_page,
    "mutants.md": mutants_page,
    "benchmarks.md": benchmarks_page,
    "scale.md": scale_page,
    "benchmarks.svg": lambda: benchmarks.chart(benchmarks.recorded()),
}


def main() -> int:
    for name, make in PAGES.items():
        (HERE / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main())
