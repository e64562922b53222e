"""Back up one box into a folder, restore one box from such a folder, and fence after a restore by other tools."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from uponce.app.check import refuse_slow_clock
from uponce.app.copy_media import CopiedCatalog, Copying, copy_media, forget_unnamed, unnamed
from uponce.app.ports import BlobStore, Clock
from uponce.app.services import Services
from uponce.core.errors import DatabaseUnavailable, SettingRefused, StorageFull, StorageUnavailable, Unavailable
from uponce.core.signature import utc
from uponce.core.values import Asset

OnPages = Callable[[int, int], None]  # copied pages of the database, and all its pages
OnMedia = Callable[[Copying], None]


class SecretKey(Protocol):
    """The key that encrypts API secrets. `shown` is its name in errors."""

    shown: str

    def key(self) -> bytes: ...


class Snapshot(CopiedCatalog, Protocol):
    """A copy of a database as it was at one moment."""

    async def renew(self, blob_key: str) -> Asset | None:
        """Replace the row that names this blob with its live row. Return it, or None if the asset is gone."""

    def close(self) -> None: ...


class Archive(Protocol):
    """The folder of a backup, held for one command. `media` is its store; `keeps_key`: it has the secret key too."""

    keeps_key: bool

    @property
    def media(self) -> BlobStore: ...

    def kept(self) -> AbstractContextManager[Sequence[Snapshot]]:
        """Open every finished copy of the database in the folder. Raise SettingRefused, also later, if one is damaged.

        `media` must keep what these copies name.
        """

    def take(self, on_pages: OnPages) -> Snapshot:
        """Copy the database of the server as a draft, and open the draft.

        Raise StorageFull without room. Raise SettingRefused if the last copy has what this server does not know.
        """

    def has_key(self) -> bool:
        """Return whether the folder has the secret key, perhaps from an earlier backup."""

    def finish(self, facts: dict[str, Any], secret_key: bytes | None) -> Path | None:
        """Replace the last copy with the draft, once all media are there. Return the replaced copy's new path."""

    def refuse_other_key(self, secrets: SecretKey) -> None:
        """Raise SettingRefused if the folder has another secret key."""

    def made_at(self) -> int:
        """Return the Unix second of the last finished backup, by the clock of its server. Return 0 if unknown."""

    def begun_restore(self) -> AbstractContextManager[None]:
        """Hold the server's data folder: inside, no other restore writes there, and no server makes a database there.

        The hold ends when `give_database` ends or the draft is deleted. Raise SettingRefused while another restore
        runs.
        """

    def give_key(self) -> None:
        """Write the secret key to the server's data folder, unless a key is already there, or the backup has none."""

    def give_database(self, clock: Clock, skew: int, owner: str, on_pages: OnPages) -> int:
        """Write the server's database, whole or not at all, and return its watermark.

        It is thawed, fenced as of the end of the restore, and has the new owner.
        """


class NewStore(BlobStore, Protocol):
    """The blob store of a server that does not run yet."""

    def open_store(self) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class BackedUp:
    """What a backup holds now. `before` is the database of the backup before it. `has_key`: it has the secret key."""

    facts: dict[str, Any]
    media: Copying
    dropped: int
    before: Path | None
    has_key: bool


async def back_up(
    services: Services, secrets: SecretKey, archive: Archive, version: str, *, on_pages: OnPages, on_media: OnMedia
) -> BackedUp:
    """Copy the database, then the media that it names, then the secret key. The server may run.

    The copy of the database replaces the last one only when all media are there. Raise SettingRefused, and copy
    nothing, if the folder is the backup of another server, or if such a backup could not be restored.

    Without room, delete the blobs that neither a finished copy of the database nor this server names, and try once
    more. Raise StorageFull if the room is not enough: the next backup goes on from there.
    """
    key = await _readable_key(services, secrets)
    if key is not None:
        archive.refuse_other_key(secrets)
    made_at = int(services.clock.now())  # before the copy: it may lack every deletion since then
    with suppress(Unavailable):  # an interrupted backup left them; the next backup tries again
        await archive.media.sweep_spool(0)
    dropped = 0
    try:
        snapshot = archive.take(on_pages)
    except StorageFull:
        if not (dropped := await _drop(archive, services.database)):
            raise
        snapshot = archive.take(on_pages)
    with closing(snapshot):
        copy = partial(copy_media, snapshot, services.blobs, archive.media, renew=snapshot.renew, progress=on_media)
        try:
            media = await copy()
        except StorageFull:
            if not (more := await _drop(archive, snapshot)):
                raise
            dropped += more
            media = await copy()
    facts = {"uponce": version, "made_at": made_at, "assets": media.present + media.copied}
    before = archive.finish(facts, key if archive.keeps_key else None)
    if not media.lost:  # perhaps the disk of the media is away, and an older version is the last one
        dropped += await _drop(archive)
    return BackedUp(facts, media, dropped, before, archive.has_key())


