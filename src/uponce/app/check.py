"""Check that every port works, and that the clock was not set back."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial

from uponce.app.owner import PROBE, check_owner
from uponce.app.ports import BlobStore, Database
from uponce.app.services import Services
from uponce.core.errors import ServerBusy, SettingRefused, StorageFull, StorageUnavailable, UponceError
from uponce.core.signature import utc

FROZEN = (
    "The database is frozen: it is a backup, or `uponce migrate-store` has moved it, or has not filled it yet. "
    "Restore a backup with `uponce restore`. After a move, point UPONCE_DATABASE to the new database. If the move has "
    "not ended, run it again, or cancel it at the old store with `uponce migrate-store --undo`."
)
_SECONDS = 5


async def check_ready(services: Services, *, for_balancer: bool = False) -> dict[str, str | None]:
    """Return, for each part of the server, the reason of its failure that clients may read; None if the part works.

    Any client may ask, as often as it likes, and a check writes to the database. So requests share the one that runs.
    A balancer asks whether to send requests here. A full disk, a frozen database and busy decoders are no reason
    against that: files are delivered, and every refusal says what to do.
    """
    parts, is_frozen = await services.readiness.get(lambda: _check(services))
    if for_balancer:
        passable = {"decoders", "database"} if is_frozen else {"decoders"}
        parts = {
            name: None if name in passable or isinstance(error, StorageFull) else error for name, error in parts.items()
        }
    return {name: None if error is None else error.message for name, error in parts.items()}


async def _check(services: Services) -> tuple[Mapping[str, UponceError | None], bool]:
    """Return what `check_parts` returns, and whether the database fails because it is frozen."""
    parts = await check_parts(services)
    is_frozen = False
    if parts["database"] is not None:
        with suppress(UponceError, TimeoutError):
            async with asyncio.timeout(_SECONDS):
                is_frozen = await services.database.frozen()
    return parts, is_frozen


async def check_parts(services: Services) -> Mapping[str, UponceError | None]:
    """Return the failure of each part of the server, or None if the part works."""
    database, storage, decoders = await asyncio.gather(
        _problem(services.database.ping), _problem(services.blobs.ping), _problem(services.inspector.ping)
    )
    if database is None and storage is None:
        storage = await _problem(partial(services.ownership.look, services.database, services.blobs))
    return {"database": database, "storage": storage, "decoders": decoders}


async def check_frozen(services: Services) -> None:
    """Raise SettingRefused if the database is frozen: a backup, moved away, or only a part of a store that moves."""
    if await services.database.frozen():
        raise SettingRefused(FROZEN)


async def check_storage(
    services: Services, own: Callable[[Database, BlobStore], Awaitable[object]] = check_owner, *, on_disk: bool = True
) -> str | None:
    """Write, read and delete a few bytes. Return a warning for a full storage.

    Raise SettingRefused for every other fault. `own` comes first: it raises if the storage belongs to another database,
    and `claim_storage` also takes it. A server that starts beside this one may find these bytes: their key says that
    they are no file of a database. A server with a full storage still delivers files. A storage that is not `on_disk`
    names its own cure.
    """
    with _for_operator(on_disk):
        await own(services.database, services.blobs)
        spooled = await services.blobs.receive(PROBE + services.ids.hex(16))
    try:
        with _for_operator(on_disk):
            await spooled.write(services.ids.hex(32).encode())
            written = await spooled.seal()
            await spooled.publish()
            found = await services.blobs.digest(spooled.key)
            await services.blobs.delete(spooled.key)
    except StorageFull as error:
        return f"UPONCE_STORAGE is full: {error.for_operator}. Free space. Until then, uponce refuses every upload."
    finally:
        await spooled.discard()
    if found != written:
        raise SettingRefused("UPONCE_STORAGE cannot be used: it returns other bytes than were written to it.")
    return None


@contextmanager
def _for_operator(on_disk: bool) -> Iterator[None]:
    """Raise SettingRefused, with the cure, if the storage fails inside."""
    try:
        yield
    except StorageUnavailable as error:
        cure = (
            " Let the server write it: check its owner, its mode, and that it is mounted read-write. A unit of systemd "
            "also needs ReadWritePaths= for a folder outside of its StateDirectory=."
        )
        reason = error.for_operator.removesuffix(".")
        raise SettingRefused(f"UPONCE_STORAGE cannot be used: {reason}.{cure if on_disk else ''}") from error


async def check_clock(services: Services) -> str | None:
    """Return a warning if the clock is wrong by more than the skew, else None.

    It is compared with the database's clock, if the database has its own, and with the newest time in the database.
    Spent signatures stay spent whatever the clock says. A wrong clock refuses fresh signatures.
    """
    newest, skew = await services.database.newest_moment(), services.limits.skew
    now = int(services.clock.now())
    ahead = now - int(await services.database.moment())
    behind = 0 if newest is None else newest - now
    if abs(ahead) > skew:
        wrong = f"{abs(ahead)} seconds {'ahead of' if ahead > 0 else 'behind'} the database's clock"
    elif behind > skew:
        wrong = f"{behind} seconds behind the newest time in the database"
    else:
        return None
    return (
        f"The clock is {wrong}. The limit is {skew} seconds. Set the clock, or the server refuses new signatures as "
        "stale or as coming from the future."
    )


async def refuse_slow_clock(database: Database, skew: int) -> None:
    """Raise SettingRefused if the clock is so far behind that a fence would let used signatures in."""
    newest, now = await database.newest_moment(), int(await database.moment())
    limit = max(skew, int((await database.noted_settings()).get("skew", 0)))
    if newest is not None and newest > now + limit:
        raise SettingRefused(
            f"The clock is {newest - now} seconds behind the newest time in the database, {utc(newest)}. The limit is "
            f"{limit} seconds, since signatures that were used before would work again. Nothing was changed. Set the "
            "clock. If it is right, it was ahead before: add --trust-clock. Signatures that were used during that time "
            "may then work again."
        )


_MEMORY = "memory, which a restart of this machine empties"
_LAYER = "the layer of a container, which ends with the container"
_FLEETING = {"tmpfs": _MEMORY, "ramfs": _MEMORY, "overlay": _LAYER, "fuse.fuse-overlayfs": _LAYER}


def check_lasting(folder: str, file_system: str, *, has_journal: bool) -> str | None:
    """Return a warning if a folder of this file system loses files with the machine, container or power, else None."""
    if not has_journal:
        return (
            f"{folder} is on {file_system} without a journal. After a power cut, the repair of the disk may lose files "
            "and keys, and spent signatures may work again. Use a disk with a journal: ext4 as mkfs.ext4 makes it, or "
            "XFS."
        )
    if file_system not in _FLEETING:
        return None
    return (
        f"{folder} is in {_FLEETING[file_system]} ({file_system}). Files, keys and spent signatures are then lost. "
        "Mount a disk or a volume there."
    )


async def _problem(ping: Callable[[], Awaitable[None]]) -> UponceError | None:
    try:
        async with asyncio.timeout(_SECONDS):
            await ping()
    except UponceError as error:
        return error
    except TimeoutError:
        return ServerBusy(f"no answer within {_SECONDS} seconds")
    return None
