"""Tables of commands: no identifier is cut, on a narrow terminal and in a pipe."""

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import pytest

from tests.e2e.commands import printed, uponce

pytestmark = pytest.mark.xdist_group("command line")

CLOUD = "the-photos-of-our-members"
NAME = "browser of the new site"
SUBJECT = "ab" * 16
SIGNATURE = f"{1_800_000_000:010x}" + "cd" * 27
ERROR = "the receiver https://app.example/some/long/path/of/a/hook answered 500 " * 4


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    printed(uponce("keys", "create", "--cloud", CLOUD, "--name", NAME, "--data", folder))
    for _ in range(4):
        printed(uponce("keys", "create", "--cloud", CLOUD, "--name", "[/bold] [red]", "--data", folder))
    with closing(sqlite3.connect(folder / "uponce.db")) as database, database:
        database.execute(
            "INSERT INTO outbox (id, name, receiver, subject, details, due_at, tries, error, created_at, dead) "
            "VALUES (123456789, 'notify', '-', ?, '', 1, 32, ?, 1, 1)",
            (SUBJECT, ERROR),
        )
    return folder


def identifiers(data: Path, command: str) -> list[str]:
    keys = [row["api_key"] for row in json.loads(printed(uponce("keys", "list", "--json", "--data", data)))]
    return {"keys": keys, "clouds": [CLOUD, *keys], "outbox": ["123456789"]}[command]


@pytest.mark.parametrize("command", ["keys", "clouds", "outbox"])
def test_a_pipe_gets_a_line_for_each_row(data: Path, command: str) -> None:
    told = printed(uponce(command, "list", "--data", data, env={"COLUMNS": "80"}))
    assert all(word in told for word in identifiers(data, command))
    assert len(told.splitlines()) == {"keys": 6, "clouds": 2, "outbox": 2}[command]
    assert "…" not in told
    assert ERROR.strip() in told or command != "outbox"
    assert "[/bold] [red]" in told or command != "keys"


@pytest.mark.parametrize("command", ["keys", "clouds", "outbox"])
def test_a_narrow_terminal_shows_each_identifier_whole(data: Path, command: str) -> None:
    told = on_a_terminal(command, "list", "--data", str(data))
    assert max(map(len, told.splitlines())) <= 80
    assert all(word in told for word in identifiers(data, command))
    assert "…" not in told


def test_a_narrow_terminal_shows_the_id_and_both_times_of_a_signature(data: Path) -> None:
    """They are wider than 80 columns together, and a row of broken cells cannot be read."""
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute(
            "INSERT INTO grants (grant_key, cloud, api_key, timestamp, max_uses, uses, keep_until, spent_at) "
            "VALUES (?, ?, '1', 1800000000, 1, 1, 1900000000, 1800000005)",
            (bytes.fromhex(SIGNATURE), CLOUD),
        )
    _, row = on_a_terminal("signatures", "list", "--cloud", CLOUD, "--data", str(data)).splitlines()
    signed, used = "2027-01-15 08:00:00 +0000", "2027-01-15 08:00:05 +0000"
    assert re.split(" {2,}", row.strip()) == [SIGNATURE, "used", signed, used, "1"]


def on_a_terminal(*words: str) -> str:
    """What a terminal of 80 columns shows."""
    ours, theirs = pty.openpty()
    env = {**os.environ, "COLUMNS": "80", "TERM": "xterm", "NO_COLOR": "1"}
    with subprocess.Popen([sys.executable, "-m", "uponce", *words], stdout=theirs, env=env) as command:
        os.close(theirs)
        told = b""
        with suppress(OSError), open(ours, "rb", buffering=0) as terminal:  # EIO at the end
            while block := terminal.read(65_536):
                told += block
    assert command.returncode == 0
    return re.sub(r"\x1b\[\d*m", "", told.decode()).replace("\r\n", "\n")
