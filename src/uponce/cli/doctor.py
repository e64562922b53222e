"""`uponce doctor`"""

import asyncio
import shutil
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from stat import S_ISDIR
from tempfile import TemporaryDirectory
from typing import Any

import typer
from msgspec.structs import replace

from uponce.adapters.files import exists
from uponce.adapters.spool.locks import LOCKS
from uponce.adapters.system import LINUX
from uponce.adapters.versions import versions
from uponce.app.diagnose import Finding, State, of_fence, of_parts, of_presets, of_secrets, of_upstreams
from uponce.app.owner import check_owner
from uponce.app.services import Services
from uponce.cli.address import listen, unreachable
from uponce.cli.disks import fleeting, lasting, nearest, one_of_each_disk
from uponce.cli.options import Data, Json, os_refusal, say
from uponce.config import Settings, load, preset_keys
from uponce.core.errors import NotFound, SettingRefused, UponceError
from uponce.core.upstream import parse_upstream
from uponce.wiring import Backend, build, opened

# In the folders of data, database and storage. A disk there may have other files.
_OURS = ("blobs", "media", "owner", "packs", "secret.key", "spool", "uponce.db")
_GIB = 1024**3
_COLOURS = {State.OK: "green", State.WARNING: "yellow", State.BROKEN: "red"}


def run(data: Data = None, as_json: Json = False) -> None:
    """Check settings, disk, database and decoders, and say how to fix each problem."""
    findings = list(examine(data))
    say("\n".join(map(_line, findings)), [asdict(finding) for finding in findings], as_json)
    if any(finding.state is State.BROKEN for finding in findings):
        raise typer.Exit(1)


def _line(finding: Finding) -> str:
    return f"{typer.style(f'{finding.state:<8}', fg=_COLOURS[finding.state])} {finding.name:<10} {finding.detail}"


def examine(data: str | None) -> Iterator[Finding]:
    """Yield the findings. Stop at the first broken part that hides the rest."""
    try:
        settings = load(data=data)
        listen(settings.host, 0).close()
        presets = _presets(settings)
        yield Finding("settings", State.OK, "readable")
        if (warning := unreachable(settings)) is not None:
            yield Finding("notifications", State.WARNING, warning)
        yield _of_system()
        yield Finding("versions", State.OK, ", ".join(f"{name} {version}" for name, version in versions().items()))
        try:
            with opened(settings) as backend:
                yield from _of_database(settings, backend)
                yield from _of_disks(settings)
                yield Finding("media", State.OK, backend.blobs.describe())
                yield from _of_owners(settings)
                yield asyncio.run(of_secrets(backend.services, backend.secrets.shown))
                on_disk = settings.storage_folder is not None
                yield from asyncio.run(of_parts(backend.services, backend.decoders, on_disk=on_disk))
                yield from asyncio.run(_of_upstreams(backend))
                yield from asyncio.run(of_fence(backend.services))
                yield from asyncio.run(presets(backend.services))
        except NotFound as error:
            yield Finding("data", State.WARNING, error.for_operator)
            yield from _before_the_first_start(settings, presets)
    except UponceError as error:
        yield Finding("start", State.BROKEN, error.for_operator)
    except OSError as error:
        yield Finding("start", State.BROKEN, os_refusal(error))


def _presets(settings: Settings) -> Callable[[Services], Coroutine[Any, Any, Sequence[Finding]]]:
    """Return the check of the keys and the relay in the settings. Raise SettingRefused if they cannot be read."""
    return partial(
        of_presets,
        keys=preset_keys(settings),
        cloud=settings.cloud,
        window=settings.window,
        upstream=None if settings.relay is None else parse_upstream(settings.relay),
    )


def _of_system() -> Finding:
    if LINUX and LOCKS.across_processes:
        return Finding("system", State.OK, "Linux")
    return Finding(
        "system",
        State.WARNING,
        f"{sys.platform}: good for development, one server process on one folder. Run uponce on Linux in production.",
    )


