"""The checks of `uponce doctor` that ask a part of the server, each with its cure."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from uponce.app.check import check_clock, check_frozen, check_parts, check_storage
from uponce.app.manage_clouds import check_relayed
from uponce.app.manage_keys import check_policy, find_new_keys, is_of_playground
from uponce.app.services import Services
from uponce.core.errors import UponceError
from uponce.core.signature import utc
from uponce.core.values import GivenKey, Upstream

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


async def of_secrets(services: Services, key_shown: str) -> Finding:
    """Return whether the secret key decrypts the secrets of all API keys. `key_shown` is its name in messages."""
    unreadable = await services.database.unreadable_keys()
    if not unreadable:
        return Finding("secrets", State.OK, f"{key_shown} reads the secret of every API key")
    reason = next(iter(unreadable.values()))
    return Finding("secrets", State.BROKEN, f"API keys {', '.join(unreadable)}: not readable. {reason}")


async def of_upstreams(services: Services) -> Sequence[Finding]:
    """Return whether each relay's account accepts its key and has the right time. The calls change nothing."""
    findings, limits = [], services.limits
    for cloud, upstream in (await services.database.list_upstreams()).items():
        name, sent = f"relay of {cloud}", services.clock.now()
        try:
            reply = await services.upstream.get(upstream, "ping")
        except UponceError as error:
            findings.append(Finding(name, State.BROKEN, f"{error.for_operator}. Check upload_prefix and the network."))
            continue
        # Within these bounds, since `Date` has no fractions, and its moment is one between the call and the answer.
        date = services.clock.now() if reply.date is None else reply.date
        least, most = date - services.clock.now(), date + 1 - sent
        if reply.status != 200 or (reply.document or {}).get("status") != "ok":
            findings.append(_unwilling(name, cloud, upstream, reply.status))
        # Signatures are back-dated.
        elif least > limits.skew or most < -limits.skew or least >= min(upstream.window, limits.relay_fence):
            late = f"its clock is {least:.0f} seconds ahead. Correct the clock of this machine."
            findings.append(Finding(name, State.BROKEN, late))
        else:
            findings.append(Finding(name, State.OK, f"{upstream.prefix} accepts the key of {upstream.cloud}"))
    return findings


async def of_fence(services: Services) -> Sequence[Finding]:
    """Return a warning if keys refuse the signatures that are made now, as for a time after a fence."""
    now = int(services.clock.now())
    keys = [key for key in await services.database.list_keys() if key.revoked_at is None]
    if (mark := max((key.watermark or 0 for key in keys), default=0)) < now:
        return []
    detail = f"uponce refuses signatures with a timestamp up to {utc(mark)}, of some keys or all."
    return [Finding("fence", State.WARNING, f"{detail} Keys of `uponce keys create` work at once.")]


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
    if not keys and all(map(is_of_playground, known)):
        check_policy(cloud, window)  # of the keys that a first start makes
    elif upstream is not None:
        check_relayed(cloud, [*known, *(given.key for given in added)])
    return [Finding("keys", State.WARNING, conflict.of_settings) for conflict in conflicts]


def _unwilling(name: str, cloud: str, upstream: Upstream, status: int) -> Finding:
    """Return the finding for a server that answers, but does not say that it accepts the key."""
    said, account = f"it answered {status}", f"account {upstream.cloud} at {upstream.prefix}"
    if status in (401, 403):
        return Finding(name, State.BROKEN, f"{said}. `uponce clouds relay {cloud} URL` sets its key.")
    if status in (420, 429):
        full = f"{said}: the quota of {account} for the Admin API is used up. Uploads may work. Try again in an hour."
        return Finding(name, State.WARNING, full)
    if 300 <= status < 400:
        said += ", a redirect, which is not followed. Set the address that it leads to, such as https, as upload_prefix"
    if status == 200:
        said += " without the `ok` of an account. Check upload_prefix: another server may answer there"
    return Finding(name, State.BROKEN, f"{said}. Check {account}, and the network.")


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
