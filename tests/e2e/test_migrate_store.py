"""From one box to PostgreSQL and S3 and back, beside running servers: what was spent stays spent."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import obstore
import pytest

from tests import postgres
from tests.e2e.commands import (
    Done,
    as_json,
    beside,
    code_of,
    in_a_process,
    killed_amid_copying,
    printed,
    settings_of,
    uponce,
)
from tests.e2e.traffic import Traffic
from tests.server import Server
from tests.stores import seaweedfs
from tests.stores.seaweedfs import BUCKET
from uponce.adapters.store.records import HEADER_BYTES
from uponce.app.copy_media import _Copier

pytestmark = pytest.mark.xdist_group("object-storage")

FILES = 30


class Signed(NamedTuple):
    """One signature of each kind."""

    spent: dict[str, str]
    fresh: dict[str, str]
    revoked: dict[str, str]
    repeated: dict[str, str]


class Elsewhere(NamedTuple):
    """An empty PostgreSQL and a place in a bucket; `environment` is what servers there are started with."""

    database: str
    storage: str
    environment: dict[str, str]

    @property
    def credentials(self) -> dict[str, str]:
        return {name: value for name, value in self.environment.items() if name.startswith("AWS_")}


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Server]:
    with Server(tmp_path / "box", env={"UPONCE_SKEW": "0"}) as server:
        yield server


@pytest.fixture
def elsewhere() -> Elsewhere:
    store = seaweedfs.shared()
    database, storage = postgres.shared().fresh_schema(), store.fresh_url()
    return Elsewhere(database, storage, {**store.environment, "UPONCE_DATABASE": database, "UPONCE_STORAGE": storage})


def fill(server: Server) -> Signed:
    for number in range(FILES):
        fields = server.signed({"public_id": f"file-{number}", "nonce": f"file {number}"})
        assert server.post(fields, f"file {number}".encode() * 20_000, resource_type="raw").status == 200
    signed = Signed(*(server.signed({"nonce": name}) for name in Signed._fields))
    assert code_of(server, signed.spent) == ""
    words = [f"{name}={value}" for name, value in signed.revoked.items()]
    printed(beside(server, "signatures", "revoke", *words))
    repeat(server, signed.repeated)
    return signed


def repeat(server: Server, fields: dict[str, str]) -> str | None:
    answer = server.post(fields, b"again", resource_type="raw", headers={"Idempotency-Key": "once"})
    assert answer.status == 200, answer.data
    return answer.headers.get("idempotent-replayed")


def secret_key(server: Server) -> str:
    return (server.data_dir / "secret.key").read_bytes().hex()


def names(server: Server) -> None:
    """All files are delivered as they were."""
    for number in range(FILES):
        found = server.get(f"/{server.cloud}/raw/upload/file-{number}")
        assert found.data == f"file {number}".encode() * 20_000


def judged(server: Server, signed: Signed) -> dict[str, str]:
    return {name: code_of(server, getattr(signed, name)) for name in ("spent", "fresh", "revoked")}


def objects(place: Elsewhere) -> int:
    store = seaweedfs.shared().store(place.storage.removeprefix(f"s3://{BUCKET}/"))
    return sum(len(batch) for batch in obstore.list(store, "blobs"))


@pytest.mark.proof
def test_from_one_box_to_postgresql_and_s3_and_back(box: Server, elsewhere: Elsewhere, tmp_path: Path) -> None:
    """Killed in the middle and run again; a signature is used once, wherever its store was."""
    signed = fill(box)
    words = ["migrate-store", "--to-database", elsewhere.database, "--to-storage", elsewhere.storage, "--json"]
    killed_amid_copying(*words, "--data", box.data_dir, env=elsewhere.credentials)
    assert 3 <= objects(elsewhere) < FILES + 2
    data = {"UPONCE_DATA": str(box.data_dir)}
    moved = json.loads(printed(uponce(*words, env=elsewhere.credentials | data)))
    assert (moved["complete"], moved["media"]["lost"]) == (True, {})
    assert moved["rows"] == {
        "assets": FILES + 2,
        "condemned": 0,
        "audit": FILES + 3,
        "grants": FILES + 3,
        "replies": 1,
        "relays": 0,
        "relay_grants": 0,
        "outbox": 0,
        "upstreams": 0,
        "fences": 0,
        "api_keys": 2,
    }
    assert objects(elsewhere) == FILES + 2

    names(box)  # it goes on delivering, and takes nothing
    refused = box.post(signed.fresh, b"bytes")
    assert (refused.status, refused.json()["error"]["code"]) == (503, "database_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    ready = box.get("/readyz")
    assert (ready.status, ready.json()["checks"]["database"].startswith("The database is frozen")) == (503, True)
    assert box.get("/readyz?for=balancer").status == 200

    environment = elsewhere.environment | {"UPONCE_SECRET_KEY": secret_key(box)}
    with Server(tmp_path / "server", env=environment) as server:
        server.cloud, server.browser, server.server = box.cloud, box.browser, box.server
        assert server.urls == ()
        names(server)
        assert repeat(server, signed.repeated) == "true"
        assert judged(server, signed) == {"spent": "signature_used", "fresh": "", "revoked": "signature_revoked"}
        settings = environment | {"UPONCE_DATA": str(server.data_dir)}
        checked = uponce("fsck", "--deep", "--grace", "0", "--json", env=settings)
        assert (checked.code, json.loads(checked.stdout)["counts"]) == (0, {})

        back = tmp_path / "back"
        to = ["--to-database", f"sqlite:///{back}/uponce.db", "--to-storage", f"file://{back}/media"]
        told = printed(uponce("migrate-store", *to, env=settings))
        assert "moved and compared" in told and f"{FILES + 3:,} files" in told
        assert code_of(server, server.signed()) == "database_unavailable"
        assert server.get("/readyz").status == 503
    with Server(back, env={"UPONCE_SECRET_KEY": secret_key(box)}) as last:
        last.cloud, last.browser, last.server = box.cloud, box.browser, box.server
        names(last)
        assert judged(last, signed) == {
            "spent": "signature_used",
            "fresh": "signature_used",
            "revoked": "signature_revoked",
        }
        assert code_of(last, last.signed({"nonce": "new"})) == ""
        env = {"UPONCE_SECRET_KEY": secret_key(box)}
        checked = uponce("fsck", "--deep", "--grace", "0", "--json", "--data", back, env=env)
        assert (checked.code, json.loads(checked.stdout)["counts"]) == (0, {})

    with closing(sqlite3.connect(box.data_dir / "uponce.db")) as database, database:
        triggers = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'trigger'")]
        for name in triggers:
            if name.startswith("frozen_"):
                database.execute(f"DROP TRIGGER {name}")
    assert code_of(box, signed.fresh) == ""  # this is what freezing is against


@pytest.mark.proof
def test_under_uploads_nothing_that_was_acknowledged_stays_behind(
    box: Server, elsewhere: Elsewhere, tmp_path: Path
) -> None:
    """Each upload gets a 200, and then its asset has moved and its signature is spent; or a 503."""
    words = ["--to-database", elsewhere.database, "--to-storage", elsewhere.storage]
    with Traffic(box) as traffic:
        while len(traffic.spent) < 30:
            time.sleep(0.05)
        printed(uponce("migrate-store", *words, env=elsewhere.credentials | {"UPONCE_DATA": str(box.data_dir)}))
        refused = len(traffic.refused)
        while len(traffic.refused) < refused + 3:
            time.sleep(0.05)
    assert set(traffic.refused) == {"database_unavailable"}
    environment = elsewhere.environment | {"UPONCE_SECRET_KEY": secret_key(box)}
    with Server(tmp_path / "server", env=environment) as server:
        server.cloud, server.browser = box.cloud, box.browser
        for name, contents in traffic.made.items():
            assert server.get(f"/{server.cloud}/raw/upload/{name}").data == contents[-1]
        assert {code_of(server, fields) for fields in traffic.spent} == {"signature_used"}
        settings = environment | {"UPONCE_DATA": str(server.data_dir)}
        assert json.loads(printed(uponce("fsck", "--deep", "--json", env=settings)))["damage"] == 0


@pytest.mark.proof
def test_a_move_that_is_given_up(box: Server, elsewhere: Elsewhere) -> None:
    """The box takes uploads again, except with signatures that may have been used elsewhere."""
    signed = fill(box)
    settings = {"UPONCE_DATA": str(box.data_dir), "UPONCE_SKEW": "0", **elsewhere.credentials}
    to = ["--to-database", elsewhere.database, "--to-storage", elsewhere.storage]
    printed(uponce("migrate-store", *to, env=settings))
    assert "an earlier run has moved the store there" in printed(uponce("migrate-store", *to, env=settings))
    told = printed(uponce("migrate-store", "--undo", env=settings))
    assert "this store takes uploads again" in told
    assert judged(box, signed) == dict.fromkeys(("spent", "fresh", "revoked"), "stale_request")
    time.sleep(1)
    assert code_of(box, box.signed({"nonce": "after"})) == ""
    again = uponce("migrate-store", *to, env=settings)
    assert (again.code, "has other API keys already" in again.stderr) == (1, True)


def flip(pack: Path) -> None:
    """A bit of its first blob."""
    with pack.open("r+b") as file:
        file.seek(HEADER_BYTES)
        (byte,) = file.read(1)
        file.seek(HEADER_BYTES)
        file.write(bytes([byte ^ 1]))


@pytest.mark.proof
def test_media_that_are_lost_stop_the_move(box: Server, elsewhere: Elsewhere) -> None:
    """Before any row is written."""
    fill(box)
    pack = next((box.data_dir / "media" / "packs").iterdir())
    flip(pack)
    settings = {"UPONCE_DATA": str(box.data_dir), **elsewhere.credentials}
    to = ["--to-database", elsewhere.database, "--to-storage", elsewhere.storage]
    done = uponce("migrate-store", *to, env=settings)
    assert (done.code, "1 assets have lost their bytes" in done.stderr) == (1, True)
    assert "only media have moved" in done.stderr
    flip(pack)
    assert "moved and compared" in printed(uponce("migrate-store", *to, env=settings))


@pytest.mark.proof
def test_only_the_database_moves(box: Server, elsewhere: Elsewhere, tmp_path: Path) -> None:
    """Media stay where they are."""
    signed = fill(box)
    moved = as_json(box, "migrate-store", "--to-database", elsewhere.database)
    assert (moved["complete"], moved["media"]) == (True, None)
    environment = {
        "UPONCE_DATABASE": elsewhere.database,
        "UPONCE_STORAGE": f"file://{box.data_dir}/media",
        "UPONCE_SECRET_KEY": secret_key(box),
    }
    with Server(tmp_path / "server", env=environment) as server:
        server.cloud, server.browser, server.server = box.cloud, box.browser, box.server
        names(server)
        assert judged(server, signed)["spent"] == "signature_used"


def test_where_it_does_not_move(box: Server, tmp_path: Path) -> None:
    """Usage errors leave the store as it was."""
    assert beside(box, "migrate-store").code == 2
    assert beside(box, "migrate-store", "--undo", "--to-database", "postgresql://db/uponce").code == 2
    assert beside(box, "migrate-store", "--to-database", "-").code == 2  # nothing comes from the standard input
    elsewhere = f"sqlite:///{tmp_path}/new.db"
    for words in (("--to-database", ""), ("--to-database", elsewhere, "--to-storage", "")):  # a variable that is unset
        empty = beside(box, "migrate-store", *words)
        assert (empty.code, f"{words[-2]} is empty" in empty.stderr) == (2, True)
    itself = beside(box, "migrate-store", "--to-database", f"sqlite:///{box.data_dir}/uponce.db")
    assert (itself.code, "is in that database already" in itself.stderr) == (1, True)
    other = Path(tmp_path / "other")
    printed(uponce("keys", "create", "--data", other))
    taken = beside(box, "migrate-store", "--to-database", "-", stdin=f"sqlite:///{other}/uponce.db\n")
    assert (taken.code, "The secret of" in taken.stderr) == (1, True)
    for url in (
        "postgresql://uponce:hidden@127.0.0.1:1/db",
        "postgresql://uponce@127.0.0.1:1/db?password=hidden",
        "postgresql://uponce@server:hidden@127.0.0.1:1/db",
    ):
        shown = beside(box, "migrate-store", "--to-database", url)
        assert (shown.code, "was on the command line" in shown.stderr) == (1, True)
    without = beside(box, "migrate-store", "--to-database", "postgresql://uponce@127.0.0.1:1/db")
    assert (without.code, "was on the command line" in without.stderr) == (1, False)
    hidden = beside(box, "migrate-store", "--to-database", "-", stdin="postgresql://uponce:hidden@127.0.0.1:1/db")
    assert (hidden.code, "was on the command line" in hidden.stderr) == (1, False)
    assert code_of(box, box.signed()) == ""


@pytest.mark.parametrize("cure", ["move", "undo"])
def test_files_that_an_interrupted_move_left_are_deleted(box: Server, tmp_path: Path, cure: str) -> None:
    """A move to a bucket copies each file here first. Its asset may be deleted before the next run."""
    spool = box.data_dir / "moving" / "spool"
    spool.mkdir(parents=True)
    left, other = spool / ("a" * 32), spool / "other"
    for path in (left, other):
        path.write_bytes(b"half of it")
    words = ("--undo",) if cure == "undo" else ("--to-database", f"sqlite:///{tmp_path}/new.db")
    printed(beside(box, "migrate-store", *words))
    assert (left.exists(), other.exists()) == (False, True)


def test_a_store_that_is_not_frozen_has_nothing_to_undo(box: Server) -> None:
    """As in the shell of the new store. A fence would refuse the signatures that clients have now."""
    signed = box.signed()
    assert "this store is not frozen: nothing was changed" in printed(beside(box, "migrate-store", "--undo"))
    assert code_of(box, signed) == ""


@pytest.mark.proof
def test_two_moves_from_one_data_folder_do_not_meet(
    box: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one would delete what the faster one has counted as copied."""
    assert code_of(box, box.signed()) == ""
    words = ("migrate-store", "--to-database", f"sqlite:///{tmp_path}/new.db", "--to-storage", f"file://{tmp_path}/new")
    others: list[Done] = []
    copy = _Copier._copy

    async def amid(copier: _Copier, key: str) -> None:
        env = settings_of(box)
        others.extend(in_a_process(*other, env=env) for other in (words, ("migrate-store", "--undo")))
        await copy(copier, key)

    monkeypatch.setattr(_Copier, "_copy", amid)
    assert "moved and compared" in printed(beside(box, *words))
    assert [(other.code, "Another `uponce migrate-store` is running" in other.stderr) for other in others] == [
        (1, True),
        (1, True),
    ]
    told = printed(beside(box, *words))
    assert "an earlier run has moved the store there" in told and "Set UPONCE_STORAGE of every server" in told
