"""What a store needs that moves to another place, or that another store moves into."""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Protocol, TypeAlias

from uponce.app.ports.database import Database

# Texts, numbers and bytes by column, alike on every engine.
Row: TypeAlias = Mapping[str, Any]


class Table(StrEnum):
    """The tables of a store, in the order in which they move.

    A store without keys accepts no upload. Keys move last, and open the database, so a half moved store accepts none.
    Of unfinished uploads, only those that were passed on move, since they may complete.
    """

    ASSETS = "assets"
    CONDEMNED = "condemned"
    AUDIT = "audit"
    GRANTS = "grants"
    REPLIES = "replies"
    RELAYS = "relays"
    RELAY_GRANTS = "relay_grants"
    OUTBOX = "outbox"
    UPSTREAMS = "upstreams"
    FENCES = "fences"
    KEYS = "api_keys"


class Moving(Protocol):
    """Rows as they are in the tables, in the order of their keys."""

    async def count_rows(self, table: Table) -> int: ...

    async def rows(self, table: Table, after: Row | None, limit: int) -> Sequence[Row]:
        """Return the next rows after that row; the first rows for None."""

    async def last_row(self, table: Table) -> Row | None:
        """Return the row with the greatest key."""

    async def add_rows(self, table: Table, rows: Sequence[Row], *, opens: bool = False) -> None:
        """Add all rows or none, also to a frozen database. They are in the order of their keys, after those there.

        With `opens`, the database accepts writes from then on, without a fence: it has the whole ledger.
        """


class MovableDatabase(Database, Moving, Protocol):
    """A database whose rows can move."""
