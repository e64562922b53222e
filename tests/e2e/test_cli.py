"""The command line beside a running server: what it prints where, and its exit codes 0, 1 and 2."""

import json
import os
import re
import socket
import subprocess
import sys
from functools import cache
from pathlib import Path
from unittest import mock

import pytest

from tests.e2e.commands import as_json, beside, code_of, in_a_process, printed, settings_of, uponce
from tests.e2e.lossy import LossyProxy
from tests.server import Server
from uponce import __version__, cli
from uponce.app.manage_keys import playground_key
from uponce.cli.store import on_store
from uponce.config import load

pytestmark = pytest.mark.xdist_group("command line")

COMMANDS = {
    "serve": "Run the server",
    "sign": "Make one signature",
    "upload": "Sign and upload files",
    "settings": "Show every setting with its effective value",
    "doctor": "Check settings, disk, database and decoders",
    "migrate": "Make or upgrade the database tables",
    "sweep": "Delete bytes that no asset names",
    "fsck": "Compare the database with the stored files",
    "fence": "Refuse every signature that may have been used since",
    "backup": "Copy the database, the media and the secret key",
    "restore": "Restore a data folder from a backup",
    "migrate-store": "Move to another database and storage",
    "prove": "Test from outside whether signatures work once",
    "demo": "Show on real media what uponce promises",
    "keys create": "Make a key and print its CLOUDINARY_URL",
    "keys import": "Bring keys with their secrets",
    "keys list": "Show all keys, without their secrets",
    "keys revoke": "Refuse a key and all its signatures",
    "keys rotate": "Give a key a new secret",
    "keys renew": "Last resort when secret.key is lost",
    "clouds create": "Make a cloud with two API keys",
    "clouds list": "Show all clouds",
    "clouds relay": "Pass the uploads of a cloud on",
    "outbox list": "Show effects that are not done",
    "outbox retry": "Make an effect due now",
    "outbox drop": "Delete dead notifications",
    "signatures show": "Show the status and the history of one signature",
    "signatures list": "List the newest signatures in the ledger",
    "signatures revoke": "Refuse one unused signature from now on",
}


# --- help, version, usage


@cache
def help_of(command: str) -> str:
    return printed(uponce(*command.split(), "--help"))


def test_version() -> None:
    assert printed(in_a_process("--version")) == f"uponce {__version__}\n"


@pytest.mark.parametrize(("command", "what"), COMMANDS.items())
def test_help_says_what_a_command_does(command: str, what: str) -> None:
    assert what in help_of(command)
    assert printed(uponce(*command.split(), "-h")) == help_of(command)


def test_help_names_every_command() -> None:
    groups = {"keys", "clouds", "outbox", "signatures"}
    for group in ("", *groups):
        names = re.findall(r"^│ (\w[\w-]*) +[A-Z]", help_of(group), re.MULTILINE)
        assert {f"{group} {name}".strip() for name in names} - groups == {
            command for command in COMMANDS if " ".join(command.split()[:-1]) == group
        }


@pytest.mark.parametrize("command", ["", "keys", "signatures", *COMMANDS])
def test_help_shows_no_value_for_a_switch_and_each_name_in_one_bracket(command: str) -> None:
    page = help_of(command)
    assert "<bool>" not in page
    assert not re.search(r"\.\.\.[]}]|\[\[", page), page.splitlines()[1]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_each_argument_is(command: str) -> None:
    arguments = re.findall(r"^│ +(?:\* +)?([A-Za-z=_]+) +<[\w\[\]]+> +(.*?)│$", help_of(command), re.MULTILINE)
    assert all(name.isupper() and re.match(r"[A-Z]\w* ", text) for name, text in arguments), arguments


@pytest.mark.parametrize("command", cli.COMMANDS)
def test_the_list_of_commands_says_of_each_what_its_own_help_begins_with(command: str) -> None:
    assert cli.load_command(command).help.split("\n\n")[0] == cli.COMMANDS[command]


def test_a_shell_completes_commands() -> None:
    """What `uponce --install-completion` makes bash run."""
    asked = {"_UPONCE_COMPLETE": "complete_bash", "COMP_WORDS": "uponce set", "COMP_CWORD": "1"}
    program = "import sys; sys.argv[0] = 'uponce'; from uponce.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | asked, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["settings"], done.stderr


