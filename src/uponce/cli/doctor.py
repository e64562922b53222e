"""`uponce doctor`: what would break a guarantee, and what to do about it."""

import asyncio
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import typer

from uponce.adapters.system import LINUX, LOCKS
from uponce.adapters.versions import known_flaws, versions
from uponce.app.check import check_clock, check_frozen, check_parts, check_storage
from uponce.cli.options import print_json
from uponce.config import Settings, load
from uponce.core.errors import UponceError
from uponce.wiring import Backend, opened

_LOW_DISK = 1024**3


@dataclass(frozen=True, slots=True)
class Finding:
    """`state` is ok, warning or broken; `detail` says what was found, and the cure where one is needed."""

    name: str
    state: str
    detail: str


def run(*, data: str | None, as_json: bool) -> None:
    findings = list(examine(data))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            colour = {"ok": "green", "warning": "yellow", "broken": "red"}[finding.state]
            typer.echo(f"{typer.style(f'{finding.state:<8}', fg=colour)} {finding.name:<10} {finding.detail}")
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)


def examine(data: str | None) -> Iterator[Finding]:
    """Stops at the first broken thing that hides the rest."""
    try:
        settings = load(data=data)
        yield Finding("settings", "ok", "readable")
        yield _system()
        yield from _versions(versions())
        with opened(settings) as backend:
            yield Finding("database", "ok", backend.database.describe())
            yield Finding("media", "ok", backend.blobs.store.describe())
            yield from _disk(settings)
            yield asyncio.run(_secrets(backend))
            yield from asyncio.run(_running_parts(backend))
    except UponceError as error:
        yield Finding("start", "broken", error.for_operator)


def _system() -> Finding:
    if LINUX and LOCKS.across_processes:
        return Finding("system", "ok", "Linux")
    return Finding(
        "system",
        "warning",
        f"{sys.platform}: good for development, one server process on one folder. Run uponce on Linux in production.",
    )


def _versions(installed: dict[str, str]) -> Iterator[Finding]:
    yield Finding("versions", "ok", ", ".join(f"{name} {version}" for name, version in installed.items()))
    for flaw in known_flaws(installed):
        yield Finding(
            "decoders",
            "warning",
            f"{flaw.project} {installed[flaw.project]} has {flaw.cve}: {flaw.what}. Release {flaw.fixed} mends it. "
            f"Run pip install -U {flaw.package}, and restart every server.",
        )


def _disk(settings: Settings) -> Iterator[Finding]:
    free = shutil.disk_usage(settings.data_dir).free
    if free < _LOW_DISK:
        yield Finding(
            "disk", "warning", f"{free} bytes free in {settings.data_dir}. Make room: a full disk refuses uploads."
        )
        return
    yield Finding("disk", "ok", f"{free // _LOW_DISK} GiB free in {settings.data_dir}")


async def _secrets(backend: Backend) -> Finding:
    unreadable = await backend.database.unreadable_keys()
    if not unreadable:
        return Finding("secrets", "ok", f"{backend.secrets.shown} reads the secret of every API key")
    return Finding(
        "secrets", "broken", f"API keys {', '.join(unreadable)}: not readable. {next(iter(unreadable.values()))}"
    )


async def _running_parts(backend: Backend) -> list[Finding]:
    await check_frozen(backend.services)
    full = await check_storage(backend.services)
    await backend.decoders.start()
    try:
        findings = [_part(name, error) for name, error in (await check_parts(backend.services)).items()]
        if full is not None:
            findings.append(Finding("room", "broken", full))
        return [*findings, _sandbox(lambda: backend.decoders.sandboxed), _clock(await check_clock(backend.services))]
    finally:
        await backend.decoders.close()


_CURES = {
    "database": "Check that the server can write UPONCE_DATABASE, and that its disk has room.",
    "storage": "Check that the server can write UPONCE_STORAGE, and that it has room.",
    "decoders": "Check the memory of this machine, and UPONCE_DECODER_MEMORY.",
}


def _part(name: str, error: UponceError | None) -> Finding:
    if error is None:
        return Finding(name, "ok", "answers")
    return Finding(name, "broken", f"{error.for_operator}. {_CURES[name]}")


def _clock(problem: str | None) -> Finding:
    return Finding("clock", "ok" if problem is None else "warning", problem or "not behind the database")


def _sandbox(sandboxed: Callable[[], bool]) -> Finding:
    if sandboxed():
        return Finding("sandbox", "ok", "decoders are confined by Landlock and resource limits")
    return Finding(
        "sandbox",
        "warning",
        "this kernel has no Landlock: decoders have resource limits only. Use Linux 5.13 or newer.",
    )
