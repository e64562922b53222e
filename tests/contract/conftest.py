"""Fixtures of the contract suites: each runs on every back end of its port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.databases import BACKENDS, KEY, Backend, run
from uponce.adapters.database.postgres import pool, session
from uponce.app.ports import Database


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Healthy groups take longer than two seconds, and a condemnation waits for them, where a machine stalls."""
    monkeypatch.setattr(pool, "_STUCK_SECONDS", 60.0)
    monkeypatch.setattr(session, "OWN_MILLISECONDS", 60_000)


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    backend.stop()


@pytest.fixture
def database(backend: Backend) -> Database:
    """A server that knows KEY."""
    database = backend.server()
    run(database.add_key(KEY))
    return database