def test_help_imports_no_more_than_it_prints() -> None:
    """Each of these modules would make help slower. The last line is the control: what is imported is seen."""
    look = "import sys; from uponce.cli import main; sys.argv[1:] = ['--help']\n"
    look += "try: main()\nexcept SystemExit: pass\n"
    look += "heavy = {'msgspec', 'asyncio', 'uponce.core.values'}; print(heavy & set(sys.modules))\n"
    look += "import asyncio; print(heavy & set(sys.modules))\n"

    printed = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout

    assert printed.endswith("set()\n{'asyncio'}\n")


def test_a_command_imports_neither_the_server_nor_what_draws_tables_before_it_needs_them() -> None:
    """They would be a sixth of the time of a short one. The last line is the control: what is imported is seen."""
    light = sorted(set(cli.COMMANDS) - {"serve", "upload", "demo", "prove"})
    look = f"import sys; from importlib import import_module; names = {light}\n"
    look += "for name in names: import_module('uponce.cli.' + name.replace('-', '_'))\n"
    look += "heavy = {'uvicorn', 'rich', 'urllib3'}; print(heavy & set(sys.modules))\n"
    look += "import uponce.cli.serve; print(heavy & set(sys.modules))\n"

    printed = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout

    assert printed == "set()\n{'uvicorn'}\n"


@pytest.mark.parametrize(
    "words",
    [
        ["paint"],
        ["sign", "--paint"],
        ["sign", "folder"],
        ["sign", "folder=a", "folder=b"],
        ["sign", "--as", "poem"],
        ["sign", "--type", "sculpture"],
        ["upload"],
        ["keys", "create", "--uses", "twice"],
        ["keys", "revoke"],
        ["signatures", "list", "--status", "lost"],
        ["serve", "--port", "high"],
    ],
)
def test_wrong_usage_exits_with_2(server: Server, words: list[str]) -> None:
    done = beside(server, *words)
    assert (done.code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


def test_wrong_usage_ends_a_process_with_2(server: Server) -> None:
    done = in_a_process("paint", env=settings_of(server))
    assert (done.code, done.stdout) == (2, "")
    assert "Usage: " in done.stderr


@pytest.mark.parametrize(
    "words",
    [
        ["sign"],
        ["upload", __file__],
        ["keys", "list"],
        ["signatures", "list"],
        ["sweep"],
        ["fence"],
    ],
)
def test_a_mistyped_folder_does_not_become_a_server(tmp_path: Path, words: list[str]) -> None:
    done = uponce(*words, "--data", tmp_path / "typo")
    assert (done.code, done.stdout) == (1, "")
    assert f"There is no uponce in {tmp_path / 'typo'}." in done.stderr
    assert "If the server uses another folder, name it with --data or UPONCE_DATA." in done.stderr
    assert list(tmp_path.iterdir()) == []


# --- sign


def test_signed_fields_work_once(server: Server) -> None:
    url, *lines = printed(beside(server, "sign", "folder=cats", "context=alt=a=b")).splitlines()
    assert url == server.upload_url()
    fields = dict(line.split("=", 1) for line in lines)
    assert (fields["folder"], fields["context"]) == ("cats", "alt=a=b")
    assert [code_of(server, fields) for _ in range(2)] == ["", "signature_used"]


def test_sign_as_json(server: Server) -> None:
    signed = as_json(server, "sign", "--type", "raw")
    assert signed["upload_url"] == server.upload_url("raw")
    assert code_of(server, signed["fields"]) == ""
    assert as_json(server, "signatures", "show", signed["id"])["status"] == "used"


def test_each_signature_differs(server: Server) -> None:
    """Also within one second: a key whose signatures work once signs a nonce."""
    assert as_json(server, "sign")["id"] != as_json(server, "sign")["id"]


def test_signing_with_another_key(server: Server) -> None:
    signed = as_json(server, "sign", "--key", server.server.key)
    assert signed["fields"]["api_key"] == server.server.key
    assert [code_of(server, signed["fields"]) for _ in range(2)] == ["", ""]


@pytest.mark.parametrize("other", ["playground", "tenant"])
def test_a_key_of_another_cloud_signs_only_if_it_is_named(data: Path, other: str) -> None:
    """The server deletes files of the playground soon, and files of a tenant are the tenant's."""
    (first,) = json.loads(printed(uponce("keys", "list", "--json", "--data", data)))
    if other == "playground":
        made = {"api_key": on_store(load(data=str(data)), playground_key).api_key}
    else:
        made = json.loads(printed(uponce("keys", "create", "--cloud", other, "--json", "--data", data)))
    printed(uponce("keys", "revoke", first["api_key"], "--data", data))
    none = uponce("sign", "--data", data)
    assert (none.code, none.stdout) == (1, "")
    assert "There is no active API key of cloud media in" in none.stderr
    printed(uponce("keys", "create", "--data", data))
    assert "/v1_1/media/" in printed(uponce("sign", "--data", data))
    assert f"/v1_1/{other}/" in printed(uponce("sign", "--key", made["api_key"], "--data", data))
    assert f"/v1_1/{other}/" in printed(uponce("sign", "--data", data, env={"UPONCE_CLOUD": other}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["colour=red"], "Unknown parameter colour."),
        (["eager=w_100"], "Parameter eager is not supported by this server yet."),
        (["signature=abc"], "Parameter signature is never signed."),
        (["max_bytes=many"], "Parameter max_bytes must be a whole number"),
        (["folder=", "origin="], "Parameter origin is empty."),
        (["public_id_prefix="], "Parameter public_id_prefix is empty."),
        (["--key", "1"], "There is no API key 1 in "),
    ],
)
def test_what_the_server_would_refuse_is_not_signed(server: Server, words: list[str], message: str) -> None:
    done = beside(server, "sign", *words)
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr.startswith(f"uponce: {message}")


