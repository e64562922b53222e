"""The owner of a storage. A sweep deletes every file that its database does not name, so it needs the right database.

A database has a random name, its owner, and its storage notes the same name. A storage without an owner gets that of
the first database that claims it, if it has files of this database, or no files and the database names none. Only
`uponce restore`, `uponce migrate-store`, `uponce fence` and a database that took over replace the owner of a storage.
A database that was fenced, and a PostgreSQL that took over, get a new owner that follows the old one, see
core/lineage.py. So of a database and its copy, the other one loses the storage.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress

from uponce.app.ports import PLACES, BlobStore, Database
from uponce.core.errors import SettingRefused, StorageFull
from uponce.core.lineage import follows, is_left

log = logging.getLogger("uponce")

PROBE = "c4ec" * 4  # begins the keys of files by which `check_storage` tests a storage: they exist for a moment only
_SAMPLE = 1000  # keys are random: if the database names none of so many blobs, a sweep would delete nearly all
_CURES = (
    "With this database, sweeps would delete the files there. Point UPONCE_DATABASE to the database of these files, "
    "restore that database from a backup with --reuse-storage, or name another UPONCE_STORAGE, an empty one."
)
_MOST = 0.9  # a dump names all files except later ones; with fewer, it is old, or of another server
_TAKE = (
    "If the database names these files, and other tools restored it, stop all servers and run `uponce fence`. Sweeps "
    "then delete the files that it does not name."
)
_LEFT = (
    "UPONCE_STORAGE is a former storage: `uponce migrate-store` has copied its files to another one, and later files "
    "are only there. Set UPONCE_STORAGE to that one. A new store or a move back needs an empty storage."
)


async def claim_storage(database: Database, blobs: BlobStore, *, lacks_files: bool = False) -> None:
    """Make the storage that of this database.

    Raise SettingRefused if the storage is, or may be, another database's. Raise it too if a frozen database would get
    the storage: another database may have the files already. An empty storage is refused if the database names files,
    unless it `lacks_files`: a disk that is not mounted looks like this. A database that `lacks_files` may be frozen:
    the store is moving there. Of two databases that claim a storage at once, one is refused. All servers of one
    database have its owner. A full storage stays without an owner, and the sweep that makes room there may continue.
    Warn about a second storage: two servers with two empty ones would both start, and share no file.
    """
    if await check_owner(database, blobs, lacks_files=lacks_files):
        return await renew(database, blobs, await blobs.owner())
    if not lacks_files and await database.frozen():
        raise SettingRefused(
            "The database is frozen, and UPONCE_STORAGE belongs to no database yet. Point UPONCE_DATABASE to the "
            "database that was moved or restored, or give up a move with `uponce migrate-store --undo`."
        )
    had_another = not lacks_files and await database.owner() is not None
    with suppress(StorageFull):
        await blobs.set_owner(await database.make_owner())
        await check_owner(database, blobs)
        if had_another:
            log.warning(
                "UPONCE_STORAGE had no owner, and this database may have had another storage before. If its other "
                "servers use another one, stop this server and give it the same UPONCE_STORAGE. Otherwise servers of "
                "one storage do not find the files of the other."
            )
    return None


async def check_owner(database: Database, blobs: BlobStore, *, lacks_files: bool = False) -> bool:
    """Return whether the storage has this owner; False if it may get it. Write nothing. Raise as `claim_storage`."""
    owner = await blobs.owner()
    if owner is None:
        doubt = await _doubt(database, blobs, lacks_files)
        if doubt is None:
            return False
        owner = await blobs.owner()  # another server of this database may have begun to store there since
        if owner is None:
            raise SettingRefused(doubt)
    _refuse_other(owner, await database.owner())
    return True


async def renew(database: Database, blobs: BlobStore, owner: str | None) -> None:
    """Note the owner of the database in its storage, if that owner follows the noted one."""
    own = await database.owner()
    if owner is not None:
        _refuse_other(owner, own)
        if own is not None and own != owner:
            with suppress(StorageFull):
                await blobs.set_owner(own, replace=True)


def _refuse_other(owner: str, own: str | None) -> None:
    if own is None or not follows(own, owner):
        raise SettingRefused(_LEFT if is_left(owner) else f"{_others(owner)} {_CURES} {_TAKE}")


def _others(owner: str) -> str:
    return f"UPONCE_STORAGE belongs to another database: its owner is {owner.partition('.')[0]}."


async def take_storage(database: Database, blobs: BlobStore, *, anyway: bool = False) -> bool:
    """Make the database the only owner of its storage. Return whether the storage was that of another database before.

    It may also be an empty one that has no owner. Other tools than `uponce restore` may restore a database from a time
    before its storage had this owner. Sweeps delete files that the database does not name. So raise SettingRefused if
    it names too few of them, unless `anyway`. A former storage lacks the files since its database left it.

    A copy by other tools has the owner of its original. So the database gets a new owner, and another database with the
    one before loses the storage. A full storage gets it only at a later start, sweep or check for /readyz, see `renew`.
    Then warn.
    """
    owner = await blobs.owner()
    if owner is not None and not await owns(database, blobs):
        if not anyway:
            await _refuse_others_files(database, blobs, owner)
        await blobs.set_owner(await database.follow_owner(owner), replace=True)
        return True
    own = await database.owner()
    if own is not None:  # before the storage: servers of this database that run accept an earlier owner there
        await database.follow_owner(own)
    if owner is None and not await _sample(blobs):
        await blobs.set_owner(await database.make_owner())
        return await check_owner(database, blobs)
    if owner is not None:
        try:
            await blobs.set_owner(await database.make_owner(), replace=True)
        except StorageFull:
            log.warning(
                "UPONCE_STORAGE is full, so it still belongs also to the original of this database. Keep every server "
                "of the original stopped. Free a few kilobytes there before you start a server."
            )
    return False


async def _refuse_others_files(database: Database, blobs: BlobStore, owner: str) -> None:
    if await database.frozen():
        raise SettingRefused(
            f"{_others(owner)} This database is frozen. To give a move up, run `uponce migrate-store --undo`."
        )
    if is_left(owner):
        raise SettingRefused(f"{_LEFT} If the other one is lost, run `uponce fence --take-storage`.")
    await _refuse_few_named(database, blobs, _others(owner))


async def owns(database: Database, blobs: BlobStore) -> bool:
    """Return whether servers of this database accept the owner of the storage. False if the storage has none."""
    owner = await blobs.owner()
    own = await database.owner()
    return owner is not None and own is not None and follows(own, owner)


async def _refuse_few_named(database: Database, blobs: BlobStore, found: str) -> None:
    sample = await _sample(blobs)
    named = len(sample) - len(await database.unnamed(sample))
    if not named or named < _MOST * len(sample):
        raise SettingRefused(
            f"{found} This database names {named:,} of {len(sample):,} files there. The limit is nine of ten, since "
            "sweeps would delete the rest. The storage was not taken. Point UPONCE_STORAGE to the storage of this "
            "database. If this is the right storage, stop all servers of the other database and run `uponce fence "
            "--take-storage`."
        )


async def _doubt(database: Database, blobs: BlobStore, lacks_files: bool) -> str | None:
    """Return why a storage without an owner may not be that of this database, else None."""
    sample = await _sample(blobs)
    if not sample:
        lost = None if lacks_files else await _named_file(database)
        return lost and (
            f"UPONCE_STORAGE is empty and belongs to no database, but this database names files, such as blob {lost}. "
            "Mount the disk of the storage, or correct UPONCE_STORAGE. To move the files there, go back to the old "
            "UPONCE_STORAGE and run `uponce migrate-store`. If the files are lost, or if you copy them later, run "
            "`uponce fence`: then the empty storage belongs to this database."
        )
    if len(await database.unnamed(sample)) < len(sample):
        return None
    return (
        f"UPONCE_STORAGE holds files already, such as blob {sample[0]}, and the database names none of them. {_CURES}"
    )


async def _named_file(database: Database) -> str | None:
    """Return the key of a blob that the database names. None if it names none, or has had no storage yet."""
    if await database.owner() is None:
        return None
    for place in PLACES:
        for key in await database.digests(place):
            return key
    return None


async def _sample(blobs: BlobStore) -> Sequence[str]:
    """Return the keys of some blobs; of all blobs if there are few. Probes do not count."""
    keys: list[str] = []
    async for blob in blobs.published():
        if not blob.key.startswith(PROBE):
            keys.append(blob.key)
        if len(keys) == _SAMPLE:
            break
    return keys
