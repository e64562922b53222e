"""The command line beside a running server: what it prints where, and its exit codes 0, 1 and 2."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from tests.e2e.commands import as_json, beside, code_of, in_a_process, printed, settings_of, uponce
from tests.e2e.lossy import LossyProxy
from tests.server import Key, Server
from uponce import __version__

pytestmark = pytest.mark.xdist_group("command line")

URL = re.compile(r"CLOUDINARY_URL=cloudinary://(\d{15}):([a-z0-9]{32})@([\w-]+)\?upload_prefix=(\S+)\n")
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
    "keys import": "Bring a key with its secret",
    "keys list": "Show all keys, without their secrets",
    "keys revoke": "Refuse a key and all its signatures",
    "keys rotate": "Give a key a new secret",
    "keys renew": "Last resort when secret.key is lost",
    "signatures show": "Show the status and the history of one signature",
    "signatures list": "List the newest signatures in the ledger",
    "signatures revoke": "Refuse one unused signature from now on",
}


def new_key(server: Server, *words: str) -> Key:
    """`keys create`, read as a person would copy it."""
    made = URL.fullmatch(printed(beside(server, "keys", "create", *words)))
    assert made is not None
    assert (made[3], made[4]) == (server.cloud, server.base)
    return Key(made[1], made[2])


# --- help, version, usage


def test_version() -> None:
    assert printed(in_a_process("--version")) == f"uponce {__version__}\n"


@pytest.mark.parametrize(("command", "what"), COMMANDS.items())
def test_help_says_what_a_command_does(command: str, what: str) -> None:
    page = printed(uponce(*command.split(), "--help"))
    assert what in page
    assert printed(uponce(*command.split(), "-h")) == page


def test_help_names_every_command() -> None:
    for group in ("", "keys", "signatures"):
        page = printed(uponce(*group.split(), "--help"))
        names = re.findall(r"^│ ([\w-]+) +[A-Z]", page, re.MULTILINE)
        assert {f"{group} {name}".strip() for name in names} - {"keys", "signatures"} == {
            command for command in COMMANDS if " ".join(command.split()[:-1]) == group
        }


def test_help_imports_no_more_than_it_prints() -> None:
    """Each of these made it slower; the last line is the control: the modules are there for who needs them."""
    look = "import sys; from uponce.cli import main; sys.argv[1:] = sys.argv[1:] or ['--help']\n"
    look += "try: main()\nexcept SystemExit: pass\n"
    look += "print({'markdown_it', 'pygments', 'msgspec', 'asyncio', 'uponce.core.values'} & set(sys.modules))\n"
    look += "import rich.markdown, rich.traceback; print(rich.markdown.Markdown, 'pygments' in sys.modules)\n"

    told = subprocess.run([sys.executable, "-c", look], check=True, capture_output=True, text=True).stdout

    assert told.endswith("set()\n<class 'rich.markdown.Markdown'> True\n")


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
    done = in_a_process(*words, env=settings_of(server))
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
    assert list(tmp_path.iterdir()) == []


# --- keys


def test_a_created_key_works_at_once_in_the_running_server(server: Server) -> None:
    key = new_key(server, "--name", "newsletter")
    fields = server.signed(key=key)
    assert [code_of(server, fields) for _ in range(2)] == ["", "signature_used"]


def test_a_key_with_another_policy(server: Server) -> None:
    key = new_key(server, "--uses", "unlimited", "--window", "60", "--sha256-only")
    listed = next(row for row in as_json(server, "keys", "list") if row["api_key"] == key.key)
    assert (listed["uses"], listed["scope"], listed["window"], listed["algorithms"]) == (
        "unlimited",
        "upload",
        60,
        ["sha256"],
    )
    assert code_of(server, server.signed(key=key)) == "invalid_signature"


def test_keys_are_listed_without_secrets(server: Server) -> None:
    table = printed(beside(server, "keys", "list"))
    rows = as_json(server, "keys", "list")
    assert [row["name"] for row in rows[:2]] == ["browser", "server"]
    for row in rows:
        assert re.search(rf"^ *{row['api_key']} .*{row['uses']}.*{row['scope']}", table, re.MULTILINE)
    for secret in (server.browser.secret, server.server.secret):
        assert secret not in table + json.dumps(rows)


def test_a_revoked_key_is_refused_at_once(server: Server) -> None:
    key = new_key(server)
    assert printed(beside(server, "keys", "revoke", key.key)) == f"revoked {key.key}\n"
    assert code_of(server, server.signed(key=key)) == "unknown_api_key"
    assert re.search(rf"{key.key}.*revoked 20", printed(beside(server, "keys", "list")))


def test_a_rotated_key_takes_its_old_secret_for_a_while(server: Server) -> None:
    old = new_key(server)
    made = URL.fullmatch(printed(beside(server, "keys", "rotate", old.key)))
    assert made is not None
    new = Key(made[1], made[2])
    assert (new.key, new.secret != old.secret) == (old.key, True)
    assert [code_of(server, server.signed({"tags": key.secret[:3]}, key)) for key in (old, new)] == ["", ""]

    at_once = URL.fullmatch(printed(beside(server, "keys", "rotate", old.key, "--overlap", "0")))
    assert at_once is not None
    newest = Key(at_once[1], at_once[2])
    assert code_of(server, server.signed({"tags": "late"}, new)) == "invalid_signature"
    assert code_of(server, server.signed({"tags": "late"}, newest)) == ""


@pytest.mark.parametrize("action", ["revoke", "rotate"])
def test_a_key_that_does_not_exist(server: Server, action: str) -> None:
    done = beside(server, "keys", action, "1")
    assert (done.code, done.stdout) == (1, "")
    assert done.stderr == "uponce: API key 1 does not exist. `uponce keys list` shows all keys.\n"


def test_a_revoked_key_is_not_rotated(server: Server) -> None:
    """The new secret would work no better than the old one."""
    url = URL.fullmatch(printed(beside(server, "keys", "create")))
    assert url is not None
    printed(beside(server, "keys", "revoke", url[1]))
    done = beside(server, "keys", "rotate", url[1])
    assert (done.code, done.stdout) == (1, "")
    assert f"API key {url[1]} was revoked at " in done.stderr and "`uponce keys create`" in done.stderr


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


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["colour=red"], "Unknown parameter colour."),
        (["eager=w_100"], "Parameter eager is not supported by this server yet."),
        (["signature=abc"], "Parameter signature is not part of what is signed."),
        (["max_bytes=many"], "Parameter max_bytes must be a whole number"),
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


def test_errors_quote_no_signature_whole(server: Server) -> None:
    """It fails here with these parameters, and is a grant with others."""
    signed = as_json(server, "sign", "folder=kept")["fields"]
    words = [f"{name}={value}" for name, value in {**signed, "folder": "other"}.items()]
    for command in ([*words], [*words, f"signature={signed['signature']}"]):
        done = beside(server, "signatures", "show", *command)
        assert done.code in (1, 2)
        assert signed["signature"] not in done.stdout + done.stderr


def test_settings_are_shown_without_secrets(server: Server) -> None:
    environment = {**settings_of(server), "UPONCE_SECRET_KEY": "ab" * 32}
    lines = printed(uponce("settings", env=environment)).splitlines()
    rows = json.loads(printed(uponce("settings", "--json", env=environment)))
    assert len(lines) == len(rows) > 40
    assert re.fullmatch(
        rf"UPONCE_PORT += {server.port}  \(environment\)", next(x for x in lines if "UPONCE_PORT " in x)
    )
    assert not any("abab" in line for line in lines)


# --- keys of a backend


IMPORTED = "cloudinary://987654321098765:Zz-secret_of_a_backend-01@media?uses=unlimited&window=60&name=shop"


def test_an_imported_key_keeps_its_secret_and_its_policy(server: Server) -> None:
    key = Key("987654321098765", "Zz-secret_of_a_backend-01")
    done = beside(server, "keys", "import", stdin=IMPORTED + "\n")
    assert printed(done) == "imported 1 of 1 keys; the others exist already, with the same secret\n"
    assert [code_of(server, server.signed(key=key)) for _ in range(2)] == ["", ""]
    (row,) = [row for row in as_json(server, "keys", "list") if row["api_key"] == key.key]
    assert (row["uses"], row["scope"], row["window"], row["name"]) == ("unlimited", "upload", 60, "shop")
    again = beside(server, "keys", "import", stdin=IMPORTED)
    assert printed(again).startswith("imported 0 of 1 keys")
    other = beside(server, "keys", "import", key.key, "--uses", "unlimited", "--window", "60", stdin="y" * 30 + "\n")
    assert (other.code, other.stdout) == (1, "")
    assert other.stderr == f"uponce: API key {key.key} exists already and differs: secret. It was not changed.\n"
    assert code_of(server, server.signed({"nonce": 1}, key)) == ""


def test_the_secret_of_one_key_comes_by_the_standard_input(server: Server) -> None:
    key = Key("shop-2", "another-secret-of-a-backend")
    printed(beside(server, "keys", "import", key.key, "--scope", "all", stdin=key.secret + "\n"))
    assert [code_of(server, server.signed(key=key)) for _ in range(2)] == ["", "signature_used"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "The standard input has no key."),
        ("123", "this line must have keys like cloudinary://KEY:SECRET@CLOUD?uses=once&scope=upload."),
        ("cloudinary://1:hidden@media", "The secret of API key 1 has 6 characters. Use 20 to 128"),
        ("cloudinary://1:hidden-hidden-hidden-hidden@me.dia", "Cloud name 'me.dia'"),
        ("cloudinary://1:hidden-hidden-hidden-hidden@media?window=9999999", "A window of 9999999 seconds"),
        ("cloudinary://1:hidden-hidden-hidden-hidden@media?uses=twice", "uses must be once or unlimited"),
        ("cloudinary://1:hidden-hidden-hidden-hidden@media?user=once", "there is no option user."),
        ("cloudinary://a b:hidden-hidden-hidden-hidden@media", "must have keys like"),
        ("cloudinary://a%20b:hidden-hidden-hidden-hidden@media", "API key 'a b' is not valid."),
    ],
)
def test_a_key_that_cannot_be_imported(server: Server, line: str, message: str) -> None:
    done = beside(server, "keys", "import", stdin=line)
    assert (done.code, done.stdout) == (1, "")
    assert message in done.stderr
    assert "hidden" not in done.stderr


def test_two_keys_never_share_the_end_of_a_secret(server: Server) -> None:
    """A signature hashes the parameters and then the secret: one signature would be good for both keys."""
    for secret in (server.browser.secret, "x" + server.browser.secret, server.browser.secret[3:]):
        done = beside(server, "keys", "import", "twin", stdin=secret)
        assert done.code == 1
        assert f"API keys twin and {server.browser.key} have the same secret, or one secret ends with" in done.stderr


def test_a_server_that_is_not_there(data: Path, media: Path) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers, and nobody else can
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        done = uponce("upload", media / "cat.jpg", "--data", data, env={"UPONCE_PORT": port})
    assert (done.code, done.stdout) == (1, "")
    assert f"No answer from http://127.0.0.1:{port}: [Errno 111] Connection refused." in done.stderr
