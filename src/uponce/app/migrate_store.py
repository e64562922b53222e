"""Move a store to another database and another blob store. After an interruption at any point, it may be begun again.

Media are copied first, while servers still accept uploads. Then the source database is frozen for good, and the later
media follow, with all rows. So the source spends no signature that the new store does not know. The new database is
frozen from the beginning until its keys have come, which are the last rows. So no server starts on a part of a store.
Unfinished uploads stay behind; their signatures are not spent.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from uponce.app.check import refuse_slow_clock
from uponce.app.copy_media import Copying, copy_media
from uponce.app.owner import check_owner, claim_storage, owns
from uponce.app.ports import PLACES, BlobStore, Database, Table
from uponce.core.errors import SettingRefused, StorageFull, StorageUnavailable
from uponce.core.lineage import left

_BATCH = 500
_FOR_EVER = 2**40

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Store:
    database: Database
    blobs: BlobStore


@dataclass(slots=True)
class Moved:
    """What a run has moved: compared `rows` of each table, and `media`, which is None if they stay where they are.
    `media` counts what was present before the run, and all that it copied.

    `rows` is empty if an `earlier` run has moved them. Unless `complete`, media are lost, and this run has moved
    neither rows nor keys. If `frozen`, the source takes no uploads any more.
    """

    rows: dict[Table, int] = field(default_factory=dict)
    media: Copying | None = None
    complete: bool = False
    earlier: bool = False
    frozen: bool = True


async def migrate_store(
    source: Store, target: Store, *, media: bool = True, progress: Progress = lambda what, done, total: None
) -> Moved:
    """Move the store, and return what was moved. Nothing is deleted at the source.

    Raise SettingRefused if the target has data that no earlier run has left, or if a storage belongs to another
    database. At the end the new database owns its storage, also if the media stay. If they follow in a later run, it
    then owns only the new storage. `progress` gets the name of what is copied, how much of it is done, and how much
    there is.
    """
    if await _is_there(source.database, target.database):
        return await _move_again(source, target, media, progress)
    # An earlier run may have frozen the source, and a frozen database takes no storage.
    moved = Moved(frozen=await source.database.frozen())
    own = check_owner if moved.frozen else claim_storage
    await own(source.database, source.blobs)
    has_keys = await target.database.last_row(Table.KEYS) is not None  # so it has all other rows, or is a backup
    await _shut(target, media)
    if not await _freeze(source, target, moved, media, progress):
        return moved
    for table in Table:
        if table is Table.KEYS or not has_keys:
            await _copy_rows(source.database, target.database, table, progress)
        moved.rows[table] = await _compare(source.database, target.database, table)
    if not media:
        await _hand_over(source, target.database)
    moved.complete = True
    return moved


async def _shut(target: Store, media: bool) -> None:
    """Let no server start on the target, and no command add keys to it, before all its rows have come."""
    if media:
        await _claim(target)  # a frozen database takes no storage
    if not await target.database.frozen():
        if await target.database.last_row(Table.GRANTS) is None:
            await target.database.purge(_FOR_EVER)  # there is nothing to purge; it makes the partitions of the ledger
        await target.database.freeze()


async def _freeze(source: Store, target: Store, moved: Moved, media: bool, progress: Progress) -> bool:
    """Freeze the source, after its media are copied, and copy those that came since. Return False if any are lost.

    The last pass finds every file in the target, or it would copy: so no file is missing, whatever happened before.
    """
    if media:
        moved.media = await _copy_media(source, target, progress)
        if moved.media.lost:
            return False
    await source.database.freeze()
    moved.frozen = True
    while moved.media is not None:
        later, before = await _copy_media(source, target, progress), moved.media
        copied, size = before.copied + later.copied, before.bytes + later.bytes
        moved.media = replace(later, present=before.present, copied=copied, bytes=size)
        if later.lost:
            return False
        if not later.copied:
            break
    return True


async def _move_again(source: Store, target: Store, media: bool, progress: Progress) -> Moved:
    """Finish a move whose rows have moved. Servers of the target may have added rows, and media may have stayed."""
    if not media:
        await _hand_over(source, target.database)
        return Moved(complete=True, earlier=True)
    former = Store(target.database, source.blobs)
    await _refuse_other_storage(former, target.blobs)
    copied = await _copy_media(former, target, progress)
    if not copied.lost and await owns(former.database, former.blobs):
        await _leave(former.blobs, target)
    return Moved(media=copied, complete=not copied.lost, earlier=True)


async def _refuse_other_storage(former: Store, target: BlobStore) -> None:
    """Raise SettingRefused if the database has a third storage: files that came since the move would be missing."""
    if await former.database.owner() is None:  # an earlier run broke off before its database got a storage
        return
    if not await owns(former.database, former.blobs) and not await owns(former.database, target):
        raise SettingRefused(
            "The new database has another storage by now, and later files are only there. Set UPONCE_STORAGE to that "
            "one, and run this again. If no server of the new database has another one, run this without --to-storage "
            "first."
        )


async def _leave(former: BlobStore, target: Store) -> None:
    """Let no server start on the former storage of the target: it would not find the files of the other servers."""
    own = await target.database.make_owner()
    if not await _is_one_place(former, target.blobs, own):
        try:
            await former.set_owner(left(own), replace=True)
        except (StorageFull, StorageUnavailable) as error:
            raise SettingRefused(
                "All files are in the new storage. But the former one cannot be written, so servers could still start "
                "there. Set UPONCE_STORAGE of every server to the new one. Free a few kilobytes in the former one, or "
                f"make it writable, and run this again. Or delete it: {error.for_operator}"
            ) from error
    # Not a new name: a server that read the former owner before would note the new one there.
    await target.blobs.set_owner(own, replace=True)


async def _is_one_place(former: BlobStore, target: BlobStore, own: str) -> bool:
    """Note another owner in the target, and return whether the former storage has it: it may be named in other words.

    Servers of the database accept it, and note their owner again. No server writes such a name.
    """
    mark = f"{own}.moving"
    if await former.owner() == mark:  # an earlier run broke off
        mark = f"{mark}.again"
    await target.set_owner(mark, replace=True)
    return await former.owner() == mark


async def undo_move(
    database: Database, blobs: BlobStore, skew: int, *, loses_files: bool = False, trusts_clock: bool = False
) -> int | None:
    """Let a source take uploads again, on its storage. Return the watermark of its fence.

    Return None, and change nothing, if the source is not frozen: it takes uploads, and a fence would refuse them.

    Raise SettingRefused, and change nothing, if the new database has the storage and has stored or deleted files there,
    unless the caller `loses_files`: sweeps of the source delete the new ones. Raise it too as `fence` does.
    """
    if not await database.frozen():
        return None
    if not trusts_clock:
        await refuse_slow_clock(database, skew)
    if not loses_files and await blobs.owner() != await database.owner() and not await owns(database, blobs):
        await _refuse_changed_files(database, blobs)
    # The storage first: after an interruption, it may be repeated.
    await blobs.set_owner(await database.make_owner(), replace=True)
    return await database.thaw(skew)


async def _refuse_changed_files(database: Database, blobs: BlobStore) -> None:
    newer, gone = list[str](), list[str]()
    for place in PLACES:
        named = (await database.digests(place)).keys()
        stored = {blob.key async for blob in blobs.published(place)}
        newer += stored - named
        gone += named - stored
    found = [f"holds {len(newer):,} files that this database does not name, such as blob {newer[0]}"] if newer else []
    found += [f"lacks {len(gone):,} files that it names, such as blob {gone[0]}"] if gone else []
    if found:
        raise SettingRefused(
            f"UPONCE_STORAGE {' and '.join(found)}: the other store may have taken uploads since the move, or have "
            "overwritten or deleted assets. Sweeps here would delete the new files. An asset whose file is gone cannot "
            "be delivered. Nothing was changed. To keep what the other store has, move back: run `uponce "
            "migrate-store` with the settings of the other store and a new database. To give it up, add --yes. Then "
            "`uponce fsck` names the assets without files."
        )


async def _hand_over(source: Store, target: Database) -> None:
    """Make the new database the owner of a storage that stays, unless another database owns it by now."""
    if await owns(source.database, source.blobs):
        await source.blobs.set_owner(await target.make_owner(), replace=True)


async def _is_there(source: Database, target: Database) -> bool:
    """Return whether an earlier run has moved the rows and keys. Raise SettingRefused if the target has other keys.

    A run that was interrupted may have moved some of the keys, which are the last rows. A key that a server has
    imported into the target was made at another time than that of the source.
    """
    there = await _keys(target)
    if not there:
        return False
    keys, frozen = await _keys(source), await source.frozen()
    if frozen and there < keys:
        return False
    if not frozen or not there >= keys:
        raise SettingRefused("The target has other API keys already. Name a database that no server has used.")
    return True


async def _keys(database: Database) -> set[tuple[str, str, int]]:
    return {(key.api_key, key.cloud, key.created_at) for key in await database.list_keys()}


async def _claim(target: Store) -> None:
    await claim_storage(target.database, target.blobs, lacks_files=True)


async def _copy_media(source: Store, target: Store, progress: Progress) -> Copying:
    await _claim(target)
    return await copy_media(
        source.database,
        source.blobs,
        target.blobs,
        progress=lambda copying: progress("media", copying.places, len(PLACES)),
    )


async def _copy_rows(source: Database, target: Database, table: Table, progress: Progress) -> None:
    """Copy the rows that the target lacks: the copied ones come first, since rows go in the order of their keys.

    The last key also opens the target, even if there is no key.
    """
    total, done = await source.count_rows(table), await target.count_rows(table)
    after = await target.last_row(table)
    while rows := await source.rows(table, after, _BATCH):
        done += len(rows)
        await target.add_rows(table, rows, opens=table is Table.KEYS and done == total)
        after = rows[-1]
        progress(table, done, total)
    if table is Table.KEYS and not total:
        await target.add_rows(table, [], opens=True)


async def _compare(source: Database, target: Database, table: Table) -> int:
    """Return the number of rows. Raise SettingRefused unless all rows of both sides are equal."""
    count, after = 0, None
    while True:
        ours = await source.rows(table, after, _BATCH)
        theirs = await target.rows(table, after, _BATCH)
        if list(ours) != list(theirs):
            raise SettingRefused(
                f"The target's {table} differ from those of the source, within {_BATCH} rows after the first {count}. "
                "Name an empty database."
            )
        if not ours:
            return count
        count, after = count + len(ours), ours[-1]
