"""Fixtures of the tests of PostgreSQL."""

import pytest

from uponce.adapters.database.postgres import pool, session


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy servers keep their locks for longer than a second or two where a machine stalls."""
    monkeypatch.setattr(pool, "_STUCK_SECONDS", 60.0)
    monkeypatch.setattr(session, "OWN_MILLISECONDS", 60_000)
