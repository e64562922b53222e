"""The operator's commands beside a running server: signatures, doctor, sweep, and what `serve` refuses."""

import json
import os
import re
import shutil
import sqlite3
import stat
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import samples
from tests.e2e.commands import as_json, beside, code_of, in_a_process, printed, settings_of, uponce
from tests.server import Server
from uponce.core.policy import MIB

pytestmark = pytest.mark.xdist_group("operator")


# --- signatures


def test_show_by_id_by_url_and_by_fields(server: Server) -> None:
    signed = as_json(server, "sign", "folder=seen")
    words = [f"{name}={value}" for name, value in signed["fields"].items()]
    url = server.upload_url() + "?" + "&".join(words)

    unused = as_json(server, "signatures", "show", *words)
    assert (unused["id"], unused["status"], unused["history"]) == (signed["id"], "unused", [])
    assert unused["expires_at"] == int(signed["fields"]["timestamp"]) + 3600

    answer = server.post(signed["fields"], samples.png(8)).json()
    assert code_of(server, signed["fields"]) == "signature_used"
    for which in ([signed["id"]], [url], words):
        shown = as_json(server, "signatures", "show", *which)
        assert (shown["id"], shown["status"], shown["uses"]) == (signed["id"], "used", 1)
        spent, refused = shown["history"]
        assert (spent["event"], spent["asset_id"]) == ("spent", answer["asset_id"])
        assert (refused["event"], refused["code"]) == ("refused", "signature_used")

    told = printed(beside(server, "signatures", "show", signed["id"]))
    assert re.search(rf"^id +{signed['id']}$", told, re.MULTILINE)
    assert re.search(r"^status +used$", told, re.MULTILINE)
    assert answer["public_id"] in told
    assert "Earlier rows" not in told
    told = printed(beside(server, "signatures", "show", signed["id"], "--limit", "1"))
    assert "Earlier rows of the history are not shown. For more rows, set --limit above 1." in told
    assert answer["public_id"] not in told
    assert "signature_used" in told


def test_show_says_that_an_upload_kept_the_asset_of_its_name(server: Server) -> None:
    first, second = (as_json(server, "sign", "public_id=taken", "overwrite=0") for _ in range(2))
    for number, signed in enumerate((first, second)):
        assert server.post(signed["fields"], samples.png(8 + number)).json()["public_id"] == "taken"
    lines = [printed(beside(server, "signatures", "show", signed["id"])).splitlines()[-1] for signed in (first, second)]
    assert [re.findall("spent +(taken  existing|taken)  ", line) for line in lines] == [["taken"], ["taken  existing"]]


def test_a_line_of_many_refusals_says_how_many(tmp_path: Path) -> None:
    with Server(tmp_path / "data", env={"UPONCE_REFUSALS_PER_GRANT": "1"}) as server:
        signed = as_json(server, "sign")
        server.post(signed["fields"], samples.png(8))
        for _ in range(4):
            assert code_of(server, signed["fields"]) == "signature_used"
        told = printed(beside(server, "signatures", "show", signed["id"]))
    assert re.findall(r"signature_used  127.0.0.1.*", told) == [
        "signature_used  127.0.0.1",
        "signature_used  127.0.0.1  3 times, the last one shown",
    ]


