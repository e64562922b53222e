"""Where a store lies: one data folder, or one PostgreSQL database and one media folder that several servers share."""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

from uponce.config import Settings, load


@dataclass(frozen=True, slots=True)
class Place:
    """`environment` is what its servers are set to besides the data folder: nothing, or database and storage."""

    data_dir: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def media(self) -> Path:
        storage = self.environment.get("UPONCE_STORAGE")
        return self.data_dir / "media" if storage is None else Path(storage.removeprefix("file://"))

    @property
    def settings(self) -> Settings:
        return load(self.environment, data=str(self.data_dir))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """What a statement finds that both engines understand, past all code of the server."""
        url = self.environment.get("UPONCE_DATABASE")
        if url is None:
            with closing(sqlite3.connect(f"file:{self.data_dir}/uponce.db?mode=ro", uri=True)) as database:
                return database.execute(sql).fetchall()
        with psycopg.connect(url) as connection:
            return connection.execute(sql.encode()).fetchall()


def place_of(where: Path | Place) -> Place:
    return where if isinstance(where, Place) else Place(where)
