"""What a command says when something is wrong outside of it: one sentence that names the place and the cure."""

import errno
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.e2e.commands import Done, beside, code_of, in_a_process, printed, uponce
from tests.server import Server
from uponce.adapters.database.sqlite import file
from uponce.adapters.database.statements import load_migrations
from uponce.adapters.spool.buffered import BufferedWriter
from uponce.adapters.store.packs import Packs
from uponce.cli import doctor

# --- another user than the server's


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose owner alone may look into it, as the service's. Root may look everywhere: this pretends.

    Also on Python 3.14, where `Path.exists` and its like see nothing there, and raise no error.
    """
    folder, real = tmp_path / "foreign", Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        if folder in path.parents:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path, **options)

    folder.mkdir()
    monkeypatch.setattr(Path, "stat", stat)
    for name, of_3_14 in (("exists", os.path.exists), ("is_dir", os.path.isdir), ("is_file", os.path.isfile)):
        monkeypatch.setattr(Path, name, lambda path, look=of_3_14: folder not in path.parents and look(path))
    yield folder


@pytest.mark.parametrize(
    ("words", "place"),
    [
        (["keys", "list"], "uponce.db"),
        (["sweep"], "uponce.db"),
        (["restore", "{folder}"], "backup.json"),
        (["backup", "{folder}"], "backup.json"),
        (["upload", "{folder}/cat.jpg"], "cat.jpg"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_another_user_is_told_the_path_and_the_reason(foreign: Path, words: list[str], place: str) -> None:
    done = uponce(*(word.format(folder=foreign) for word in words), "--data", foreign)
    assert done.code == 1
    assert f"{foreign}/{place}" in done.stderr
    assert "Permission denied" in done.stderr
    assert done.stderr.count("\n") == 1


def test_doctor_of_another_user_finds_the_same(foreign: Path) -> None:
    done = uponce("doctor", "--json", "--data", foreign)
    assert done.code == 1
    *_, last = json.loads(done.stdout)
    assert last == {
        "name": "start",
        "state": "broken",
        "detail": f"{foreign}/uponce.db: Permission denied. Run this command as a user that may use it: the server's "
        "user, or root.",
    }


@pytest.mark.parametrize("command", [("doctor",), ("serve", "--port", "0")], ids=lambda words: words[0])
def test_a_database_that_is_only_readable_is_named_with_its_cure(tmp_path: Path, command: tuple[str, ...]) -> None:
    """`serve` ends before it says that it listens."""
    data = tmp_path / "data"
    assert uponce("keys", "create", "--data", data).code == 0
    for path in (data / "uponce.db", data):
        path.chmod(path.stat().st_mode & ~0o222)
    as_any_user = ("setpriv", "--bounding-set=-dac_override") if os.geteuid() == 0 else ()  # root may write everywhere
    words = [*as_any_user, sys.executable, "-m", "uponce", *command, "--data", str(data)]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=100, check=False)
    finally:
        data.chmod(0o700)
    assert done.returncode == 1
    assert f"this user cannot write {data}/uponce.db. Let the user of the server write these files" in (
        done.stdout + done.stderr
    )
    assert "listening" not in done.stdout


@pytest.mark.parametrize(
    "words",
    ["doctor", "fsck", "sweep", "backup {folder}", "keys list", "keys create", "signatures list", "outbox list"],
)
def test_no_command_upgrades_the_database_of_running_servers(
    data: Path, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that only looks must not be the first to change it, since no release goes back."""
    steps = [*load_migrations("sqlite"), "CREATE TABLE later (x int);"]
    monkeypatch.setattr(file, "load_migrations", lambda _: steps)
    done = uponce(*words.format(folder=data.parent / "copy").split(), "--data", data)
    assert done.code == 1
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    assert f"schema version {len(steps) - 1}, and this release needs {len(steps)}. Nothing was changed" in said
    with closing(sqlite3.connect(data / "uponce.db")) as connection:
        assert connection.execute("PRAGMA user_version").fetchall() == [(len(steps) - 1,)]
        assert connection.execute("SELECT name FROM sqlite_master WHERE name = 'later'").fetchall() == []


def test_doctor_keeps_its_findings_when_a_check_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before a first start it needs a folder for the decoders, and there is no room for one."""

    def full() -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/tmp/spare")

    monkeypatch.setattr(doctor, "TemporaryDirectory", full)
    done = uponce("doctor", "--json", "--data", tmp_path / "new")
    assert done.code == 1
    findings = json.loads(done.stdout)
    names = [finding["name"] for finding in findings if finding["name"] != "volume"]  # the folder may be in memory
    assert names == ["settings", "system", "versions", "data", "disk", "start"]
    assert findings[-1]["detail"] == "/tmp/spare: No space left on device. Make room on its disk."


def test_doctor_of_a_full_disk_goes_on(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs cannot be tried there."""

    def full(_: Packs) -> bool:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Packs, "holes_free_space", full)
    done = uponce("doctor", "--json", "--data", data)
    details = {finding["name"]: finding["detail"] for finding in json.loads(done.stdout)}
    assert details["media"].startswith("no space is left")
    assert {"disk", "secrets", "decoders"} <= details.keys()