def test_files_of_one_name_do_not_replace_each_other(server: Server, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a.png", "b.png")]
    for number, file in enumerate(files):
        file.write_bytes(samples.png(number))
    done = beside(server, "upload", "--set", "public_id=same", *files)
    assert (done.code, done.stdout) == (2, "")
    assert "Upload one file at a time." in done.stderr


@pytest.mark.parametrize("by", ["url", "fields"])
def test_revoking_an_unused_signature(server: Server, by: str) -> None:
    signed = as_json(server, "sign", f"folder=revoked-{by}")
    words = [f"{name}={value}" for name, value in signed["fields"].items()]
    which = words if by == "fields" else [server.upload_url() + "?" + "&".join(words)]

    assert printed(beside(server, "signatures", "revoke", *which)) == f"revoked {signed['id']}\n"
    assert code_of(server, signed["fields"]) == "signature_revoked"
    assert as_json(server, "signatures", "show", signed["id"])["status"] == "revoked"
    again = beside(server, "signatures", "revoke", signed["id"])
    assert (again.code, again.stdout) == (0, f"revoked {signed['id']}\n")


def test_a_revoked_signature_stays_in_the_ledger_for_the_times_of_the_server(tmp_path: Path) -> None:
    """Else a purge would drop it too early, and the key's watermark would refuse long uploads at their commit."""
    with Server(tmp_path / "data", env={"UPONCE_MAX_UPLOAD_SECONDS": "21600", "UPONCE_SKEW": "100"}) as server:
        signed = as_json(server, "sign")
        printed(beside(server, "signatures", "revoke", *(f"{n}={v}" for n, v in signed["fields"].items())))
        with closing(sqlite3.connect(tmp_path / "data/uponce.db")) as database:
            ((timestamp, keep_until),) = database.execute("SELECT timestamp, keep_until FROM grants")
    assert keep_until - timestamp == 3600 + 100 + 21600


def test_a_used_signature_cannot_be_revoked_and_says_so(server: Server) -> None:
    signed = as_json(server, "sign")
    assert code_of(server, signed["fields"]) == ""
    done = beside(server, "signatures", "revoke", signed["id"])
    assert (done.code, done.stdout) == (1, f"used {signed['id']}\n")


def test_list_is_newest_first_and_can_be_narrowed(server: Server) -> None:
    ids = []
    for _ in range(2):
        signed = as_json(server, "sign")
        assert code_of(server, signed["fields"]) == ""
        ids.append(signed["id"])
    revoked = as_json(server, "sign")
    printed(beside(server, "signatures", "revoke", *(f"{n}={v}" for n, v in revoked["fields"].items())))

    used = [row["id"] for row in as_json(server, "signatures", "list", "--status", "used")]
    assert set(ids) <= set(used)
    assert revoked["id"] not in used
    assert revoked["id"] in [row["id"] for row in as_json(server, "signatures", "list", "--status", "revoked")]
    rows = as_json(server, "signatures", "list", "--limit", "3")
    assert len(rows) == 3
    assert [row["timestamp"] for row in rows] == sorted((row["timestamp"] for row in rows), reverse=True)
    table = printed(beside(server, "signatures", "list"))
    assert all(row["id"] in table for row in rows)


@pytest.mark.parametrize("words", [["--cloud", "cats"], []])
def test_a_list_of_a_cloud_without_keys_names_the_clouds(server: Server, words: list[str]) -> None:
    """An empty list would look as if nothing had been signed."""
    settings = settings_of(server) | ({} if words else {"UPONCE_CLOUD": "cats"})
    done = uponce("signatures", "list", *words, env=settings)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "uponce: No API key belongs to cloud cats. Name a cloud with --cloud: media.\n"


@pytest.mark.parametrize("action", ["show", "revoke"])
def test_a_signature_that_nobody_knows(server: Server, action: str) -> None:
    done = beside(server, "signatures", action, "0" * 64)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("uponce: The ledger has no signature 0000")


@pytest.mark.parametrize("action", ["show", "revoke"])
def test_forged_fields_leave_no_trace(server: Server, action: str) -> None:
    before = as_json(server, "signatures", "list", "--limit", "500")
    forged = {**server.signed({"folder": "forged"}), "folder": "other"}
    done = beside(server, "signatures", action, *(f"{name}={value}" for name, value in forged.items()))
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith("uponce: Invalid Signature ")
    assert as_json(server, "signatures", "list", "--limit", "500") == before


# --- doctor and sweep

IN_A_CONTAINER = {"volume"}  # a finding if the tests run in the layer of a container


def test_doctor_finds_a_running_server_healthy(server: Server) -> None:
    told = printed(beside(server, "doctor"))
    findings = as_json(server, "doctor")
    assert {finding["name"] for finding in findings} - IN_A_CONTAINER == {
        "settings",
        "database",
        "disk",
        "media",
        "storage",
        "decoders",
        "sandbox",
        "versions",
        "clock",
        "secrets",
        "system",
    }
    assert all(finding["state"] in ("ok", "warning") for finding in findings)
    assert all(finding["detail"] in told for finding in findings if finding["name"] != "disk")


def test_doctor_checks_the_machine_before_the_first_start(tmp_path: Path) -> None:
    """As the guide of the installation asks newcomers to. Nothing is made."""
    settings = {
        "UPONCE_DATA": str(tmp_path / "new" / "data"),
        "UPONCE_STORAGE": "s3://bucket",
        "UPONCE_STORAGE_REDIRECT": "60",
        "UPONCE_DECODERS": "1",
    }
    done = uponce("doctor", "--json", env=settings)
    states = {finding["name"]: finding["state"] for finding in json.loads(printed(done))}
    assert states.pop("data") == "warning"
    assert states.keys() - IN_A_CONTAINER == {"settings", "system", "versions", "disk", "decoders", "sandbox"}
    assert "There is no uponce in" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("UPONCE_STORAGE", "ftp://x/y"),
        ("UPONCE_STORAGE", "s3:///nobucket"),
        ("UPONCE_STORAGE", "file://relative"),
        ("UPONCE_STORAGE_REDIRECT", "60"),
    ],
)
def test_doctor_names_a_storage_that_serve_would_refuse(tmp_path: Path, setting: str, value: str) -> None:
    """Also before the first start. Nothing is made."""
    done = uponce("doctor", env={"UPONCE_DATA": str(tmp_path / "data"), setting: value})
    assert done.code == 1
    assert f"{setting}={value}" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_doctor_names_the_versions_of_all_drivers(server: Server) -> None:
    told = printed(beside(server, "doctor"))
    for name in ("Python 3", "SQLite 3", "libvips 8", "FFmpeg "):
        assert re.search(rf"versions .*{name}[.\d]", told), name


