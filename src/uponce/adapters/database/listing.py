"""The list of grants, newest timestamp first, as their keys are ordered: where a page begins, and what narrows it."""

import base64
from collections.abc import Sequence

from uponce.app.ports import Page
from uponce.core.errors import InvalidParameter
from uponce.core.signature import KEY_OCTETS
from uponce.core.values import GrantRecord, GrantStatus

# SQL that every engine reads alike.
STATUS_CONDITION = {
    None: "",
    GrantStatus.REVOKED: "AND revoked_at IS NOT NULL",
    GrantStatus.USED: "AND revoked_at IS NULL AND uses >= max_uses",
    GrantStatus.UNUSED: "AND revoked_at IS NULL AND uses < max_uses",
}


def parse_cursor(text: str | None) -> bytes | None:
    """The key of the grant after which a page begins. InvalidParameter when it is not one of ours; None is the
    beginning."""
    if text is None:
        return None
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_OCTETS:
        raise InvalidParameter("The cursor cannot be read. Send next_cursor as it was received, or none to begin.")
    return key


def page_of(records: Sequence[GrantRecord], limit: int) -> Page[GrantRecord]:
    """Of up to `limit` + 1 records; the one too many only says that there is a next page."""
    if len(records) <= limit:
        return Page(tuple(records), None)
    cursor = base64.urlsafe_b64encode(records[limit - 1].grant.key).decode().rstrip("=")
    return Page(tuple(records[:limit]), cursor)
