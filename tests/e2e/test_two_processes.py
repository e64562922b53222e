"""Several processes on one folder: what one of them commits, the others show in their very next answer."""

import os
import secrets
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.commands import uponce
from tests.server import Server, asked

pytestmark = pytest.mark.proof

# A server that ends hands its record back to an earlier one, also if that one stalls for a moment.
PATIENT = """
from uponce.cli import address, main
address._LAST_PROBE_SECONDS = 60
main()
"""
ROUNDS = 5  # at most: a machine may stall for longer than a command waits, and a fault is there in every round


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Server, Server]]:
    data, program = tmp_path / "data", ("-c", PATIENT)
    with Server(data, program=program) as one, Server(data, program=program) as two:
        two.cloud, two.server = one.cloud, one.server
        yield one, two


def store(server: Server, public_id: str) -> bytes:
    body = secrets.token_bytes(500)
    fields = server.signed({"public_id": public_id, "nonce": secrets.token_hex(8)}, server.server)
    assert server.post(fields, body, resource_type="raw").status == 200
    return body


def test_the_first_get_after_an_answer_shows_what_it_did(pair: tuple[Server, Server]) -> None:
    one, two = pair
    path = f"/{one.cloud}/raw/upload/note"
    for number in range(8):
        body = store(pair[number % 2], "note")
        for _ in range(2):
            assert one.get(path).data == two.get(path).data == body
    url = f"{two.base}/v1_1/{two.cloud}/raw/destroy"
    answer = asked("POST", url, fields=two.signed({"public_id": "note"}, one.server))
    assert answer.json() == {"result": "ok"}
    assert one.get(path).status == two.get(path).status == 404


def test_it_shows_any_commit_also_while_the_old_bytes_are_there(pair: tuple[Server, Server]) -> None:
    """The commit is this process's own: two assets change their names."""
    one, two = pair
    bodies = {"a": store(one, "a"), "b": store(two, "b")}
    with closing(sqlite3.connect(one.data_dir / "uponce.db", isolation_level=None)) as connection:
        for _ in range(8):
            for server in pair:
                found = {name: server.get(f"/{one.cloud}/raw/upload/{name}").data for name in bodies}
                assert found == bodies
            connection.executescript(
                "BEGIN IMMEDIATE; UPDATE assets SET public_id = 'c' WHERE public_id = 'a';"
                "UPDATE assets SET public_id = 'a' WHERE public_id = 'b';"
                "UPDATE assets SET public_id = 'b' WHERE public_id = 'c'; COMMIT"
            )
            bodies = {"a": bodies["b"], "b": bodies["a"]}


def test_commands_find_the_server_that_stays(pair: tuple[Server, Server]) -> None:
    first, second = pair
    assert found_by_a_command(first) == (second.base, "")
    second.stop()
    assert found_by_a_command(first) == (first.base, "")
    second.start()
    first.stop()
    assert found_by_a_command(second) == (second.base, "")
    second.stop()
    assert "No server runs on" in found_by_a_command(second)[1]


def test_a_command_waits_for_a_server_that_answers_late(tmp_path: Path) -> None:
    """As on a busy machine."""
    with Server(tmp_path / "data") as server:
        assert any(found_late(server) == (server.base, "") for _ in range(ROUNDS))


def found_late(server: Server) -> tuple[str, str]:
    """What a command finds whose server answers after four seconds."""
    os.kill(server.pid, signal.SIGSTOP)
    waking = threading.Timer(4, os.kill, (server.pid, signal.SIGCONT))
    waking.start()
    try:
        return found_by_a_command(server)
    finally:
        waking.join()


def found_by_a_command(server: Server) -> tuple[str, str]:
    """The address for which `uponce sign` signs, and its warning."""
    done = uponce("sign", "--data", server.data_dir)
    return done.stdout.partition("/v1_1/")[0], done.stderr
