"""The tables of a store as they move from one engine to another. Columns have the same names and order on all."""

from dataclasses import dataclass

from uponce.adapters.database.rows import ASSET_COLUMNS, AUDIT_COLUMNS, GRANT_COLUMNS, KEY_COLUMNS
from uponce.app.ports import Row, Table


@dataclass(frozen=True, slots=True)
class Layout:
    """`columns` begins with `key` columns by which rows are ordered. `source` is what they are selected from."""

    columns: str
    source: str
    key: int = 1

    @property
    def order(self) -> str:
        return ", ".join(self.columns.split(", ")[: self.key])

    def select(self, mark: str, after: Row | None) -> str:
        """To be bound to `bound`: rows behind that one, a limited number."""
        marks = ", ".join([mark] * self.key)
        where = "" if after is None else f"WHERE ({self.order}) > ({marks})"
        return f"SELECT {self.columns} FROM {self.source} {where} ORDER BY {self.order} LIMIT {mark}"

    def bound(self, after: Row | None, limit: int) -> Row:
        return (*(after or ())[: self.key], limit)

    @property
    def last(self) -> str:
        descending = ", ".join(f"{column} DESC" for column in self.order.split(", "))
        return f"SELECT {self.columns} FROM {self.source} ORDER BY {descending} LIMIT 1"

    @property
    def count(self) -> str:
        return f"SELECT count(*) FROM {self.source}"


# A reply is kept as long as its grant, which has to be there before it.
_REPLIES = Layout(
    "replies.grant_key, key_hash, sha256, committed, grants.keep_until",
    "replies JOIN grants ON grants.grant_key = replies.grant_key",
    key=2,
)

LAYOUTS = {
    Table.ASSETS: Layout(f"id, {ASSET_COLUMNS}", "assets"),
    Table.CONDEMNED: Layout("blob_key, at", "condemned"),
    Table.AUDIT: Layout(f"id, {AUDIT_COLUMNS}", "audit"),
    Table.GRANTS: Layout(GRANT_COLUMNS, "grants"),
    Table.REPLIES: _REPLIES,
    Table.KEYS: Layout(f"id, {KEY_COLUMNS}", "api_keys"),
}