def test_a_clock_that_was_set_back_is_told(data: Path) -> None:
    """The database has seen tomorrow: doctor and serve warn, and serve none the less."""
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("UPDATE api_keys SET watermark = unixepoch() + 86400")

    done = uponce("doctor", "--data", data)
    assert done.code == 0
    assert re.search(
        r"warning +clock +The clock is 8\d{4} seconds behind .* The limit is 300 seconds\. Set the clock", done.stdout
    )
    with Server(data, env={"UPONCE_LOG_FORMAT": "json"}) as server:
        (line,) = (json.loads(line) for line in server.output.splitlines() if "The clock is 8" in line)
        assert (line["level"], line["request"], line["message"][:14]) == ("warning", "-", "The clock is 8")


def test_doctor_names_the_folder_that_cannot_be_written(data: Path) -> None:
    """A file in the place of a folder stops root too."""
    shutil.rmtree(data / "media" / "spool")
    (data / "media" / "spool").write_text("")

    done = uponce("doctor", "--data", data)
    assert done.code == 1
    assert f"UPONCE_STORAGE: {data / 'media'} cannot be used" in done.stdout
    assert "Choose a folder that the server may write." in done.stdout


def test_a_command_that_fails_names_the_operators_cure(data: Path) -> None:
    """A client reads to send the request again, which is no cure for an operator."""
    with closing(sqlite3.connect(data / "uponce.db")) as database, database:
        database.execute("ALTER TABLE grants RENAME TO lost")

    done = uponce("signatures", "list", "--data", data)
    assert done.code == 1
    assert "no such table: grants" in done.stderr
    assert "end the same" not in done.stderr


def test_doctor_names_the_cure_of_a_readable_secret(data: Path) -> None:
    secret = data / "secret.key"
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    secret.chmod(0o644)

    done = uponce("doctor", "--data", data)
    assert done.code == 1
    assert f"chmod 600 {secret}" in done.stdout

    secret.chmod(0o600)
    assert uponce("doctor", "--data", data).code == 0


def test_doctor_says_what_is_wrong_with_a_setting(data: Path) -> None:
    done = uponce("doctor", "--data", data, env={"UPONCE_DECODERS": "0"})
    assert done.code == 1
    assert "UPONCE_DECODERS=0 (environment) is not valid: it must be 1 to 1000." in done.stdout


def test_sweep_beside_a_running_server(server: Server, media: Path) -> None:
    """Without grace it takes orphans, and nothing that belongs to an asset."""
    kept = server.post(server.signed({"folder": "kept"}), (media / "cat.jpg").read_bytes()).json()
    orphan = server.data_dir / "media" / "blobs" / "00" / ("0" * 32)
    orphan.write_bytes(b"12345")

    spared = as_json(server, "sweep")
    assert (spared["blobs"], orphan.exists()) == (0, True)
    told = printed(beside(server, "sweep", "--grace", "0"))
    assert "1 orphaned blobs (5 bytes)" in told
    assert not orphan.exists()
    assert server.get(kept["secure_url"]).data == (media / "cat.jpg").read_bytes()


