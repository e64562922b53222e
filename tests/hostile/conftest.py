"""A real server on loopback for each module of the battery, and an honest client of it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.hostile.frame import Honest
from tests.server import Server

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """One process of the test run takes a whole module: its server starts once."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.xdist_group(f"hostile {item.path.stem}"))


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the module's SETTINGS, where it has some. It has two decoders as by default: an attack may hold one."""
    settings = {"UPONCE_LOG_LEVEL": "info", "UPONCE_DECODERS": "2", **getattr(request.module, "SETTINGS", {})}
    with Server(tmp_path_factory.mktemp("hostile") / "data", env=settings) as server:
        yield server


@pytest.fixture
def honest(server: Server) -> Honest:
    return Honest(server)
