"""Write the reference pages that come from the code: `make docs`. A test fails if one is out of date."""

import inspect
import json
import re
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import msgspec

from proof.bench import page as benchmarks
from proof.bench.picture import picture
from proof.bench.scale.__main__ import RECORDS as SCALE
from proof.mutation import page as mutation
from uponce.cli import COMMANDS, load_command
from uponce.config import PREFIX, Settings
from uponce.core.errors import SettingRefused
from uponce.core.formats import FORMATS, Format
from uponce.core.parameters import PARAMETERS, ROWS, Use, names
from uponce.core.policy import Limits
from uponce.web.errors import INTERNAL_ERROR, STATUS, TUS_STATUS

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "proof/records"
NOTICE = "<!-- Made by `make docs` from the code. -->\n\n"


def settings_page() -> str:
    return (
        "# Settings\n\n"
        + NOTICE
        + _prose(
            """
            Every setting is an environment variable. The strongest source wins: the command line, then the
            environment, then the file `.env` in the working folder, then the TOML file that `UPONCE_CONFIG` names.
            uponce reads only the lines of `.env` that begin with `UPONCE_`. Names in the TOML file are the same, in
            lower case and without `UPONCE_`. uponce refuses to start with a name that is not in this table. A
            misspelt limit would be no limit. `uponce settings` shows the effective values and their sources. A server
            reads its settings once. Workers that start again keep them, whatever the files say by then. Every number
            has a smallest and a greatest value. The refusal of another number names both.
            """
        )
        + _table(("variable", "default", "meaning"), [*_setting_rows(), *_limit_rows()])
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
    rows = [
        (f"`{error.code}`", str(status), str(error.retry_seconds or ""), inspect.getdoc(error) or "")
        for error, status in STATUS.items()
        if error is not SettingRefused  # clients get DatabaseUnavailable in its place
    ]
    return (
        "# Errors\n\n"
        + NOTICE
        + _prose(
            """
            Every refusal is `{"error": {"message": "…", "code": "…"}}`. Three headers come with it: `X-Cld-Error`
            repeats the message, `X-Cld-Error-Code` repeats the code, and `X-Request-Id` names the request in the
            server's log. Answers to HEAD have the headers only. Programs compare the code, which does not change. The
            message is for people. Messages for people come with status 400, 401 or 404, because SDKs hide the bodies
            of other statuses. A 503 or 507 spends no signature, with two exceptions: after `outcome_unknown` and
            `server_unavailable` the upload may be stored. `Retry-After` says after how many seconds to try again. The
            table has the usual number. A browser that opens an address (GET or HEAD, with `text/html` in `Accept` and
            no `application/json` before it) gets the same refusal as a page.
            """
        )
        + _prose(
            f"""
            `malformed_request` has another status in four cases: 405 for a wrong method, 408 for a slow head, 414 for
            a long path or address, 431 for a long head. The log has no line of a request whose head is not complete and
            correct. So its refusal has no `X-Request-Id`, and one of too many connections has none. Refusals of a front
            server have no `X-Cld-Error-Code` either: `server_unavailable`. A refusal by the account of a relay is
            passed on as it is. nginx also makes `server_busy` if one address sends too many requests, and
            `storage_unavailable` if nginx cannot read a file. nginx makes `malformed_request` (431) if one line of a
            head is longer than 64 KiB. tus clients get some codes with another status: {_tus_statuses()}.
            """
        )
        + _table(("code", "status", "`Retry-After`", "meaning"), [*rows, *_NO_LEAVES])
    )


# Refusals without an error of the tree: one of a defect, and one of the front servers in deploy/.
_NO_LEAVES = (
    (
        f"`{INTERNAL_ERROR}`",
        "500",
        "",
        "The server failed. Its log has the reason, under the id in the message. The upload may be stored or not.",
    ),
    (
        "`server_unavailable`",
        "503",
        "2",
        "The front server got no answer from uponce. The upload may be stored or not. Send the request again.",
    ),
)


def _tus_statuses() -> str:
    return ", ".join(f"`{error.code}` {status}" for error, status in TUS_STATUS.items())


def parameters_page() -> str:
    rows = [row for row in ROWS if row.meaning and row.use is not Use.UNSIGNED]
    return (
        "# Signed parameters\n\n"
        + NOTICE
        + _prose("Sign every parameter except those under [Never signed](#never-signed).")
        + _table(
            ("parameter", "calls", "meaning"),
            ((f"`{row.name}`", ", ".join(row.calls), row.meaning) for row in rows),
        )
        + "\n## Accepted without effect\n\n"
        + _prose("uponce has nothing that these parameters would change. Of `access_mode` only `public` is accepted.")
        + _names(names(Use.NO_EFFECT))
        + _prose("These switch on features that uponce does not have. uponce accepts them switched off (`0`, `false`).")
        + _names(names(Use.SWITCH))
        + "## Never signed\n\n"
        + _table(("parameter", "meaning"), ((f"`{name}`", PARAMETERS[name].meaning) for name in names(Use.UNSIGNED)))
        + "\n## Refused by name\n\n"
        + _prose("Cloudinary knows these parameters of uploads. uponce does not support them and refuses them by name:")
        + _names(names(Use.REFUSED))
        + _prose(
            """
            uponce refuses any other name as unknown, also with an empty value. A known parameter with an empty value
            counts as not sent. SDKs leave it out of the signature. `uponce.sign`, `uponce sign`, `uponce upload` and
            `…/signatures/sign` refuse an empty limit, such as `origin=` or `public_id_prefix=`.
            """
        ).rstrip("\n")
        + "\n"
    )


def formats_page() -> str:
    rows = (
        (f"`{format_.name}`", _listed(format_.aliases), f"`{format_.kind}`", _delivered(format_))
        for format_ in FORMATS.values()
    )
    return (
        "# Accepted formats\n\n"
        + NOTICE
        + _prose(
            """
            uponce reads the first bytes of a file to find its format, and ignores its name. A file that is sent as
            `image` or `video` must have a format of this table. A file that is sent as `auto` becomes an image or a
            video if its format is in this table, and a raw file otherwise. A file that is sent as `raw` may have any
            bytes; uponce delivers it as a download.
            """
        )
        + _prose(
            """
            `allowed_formats` takes names of the first two columns, separated by commas. Any other name in it, such as
            `csv`, allows raw files whose names end so. The client chooses that name, so it says nothing about the
            bytes.
            """
        )
        + _prose(
            """
            Sound files have the resource type `video`, as with Cloudinary. The maximum sizes are
            [settings](settings.md). The codecs are the common ones, such as H.264, H.265, VP9, AV1, ProRes, AAC, MP3
            and Opus. uponce refuses a video in a rare codec, such as FFV1, Cinepak or QuickTime RLE: send the file as
            `raw`.
            """
        )
        + _table(("format", "also", "resource type", "delivered as"), rows)
    )


def _delivered(format_: Format) -> str:
    return f"`{format_.media_type}`{', as a download' if format_.is_document else ''}"


def _prose(text: str) -> str:
    """Return a paragraph in lines of at most 118 characters, and an empty line."""
    return textwrap.fill(" ".join(text.split()), 118, break_long_words=False, break_on_hyphens=False) + "\n\n"


def _names(names: Iterable[str]) -> str:
    return _prose(_listed(names) + ".")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def decisions_page() -> str:
    """Return the index of the decisions: title and first sentence of each."""
    records = sorted((ROOT / "docs/adr").glob("[0-9]*.md"))
    return (
        "# Decisions\n\n"
        + NOTICE
        + _prose("One short page each: what was decided, why, and which alternatives lost.")
        + _table(("decision", "in one sentence"), map(_decision, records))
    )


def _decision(record: Path) -> tuple[str, str]:
    title, text, *_ = record.read_text().split("\n\n", 2)
    name = re.sub(r"# (\d+\. )?", "", title)
    return f"[{int(record.name[:4])}. {name}]({record.name})", re.split(r"(?<=\.) ", " ".join(text.split()))[0]


def commands_page() -> str:
    sections = "\n".join(_command_sections("uponce", {name: load_command(name) for name in COMMANDS}))
    codes = _prose(
        """
        Exit codes: 0 done, 1 refused or failed, 2 usage. SIGTERM lets `serve`, `demo` and `prove` end in order. It ends
        any other command at once, and a shell then shows 143. Run that command again.
        """
    )
    return f"# Command line\n\n{NOTICE}{codes}{sections}"


def _command_sections(path: str, commands: Mapping[str, Any]) -> Iterator[str]:
    for name, child in commands.items():
        if hasattr(child, "commands"):
            yield from _command_sections(f"{path} {name}", child.commands)
            continue
        rows = [(_usage(p), getattr(p, "help", None) or "") for p in child.params if p.name != "help"]
        about = "".join(_prose(paragraph) for paragraph in (child.help or "").split("\n\n"))
        yield f"## `{path} {name}`\n\n{about}" + _table(("option", "meaning"), rows)


def _usage(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return f"`{parameter.metavar}{'' if parameter.nargs == 1 else '...'}`"
    return " ".join(f"`{option}`" for option in parameter.opts)


def _table(head: tuple[str, ...], rows: Any) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


MUTANTS = """# Mutants

`make mutants` changes the code that signs, judges and spends in one place at a time. A test must fail for each change.
A run of all takes some hours, so parts are run apart: the table says when, and at which commit. The changes that
survived are listed below, each with the reason why it is no gap. A run fails if a survivor has no reason, or a reason
has no survivor.

[ADR 14](../../docs/adr/0014-mutation-testing.md) says which code the tool does not change, and why.
"""
# Counts that do not add up over runs, and rates: the page shows the largest one.
_MEASURES = ("worst ", "known ", "histories a minute")


def campaigns_page() -> str:
    path = RECORDS / "campaigns.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return _with_part("campaigns", campaigns_section(records))


def benchmarks_page() -> str:
    return _with_part("benchmarks", benchmarks.sections(benchmarks.recorded()))


def scale_page() -> str:
    return _with_part("scale", benchmarks.sections(benchmarks.recorded(SCALE)))


def mutants_page() -> str:
    return f"{NOTICE}{MUTANTS}\n{mutation.tables(mutation.recorded())}"


def guarantees_page() -> str:
    """Return the page as it is, with what is recorded of the broken variants that it quotes."""
    text = (ROOT / "docs/reference/guarantees.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    names = {name for row in rows for name in re.findall(r'"([^"]+)"', row)}
    begin, end = "<!-- Made by `make docs` from proof/records/mutants.json. -->\n", "<!-- End. -->\n"
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{_prose(mutation.quoted(mutation.recorded(), names))}{end}{after}"


def _with_part(records: str, part: str) -> str:
    """Return the page of these records, with a new part between its two marks."""
    begin = f"<!-- {records.capitalize()}: made by `make docs` from {records}.jsonl. -->\n"
    end = f"<!-- End of the {records}. -->\n"
    before, _, rest = (RECORDS / f"{records}.md").read_text().partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}\n{part}\n{end}{after}"


def campaigns_section(records: Iterable[Mapping[str, Any]]) -> str:
    """One table for each campaign: its figures over all runs of each shape, and what each run was made of."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        groups.setdefault(record["report"]["campaign"], []).append(record)
    return "\n".join(_campaign(name, runs) for name, runs in sorted(groups.items())) or "No run is recorded.\n"


def _campaign(name: str, runs: list[Mapping[str, Any]]) -> str:
    shapes: dict[str, list[Mapping[str, Any]]] = {}
    for run in runs:
        shapes.setdefault(run["shape"], []).append(run)
    columns = [_campaign_figures(each) for each in shapes.values()]
    rows = [(title, *(column[title] for column in columns)) for title in columns[0]]
    return f"### {name}\n\n`make campaign CAMPAIGN={name}`\n\n" + _table(("", *shapes), rows)


def _campaign_figures(runs: list[Mapping[str, Any]]) -> dict[str, str]:
    """Return the cells of one column, by the titles of their rows."""
    reports = [run["report"] for run in runs]
    return {
        "runs, minutes": f"{len(runs)}, {sum(run['took'] for run in runs) / 60:.1f}",
        "done": _figures(report["counts"] for report in reports),
        "inside the window": f"{sum(report['inside'] for report in reports):,}",
        "violations": _figures(report["zeros"] for report in reports),
        "found by the controls": _figures(report["controls"] for report in reports),
        "commits": ", ".join(dict.fromkeys(f"`{run['commit']}`{' + changes' * run['dirty']}" for run in runs)),
        "seeds": ", ".join(str(report["seed"]) for report in reports),
        "dates": ", ".join(sorted({run["date"] for run in runs})),
        "machines": "; ".join(dict.fromkeys(_machine(run["machine"]) for run in runs)),
    }


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
    "docs/reference/settings.md": settings_page,
    "docs/reference/errors.md": errors_page,
    "docs/reference/parameters.md": parameters_page,
    "docs/reference/commands.md": commands_page,
    "docs/reference/formats.md": formats_page,
    "docs/reference/guarantees.md": guarantees_page,
    "docs/adr/README.md": decisions_page,
    "docs/reference/benchmarks.svg": lambda: picture(benchmarks.recorded()),
    "proof/records/campaigns.md": campaigns_page,
    "proof/records/mutants.md": mutants_page,
    "proof/records/benchmarks.md": benchmarks_page,
    "proof/records/scale.md": scale_page,
}


def main() -> int:
    for name, make in PAGES.items():
        (ROOT / name).write_text(make())
    return 0


if __name__ == "__main__":
    sys.exit(main())
