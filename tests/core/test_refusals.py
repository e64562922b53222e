"""What is said about a grant that the ledger knows."""

import pytest

from uponce.core.errors import SignatureRevoked, SignatureUsed
from uponce.core.refusals import refusal_of
from uponce.core.values import UNLIMITED_USES, Grant, GrantRecord, GrantStatus

TIME = 1712841818


def _record(uses: int, max_uses: int = 1, revoked_at: int | None = None, spent_at: int | None = TIME) -> GrantRecord:
    grant = Grant(key=b"k", cloud="demo", api_key="1", timestamp=TIME, max_uses=max_uses, keep_until=TIME + 9)
    return GrantRecord(grant, uses=uses, spent_at=spent_at if uses else None, revoked_at=revoked_at)


@pytest.mark.parametrize(("uses", "max_uses"), [(0, 1), (1, 2), (10**9, UNLIMITED_USES)])
def test_a_use_that_is_left_is_not_refused(uses: int, max_uses: int) -> None:
    assert refusal_of(_record(uses, max_uses), max_uses) is None


@pytest.mark.parametrize(("uses", "of_row", "of_request"), [(1, 1, 1), (2, 2, 2), (2, 5, 1), (1, 1, 5)])
def test_a_spent_grant_is_refused_with_its_time_and_the_cure(uses: int, of_row: int, of_request: int) -> None:
    """A policy that was tightened or loosened after the row was written revives nothing."""
    refusal = refusal_of(_record(uses, of_row), of_request)
    assert isinstance(refusal, SignatureUsed)
    assert "was already used by an upload that completed at 2024-04-11 13:23:38 +0000" in refusal.message
    assert "sign a different nonce for each file, or use a key of unlimited uses" in refusal.message


@pytest.mark.parametrize("uses", [0, 1])
def test_revoked_comes_first(uses: int) -> None:
    refusal = refusal_of(_record(uses, revoked_at=TIME), 1)
    assert isinstance(refusal, SignatureRevoked)
    assert refusal.message == "This signature was revoked at 2024-04-11 13:23:38 +0000. Ask for a new signature."


@pytest.mark.parametrize(
    ("record", "status"),
    [
        (_record(0), GrantStatus.UNUSED),
        (_record(1), GrantStatus.USED),
        (_record(1, max_uses=2), GrantStatus.UNUSED),
        (_record(2, max_uses=2), GrantStatus.USED),
        (_record(0, revoked_at=TIME), GrantStatus.REVOKED),
        (_record(1, max_uses=2, revoked_at=TIME), GrantStatus.REVOKED),
    ],
)
def test_status(record: GrantRecord, status: GrantStatus) -> None:
    assert record.status is status
