"""Settings: their sources and which one wins, what is refused and how, and what people may see of them."""

import errno
import inspect
import os
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from uponce.app.manage_keys import MAX_WINDOW
from uponce.cli.address import unreachable
from uponce.config import MASK, Settings, as_environment, effective, load, noted, with_noted
from uponce.config.rules import DATABASE, STORAGE, ValueRule
from uponce.core.errors import SettingRefused


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with an environment that has no setting."""
    for name in ("UPONCE_PORT", "UPONCE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def toml(folder: Path, text: str) -> dict[str, str]:
    (folder / "uponce.toml").write_text(text)
    return {"UPONCE_CONFIG": str(folder / "uponce.toml")}


def refusal(environ: dict[str, str] | None = None, **overrides: Any) -> str:
    with pytest.raises(SettingRefused) as refused:
        load(environ, **overrides)
    return refused.value.message


def test_the_strongest_source_wins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Command line, environment, .env, TOML, default."""
    assert load().port == 8000
    monkeypatch.setenv("UPONCE_CONFIG", toml(folder, "port = 8001\nworkers = 2")["UPONCE_CONFIG"])
    assert load().port == 8001
    (folder / ".env").write_text("UPONCE_PORT=8002\n")
    assert (load().port, load().workers) == (8002, 2)
    monkeypatch.setenv("UPONCE_PORT", "8003")
    assert load().port == 8003
    assert load(port=8004).port == 8004


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("UPONCE_CLOUD=cats", "cats"),
        ("\ufeffUPONCE_CLOUD=cats", "cats"),  # as some editors begin a file
        ("export UPONCE_CLOUD=cats", "cats"),
        ('UPONCE_CLOUD="the cats"', "the cats"),
        ("UPONCE_CLOUD='a#b'", "a#b"),
        ("UPONCE_CLOUD = cats # ours", "cats"),
        ("  UPONCE_CLOUD=", ""),
        ("# UPONCE_CLOUD=dogs\nCLOUD=birds\nNOT A LINE\nUPONCE_CLOUD=cats", "cats"),
    ],
)
def test_an_env_file_is_read_line_by_line(folder: Path, line: str, value: str) -> None:
    (folder / ".env").write_text(line)
    assert load().cloud == value


def test_a_line_of_an_env_file_that_cannot_be_read(folder: Path) -> None:
    (folder / ".env").write_text("OTHER=1\nUPONCE_CLOUD='cats\n")
    assert refusal() == ".env, line 2: write UPONCE_NAME=value, or UPONCE_NAME='value'."


def test_an_env_folder_is_no_file_of_settings(folder: Path) -> None:
    """`python -m venv .env` makes one."""
    (folder / ".env").mkdir()
    assert load() == Settings()


def test_a_folder_that_the_user_may_not_enter_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", ".env")

    monkeypatch.setattr(Path, "read_text", closed)
    monkeypatch.setattr(os, "access", lambda *_: False)
    assert "may not enter the present folder" in refusal()
    monkeypatch.setattr(os, "access", lambda *_: True)
    assert "The file .env in this folder cannot be read" in refusal()


def test_an_env_file_can_name_the_toml_file(folder: Path) -> None:
    (folder / ".env").write_text("UPONCE_CONFIG=" + toml(folder, "port = 8001")["UPONCE_CONFIG"])
    assert load().port == 8001


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[uponce]\nport = 8100",
            "uponce.toml has a table [uponce]. Write all settings without a table, such as: port",
        ),
        ("[[keys]]\nid = 1", "keys=******** ("),
        ("prot = 8100", "There is no setting prot ("),
        ("limits = 1", "There is no setting limits ("),
        ("config = 'other.toml'", "There is no setting config ("),
        ("port = 'high'", "port=high ("),
        ("port = true", "port=True ("),
        ("host = 1", "host=1 ("),
        ("database = ['postgresql://u:123456@h/d']", "database=******** ("),
        ("workers = 0", "workers=0 ("),
        ("secret_key = 123456", "secret_key=******** ("),
        ("port = ", "cannot be read: Invalid value"),
    ],
)
def test_an_error_in_a_file_names_the_setting_as_it_is_written_there(folder: Path, text: str, message: str) -> None:
    said = refusal(toml(folder, text))
    assert message in said
    assert "uponce.toml" in said
    assert "123456" not in said


