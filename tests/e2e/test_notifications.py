"""Notifications of a server as a process: a kill loses none, and the settings count."""

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.commands import printed, uponce
from tests.e2e.test_readme import block
from tests.receiver import Receiver, receiving
from tests.server import Server

pytestmark = pytest.mark.xdist_group("serve")


def wait_for(receiver: Receiver, count: int) -> None:
    deadline = time.monotonic() + 180  # a claim of the killed server lasts two minutes
    while len(receiver.got) < count:
        assert time.monotonic() < deadline, receiver.got
        time.sleep(0.1)


def put_dead(data: Path, *names: str) -> None:
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        for name in names:
            database.execute(
                "INSERT INTO outbox (name, receiver, subject, details, due_at, tries, error, created_at, dead) "
                "VALUES (?, '-', 'a', '', 1, 32, 'gone', 1, 1)",
                (name,),
            )


def test_the_list_says_when_a_dead_notification_ends(data: Path) -> None:
    """By the setting of the server, if one has started."""
    put_dead(data, "notify")
    words = ("--data", data)
    assert "dead, kept until 1970-01-31" in printed(uponce("outbox", "list", *words))
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("INSERT INTO noted_settings VALUES ('notification_days', '1')")
    assert "dead, kept until 1970-01-02" in printed(uponce("outbox", "list", *words))
    assert "Dead notifications stay" in printed(uponce("sweep", *words))
    (listed,) = json.loads(printed(uponce("outbox", "list", "--json", *words)))
    assert listed["kept_until"] == 86401
    printed(uponce("sweep", *words, env={"UPONCE_NOTIFICATION_DAYS": "1"}))
    assert json.loads(printed(uponce("outbox", "list", "--json", *words))) == []


def test_dead_notifications_can_be_dropped(data: Path) -> None:
    """A receiver that is gone would leave one for each upload, for ever."""
    put_dead(data, "notify", "notify", "relay")
    words = ("--data", data)
    assert printed(uponce("outbox", "drop", "2", *words)) == "1 dead notifications are dropped\n"
    again = uponce("outbox", "drop", "2", *words)
    assert (again.code, again.stderr) == (
        1,
        "uponce: There is no dead notification 2. `uponce outbox list` shows all.\n",
    )
    assert uponce("outbox", "drop", "3", *words).code == 1  # the look-up of a relay
    assert printed(uponce("outbox", "drop", *words)) == "1 dead notifications are dropped\n"
    (left,) = json.loads(printed(uponce("outbox", "list", "--json", *words)))
    assert (left["name"], left["kept_until"]) == ("relay", None)
    assert printed(uponce("outbox", "retry", *words)) == "1 effects are due now\n"


@pytest.mark.proof
def test_a_killed_server_posts_what_it_owes_after_it_starts_again(tmp_path: Path) -> None:
    with receiving(500) as receiver:
        environment = {
            "UPONCE_NOTIFICATION_URL": f"{receiver.url}/uploaded",
            "UPONCE_NOTIFICATION_NETWORKS": "127.0.0.0/8",
            "UPONCE_PUBLIC_URL": "https://media.example",
        }
        with Server(tmp_path / "data", env=environment) as server:
            answer = server.post(server.signed(), b"some text").json()
            wait_for(receiver, 1)
            server.kill()
            with closing(sqlite3.connect(server.data_dir / "uponce.db")) as database, database:
                database.execute("UPDATE outbox SET due_at = 1")  # as if the pause before the next try were over
            server.start()
            wait_for(receiver, 2)
        first, second = (json.loads(body) for _, body in receiver.got[:2])
        assert first["asset_id"] == second["asset_id"] == answer["asset_id"]
        assert second["secure_url"].startswith("https://media.example/")


def test_without_a_public_url_a_notification_leads_to_the_server_and_the_operator_is_warned(tmp_path: Path) -> None:
    """The port may be chosen at the start, and no client can call every address."""
    with receiving(200) as receiver:
        environment = {
            "UPONCE_DECODERS": "1",
            "UPONCE_HOST": "0.0.0.0",
            "UPONCE_NOTIFICATION_URL": f"{receiver.url}/uploaded",
            "UPONCE_NOTIFICATION_NETWORKS": "127.0.0.0/8",
        }
        server = Server(tmp_path / "data", env=environment)
        server.port = 0
        with server:
            answer = server.post(server.signed(), b"some text").json()
            wait_for(receiver, 1)
            assert json.loads(receiver.got[0][1])["url"] == answer["url"]
            assert answer["url"].startswith(f"http://127.0.0.1:{server.port}/")
            warning = (
                "UPONCE_HOST is 0.0.0.0, so URLs in notifications lead to this machine only. Set UPONCE_PUBLIC_URL to "
                "the address that clients use."
            )
            assert f" - {warning}\n" in server.output
            done = uponce("doctor", "--json", "--data", tmp_path / "data", env=environment)
            found = [finding for finding in json.loads(done.stdout) if finding["name"] == "notifications"]
            assert [(each["state"], each["detail"]) for each in found] == [("warning", warning)]


def test_the_guide_signs_the_url_and_checks_what_arrives(tmp_path: Path) -> None:
    guide = "docs/guide/notifications.md"
    allowing = {"UPONCE_NOTIFICATION_NETWORKS": "127.0.0.0/8"}
    with receiving() as receiver, Server(tmp_path / "data", env=allowing) as server:
        sign = block(guide, "python", "uponce.sign(").replace("https://app.example", receiver.url)
        signed = json.loads(python(f"{sign}import json; print(json.dumps(signed))", server))
        assert server.post(signed["fields"], b"some text").status == 200
        wait_for(receiver, 1)
        ((headers, body),) = receiver.got
        check = block(guide, "python", "verify_notification_signature")
        for arrived, result in ((body, "True"), (body + b" ", "False")):
            assert python(f"body, headers = {arrived!r}, {headers!r}\n{check}print(genuine)", server).strip() == result


def python(code: str, server: Server) -> str:
    """Return what the code prints, with the key for browsers."""
    environment = {**os.environ, "CLOUDINARY_URL": server.urls[0]}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True, timeout=60)