def _of_database(settings: Settings, backend: Backend) -> Iterator[Finding]:
    """Yield its name, and whether it gives fewer connections than the processes of this server may need under load."""
    yield Finding("database", State.OK, backend.database.describe())
    most, workers, each = backend.database.most_connections(), settings.workers, settings.database_connections
    if most is not None and workers * each > most:
        yield Finding(
            "connections",
            State.WARNING,
            f"this server may open {workers * each} connections (UPONCE_WORKERS={workers} times "
            f"UPONCE_DATABASE_CONNECTIONS={each}), and PostgreSQL gives {most} to all servers together. Lower one of "
            "these settings, or raise max_connections of PostgreSQL.",
        )


def _of_disks(settings: Settings) -> Iterator[Finding]:
    """Yield the free space on each local disk that the server writes to, and which disks may lose files."""
    for folder in one_of_each_disk([settings.data_dir, *lasting(settings)]):
        free = shutil.disk_usage(folder).free
        if free < _GIB:
            full = f"{free} bytes free in {folder}. Make room: a full disk refuses uploads."
            yield Finding("disk", State.WARNING, full)
        else:
            yield Finding("disk", State.OK, f"{free // _GIB} GiB free in {folder}")
    for warning in fleeting(settings):
        yield Finding("volume", State.WARNING, warning)


def _of_owners(settings: Settings) -> Iterator[Finding]:
    """Yield a warning if files or folders of uponce have another owner than the data folder.

    The service may be unable to use them, although this command, run by root, can. In a data folder of root, each
    service may run as the owner of its files, so there is no warning. A folder that its group may write has none too.
    """
    data = settings.data_dir
    if not exists(data):  # database, media and secret key may be elsewhere
        return
    owner, folders = data.stat().st_uid, {data, *lasting(settings)}
    files = {path for folder in folders for path in folder.iterdir() if path.name.startswith(_OURS)}
    for option, paths, by_others in (("", folders - files, 0o022), ("-R ", files, 0)):
        foreign: list[Path] = []
        for path in sorted(paths):
            with suppress(FileNotFoundError):  # the log of a database that a server has just closed
                facts = path.lstat()
                is_foreign = facts.st_uid != owner or (path in files and _holds_foreign(path, owner))
                if is_foreign and owner != 0 and not facts.st_mode & by_others and path.parent not in foreign:
                    foreign.append(path)
        if foreign:
            names = " ".join(map(str, foreign))
            yield Finding(
                "owner",
                State.WARNING,
                f"{data} belongs to user {owner}, and to another user: {names}. If the server runs as user {owner}, "
                f"run: chown {option}--reference={data} {names}",
            )


def _holds_foreign(path: Path, owner: int) -> bool:
    """Return whether something in this folder, such as a pack, has another owner. Deeper ones are not looked at."""
    inside = path.iterdir() if exists(path, S_ISDIR) else ()
    return any(file.lstat().st_uid != owner for file in inside if file.name != "lost+found")


def _before_the_first_start(
    settings: Settings, presets: Callable[[Services], Coroutine[Any, Any, Sequence[Finding]]]
) -> Iterator[Finding]:
    """Yield the findings that need no data folder. The decoders run on a folder that is deleted afterwards."""
    folder = nearest(settings.data_dir)
    if not exists(folder, S_ISDIR):
        raise SettingRefused(f"UPONCE_DATA={settings.data_dir}: {folder} is not a folder. Choose another data folder.")
    blobs = build(settings).blobs  # raises SettingRefused for settings with which no server could start; writes nothing
    yield from _of_disks(settings)
    with TemporaryDirectory() as spare:
        tried = replace(settings, data=spare, database=None, storage=None, storage_redirect=0, storage_accel="")
        with opened(tried, create=True) as backend:
            if settings.storage_folder is not None and exists(blobs.folder):
                asyncio.run(check_owner(backend.database, blobs))  # a new database, as the server's would be
            found = asyncio.run(of_parts(backend.services, backend.decoders, on_disk=True))
            asyncio.run(presets(backend.services))
    yield from (finding for finding in found if finding.name in ("decoders", "sandbox"))


async def _of_upstreams(backend: Backend) -> Sequence[Finding]:
    try:
        return await of_upstreams(backend.services)
    finally:
        await backend.upstream.close()