async def restore(
    archive: Archive,
    snapshot: CopiedCatalog,
    blobs: NewStore,
    clock: Clock,
    skew: int,
    owner: str,
    *,
    reuses_storage: bool = False,
    on_pages: OnPages,
    on_media: OnMedia,
) -> tuple[Copying, int, int]:
    """Copy the media and the secret key, then the database.

    Return what was copied, the new watermark, and how many blobs the store has that the snapshot does not name. Sweeps
    of the restored server delete those after their grace time. The database comes last, so no server can start on half
    a restore. After an interruption, it may be repeated.

    Nothing in the store is deleted. Raise SettingRefused if the store has an owner, or blobs that the snapshot does not
    name: sweeps of the restored server would delete the blobs of a server that runs. `reuses_storage` skips this check.
    `owner` is new, so later sweeps with the lost database delete no file of the store. Raise SettingRefused too if the
    clock is behind the backup by more than the skew: the fence would let used signatures in.
    """
    _refuse_slow_clock(archive.made_at(), int(clock.now()), skew)
    blobs.open_store()
    with closing(blobs):
        if not reuses_storage:
            await _refuse_other_storage(snapshot, blobs)
        with archive.begun_restore():
            archive.give_key()
            media = await copy_media(snapshot, archive.media, blobs, deep=True, progress=on_media)
            surplus = 0
            if reuses_storage:  # before the database: after an interruption, it may be repeated
                await blobs.set_owner(owner, replace=True)
                surplus = len([key async for key in unnamed(blobs, snapshot)])
            watermark = archive.give_database(clock, skew, owner, on_pages)
            if not reuses_storage:  # the storage has these files only, and a start can note it too
                with suppress(StorageFull, StorageUnavailable):
                    await blobs.set_owner(owner)
            return media, watermark, surplus


async def fence(services: Services, *, trusts_clock: bool = False) -> int:
    """Refuse every signature that may have been used since a backup. Return the last timestamp that is refused.

    The timestamp is now + skew, whatever the window of a key. Servers accepted such timestamps until this moment, and
    the restored database does not know the uses since the backup. So fresh signatures are refused too, for `skew`
    seconds. That is a pause; a replay could not be undone. The skew of the server counts if it is greater. Raise
    SettingRefused if the clock is behind the newest time in the database, unless the caller `trusts_clock`.
    """
    if not trusts_clock:
        await refuse_slow_clock(services.database, services.limits.skew)
    return await services.database.fence(services.limits.skew)


async def _readable_key(services: Services, secrets: SecretKey) -> bytes | None:
    """Return the secret key, or None without API keys. Raise SettingRefused if it cannot decrypt all secrets."""
    unreadable = await services.database.unreadable_keys()
    if unreadable:
        names, reason = ", ".join(unreadable), next(iter(unreadable.values()))
        raise SettingRefused(f"Nothing is backed up: the secrets of the API keys {names} cannot be read. {reason}")
    return secrets.key() if await services.database.list_keys() else None


async def _refuse_other_storage(snapshot: CopiedCatalog, blobs: BlobStore) -> None:
    found = "belongs to a database" if await blobs.owner() is not None else ""
    async for key in unnamed(blobs, snapshot):
        found = f"holds files that the backup does not name, such as {key}"
        break
    if found:
        raise SettingRefused(
            f"UPONCE_STORAGE {found}. Another server may use it. Nothing was restored. Name an empty storage. If this "
            "is the storage of the server that lost its database, add --reuse-storage."
        )


def _refuse_slow_clock(made_at: int, now: int, skew: int) -> None:
    if made_at > now + skew:
        raise SettingRefused(
            f"The clock is {made_at - now} seconds behind the time of the backup, {utc(made_at)}. The limit is {skew} "
            "seconds, since signatures that were used before would work again. Nothing was restored. Set the clock. If "
            "it is right, the clock of the lost server was ahead: restore after that time."
        )


async def _drop(archive: Archive, *others: CopiedCatalog) -> int:
    """Delete the blobs that neither a finished copy nor one of the others names. Return their number."""
    try:
        with archive.kept() as copies:
            return await forget_unnamed(archive.media, *copies, *others)
    except (SettingRefused, DatabaseUnavailable):  # a damaged copy may name any blob; later backups replace it
        return 0
