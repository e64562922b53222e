"""What a store can do that moves away, or that another one moves into."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from uponce.app.ports.database import Database

# Texts, numbers and bytes by column, alike on every engine.
Row: TypeAlias = Mapping[str, Any]


class Table(StrEnum):
    """What a store consists of, in the order in which it moves: a store without keys takes no upload, so half of one
    cannot forget what was spent. Of unfinished uploads only those move that were passed on, since they may complete."""

    ASSETS = "assets"
    CONDEMNED = "condemned"
    AUDIT = "audit"
    GRANTS = "grants"
    REPLIES = "replies"
    RELAYS = "relays"
    RELAY_GRANTS = "relay_grants"
    OUTBOX = "outbox"
    UPSTREAMS = "upstreams"
    KEYS = "api_keys"


class Moving(Protocol):
    """Rows as they stand, in the order of their keys."""

    async def count_rows(self, table: Table) -> int: ...

    async def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """The next ones behind that row, or from the first one for None."""

    async def last_row(self, table: Table) -> Row | None:
        """The one with the greatest key."""

    async def add_rows(self, table: Table, rows: Sequence[Row]) -> None:
        """All or none. They come in the order of their keys, behind those that are there."""


class MovableDatabase(Database, Moving, Protocol):
    """A database whose rows can move."""
