"""The pages of the list that are asked for: of which key, and of which status."""

from uponce.core.values import GrantStatus

KINDS: list[tuple[str | None, GrantStatus | None]] = [
    (None, None),
    (None, GrantStatus.USED),
    (None, GrantStatus.UNUSED),
    (None, GrantStatus.REVOKED),
    (None, GrantStatus.PENDING),
    ("222", None),
    ("111", None),
    ("222", GrantStatus.USED),
    ("111", GrantStatus.REVOKED),
    ("111", GrantStatus.PENDING),
]
