"""`uponce fence` beside a running server, after its database lost what a restore loses."""

import json
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.commands import as_json, beside, code_of, printed, settings_of, uponce
from tests.server import Key, Server
from uponce.adapters.database.sqlite import file
from uponce.adapters.database.statements import load_migrations
from uponce.core.signature import utc


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "data") as server:
        yield server


def test_what_a_restored_backup_has_forgotten_is_refused(tmp_path: Path) -> None:
    """And a signature that is newer than the fence is not."""
    with Server(tmp_path / "data", env={"UPONCE_SKEW": "0"}) as server:
        _refuse_what_was_forgotten(server)


def _refuse_what_was_forgotten(server: Server) -> None:
    forgotten = [server.signed({"nonce": str(number)}) for number in range(2)]
    assert [code_of(server, fields) for fields in forgotten] == ["", ""]
    with closing(sqlite3.connect(server.data_dir / "uponce.db")) as database, database:
        database.execute("DELETE FROM grants")
    assert code_of(server, forgotten[0]) == ""  # this is what the fence is against
    before = int(time.time())
    done = uponce("fence", "--json", env=settings_of(server) | {"UPONCE_SKEW": "0"})
    watermark = json.loads(printed(done))["watermark"]
    assert before <= watermark <= time.time()
    told = server.post(forgotten[1], b"other bytes").json()["error"]
    assert told["code"] == "stale_request"
    assert told["message"].endswith("Ask for a new signature.")
    time.sleep(1)
    assert code_of(server, server.signed(timestamp=watermark + 1)) == ""


def test_a_fence_in_a_shell_without_the_settings_of_the_server(tmp_path: Path) -> None:
    """The server accepted timestamps up to its own skew."""
    data = tmp_path / "data"
    before = int(time.time())
    with Server(data, env={"UPONCE_SKEW": "5000"}):
        pass
    assert json.loads(printed(uponce("fence", "--json", "--data", data)))["watermark"] >= before + 5000


def test_a_fence_upgrades_an_older_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the first server would do it, without a fence."""
    printed(uponce("keys", "create", "--data", tmp_path))
    steps = [*load_migrations("sqlite"), "CREATE TABLE later (x int);"]
    monkeypatch.setattr(file, "load_migrations", lambda _: steps)
    assert uponce("keys", "list", "--data", tmp_path).code == 1
    printed(uponce("fence", "--data", tmp_path))
    with closing(sqlite3.connect(tmp_path / "uponce.db")) as database:
        assert database.execute("PRAGMA user_version").fetchall() == [(len(steps),)]
        assert database.execute("SELECT count(*) FROM api_keys WHERE watermark > 0").fetchall() == [(1,)]


def test_fresh_signatures_wait_for_the_skew_and_new_keys_do_not(server: Server) -> None:
    before = int(time.time())
    told = printed(beside(server, "fence"))
    marks = [second + 300 for second in range(before, int(time.time()) + 1)]
    assert any(f"up to {utc(mark)} from now on" in told for mark in marks)
    assert code_of(server, server.signed()) == "stale_request"
    made = re.search(r"//(\w+):(\w+)@", as_json(server, "keys", "create")["cloudinary_url"])
    assert made is not None
    assert code_of(server, server.signed(key=Key(made[1], made[2]))) == ""


def forget_owner(data: Path) -> None:
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("DELETE FROM owner")


def test_a_fence_is_told_also_if_the_storage_cannot_be_asked(tmp_path: Path) -> None:
    data, env = tmp_path / "data", {"UPONCE_SKEW": "0"}
    printed(uponce("keys", "create", "--data", data))
    (data / "media" / "owner").unlink()
    (data / "media" / "owner").mkdir()
    done = uponce("fence", "--data", data, env=env)
    assert done.code == 1
    assert "uponce refuses every signature with a timestamp up to" in done.stderr


def test_a_database_restored_by_other_tools_takes_its_storage_back(tmp_path: Path) -> None:
    """Its dump is from before the storage had an owner."""
    data = tmp_path / "data"
    with Server(data) as server:
        assert code_of(server, server.signed()) == ""
    for told in ("UPONCE_STORAGE belongs to this database now", "Sweeps delete the files there"):
        forget_owner(data)
        refused = uponce("sweep", "--data", data)
        assert refused.code == 1
        assert "run `uponce fence`. Sweeps then delete" in refused.stderr
        assert told in printed(uponce("fence", "--data", data, env={"UPONCE_SKEW": "0"}))
    forget_owner(data)
    for is_taken in (True, False):
        done = json.loads(printed(uponce("fence", "--json", "--data", data, env={"UPONCE_SKEW": "0"})))
        assert done["storage_taken"] is is_taken
    with Server(data):
        pass  # it starts


def test_a_copy_that_names_few_files_takes_the_storage_only_if_its_operator_says_so(tmp_path: Path) -> None:
    data, env = tmp_path / "data", {"UPONCE_SKEW": "0"}
    with Server(data) as server:
        assert [code_of(server, server.signed({"nonce": str(number)})) for number in range(2)] == ["", ""]
    forget_owner(data)
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("DELETE FROM assets WHERE id = 1")
    refused = uponce("fence", "--data", data, env=env)
    assert (refused.code, "uponce refuses every signature" in refused.stderr) == (1, True)
    assert "names 1 of 2 files there" in refused.stderr
    assert "belongs to this database now" in printed(uponce("fence", "--take-storage", "--data", data, env=env))


def test_a_clock_behind_the_database_is_refused_unless_its_operator_trusts_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data) as server:
        assert code_of(server, server.signed()) == ""
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("UPDATE audit SET at = at + 10000")
    for words in (("fence",), ("migrate-store", "--undo")):
        refused = uponce(*words, "--data", data)
        assert (refused.code, "seconds behind the newest time in the database" in refused.stderr) == (1, True)
        printed(uponce(*words, "--trust-clock", "--data", data))
        if words == ("fence",):
            printed(uponce("migrate-store", "--to-database", f"sqlite:///{tmp_path}/new.db", "--data", data))
