"""`uponce fsck`"""

import asyncio
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any

import typer

from uponce.app.fsck import PLACES, Examined, Finding, Kind, Severity, fsck
from uponce.cli.options import print_json
from uponce.cli.progress import shown
from uponce.config import Settings, load
from uponce.wiring import DAY, Backend, opened

_SHOWN = 10
_LISTED = 10_000  # of each kind: the report of a ruined store shall not fill the memory
_COLOURS = {Severity.DAMAGE: "red", Severity.WARNING: "yellow", Severity.REMOVABLE: "cyan"}


@dataclass(slots=True)
class Outcome:
    """Every finding is counted, the first ones of each kind are kept."""

    examined: Examined = field(default_factory=Examined)
    counts: dict[Kind, int] = field(default_factory=lambda: defaultdict(int))
    findings: dict[Kind, list[Finding]] = field(default_factory=lambda: defaultdict(list))

    def add(self, finding: Finding) -> None:
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= _LISTED:
            self.findings[finding.kind].append(finding)

    def total(self, severity: Severity) -> int:
        return sum(count for kind, count in self.counts.items() if kind.severity is severity)


def run(*, data: str | None, grace: int | None, deep: bool, as_json: bool) -> None:
    settings = load(data=data)
    grace_seconds = settings.grace_seconds if grace is None else grace
    with opened(settings) as backend:
        outcome = asyncio.run(_examine(backend, settings, grace_seconds, deep))
    if as_json:
        print_json(_as_data(outcome, deep))
    else:
        _print(outcome)
    if outcome.total(Severity.DAMAGE):
        raise typer.Exit(1)


async def _examine(backend: Backend, settings: Settings, grace_seconds: int, deep: bool) -> Outcome:
    outcome = Outcome()
    with shown() as show:
        show("checking the database", 0, len(PLACES))

        def compared(examined: Examined) -> None:
            outcome.examined = examined
            done = f"{examined.assets:,} assets, {examined.blobs:,} blobs"
            read = f", {examined.hashed:,} read" if deep else ""
            show("comparing", examined.places, len(PLACES), done + read)

        async for finding in fsck(
            backend.services,
            grace_seconds=grace_seconds,
            audit_seconds=settings.audit_days * DAY,
            deep=deep,
            progress=compared,
        ):
            outcome.add(finding)
    return outcome


def _as_data(outcome: Outcome, deep: bool) -> dict[str, Any]:
    examined = asdict(outcome.examined)
    del examined["places"]
    return {
        "deep": deep,
        "examined": examined,
        **{severity.value: outcome.total(severity) for severity in Severity},
        "counts": {kind.name: count for kind, count in outcome.counts.items()},
        "findings": [
            {"kind": kind.name, "severity": kind.severity.value, "subject": finding.subject, "detail": finding.detail}
            for kind, findings in outcome.findings.items()
            for finding in findings
        ],
    }


def _print(outcome: Outcome) -> None:
    for kind, findings in outcome.findings.items():
        count = outcome.counts[kind]
        severity = typer.style(f"{kind.severity.value:<9}", fg=_COLOURS[kind.severity])
        typer.echo(f"{severity} {count:,} {kind.name}: {kind.meaning}")
        for finding in findings[:_SHOWN]:
            typer.echo(f"          {finding.subject}" + (f": {finding.detail}" if finding.detail else ""))
        if count > _SHOWN:
            typer.echo(f"          and {count - _SHOWN:,} more (--json lists them)")
    examined = outcome.examined
    typer.echo(
        f"{examined.assets:,} assets, {examined.blobs:,} blobs of {examined.bytes:,} bytes, {examined.hashed:,} of "
        f"them read; {examined.in_flight:,} uploads in flight"
    )
    typer.echo(", ".join(f"{severity.value}: {outcome.total(severity):,}" for severity in Severity))
