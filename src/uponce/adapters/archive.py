"""A backup: a folder that holds a copy of the database, the media that it names, and the secret key.

<folder>/backup.json              made first; `backup` writes to no other folder that has files
<folder>/uponce.db                appears when all the media that it names are there
<folder>/uponce.db.<UTC time>     the database of the backup before, as it was until then
<folder>/media/                   as a local blob store
<folder>/secret.key               unless the server gets it as UPONCE_SECRET_KEY; never replaced by another key
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from uponce.adapters.system import sync_file, sync_folder
from uponce.core.errors import NotFound, SettingRefused


class Archive:
    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self.database = self.folder / "uponce.db"
        self.draft = self.folder / "uponce.db.new"
        self.media = self.folder / "media"
        self.secret_key = self.folder / "secret.key"
        self._facts = self.folder / "backup.json"

    def begin(self) -> None:
        """Make the folder, or use the folder of an earlier backup. Raise SettingRefused if it holds other files."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._facts.exists():
                return
            if any(self.folder.iterdir()):
                raise SettingRefused(
                    f"{self.folder} holds other files than a backup. Name an empty folder, a new folder, or the folder "
                    "of an earlier backup."
                )
            self._write(self._facts, b"{}\n")
        except OSError as error:
            raise SettingRefused(f"{self.folder} cannot be written: {error}. Choose another folder.") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder. Raise SettingRefused while another backup holds it; its lock ends with its process."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise SettingRefused(f"Another backup into {self.folder} is running. Wait until it ends.") from None
        finally:
            os.close(descriptor)

    def refuse_other_key(self, key: bytes, shown: str) -> None:
        """Raise SettingRefused if the backup holds another secret key than `key`, which errors call `shown`.

        A backup with the right key may be the last copy of it, so no backup replaces a key.
        """
        if self.secret_key.exists() and self.secret_key.read_bytes() != key:
            raise SettingRefused(
                f"{self.secret_key} is another key than {shown}, and a backup never replaces a secret key. Name a new "
                "folder for this backup. If the key of this server is the wrong one, put the key of the backup back "
                "into the data folder instead."
            )

    def finish(self, facts: dict[str, Any], secret_key: bytes | None) -> Path | None:
        """Put the draft in place of the last database, which stays beside it; return its path. All media are there.

        Only the last one stays: each may be as large as the database.
        """
        if secret_key is not None and not self.secret_key.exists():
            self._write(self.secret_key, secret_key)
        kept = self._keep()
        self.draft.replace(self.database)
        self._write(self._facts, json.dumps(facts, indent=2).encode() + b"\n")
        for old in self.folder.glob(f"{self.database.name}.2*Z"):
            if old != kept:
                old.unlink()
        return kept

    def _keep(self) -> Path | None:
        if not self.database.exists():
            return None
        moment = datetime.fromtimestamp(self.database.stat().st_mtime, UTC)
        kept = self.database.with_name(f"{self.database.name}.{moment:%Y%m%dT%H%M%SZ}")
        kept.unlink(missing_ok=True)
        kept.hardlink_to(self.database)
        return kept

    def check(self) -> None:
        """Raise NotFound unless a backup was finished here."""
        if not self._facts.exists() or not self.database.exists():
            raise NotFound(f"{self.folder} holds no finished backup. Name the folder that `uponce backup` printed.")

    def key_for(self, path: Path) -> tuple[bytes, str]:
        """Return the secret key for a server whose key belongs at `path`, and the file it is from. Write nothing.

        Raise SettingRefused if the server has another key already, or if there is no key.
        """
        kept = self.secret_key.read_bytes() if self.secret_key.exists() else None
        if path.exists():
            present = path.read_bytes()
            if kept is not None and present != kept:
                raise SettingRefused(
                    f"{path} is another key than {self.secret_key}. Move {path} away and run it again."
                )
            return present, str(path)
        if kept is None:
            raise SettingRefused("The backup holds no secret key. Set UPONCE_SECRET_KEY to the key of its server.")
        return kept, str(self.secret_key)

    def give_key(self, path: Path) -> None:
        """Write the key that `key_for` returned to `path`, unless it is there."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._write(path, self.secret_key.read_bytes())

    def _write(self, path: Path, data: bytes) -> None:
        """Write the whole file or none, durably."""
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
