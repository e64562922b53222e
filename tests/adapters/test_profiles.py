"""Credentials from ~/.aws: profiles of all kinds, and what is said when one is no good."""

import json
import shlex
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.contract.databases import run
from tests.contract.stores import objects
from tests.contract.test_blobs import get, put
from tests.stores import seaweedfs
from tests.stores.seaweedfs import SeaweedFS
from uponce.adapters.store.profiles import credentials_of_profile
from uponce.core.errors import SettingRefused

KEYS = {"aws_access_key_id": "AWS_ACCESS_KEY_ID", "aws_secret_access_key": "AWS_SECRET_ACCESS_KEY"}


@pytest.fixture
def server() -> SeaweedFS:
    return seaweedfs.shared()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the user who runs the tests."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "media")


def check_it_stores(server: SeaweedFS, folder: Path) -> None:
    place = {"AWS_ENDPOINT_URL": server.environment["AWS_ENDPOINT_URL"]}
    with objects(server.fresh_url(), place, folder) as store:
        key = run(put(store, b"a picture"))
        assert run(get(store, key)) == b"a picture"


def section(name: str, **lines: str) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {value}" for key, value in lines.items()), ""])


def telling(told: object) -> str:
    """A program that prints this."""
    return shlex.join([sys.executable, "-c", f"print({json.dumps(json.dumps(told))})"])


def test_keys_of_a_profile(server: SeaweedFS, tmp_path: Path) -> None:
    keys = {name: server.environment[variable] for name, variable in KEYS.items()}
    (tmp_path / "credentials").write_text(section("media", **keys))
    (tmp_path / "config").write_text(section("profile media", region="us-east-1"))
    check_it_stores(server, tmp_path)


def test_a_program_that_gives_credentials(server: SeaweedFS, tmp_path: Path) -> None:
    told = {"Version": 1} | {
        "AccessKeyId": server.environment["AWS_ACCESS_KEY_ID"],
        "SecretAccessKey": server.environment["AWS_SECRET_ACCESS_KEY"],
    }
    (tmp_path / "config").write_text(section("profile media", region="us-east-1", credential_process=telling(told)))
    check_it_stores(server, tmp_path)


def test_credentials_are_asked_for_again_before_they_run_out(tmp_path: Path) -> None:
    """botocore renews them when they have ten minutes left, so that is the least which it gives."""
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=11)
    told = {"Version": 1, "AccessKeyId": "key", "SecretAccessKey": "secret", "Expiration": until.isoformat()}
    (tmp_path / "config").write_text(section("profile media", credential_process=telling(told)))
    provider = credentials_of_profile()
    assert provider is not None
    asked_again = provider()["expires_at"]
    assert asked_again is not None
    assert asked_again < until


def test_a_profile_that_is_not_there_is_refused(server: SeaweedFS, tmp_path: Path) -> None:
    with pytest.raises(SettingRefused, match=r"AWS_PROFILE=media gives no credentials: .*media.*Check the profile"):
        check_it_stores(server, tmp_path)


def test_a_profile_without_credentials_is_refused(server: SeaweedFS, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(section("profile media", region="us-east-1"))
    with pytest.raises(SettingRefused, match="AWS_PROFILE=media gives no credentials"):
        check_it_stores(server, tmp_path)


def test_a_program_that_fails_is_refused(server: SeaweedFS, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(section("profile media", region="us-east-1", credential_process="false"))
    with pytest.raises(SettingRefused, match="AWS_PROFILE=media gives no credentials"):
        check_it_stores(server, tmp_path)


def test_without_boto3_it_is_told_what_to_install(
    server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    with pytest.raises(SettingRefused, match=r"-m pip install boto3"):
        check_it_stores(server, tmp_path)


def test_without_a_profile_nothing_of_it_is_read(
    server: SeaweedFS, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setitem(sys.modules, "botocore.exceptions", None)
    (tmp_path / "credentials").write_text("[media\n")
    with objects(server.fresh_url(), server.environment, tmp_path) as store:
        assert run(put(store, b"a picture"))
