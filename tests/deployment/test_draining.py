"""A server that received SIGTERM shows that to its balancer before it stops."""

import os
import signal
import time
from pathlib import Path

import pytest

from tests.e2e.commands import code_of
from tests.server import Server, accepts

pytestmark = pytest.mark.proof

DRAIN_SECONDS = 20
ROUNDS = 5  # at most: other work on the machine only adds time


@pytest.mark.parametrize("workers", [1, 2])
def test_it_serves_for_a_moment_and_is_not_ready(tmp_path: Path, workers: int) -> None:
    environment = {"UPONCE_DRAIN_SECONDS": str(DRAIN_SECONDS)}
    with Server(tmp_path / "data", workers=workers, env=environment) as server:
        told = time.monotonic()
        os.kill(server.pid, signal.SIGTERM)
        while (answer := server.get("/readyz")).status == 200:
            assert time.monotonic() < told + DRAIN_SECONDS
        told_why = "Shutting down: this server accepts requests for a few more seconds."
        assert answer.json()["checks"] == {"server": told_why}
        assert code_of(server, server.signed()) == ""
        assert server.get("/healthz").status == 200
        server.stop()


def test_without_the_setting_it_stops_at_once(tmp_path: Path) -> None:
    assert any(stops_at_once(tmp_path / str(number)) for number in range(ROUNDS))


def stops_at_once(folder: Path) -> bool:
    """Whether a server has stopped while another one, which got SIGTERM before, still serves for a moment."""
    folder.mkdir()
    environment = {"UPONCE_DRAIN_SECONDS": "3"}
    with Server(folder / "drains", env=environment) as other, Server(folder / "data") as server:
        os.kill(other.pid, signal.SIGTERM)
        server.stop()
        return accepts(other.port)