def test_the_variables_of_a_service_of_kubernetes_are_no_settings() -> None:
    """A Service named `uponce`, or `uponce-db`, gives them to every pod."""
    links = {
        "UPONCE_SERVICE_HOST": "10.0.0.1",
        "UPONCE_SERVICE_PORT": "8000",
        "UPONCE_SERVICE_PORT_HTTP": "8000",
        "UPONCE_PORT": "tcp://10.0.0.1:8000",
        "UPONCE_PORT_8000_TCP": "tcp://10.0.0.1:8000",
        "UPONCE_PORT_8000_TCP_PROTO": "tcp",
        "UPONCE_PORT_8000_TCP_PORT": "8000",
        "UPONCE_PORT_8000_TCP_ADDR": "10.0.0.1",
        "UPONCE_DB_SERVICE_HOST": "10.0.0.2",
        "UPONCE_DB_PORT": "tcp://10.0.0.2:5432",
        "UPONCE_DB_PORT_5432_UDP_ADDR": "10.0.0.2",
    }
    assert load(links) == load({})
    for name, value in (("UPONCE_PORT", "tcp"), ("UPONCE_DB_PORT", "5432"), ("UPONCE_PORT_8000", "1")):
        with pytest.raises(SettingRefused, match=f"{name}\\b"):
            load(links | {name: value})


ROOT = Path(__file__).parents[2]
NETWORKS = "IP addresses or networks, separated by commas, without host bits: 10.0.0.0/8 and not 10.0.0.5/8"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("port", "70000", "0 to 65535"),
        ("port", "", "a whole number"),
        ("window", "0", "1 to 604800"),
        ("skew", "-1", "0 to 315360000"),
        ("small_body_bytes", "-1", f"0 to {2**53}"),
        ("max_raw_bytes", "0", f"1 to {2**53}"),
        ("relay_chunk_bytes", "1000000", f"5242880 to {2**53}"),
        ("audit_days", "-1", "0 to 36500"),
        ("audit_days", "36501", "0 to 36500"),
        ("storage_redirect", "604801", "0 to 604800"),
        ("data", "", "a folder, such as ./uponce-data, without ~, which only shells replace"),
        ("data", "~/uponce-data", "a folder, such as ./uponce-data, without ~, which only shells replace"),
        ("trusted_proxies", "10.0.0.5/8", NETWORKS),
        ("notification_networks", "10.0.0.0/8, here", NETWORKS),
        ("host", "", "an address of this machine, such as 127.0.0.1"),
        ("database", "", DATABASE.expected),
        *(("storage", url, STORAGE.expected) for url in ("", "https://minio:9000/bucket", "s3://bucket:x/y")),
        ("log_level", "loud", "debug or info or warning or error"),
        ("log_format", "xml", "text or json"),
        ("database_failover", "maybe", "fence or trust"),
        ("storage_accel", "blobs", "empty, or like /_blobs/"),
        ("sweep_seconds", "0", "1 to 600"),
        ("sweep_seconds", "601", "1 to 600"),
        ("grace_seconds", "599", "600 to 315360000"),
        ("playground_keep_files", "0", f"1 to {2**31 - 1}"),
        ("playground_keep_seconds", "0", "1 to 315360000"),
    ],
)
def test_a_value_that_cannot_work_is_refused(name: str, value: str, expected: str) -> None:
    variable = f"UPONCE_{name.upper()}"
    said = refusal({variable: value})
    assert said == f"{variable}={value} (environment) is not valid: it must be {expected}."