@pytest.mark.parametrize("words", [["keys", "list"], ["serve", "--port", "0"]], ids=" ".join)
def test_a_path_that_the_system_refuses_is_named(tmp_path: Path, words: list[str]) -> None:
    folder = tmp_path / ("a" * 300)
    done = in_a_process(*words, "--data", folder)
    assert done.code == 1
    assert done.stderr == f"uponce: {folder}/uponce.db: File name too long.\n"


# --- words that no command can use


HUGE = str(10**30)


@pytest.mark.parametrize(
    "words",
    [
        ["keys", "create", "--window", "0"],
        ["keys", "create", "--window", "604801"],
        ["keys", "rotate", "1", "--overlap", "9223372036854775807"],
        ["keys", "rotate", "1", "--overlap", "-1"],
        ["outbox", "retry", HUGE],
        ["outbox", "drop", HUGE],
        ["sweep", "--grace", "-1"],
        ["fsck", "--grace", "-1"],
        ["signatures", "show", "http://[bad"],
        ["signatures", "revoke", "http://[bad"],
    ],
    ids=" ".join,
)
def test_a_word_that_cannot_be_meant_is_wrong_usage(data: Path, words: list[str]) -> None:
    done = uponce(*words, "--data", data)
    assert (done.code, done.stdout) == (2, "")


def test_a_storage_that_is_no_url_is_refused(data: Path) -> None:
    done = uponce("sweep", "--data", data, env={"UPONCE_STORAGE": "s3://[bucket"})
    assert done.code == 1
    assert done.stderr.startswith("uponce: UPONCE_STORAGE=s3://[bucket is not supported.")


def test_a_file_whose_name_is_not_utf_8_is_uploaded(tmp_path: Path) -> None:
    file = tmp_path / os.fsdecode(b"caf\xe9.txt")
    file.write_text("Once.\n")
    with Server(tmp_path / "data") as server:
        (answer,) = json.loads(printed(beside(server, "upload", "--type", "raw", "--json", file)))
        refused = beside(server, "upload", "--type", "video", file)
    assert answer["original_filename"] == "caf\ufffd"
    assert refused.code == 1
    assert "caf\ufffd.txt: " in refused.stderr


# --- a full disk


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """A data folder with a file."""
    with Server(tmp_path / "data") as server:
        assert code_of(server, server.signed()) == ""
        assert server.stop() == 0
    return server.data_dir