# --- upload


def test_upload_prints_urls_and_draws_progress_elsewhere(server: Server, media: Path) -> None:
    files = [media / name for name in ("cat.jpg", "walk.mp4", "note.txt")]
    done = in_a_process("upload", *files, env=settings_of(server))
    urls = printed(done).splitlines()
    assert [server.get(url).data for url in urls] == [file.read_bytes() for file in files]
    assert all(file.name in done.stderr for file in files)


def test_upload_with_parameters_as_json(server: Server, media: Path) -> None:
    words = ["--set", "folder=from the shell", "--set", "tags=a,b", "--type", "image"]
    (answer,) = as_json(server, "upload", *words, media / "cat.jpg")
    assert answer["folder"] == "from the shell"
    assert (answer["tags"], answer["original_filename"]) == (["a", "b"], "cat")


def test_an_upload_is_never_signed_without_an_empty_limit(server: Server, media: Path) -> None:
    done = beside(server, "upload", "--set", "sha256=", media / "cat.jpg")
    assert (done.code, done.stdout) == (1, "")
    assert "Parameter sha256 is empty. Sign a value, or leave sha256 out" in done.stderr


def test_upload_reaches_a_server_elsewhere_by_its_cloudinary_url(server: Server, media: Path, tmp_path: Path) -> None:
    """No data folder on this machine; the URL exactly as it was printed."""
    done = in_a_process("upload", media / "cat.jpg", env={"CLOUDINARY_URL": server.urls[0]}, cwd=tmp_path)
    assert server.get(printed(done).strip()).data == (media / "cat.jpg").read_bytes()


def test_upload_asks_again_when_the_answer_was_lost(server: Server, lossy: LossyProxy, media: Path) -> None:
    elsewhere = server.urls[0].replace(server.base, lossy.base)
    done = uponce("upload", media / "walk.mp4", "--json", env={"CLOUDINARY_URL": elsewhere})
    (answer,) = json.loads(printed(done))
    assert lossy.uploads == 2
    assert server.get(f"/{server.cloud}/video/upload/{answer['public_id']}").data == (media / "walk.mp4").read_bytes()


