"""`uponce doctor`"""

import asyncio
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory

import typer
from msgspec.structs import replace

from uponce.adapters.system import LINUX, LOCKS
from uponce.adapters.versions import known_flaws, versions
from uponce.app.diagnose import (
    Finding,
    State,
    of_disk,
    of_owners,
    of_parts,
    of_secrets,
    of_system,
    of_upstreams,
    of_versions,
)
from uponce.cli.options import Data, Json, os_refusal, print_json
from uponce.config import Settings, load
from uponce.core.errors import NotFound, UponceError
from uponce.wiring import Backend, opened

_OURS = ("media", "secret.key", "spool", "uponce.db")  # in the data folder; a disk there may have other files
_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "red"}


def run(data: Data = None, as_json: Json = False) -> None:
    """Check settings, disk, database and decoders, and say how to fix each problem."""
    findings = list(examine(data))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            state = typer.style(f"{finding.state:<8}", fg=_COLOURS[finding.state])
            typer.echo(f"{state} {finding.name:<10} {finding.detail}")
    if any(finding.state is State.BROKEN for finding in findings):
        raise typer.Exit(1)


def examine(data: str | None) -> Iterator[Finding]:
    """Yield what is found. Stop at the first broken thing that hides the rest."""
    try:
        settings = load(data=data)
        yield Finding("settings", State.OK, "readable")
        yield of_system(sys.platform, supported=LINUX and LOCKS.across_processes)
        installed = versions()
        yield from of_versions(installed, list(known_flaws(installed)))
        try:
            with opened(settings) as backend:
                yield Finding("database", State.OK, backend.database.describe())
                yield Finding("media", State.OK, backend.blobs.store.describe())
                yield of_disk(shutil.disk_usage(settings.data_dir).free, str(settings.data_dir))
                yield from _of_owners(settings.data_dir)
                yield asyncio.run(of_secrets(backend.services, backend.secrets.shown))
                yield from asyncio.run(of_parts(backend.services, backend.decoders))
                yield from asyncio.run(_of_upstreams(backend))
        except NotFound as error:
            yield Finding("data", State.WARNING, error.for_operator)
            yield from _before_the_first_start(settings)
    except UponceError as error:
        yield Finding("start", State.BROKEN, error.for_operator)
    except OSError as error:
        yield Finding("start", State.BROKEN, os_refusal(error))


def _of_owners(folder: Path) -> Iterator[Finding]:
    owners = {}
    for path in sorted(folder.iterdir()):
        with suppress(FileNotFoundError):  # the log of a database that a server has just closed
            if path.name.startswith(_OURS):
                owners[path] = path.lstat().st_uid
    return of_owners(owners, folder, folder.stat().st_uid)


def _before_the_first_start(settings: Settings) -> Iterator[Finding]:
    """Yield what can be checked without a data folder: the decoders run on a folder that is deleted afterwards."""
    folder = next(path for path in (settings.data_dir, *settings.data_dir.parents) if path.exists())
    yield of_disk(shutil.disk_usage(folder).free, str(folder))
    with TemporaryDirectory() as spare:
        tried = replace(settings, data=spare, database=None, storage=None, storage_redirect=0, storage_accel="")
        with opened(tried, create=True) as backend:
            found = asyncio.run(of_parts(backend.services, backend.decoders))
    yield from (finding for finding in found if finding.name in ("decoders", "sandbox"))


async def _of_upstreams(backend: Backend) -> Sequence[Finding]:
    try:
        return await of_upstreams(backend.services)
    finally:
        await backend.upstream.close()
