"""What is looked at in a large database: pages of the list, an outbox in which many wait, a series of many grants."""

from tests.contract.databases import START
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

MANY = 10_000
FIRST = MANY + 1  # the number of the effect that the others wait for


def waiting(numbers: str) -> str:
    """Return what fills an outbox, from a table of numbers from 1 to 2 * MANY + 2.

    Of one asset, MANY effects are dead, the next one is postponed by an hour, and MANY wait behind it. The last effect
    is of another asset. All are due, except the postponed one.
    """
    return f"""
INSERT INTO outbox (name, receiver, subject, details, due_at, tries, error, created_at, dead)
SELECT 'notify', '-', CASE WHEN i = {2 * MANY + 2} THEN 'another' ELSE 'one' END, '',
  CASE WHEN i = {FIRST} THEN {START + 3600} ELSE {START} END, 0, '', {START}, CASE WHEN i <= {MANY} THEN 1 ELSE 0 END
FROM {numbers} ORDER BY i
"""


def joining(numbers: str, key: str) -> str:
    """Return what adds grants to the series `one`, from a table of numbers. `key` is the grant key of the number i."""
    return f"""
INSERT INTO series_grants (series_id, grant_key, timestamp, max_uses, keep_until)
SELECT 'one', {key}, {START} + i, 1, {START} + 7500 FROM {numbers}
"""