@pytest.mark.parametrize(
    ("name", "value"),
    [("MAX_IMAGE_PIXELS", "4000000000"), ("MAX_TOTAL_PIXELS", "5000000000"), ("STORAGE", "file:/srv//disk:1/media")],
)
def test_a_value_that_only_looks_wrong_is_accepted(name: str, value: str) -> None:
    load({f"UPONCE_{name}": value})


@pytest.mark.parametrize(
    ("environ", "warns"),
    [
        ({"UPONCE_HOST": "0.0.0.0"}, True),
        ({"UPONCE_TRUSTED_PROXIES": "127.0.0.1"}, True),  # behind a front server, whose address is not known here
        ({"UPONCE_TRUSTED_PROXIES": "127.0.0.1", "UPONCE_PUBLIC_URL": "https://media.example"}, False),
        ({}, False),
    ],
)
def test_urls_of_notifications_that_lead_nowhere_are_warned_of(environ: dict[str, str], warns: bool) -> None:
    settings = load({"UPONCE_NOTIFICATION_URL": "https://app.example/uploaded"} | environ)
    assert (unreachable(settings) is not None) == warns


def test_settings_are_shown_in_the_order_of_the_reference() -> None:
    reference = (ROOT / "docs/reference/settings.md").read_text()
    shown = [row["name"] for row in effective({})]
    assert shown == sorted(shown, key=lambda name: reference.index(f"| `{name}` |"))


NUMBERS = [row["name"] for row in effective({}) if isinstance(row["value"], int)]


@pytest.mark.parametrize("name", NUMBERS)
def test_every_number_has_a_greatest_value(name: str) -> None:
    """A greater one would fail later, at each request."""
    assert re.search(r"it must be \d+ to \d+\.$", refusal({name: str(2**63 - 1)}))


CHOICES = [
    (name, choice)
    for name, hint in get_type_hints(Settings, include_extras=True).items()
    for rule in get_args(hint)[1:]
    if isinstance(rule, ValueRule) and rule.any_case
    for choice in rule.expected.split(" or ")
]


@pytest.mark.parametrize(("name", "choice"), CHOICES)
def test_every_choice_means_the_same_in_any_case(name: str, choice: str) -> None:
    """All code compares the exact word: `OFF` must not be something else than `off`."""
    for word in (choice, choice.upper(), choice.title()):
        assert getattr(load({f"UPONCE_{name.upper()}": word}), name) == choice
        assert getattr(load({}, **{name: word}), name) == choice


def test_the_choices_are_those_of_all_settings() -> None:
    assert {name for name, _ in CHOICES} == {
        "database_failover",
        "log_format",
        "log_level",
        "playground",
        "relay_inspect",
    }


def test_a_playground_keeps_at_least_one_of_its_largest_files() -> None:
    values = {"UPONCE_PLAYGROUND_BYTES": "11", "UPONCE_PLAYGROUND_KEEP_BYTES": "10"}
    assert load(values).playground == "off"
    said = refusal(values | {"UPONCE_PLAYGROUND": "public"})
    assert said == (
        "UPONCE_PLAYGROUND_KEEP_BYTES=10 (environment) is not valid: it must be at least UPONCE_PLAYGROUND_BYTES, "
        "which is 11."
    )


def test_the_cloud_of_a_relay_has_the_name_of_its_account_unless_another_one_is_given() -> None:
    """So delivery URLs that an SDK makes are those of the account."""
    relay = {"UPONCE_RELAY": "cloudinary://1:2@Acme?window=600"}
    assert load(relay).cloud == "Acme"
    assert load(as_environment(load(relay))).cloud == "Acme"
    assert load(relay | {"UPONCE_CLOUD": "cats"}).cloud == "cats"
    assert load({"UPONCE_RELAY": "https://api.cloudinary.com"}).cloud == load({}).cloud == "media"


