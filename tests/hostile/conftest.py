"""A real server on loopback for each module of the battery, and an honest client of it."""

from collections.abc import Iterator

import pytest

from tests.hostile.frame import Honest
from tests.server import Server


@pytest.fixture(scope="module")
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """With the module's SETTINGS, where it has some. It has two decoders as by default: an attack may hold one."""
    settings = {"UPONCE_LOG_LEVEL": "info", "UPONCE_DECODERS": "2", **getattr(request.module, "SETTINGS", {})}
    with Server(tmp_path_factory.mktemp("hostile") / "data", env=settings) as server:
        yield server


@pytest.fixture
def honest(server: Server) -> Honest:
    return Honest(server)
