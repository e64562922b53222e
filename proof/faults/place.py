"""Where a store lies: one data folder, or a database and media that several servers share."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psycopg

from proof.faults.media import Bucket, Folder, Media
from uponce.config import Settings, load

_UNFINISHED = (
    "SELECT blob_key, coalesce(json_extract(spans, '$[#-1][1]'), 0) FROM series",
    "SELECT blob_key, coalesce((spans::jsonb -> -1 ->> 1)::bigint, 0) FROM series",
)
"""On SQLite, on PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Place:
    """`environment` is what its servers are set to besides the data folder: nothing, or database and storage.

    `data_dirs` are the folders of several servers, when those spooled their uploads there.
    """

    data_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    data_dirs: Sequence[Path] = ()

    @property
    def media(self) -> Media:
        url = self._storage
        return Folder(Path(url.removeprefix("file://"))) if url.startswith("file:") else Bucket(url, self.environment)

    @property
    def parts(self) -> Sequence["Place"]:
        """Return a place for each folder in which uploads are spooled.

        What sweeps such folders must run for each of them.
        """
        return [replace(self, data_dir=data_dir, data_dirs=()) for data_dir in self.data_dirs] or [self]

    @property
    def settings(self) -> Settings:
        return load(self.environment, data=str(self.data_dir))

    def spooled(self) -> Iterator[Path]:
        """Return the files of uploads that are not published.

        After a power cut a folder may be gone that never had a file: the next start makes it again.
        """
        if self._storage.startswith("file:"):
            folders = [Path(self._storage.removeprefix("file://"), "spool")]
        else:
            folders = [part.data_dir / "spool" for part in self.parts]
        return (path for folder in folders if folder.exists() for path in folder.iterdir())

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a statement that both engines understand, read without the code of the server."""
        url = self.environment.get("UPONCE_DATABASE")
        if url is None:
            with closing(sqlite3.connect(f"file:{self.data_dir}/uponce.db?mode=ro", uri=True)) as database:
                return database.execute(sql).fetchall()
        with psycopg.connect(url) as connection:
            return connection.execute(sql.encode()).fetchall()

    def unfinished(self) -> dict[str, int]:
        """Return the unfinished uploads in several requests: the key of their bytes and how far they are recorded."""
        return dict(self.rows(_UNFINISHED["UPONCE_DATABASE" in self.environment]))

    def recorded_parts(self) -> list[tuple[str, int, int, str, str]]:
        """Return the parts of such uploads on a bucket: key, first byte, end, the object's name and its SHA-256."""
        return self.rows("SELECT blob_key, start, stop, name, sha256 FROM series_parts JOIN series ON series_id = id")

    @property
    def _storage(self) -> str:
        return self.environment.get("UPONCE_STORAGE", f"file://{self.data_dir}/media")


def place_of(where: Path | Place) -> Place:
    return where if isinstance(where, Place) else Place(where)