def test_sweep_without_the_settings_of_the_server_deletes_no_audit(tmp_path: Path) -> None:
    """The server may keep the audit for years."""
    data = tmp_path / "data"
    printed(uponce("keys", "create", "--data", data))
    columns = "at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id"
    with closing(sqlite3.connect(data / "uponce.db")) as connection:
        connection.execute(f"INSERT INTO audit ({columns}) VALUES (0, x'00', '', '', '', '', '', '', '', '')")
        connection.commit()

        def rows() -> list[tuple[int]]:
            return connection.execute("SELECT count(*) FROM audit").fetchall()

        told = printed(uponce("sweep", "--data", data))
        assert (rows(), "The audit stays: UPONCE_AUDIT_DAYS is not set here" in told) == ([(1,)], True)
        assert "audit stays" not in printed(uponce("sweep", "--data", data, env={"UPONCE_AUDIT_DAYS": "1"}))
        assert rows() == [(0,)]


def test_sweep_without_the_settings_of_the_server_spares_what_the_server_spares(tmp_path: Path) -> None:
    """A large upload may take a week, if the server says so. On a full disk the operator of the shell decides."""
    first = {"Content-Range": f"bytes 0-{5 * MIB - 1}/{10 * MIB}", "X-Unique-Upload-Id": "film"}
    env = {"UPONCE_SERIES_SECONDS": "604800", "UPONCE_GRACE_SECONDS": "86400"}
    with Server(tmp_path / "data", env=env) as server:
        sent = server.post(server.signed(), bytes(5 * MIB), resource_type="raw", headers=first)
        assert sent.json()["done"] is False
    now, database = time.time(), server.data_dir / "uponce.db"
    orphan = server.data_dir / "media" / "blobs" / "00" / ("0" * 32)
    orphan.write_bytes(b"12345")
    os.utime(orphan, (now - 3 * 3600, now - 3 * 3600))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE series SET created_at = created_at - 2 * 86400")

    def swept(*words: str, **env: str) -> tuple[int, int]:
        found = json.loads(printed(uponce("sweep", "--data", server.data_dir, "--json", *words, env=env)))
        return found["series"], found["blobs"]

    assert swept() == (0, 0)
    assert swept("--grace", "7200", UPONCE_SERIES_SECONDS="3600") == (1, 1)


# --- serve


def refused_to_serve(tmp_path: Path, *words: str, env: dict[str, str] | None = None) -> str:
    """Its message. A server that would break a guarantee does not begin to listen."""
    done = in_a_process("serve", "--data", tmp_path / "data", "--port", "0", *words, env=env)
    assert done.code == 1
    assert "listening" not in done.stdout
    assert done.stderr.startswith("uponce: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_serve_on_a_port_that_is_taken(server: Server, tmp_path: Path) -> None:
    message = refused_to_serve(tmp_path, "--port", str(server.port))
    assert f"Cannot listen on 127.0.0.1:{server.port}: Address already in use." in message
    assert "Choose another UPONCE_PORT." in message


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("UPONCE_WINDOW", "soon", "UPONCE_WINDOW=soon (environment) is not valid: it must be a whole number."),
        ("UPONCE_WORKERS", "0", "UPONCE_WORKERS=0 (environment) is not valid: it must be 1 to 1000."),
        ("UPONCE_WINDWO", "60", "There is no setting UPONCE_WINDWO (environment)."),
        ("UPONCE_DATABASE", "mysql://db", "UPONCE_DATABASE=mysql://db is not a database that uponce knows."),
        ("UPONCE_DATABASE", "sqlite:///:memory:", "A database in memory would forget which signatures are spent"),
        ("UPONCE_STORAGE", "ftp://files", "UPONCE_STORAGE=ftp://files is not supported."),
        ("UPONCE_SECRET_KEY", "short", "UPONCE_SECRET_KEY"),
        ("UPONCE_PUBLIC_URL", "media.example", "it must be a URL like https://media.example"),
        ("UPONCE_CONFIG", "/no/such/file.toml", "UPONCE_CONFIG=/no/such/file.toml cannot be read"),
    ],
)
def test_serve_refuses_a_setting(tmp_path: Path, name: str, value: str, message: str) -> None:
    assert message in refused_to_serve(tmp_path, env={name: value})


def test_serve_refuses_a_memory_database_with_workers(tmp_path: Path) -> None:
    message = refused_to_serve(tmp_path, "--workers", "2", env={"UPONCE_DATABASE": "sqlite:///:memory:"})
    assert "UPONCE_DATABASE=sqlite:///:memory: names no file." in message
    assert "Use sqlite:////path/to/file." in message


def test_serve_refuses_a_readable_secret(data: Path) -> None:
    (data / "secret.key").chmod(0o640)
    assert f"chmod 600 {data / 'secret.key'}" in refused_to_serve(data.parent)
