"""What an operator would run after an accident, in this process: a sweep, then the check of the whole store."""

import asyncio
from pathlib import Path

from tests.faults.place import Place, place_of
from uponce.app.fsck import Severity, fsck
from uponce.app.sweep import sweep
from uponce.config import Settings
from uponce.wiring import DAY, opened


def settings(where: Path | Place) -> Settings:
    return place_of(where).settings


def recover(where: Path | Place) -> None:
    """What `uponce sweep --grace 0` does."""
    with opened(settings(where)) as backend:
        asyncio.run(sweep(backend.services, grace_seconds=0, audit_seconds=DAY))


def check(where: Path | Place) -> list[str]:
    """What `uponce fsck --deep --grace 0` finds after that; warnings are normal where clocks are stepped."""

    async def examine() -> list[str]:
        findings = fsck(backend.services, grace_seconds=0, audit_seconds=DAY, deep=True, progress=lambda _: None)
        return [
            f"{finding.kind.name} {finding.subject} {finding.detail}"
            async for finding in findings
            if finding.kind.severity is not Severity.WARNING
        ]

    with opened(settings(where)) as backend:
        return asyncio.run(examine())