def test_a_relay_waits_for_no_answer_after_its_signature_is_dead() -> None:
    """Also when the default is longer than the fence that was given."""
    assert load({"UPONCE_RELAY_FENCE": "20", "UPONCE_RELAY_ANSWER": "20"}).limits.relay_answer == 20
    assert refusal({"UPONCE_RELAY_ANSWER": "301"}) == (
        "UPONCE_RELAY_ANSWER=301 (environment) is not valid: it must be at most UPONCE_RELAY_FENCE, which is 300."
    )
    assert refusal({"UPONCE_RELAY_FENCE": "20"}) == (
        "UPONCE_RELAY_ANSWER=300 (default) is not valid: it must be at most UPONCE_RELAY_FENCE, which is 20."
    )


@pytest.mark.parametrize("name", ["small_body_bytes", "pack_bytes"])
def test_zero_turns_off_what_its_meaning_says(name: str) -> None:
    assert as_environment(load({f"UPONCE_{name.upper()}": "0"}))[f"UPONCE_{name.upper()}"] == "0"


def test_an_error_of_the_command_line_names_the_option() -> None:
    assert refusal({}, port=70000) == "--port=70000 (command line) is not valid: it must be 0 to 65535."


def test_settings_survive_the_way_to_worker_processes() -> None:
    settings = load({"UPONCE_PORT": "8100", "UPONCE_SKEW": "10", "UPONCE_KEYS": "cloudinary://1:secret@media"})
    assert load(as_environment(settings)) == settings


