"""Fixtures of the contract suites: each runs on every back end of its port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.databases import BACKENDS, KEY, Backend, run, wait_long
from uponce.app.ports import Database


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    wait_long(monkeypatch.setattr)


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
