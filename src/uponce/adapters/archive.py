"""A backup: a folder that holds a copy of the database, the media that it names, and the secret key.

<folder>/backup.json              made first; `backup` writes to no other folder that has files
<folder>/uponce.db                appears when all the media that it names are there
<folder>/uponce.db.<UTC time>     the database of the backup before, as of that time
<folder>/media/                   a local blob store, with the files that these two databases name
<folder>/secret.key               unless the server gets it as UPONCE_SECRET_KEY; never replaced by another key
"""

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from uponce.adapters.database.keys import SecretBox
from uponce.adapters.database.sqlite.file import locked
from uponce.adapters.database.sqlite.snapshot import (
    Progress,
    Snapshot,
    begun_restore,
    refuse_present,
    restore,
    take,
)
from uponce.adapters.files import BLOCK_BYTES, cure_of_rights, exists, make_folder, write_whole
from uponce.adapters.secretbox import KEY_BYTES, AesSecretBox
from uponce.adapters.store.local import LocalBlobs
from uponce.adapters.system import RandomIds
from uponce.app.backup import SecretKey
from uponce.app.ports import Clock
from uponce.core.errors import NotFound, SettingRefused
from uponce.core.lineage import follows

log = logging.getLogger("uponce")


class Archive:
    """The Archive of app/backup.py. Use it inside `writing` or `reading`, which open its `media`.

    `database` is the server's file. `secret_key` is the path of the server's secret key, or None if it is in a setting.
    """

    def __init__(self, folder: Path, *, database: Path, secret_key: Path | None) -> None:
        self.folder = folder.absolute()
        self.media = LocalBlobs(self.folder / "media", ids=RandomIds())
        self.keeps_key = secret_key is not None
        self._database = self.folder / "uponce.db"
        self._draft = self.folder / "uponce.db.new"
        self._secret_key = self.folder / "secret.key"
        self._facts = self.folder / "backup.json"
        self._live = database.absolute()  # SQLite attaches it by a URL
        self._live_key = secret_key

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder for a backup, and make it if needed.

        Raise SettingRefused if the folder is not the folder of a backup, or while another backup holds it.
        """
        self._begin()
        busy = f"Another backup into {self.folder}, or a restore from it, is running. Wait until it ends."
        with locked(self.folder, busy), self._opened_media():
            self._drop_drafts()
            yield

    @contextmanager
    def reading(self, secrets: SecretBox | None, now: float, *, lost_key: bool = False) -> Iterator[Snapshot]:
        """Open the last finished backup for a server that has no database yet. Write nothing, and let no backup do so.

        `secrets` are the server's own. None: they come from the key in the backup. Raise NotFound if no backup has
        finished. Raise SettingRefused if the copy of the database is damaged, or if the server has a database. Raise it
        too if the right key is missing, unless `lost_key`, and while a backup into the folder is running.
        """
        if not exists(self._facts) or not exists(self._database):
            raise NotFound(f"{self.folder} holds no finished backup. Name the folder that `uponce backup` printed.")
        busy = f"A backup into {self.folder} is running. Wait until it ends, and restore then."
        with locked(self.folder, busy, shared=True), closing(Snapshot(self._database)) as last:
            refuse_present(self._live)
            last.check()
            if not lost_key:
                self._check_key(last, secrets, now)
            with self._opened_media():
                yield last

    def _check_key(self, last: Snapshot, secrets: SecretBox | None, now: float) -> None:
        try:
            last.check_secrets(secrets or AesSecretBox(*self._key()), now)
        except SettingRefused as error:
            raise SettingRefused(f"{error} If the key is lost, add --lost-key.") from None

    def made_at(self) -> int:
        with suppress(OSError, ValueError):
            made_at: int = json.loads(self._facts.read_bytes()).get("made_at", 0)
            return made_at
        return 0

    def take(self, on_pages: Progress) -> Snapshot:
        take(self._live, self._draft, on_pages)
        self._refuse_other_server()
        return Snapshot(self._draft, self._live)

    @contextmanager
    def kept(self) -> Iterator[Sequence[Snapshot]]:
        paths = [self._database] if exists(self._database) else []
        with ExitStack() as opened:
            yield [opened.enter_context(closing(Snapshot(path))) for path in (*paths, *self._older())]

    def _older(self) -> Iterator[Path]:
        """Return the paths of the replaced copies. It is one, or two if a backup was interrupted at its very end."""
        return self.folder.glob(f"{self._database.name}.2*Z")

    def _refuse_other_server(self) -> None:
        """Raise SettingRefused if the last copy holds API keys, assets or uploads that the server of the draft lacks.

        A new server may have the same keys, from its settings. A server that has deleted all its assets has the owner
        of the last copy, or one that follows it.
        """
        if not exists(self._database):
            return
        with closing(Snapshot(self._database)) as last, closing(Snapshot(self._draft)) as draft:
            if missing := last.api_keys() - draft.api_keys():
                raise SettingRefused(
                    f"{self.folder} is the backup of another database: this server does not have its API keys "
                    f"{', '.join(sorted(missing))}. Nothing was replaced. If this server lost its database, restore "
                    "the backup. If it was restored from an older copy, move this folder away. Otherwise name another "
                    "folder."
                )
            owner, own = last.owner(), draft.owner()
            is_owner = owner is not None and own is not None and follows(own, owner)  # a fence gives a new owner
            is_related = is_owner or last.is_related(self._draft)
            is_older = not last.is_continued_by(self._draft)
        if is_related and is_older:
            raise SettingRefused(
                f"{self.folder} is newer than the database of this server: it has uploads or refusals that this server "
                "does not know. Nothing was replaced. If this server was set back, as by a snapshot of its disk, "
                "restore the backup. To give up what is newer, move this folder away."
            )
        if not is_related:
            raise SettingRefused(
                f"{self.folder} is the backup of another database: this server has none of its assets. Nothing was "
                "replaced. If this server lost its database, restore the backup. If all those assets were deleted, "
                "name a new folder."
            )

    @contextmanager
    def _opened_media(self) -> Iterator[None]:
        self.media.open_store()
        with closing(self.media):
            yield

    def _begin(self) -> None:
        with _refusing(self.folder):
            make_folder(self.folder)
            if exists(self._facts):
                return
            drafts = set(self.folder.glob(f"{self._facts.name}.*"))  # of an interrupted first backup
            if set(self.folder.iterdir()) - drafts - {self.folder / "lost+found"}:
                raise SettingRefused(
                    f"{self.folder} holds other files than a backup. Name an empty folder, a new folder, or the folder "
                    "of an earlier backup."
                )
            write_whole(self._facts, [b"{}\n"])

    def _drop_drafts(self) -> None:
        """Delete what `write_whole` left in an interrupted backup: each may be as large as the database.

        A draft that cannot be deleted stops no backup.
        """
        try:
            for name in (f"{self._database.name}.2*Z", self._secret_key.name):
                for draft in self.folder.glob(f"{name}.{'[0-9a-f]' * 16}"):
                    draft.unlink()
        except OSError as error:
            log.warning("a file that an interrupted backup left in %s cannot be deleted: %s", self.folder, error)

    def refuse_other_key(self, secrets: SecretKey) -> None:
        # A backup with the right key may be the last copy of it, so no backup replaces a key.
        if exists(self._secret_key) and self._secret_key.read_bytes() != secrets.key():
            raise SettingRefused(
                f"{self._secret_key} is another key than {secrets.shown}, and a backup never replaces a secret key. "
                "Name a new folder for this backup. If the key of this server is the wrong one, put the key of the "
                "backup back into the data folder instead."
            )

    def finish(self, facts: dict[str, Any], secret_key: bytes | None) -> Path | None:
        """Replace the last copy of the database with the draft. Return the new path of the last copy.

        Only one older copy stays: each may be as large as the database. Call it when all media are in the folder.
        """
        with _refusing(self.folder):
            if secret_key is not None and not exists(self._secret_key):
                write_whole(self._secret_key, [secret_key])
            kept = self._keep()
            self._draft.replace(self._database)
            write_whole(self._facts, [json.dumps(facts, indent=2).encode() + b"\n"])
            for old in self._older():
                if old != kept:
                    old.unlink()
        return kept

    def has_key(self) -> bool:
        return exists(self._secret_key)

    def _keep(self) -> Path | None:
        if not exists(self._database):
            return None
        moment = datetime.fromtimestamp(self._database.stat().st_mtime, UTC)
        kept = self._database.with_name(f"{self._database.name}.{moment:%Y%m%dT%H%M%SZ}")
        kept.unlink(missing_ok=True)
        try:
            kept.hardlink_to(self._database)
        except OSError:  # FAT and some network shares have no hard links
            with self._database.open("rb") as file:
                write_whole(kept, iter(partial(file.read, BLOCK_BYTES), b""))
        return kept

    def _key(self) -> tuple[bytes, str]:
        """Return the secret key for the server, and the path of its file.

        Raise SettingRefused if the server has another key already, or if no whole key exists.
        """
        key, path = self._found_key()
        if len(key) != KEY_BYTES:  # of a copy that a full disk has cut off
            raise SettingRefused(
                f"{path} holds {len(key)} bytes instead of {KEY_BYTES}. Put another copy of it there, or set "
                "UPONCE_SECRET_KEY to the key of the server."
            )
        return key, path

    def _found_key(self) -> tuple[bytes, str]:
        path = self._live_key
        kept = self._secret_key.read_bytes() if exists(self._secret_key) else None
        if path is not None and exists(path):
            present = path.read_bytes()
            if kept is not None and present != kept:
                raise SettingRefused(
                    f"{path} is another key than {self._secret_key}. Move {path} away and run it again."
                )
            return present, str(path)
        if kept is None:
            raise SettingRefused("The backup holds no secret key. Set UPONCE_SECRET_KEY to the key of its server.")
        return kept, str(self._secret_key)

    def begun_restore(self) -> AbstractContextManager[None]:
        return begun_restore(self._live)

    def give_key(self) -> None:
        """Write the secret key to the server's folder, unless the server has a key, or the backup has no whole one."""
        path = self._live_key
        key = self._secret_key.read_bytes() if self.has_key() else b""
        if path is not None and not exists(path) and len(key) == KEY_BYTES:
            with _refusing(path.parent):
                make_folder(path.parent)
                write_whole(path, [key])

    def give_database(self, clock: Clock, skew: int, owner: str, on_pages: Progress) -> int:
        return restore(self._database, self._live, clock, skew, owner, on_pages)


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    """Raise SettingRefused if the system refuses a write to the folder."""
    try:
        yield
    except OSError as error:
        cure = cure_of_rights(error) or ". Make room"
        raise SettingRefused(f"{folder} cannot be written: {error}{cure}, or choose another folder.") from None
