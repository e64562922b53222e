"""Notifications of a server as a process: a kill loses none, and the settings count."""

import json
import time
from pathlib import Path

import pytest

from tests.receiver import Receiver, receiving
from tests.server import Server

pytestmark = pytest.mark.xdist_group("serve")


def wait_for(receiver: Receiver, count: int) -> None:
    deadline = time.monotonic() + 180  # a claim of the killed server lasts two minutes
    while len(receiver.got) < count:
        assert time.monotonic() < deadline, receiver.got
        time.sleep(0.1)


def test_a_killed_server_posts_what_it_owes_after_it_starts_again(tmp_path: Path) -> None:
    with receiving(500) as receiver:
        environment = {
            "UPONCE_DECODERS": "1",
            "UPONCE_NOTIFICATION_URL": f"{receiver.url}/uploaded",
            "UPONCE_NOTIFICATION_NETWORKS": "127.0.0.0/8",
            "UPONCE_PUBLIC_URL": "https://media.example",
        }
        with Server(tmp_path / "data", env=environment) as server:
            answer = server.post(server.signed(), b"some text").json()
            server.kill()
            server.start()
            wait_for(receiver, 2)
        first, second = (json.loads(body) for _, body in receiver.got[:2])
        assert first["asset_id"] == second["asset_id"] == answer["asset_id"]
        assert second["secure_url"].startswith("https://media.example/")