@pytest.mark.parametrize(
    "words",
    [
        ["backup", "{folder}/copy"],
        ["restore", "{folder}/backup", "--data", "{folder}/copy"],
        ["migrate-store", "--to-database", "sqlite:///{folder}/new.db", "--to-storage", "file://{folder}/copy/media"],
    ],
    ids=lambda words: words[0],
)
@pytest.mark.proof
def test_a_full_disk_is_named(stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    """Also by its place, which the error of the system does not know. Later the command continues."""
    (tmp_path / "backup").mkdir()
    assert uponce("backup", tmp_path / "backup", "--data", stored).code == 0
    words = [word.format(folder=tmp_path) for word in words]

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(BufferedWriter, "_write", full)
        done = uponce(*words, env={"UPONCE_DATA": str(stored)})
    assert done.code == 1
    assert re.match(
        rf"uponce: The disk of \S*{tmp_path}/copy\S*(?: or of .+)? is full: \[Errno 28\] No space left on "
        r"device\. Make room there, "
        r"and run the command again: it continues\.\n$",
        done.stderr,
    )
    assert uponce(*words, env={"UPONCE_DATA": str(stored)}).code == 0


class Redirecting(BaseHTTPRequestHandler):
    """What a front server does that only takes https."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(308)
        self.send_header("Location", f"https://media.example{self.path}")
        self.send_header("Content-Length", "0")
        self.end_headers()


def answered_by(handler: type[BaseHTTPRequestHandler], file: Path, folder: Path) -> tuple[Done, str]:
    """The end of `uponce upload` to a server of another kind, and the address of that server."""
    with HTTPServer(("127.0.0.1", 0), handler) as front:
        threading.Thread(target=front.serve_forever, args=(0.01,), daemon=True).start()
        base = f"http://127.0.0.1:{front.server_port}"
        url = f"cloudinary://1:secret@media?upload_prefix={base}"
        done = uponce("upload", file, env={"CLOUDINARY_URL": url}, cwd=folder)
        front.shutdown()
    return done, base


def test_an_upload_follows_no_redirect_and_names_the_server(media: Path, tmp_path: Path) -> None:
    """Neither the file nor the signature goes to an address that the user did not name."""
    done, base = answered_by(Redirecting, media / "cat.jpg", tmp_path)
    assert done.code == 1
    assert f"{base} redirects to https://media.example/v1_1/media/auto/upload. Use that server" in done.stderr


class Commanding(BaseHTTPRequestHandler):
    """A server whose texts are commands to a terminal: they set its title."""

    answer = '{"error":{"message":"no\\u001b]0;owned\\u0007"}}'

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.answer)))
        self.end_headers()
        self.wfile.write(self.answer.encode())


class Storing(Commanding):
    answer = '{"secure_url":"https://a.example/\\u001b]0;owned\\u0007"}'


class Refusing(Commanding):
    answer = json.dumps({"error": {"message": f"Invalid Signature {'ab' * 20}. String to sign - 'timestamp=1'."}})


def test_a_refusal_of_the_server_is_printed_without_the_signature(tmp_path: Path) -> None:
    file = tmp_path / "cat.jpg"
    file.write_bytes(b"bytes")
    done, _ = answered_by(Refusing, file, tmp_path)
    assert (done.code, "Invalid Signature abababab…" in done.stderr) == (1, True)
    assert "ab" * 20 not in done.stdout + done.stderr


def test_no_server_commands_the_terminal(tmp_path: Path) -> None:
    file = tmp_path / "cat[final].jpg"
    file.write_bytes(b"bytes")
    refused, _ = answered_by(Commanding, file, tmp_path)
    stored, _ = answered_by(Storing, file, tmp_path)
    assert (refused.code, stored.code) == (1, 0)
    assert "cat[final].jpg: no?]0;owned?\n" in refused.stderr
    assert stored.stdout == "https://a.example/?]0;owned?\n"
    assert "cat[final].jpg" in stored.stderr


# --- a database that has moved away


@pytest.fixture
def moved(tmp_path: Path) -> Path:
    """The data folder of a server with one API key, whose database has moved away."""
    old = tmp_path / "old"
    printed(uponce("keys", "create", "--data", old))
    printed(uponce("migrate-store", "--to-database", f"sqlite:///{tmp_path}/new.db", "--data", old))
    return old


@pytest.mark.parametrize(
    "words", ["keys create", "keys rotate {key}", "keys revoke {key}", "clouds create b", "fence", "sweep"]
)
def test_a_command_that_would_change_a_frozen_database_names_the_cure(moved: Path, words: str) -> None:
    (key,) = json.loads(printed(uponce("keys", "list", "--json", "--data", moved)))
    done = uponce(*words.format(key=key["api_key"]).split(), "--data", moved)
    assert done.code == 1
    assert "`uponce migrate-store --undo`" in done.stderr
    assert "SQLITE" not in done.stderr


@pytest.mark.usefixtures("few_places")
@pytest.mark.parametrize("words", [[], ["--json"]])
def test_a_nightly_backup_of_a_database_that_moved_away_fails_and_is_complete(
    moved: Path, tmp_path: Path, words: list[str]
) -> None:
    """Otherwise operators learn in an emergency that the new database has no backup."""
    done = uponce("backup", tmp_path / "copy", *words, "--data", moved)
    assert done.code == 1
    assert "takes no uploads. The database is frozen" in done.stderr and "the new database" in done.stderr
    assert "the database and 0 assets" in done.stdout or json.loads(done.stdout)["assets"] == 0
    printed(uponce("restore", tmp_path / "copy", "--data", tmp_path / "restored"))


# --- uploads that would replace one another

BY_FILENAME = ("--set", "use_filename=1", "--set", "unique_filename=0")


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("a/cover.jpg", "b/cover.jpg", BY_FILENAME),
        ("logo.jpg", "logo.PNG", BY_FILENAME),
        ("a.csv", "b.csv", (*BY_FILENAME, "--set", "filename_override=list.csv")),
        ("a.jpg", "a.mp4", (*BY_FILENAME, "--type", "image")),
    ],
)
def test_files_of_one_name_are_refused_before_any_is_sent(
    server: Server, tmp_path: Path, first: str, second: str, words: tuple[str, ...]
) -> None:
    files = [tmp_path / first, tmp_path / second]
    _write(*files)
    done = beside(server, "upload", *files, *words)
    assert (done.code, done.stdout) == (2, "")
    message = re.sub(r"[\s│]+", "", done.stderr)  # in a box as wide as the terminal
    assert "wouldreplace" in message and "bothgetthename" in message and "Setunique_filename=1," in message


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ("film.jpg", "film.mp4", BY_FILENAME),
        ("notes.csv", "notes.txt", BY_FILENAME),
        ("a/cover.jpg", "b/cover.jpg", BY_FILENAME[:2]),
        ("a/cover.jpg", "b/cover.jpg", ()),
        ("1.csv", "_.csv", BY_FILENAME),
    ],
)
def test_files_of_other_names_are_sent(tmp_path: Path, first: str, second: str, words: tuple[str, ...]) -> None:
    files = [tmp_path / first, tmp_path / second]
    _write(*files)
    nowhere = "cloudinary://k:s@c?upload_prefix=http://127.0.0.1:1"
    with mock.patch("uponce.cli.upload._upload", return_value={"secure_url": "https://media.example/x"}) as upload:
        done = uponce("upload", *files, *words, env={"CLOUDINARY_URL": nowhere})
    assert (done.code, upload.call_count) == (0, 2)


def _write(*files: Path) -> None:
    for path in files:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
