"""The checks of `uponce doctor`: everything that would break a guarantee, each with its cure."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from uponce.app.check import check_clock, check_frozen, check_parts, check_storage
from uponce.app.manage_clouds import check_relayed
from uponce.app.manage_keys import PLAYGROUND, check_policy, find_new_keys
from uponce.app.services import Services
from uponce.core.errors import UponceError
from uponce.core.values import GivenKey, Upstream

_GIB = 1024**3
_CURES = {
    "database": "Check that the server can write UPONCE_DATABASE, and that its disk has room.",
    "storage": "Check that the server can write UPONCE_STORAGE, and that it has room.",
    "decoders": "Check the memory of this machine, and UPONCE_DECODER_MEMORY.",
}


class State(StrEnum):
    """BROKEN: a server would not start, or would break a promise. WARNING: it serves, and the operator must act."""

    OK = "ok"
    WARNING = "warning"
    BROKEN = "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `detail` says what was found, and the cure if one is needed."""

    name: str
    state: State
    detail: str


class Decoders(Protocol):
    """Decoder processes that are not running yet."""

    @property
    def sandboxed(self) -> bool: ...

    async def start(self) -> None: ...

    async def close(self) -> None: ...


def of_system(platform: str, *, supported: bool) -> Finding:
    if supported:
        return Finding("system", State.OK, "Linux")
    return Finding(
        "system",
        State.WARNING,
        f"{platform}: good for development, one server process on one folder. Run uponce on Linux in production.",
    )


def of_versions(installed: Mapping[str, str]) -> Finding:
    return Finding("versions", State.OK, ", ".join(f"{name} {version}" for name, version in installed.items()))


def of_disk(free: int, folder: str) -> Finding:
    """Return a warning if less than a GiB is free. `free` in bytes."""
    if free < _GIB:
        return Finding("disk", State.WARNING, f"{free} bytes free in {folder}. Make room: a full disk refuses uploads.")
    return Finding("disk", State.OK, f"{free // _GIB} GiB free in {folder}")


def of_owners(owners: Mapping[Path, int], folder: Path, owner: int) -> Iterator[Finding]:
    """Yield a warning if files in the folder have another owner than the folder: a service may be unable to use them.

    In a folder of root, each service may run as the owner of its files, so there is no warning.
    """
    foreign = [str(path) for path, user in owners.items() if user != owner != 0]
    if foreign:
        yield Finding(
            "owner",
            State.WARNING,
            f"{folder} belongs to user {owner}, and files in it to another user. If the server runs as user {owner}, "
            f"run: chown -R --reference={folder} {' '.join(foreign)}",
        )


def of_connections(most: int | None, workers: int, each: int) -> Iterator[Finding]:
    """Yield a warning if PostgreSQL gives fewer connections than the processes of this server may need under load."""
    if most is not None and workers * each > most:
        yield Finding(
            "connections",
            State.WARNING,
            f"this server may open {workers * each} connections (UPONCE_WORKERS={workers} times "
            f"UPONCE_DATABASE_CONNECTIONS={each}), and PostgreSQL gives {most} to all servers together. Lower one of "
            "these settings, or raise max_connections of PostgreSQL.",
        )


async def of_secrets(services: Services, key_shown: str) -> Finding:
    """Return whether the secret key decrypts the secrets of all API keys. `key_shown` is its name in messages."""
    unreadable = await services.database.unreadable_keys()
    if not unreadable:
        return Finding("secrets", State.OK, f"{key_shown} reads the secret of every API key")
    reason = next(iter(unreadable.values()))
    return Finding("secrets", State.BROKEN, f"API keys {', '.join(unreadable)}: not readable. {reason}")


async def of_upstreams(services: Services) -> Sequence[Finding]:
    """Return whether each relay's account accepts its key and has the right time. The calls change nothing."""
    client = services.upstream
    assert client is not None
    findings = []
    for cloud, upstream in (await services.database.list_upstreams()).items():
        name = f"relay of {cloud}"
        try:
            reply = await client.get(upstream, "ping")
        except UponceError as error:
            findings.append(Finding(name, State.BROKEN, f"{error.for_operator}. Check upload_prefix and the network."))
            continue
        ahead = 0.0 if reply.date is None else reply.date - services.clock.now()
        if reply.status != 200:
            cure = f"it answered {reply.status}. `uponce clouds relay {cloud} URL` sets its key."
            findings.append(Finding(name, State.BROKEN, cure))
        elif abs(ahead) > services.limits.skew:
            late = f"its clock is {ahead:.0f} seconds ahead. Correct the clock of this machine."
            findings.append(Finding(name, State.BROKEN, late))
        else:
            findings.append(Finding(name, State.OK, f"{upstream.prefix} accepts the key of {upstream.cloud}"))
    return findings


async def of_parts(services: Services, decoders: Decoders, *, on_disk: bool) -> Sequence[Finding]:
    """Start and end decoders. Return the faults a server here finds. Raise SettingRefused if it would not start."""
    await check_frozen(services)
    full = await check_storage(services, on_disk=on_disk)
    await decoders.start()
    try:
        findings = [_part(name, error) for name, error in (await check_parts(services)).items()]
        if full is not None:
            findings.append(Finding("room", State.BROKEN, full))
        wrong = await check_clock(services)
        clock = Finding("clock", State.WARNING if wrong else State.OK, wrong or "agrees with the database")
        return [*findings, _sandbox(decoders.sandboxed), clock]
    finally:
        await decoders.close()


async def of_presets(
    services: Services, *, keys: Sequence[GivenKey], cloud: str, window: int, upstream: Upstream | None
) -> Sequence[Finding]:
    """Return a warning for each key of the settings that differs in the database.

    Raise SettingRefused or InvalidParameter if the keys, cloud or upstream in the settings keep a server from starting.
    """
    known = await services.database.list_keys()
    added, conflicts = await find_new_keys(services, keys)
    if not keys and all(key.cloud == PLAYGROUND for key in known):
        check_policy(cloud, window)  # of the keys that a first start makes
    elif upstream is not None:
        check_relayed(cloud, [*known, *(given.key for given in added)])
    return [Finding("keys", State.WARNING, conflict.of_settings) for conflict in conflicts]


def _part(name: str, error: UponceError | None) -> Finding:
    if error is None:
        return Finding(name, State.OK, "answers")
    return Finding(name, State.BROKEN, f"{error.for_operator}. {_CURES[name]}")


def _sandbox(sandboxed: bool) -> Finding:
    if sandboxed:
        return Finding("sandbox", State.OK, "decoders are confined by Landlock and resource limits")
    return Finding(
        "sandbox",
        State.WARNING,
        "this kernel has no Landlock: decoders have resource limits only. Use Linux 5.13 or newer.",
    )