def test_a_worker_that_starts_later_has_the_settings_of_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if the operator has edited the files since, for the next start of the whole server."""
    for name, value in toml(folder, "port = 8100").items():
        monkeypatch.setenv(name, value)
    (folder / ".env").write_text("UPONCE_CLOUD=cats\n")
    settings = load()
    for name, value in as_environment(settings).items():
        monkeypatch.setenv(name, value)
    toml(folder, "storage = 'file:///elsewhere'")
    (folder / ".env").write_text("UPONCE_CLOUD=cats\nUPONCE_DATABASE=sqlite:////elsewhere.db\n")
    assert load() == settings


def test_every_setting_is_shown_with_its_source_and_no_secret(folder: Path) -> None:
    environ = {
        "UPONCE_SECRET_KEY": "ab" * 32,
        "UPONCE_METRICS_TOKEN": "sesame",
        "UPONCE_KEYS": "cloudinary://1:hidden@media",
        "UPONCE_DATABASE": "postgresql://uponce:letmein@db/uponce",
        **toml(folder, "port = 8100"),
    }
    rows = {row["name"]: (row["value"], row["source"]) for row in effective(environ, workers=3)}
    fields = {*Settings.__struct_fields__, *Settings().limits.__dataclass_fields__} - {"limits"}
    assert rows.keys() == {f"UPONCE_{name.upper()}" for name in fields}
    assert rows["UPONCE_PORT"] == (8100, environ["UPONCE_CONFIG"])
    assert rows["UPONCE_WORKERS"] == (3, "command line")
    assert rows["UPONCE_HOST"] == ("127.0.0.1", "default")
    assert rows["UPONCE_DATABASE"] == (f"postgresql://uponce:{MASK}@db/uponce", "environment")
    assert rows["UPONCE_STORAGE"] == (f"file://{folder}/uponce-data/media", "default")
    told = repr(rows)
    assert all(secret not in told for secret in ("ab" * 32, "sesame", "hidden", "letmein"))


@pytest.mark.parametrize(
    ("name", "url", "seen"),
    [
        ("database", "postgresql://u:hidden@db/x", f"postgresql://u:{MASK}@db/x"),
        ("database", "postgresql://u:p@ss:hidden@db/x", f"postgresql://u:{MASK}@db/x"),
        ("database", "postgresql://u:hid/den?hidden#@db/x", f"postgresql://u:{MASK}@db/x"),
        ("database", "postgresql://u:12/hidden@127.0.0.1:1/x", f"postgresql://u:{MASK}@127.0.0.1:1/x"),
        ("database", "postgresql://u:12?hidden@db/x", f"postgresql://u:{MASK}@db/x"),
        ("database", "postgresql://u:12#hidden@db/x", f"postgresql://u:{MASK}@db/x"),
        ("database", "postgresql://u@server:hidden@db/x", f"postgresql://{MASK}@db/x"),
        ("database", "postgresql://u/v:hidden@db/x", f"postgresql://{MASK}@db/x"),
        ("database", "postgresql://[u:hidden@db/x", f"postgresql://[u:{MASK}@db/x"),
        ("database", "postgresql:///u:hidden@db/x", f"postgresql://{MASK}@db/x"),
        ("database", "postgresql:u:hidden@db/x", f"postgresql:{MASK}@db/x"),
        ("database", "postgresql//u:hidden@db/x", f"{MASK}@db/x"),
        ("database", "u:hidden\nhidden@db/x", f"u:{MASK}@db/x"),
        ("database", "u:hidden://hidden@db/x", f"u:{MASK}@db/x"),
        ("database", "postgresql://db:5432/x?user=u", "postgresql://db:5432/x?user=u"),
        ("database", "postgresql://db/x?user=u&password=hidden", f"postgresql://db/x?user=u&password={MASK}"),
        (
            "database",
            "postgresql://u:hidden@db/x?sslpassword=hidden&sslmode=require",
            f"postgresql://u:{MASK}@db/x?sslpassword={MASK}&sslmode=require",
        ),
        ("notification_url", "https://u:hidden@app.example/a", f"https://u:{MASK}@app.example/a"),
        (
            "notification_url",
            "https://hidden@app.example/a?Password=hidden",
            f"https://{MASK}@app.example/a?Password={MASK}",
        ),
        ("public_url", "https://u:hidden@media.example", f"https://u:{MASK}@media.example"),
        ("database", "host=h password=hidden:hidden dbname=x", f"host=h password={MASK}"),
        ("notification_url", "https://u:12/hidden@app.example/a", f"https://u:{MASK}@app.example/a"),
        ("notification_url", "https://hidden@app.example/a@b", f"https://{MASK}@app.example/a@b"),
        ("notification_url", "https://app.example/a@b?to=c@d", "https://app.example/a@b?to=c@d"),
        # It looks like the one above with a password, so it is masked too.
        ("notification_url", "https://app.example:8443/a@b?to=c@d", f"https://app.example:{MASK}@d"),
        ("storage", "file:///srv/a:b@c", "file:///srv/a:b@c"),
        ("instance", "a@b", "a@b"),
        ("cloud", "media", "media"),
    ],
)
def test_no_password_of_a_url_is_shown(name: str, url: str, seen: str) -> None:
    assert {row["name"]: row["value"] for row in effective({f"UPONCE_{name.upper()}": url})}[
        f"UPONCE_{name.upper()}"
    ] == seen


def test_the_reference_names_the_longest_window() -> None:
    """The database of a first start refuses a longer one."""
    meaning = inspect.get_annotations(Settings)["window"].__metadata__[0]
    assert f"at most {MAX_WINDOW:,}" in meaning


def test_what_a_server_noted_counts_instead_of_the_settings_of_a_shell() -> None:
    """A server of another release may note other names."""
    server, shell = load({"UPONCE_CLOUD": "cats", "UPONCE_SKEW": "7"}), load({"UPONCE_SKEW": "9", "UPONCE_PORT": "1"})
    assert noted(server) == {
        "cloud": "cats",
        "skew": "7",
        "audit_days": "90",
        "notification_days": "30",
        "grace_seconds": "7200",
        "series_seconds": "86400",
        "empty_series_seconds": "300",
        "max_upload_seconds": "3600",
    }
    found = with_noted(shell, noted(server) | {"port": "2", "of_tomorrow": "3"})
    assert (found.cloud, found.limits.skew, found.port) == ("cats", 7, 1)
    assert with_noted(shell, {}) == shell
