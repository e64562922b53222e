"""The list of grants, newest timestamp first: where a page begins, and what narrows it."""

import base64
from collections.abc import Sequence
from dataclasses import dataclass

from uponce.app.ports import Page
from uponce.core.errors import InvalidParameter
from uponce.core.values import GrantRecord, GrantStatus

# SQL that every engine reads alike.
STATUS_CONDITION = {
    None: "",
    GrantStatus.REVOKED: "AND revoked_at IS NOT NULL",
    GrantStatus.USED: "AND revoked_at IS NULL AND uses >= max_uses",
    GrantStatus.UNUSED: "AND revoked_at IS NULL AND uses < max_uses",
}


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in the list: after this row."""

    timestamp: int
    key: bytes

    def __str__(self) -> str:
        raw = self.timestamp.to_bytes(8, "big") + self.key
        return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def parse_cursor(text: str | None) -> Cursor | None:
    """InvalidParameter when it is not one of ours; None is the beginning."""
    if text is None:
        return None
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        raw = b""
    cursor = Cursor(int.from_bytes(raw[:8], "big", signed=True), raw[8:])
    if not cursor.key or cursor.timestamp < 0:
        raise InvalidParameter("The cursor cannot be read. Send next_cursor as it was received, or none to begin.")
    return cursor


def page_of(records: Sequence[GrantRecord], limit: int) -> Page[GrantRecord]:
    """Of up to `limit` + 1 records; the one too many only says that there is a next page."""
    if len(records) <= limit:
        return Page(tuple(records), None)
    last = records[limit - 1].grant
    return Page(tuple(records[:limit]), str(Cursor(last.timestamp, last.key)))
