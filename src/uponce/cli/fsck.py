"""`uponce fsck`"""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import typer

from uponce.app.fsck import PLACES, Examined, Report, Severity, fsck
from uponce.app.services import Services
from uponce.cli.options import Data, Json, progress_bar, say
from uponce.cli.store import of_server, on_store
from uponce.config import Settings, load

_SHOWN = 10
_COLOURS = {Severity.DAMAGE: "red", Severity.WARNING: "yellow", Severity.REMOVABLE: "cyan"}


def run(
    data: Data = None,
    grace: int | None = typer.Option(
        None, min=0, help="Files younger than this, in seconds, count as in flight. [UPONCE_GRACE_SECONDS, 7200]"
    ),
    deep: bool = typer.Option(False, "--deep", help="Also read and hash every blob, and check every index."),
    as_json: Json = False,
) -> None:
    """Compare the database with the stored files, and the ledger with itself.

    Exit code 1 if there is damage. Leftovers that a sweep removes are no damage.
    """
    settings = load(data=data)
    grace_seconds = settings.grace_seconds if grace is None else grace
    report = on_store(settings, lambda services: examine(services, settings, grace_seconds, deep))
    say("\n".join(_lines(report)), _as_data(report, deep), as_json)
    if report.total(Severity.DAMAGE):
        raise typer.Exit(1)


async def examine(services: Services, settings: Settings, grace_seconds: int, deep: bool) -> Report:
    """Return the report. Audit rows may be gone after the time of this shell or of the server: the shorter one."""
    audit_seconds = min(settings.audit_seconds, (await of_server(services, settings)).audit_seconds)
    with progress_bar() as show:
        show("checking the database", 0, len(PLACES))

        def compared(examined: Examined) -> None:
            done = f"{examined.assets:,} assets, {examined.blobs:,} blobs"
            read = f", {examined.hashed:,} read" if deep else ""
            show("comparing", examined.places, len(PLACES), done + read)

        return await fsck(
            services, grace_seconds=grace_seconds, audit_seconds=audit_seconds, deep=deep, progress=compared
        )


def _as_data(report: Report, deep: bool) -> dict[str, Any]:
    examined = asdict(report.examined)
    del examined["places"]
    return {
        "deep": deep,
        "examined": examined,
        **{severity.value: report.total(severity) for severity in Severity},
        "counts": {kind.name: count for kind, count in report.counts.items()},
        "findings": [
            {"kind": kind.name, "severity": kind.severity.value, "subject": finding.subject, "detail": finding.detail}
            for kind, findings in report.findings.items()
            for finding in findings
        ],
    }


def _lines(report: Report) -> Iterator[str]:
    for kind, findings in report.findings.items():
        count = report.counts[kind]
        severity = typer.style(f"{kind.severity.value:<9}", fg=_COLOURS[kind.severity])
        yield f"{severity} {count:,} {kind.name}: {kind.meaning}"
        for finding in findings[:_SHOWN]:
            yield f"          {finding.subject}" + (f": {finding.detail}" if finding.detail else "")
        if count > _SHOWN:
            yield f"          and {count - _SHOWN:,} more (--json lists them)"
    examined = report.examined
    yield (
        f"{examined.assets:,} assets, {examined.blobs:,} blobs of {examined.bytes:,} bytes, {examined.hashed:,} of "
        f"them read; {examined.in_flight:,} uploads in flight"
    )
    yield ", ".join(f"{severity.value}: {report.total(severity):,}" for severity in Severity)