def test_a_refused_file_does_not_stop_the_others(server: Server, media: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    done = beside(server, "upload", tmp_path / "empty.jpg", media / "cat.jpg")
    assert done.code == 1
    assert f"{tmp_path / 'empty.jpg'}: Empty file. Send at least one byte.\n" in done.stderr
    (url,) = done.stdout.splitlines()
    assert server.get(url).data == (media / "cat.jpg").read_bytes()


def test_a_file_that_is_not_there_stops_all(server: Server, media: Path) -> None:
    done = beside(server, "upload", media / "cat.jpg", media / "dog.jpg")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == f"uponce: There is no file {media / 'dog.jpg'}.\n"


def test_a_raw_file_keeps_its_extension(server: Server, tmp_path: Path) -> None:
    """As with the SDKs: a page links to it, and the browser knows by its name what it is."""
    paper = tmp_path / 'a "b".pdf'
    paper.write_bytes(b"%PDF-1.4\n" + b"x" * 3_000_000)
    (answer,) = as_json(server, "upload", "--type", "raw", paper)
    assert re.fullmatch(r"[a-z0-9]{20}\.pdf", answer["public_id"])
    assert (answer["bytes"], answer["original_filename"]) == (3_000_009, 'a "b"')
    (named,) = as_json(server, "upload", "--type", "raw", "--set", "use_filename=true", paper)
    assert named["public_id"].endswith(".pdf")
    assert server.get(named["secure_url"]).data == paper.read_bytes()


def test_a_file_that_cannot_be_read_is_named(server: Server, media: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"x")
    with mock.patch("uponce.cli.upload._Form", side_effect=PermissionError(13, "Permission denied")):
        done = beside(server, "upload", broken)
    assert (done.code, done.stdout) == (1, "")
    assert f"{broken}: cannot be read: Permission denied\n" in done.stderr


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_an_interrupted_upload_prints_what_the_server_has_stored(
    server: Server, media: Path, words: tuple[str, ...]
) -> None:
    first = server.signed({"nonce": f"interrupted{words}"})
    with mock.patch("uponce.cli.upload.mint", side_effect=[first, KeyboardInterrupt]):
        done = beside(server, "upload", media / "cat.jpg", media / "cat.jpg", *words)
    assert (done.code, done.stdout.count("/image/upload/v")) == (1, 2 if words else 1)


def test_a_folder_is_not_uploaded(server: Server, tmp_path: Path) -> None:
    done = beside(server, "upload", tmp_path)
    assert (done.code, done.stdout) == (1, "")
    assert f"{tmp_path} is a folder. Name the files in it.\n" in done.stderr


@pytest.mark.parametrize("command", ["show", "revoke"])
def test_an_id_that_is_cut_is_named(server: Server, command: str) -> None:
    done = beside(server, "signatures", command, "0123abcd…")
    assert (done.code, done.stdout) == (2, "")
    told = " ".join(done.stderr.replace("│", " ").split())
    assert "This is no id: an id has 64 digits, 0-9 and a-f. `uponce signatures list` shows each id whole." in told


def test_a_wrong_choice_is_named_in_plain_words(server: Server) -> None:
    done = beside(server, "sign", "--type", "sculpture")
    assert "Invalid value for '--type': 'sculpture' is not one of 'image'" in done.stderr


def test_errors_quote_no_signature_whole(server: Server) -> None:
    """It fails here with these parameters, and is a grant with others."""
    signed = as_json(server, "sign", "folder=kept")["fields"]
    words = [f"{name}={value}" for name, value in {**signed, "folder": "other"}.items()]
    live = signed["signature"]
    for command in (words, [*words, f"signature={live}"], ["folder=x", live], ["folder=x", f"signature: {live}"]):
        done = beside(server, "signatures", "show", *command)
        assert done.code in (1, 2)
        assert live not in done.stdout + done.stderr


def test_settings_are_shown_without_secrets(server: Server) -> None:
    environment = {**settings_of(server), "UPONCE_SECRET_KEY": "ab" * 32}
    lines = printed(uponce("settings", env=environment)).splitlines()
    rows = json.loads(printed(uponce("settings", "--json", env=environment)))
    assert len(lines) == len(rows) > 40
    assert re.fullmatch(
        rf"UPONCE_PORT += {server.port}  \(environment\)", next(x for x in lines if "UPONCE_PORT " in x)
    )
    assert not any("abab" in line for line in lines)


@pytest.mark.usefixtures("tries_at_once")
def test_a_server_that_is_not_there(data: Path, media: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: no server answers, and no other process can
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        done = uponce("upload", media / "cat.jpg", "--data", data, env={"UPONCE_PORT": port})
    assert (done.code, done.stdout) == (1, "")
    assert f"No answer from http://127.0.0.1:{port}: [Errno 111] Connection refused." in done.stderr
