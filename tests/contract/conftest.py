"""Fixtures of the contract suites: each runs on every back end of its port."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.databases import BACKENDS, Backend


@pytest.fixture(params=sorted(BACKENDS))
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Backend]:
    backend = BACKENDS[request.param](tmp_path)
    yield backend
    backend.stop()
