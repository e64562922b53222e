"""A backup: a folder that holds a copy of the database, the media that it names, and the secret key.

<folder>/backup.json    made first; without it the folder is nothing to write to
<folder>/uponce.db      appears when all the media that it names are there
<folder>/media/         as a local blob store
<folder>/secret.key     unless the server gets it as UPONCE_SECRET_KEY
"""

import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
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
        """Make it, or take the one of an earlier backup. SettingRefused when something else is there."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._facts.exists():
                return
            if any(self.folder.iterdir()):
                raise SettingRefused(
                    f"{self.folder} holds other things than a backup. Name an empty folder, a new one, or one of an "
                    "earlier backup."
                )
            self._write(self._facts, b"{}\n")
        except OSError as error:
            raise SettingRefused(f"{self.folder} cannot be written: {error}. Choose another folder.") from None

    @contextmanager
    def held(self) -> Iterator[None]:
        """One backup at a time. SettingRefused when another one is running; its lock ends with its process."""
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError:
            raise SettingRefused(f"Another backup into {self.folder} is running. Wait for its end.") from None
        finally:
            os.close(descriptor)

    def finish(self, facts: dict[str, Any], secret_key: bytes | None) -> None:
        """Its database takes the place of the last one. All media that it names are there."""
        if secret_key is not None:
            self._write(self.secret_key, secret_key)
        self.draft.replace(self.database)
        self._write(self._facts, json.dumps(facts, indent=2).encode() + b"\n")

    def check(self) -> None:
        """NotFound unless a backup was finished here."""
        if not self._facts.exists() or not self.database.exists():
            raise NotFound(f"There is no finished backup in {self.folder}.")

    def give_key(self, path: Path) -> None:
        """The secret key becomes that of a server. SettingRefused when it has another one, or none is to be had."""
        kept = self.secret_key.read_bytes() if self.secret_key.exists() else None
        if path.exists():
            if kept is not None and path.read_bytes() != kept:
                raise SettingRefused(f"{path} is another key than that of the backup. Move it away.")
            return
        if kept is None:
            raise SettingRefused("The backup holds no secret key. Set UPONCE_SECRET_KEY to that of its server.")
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write(path, kept)

    def _write(self, path: Path, data: bytes) -> None:
        """Whole or not at all, and durable."""
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            sync_file(file.fileno())
        draft.replace(path)
        sync_folder(path.parent)
