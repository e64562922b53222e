"""What can be told of compose.yaml and the systemd unit without a daemon of Docker's and without being systemd."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from uponce.config import load
from uponce.wiring import build

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GIVEN = {"UPONCE_SECRET_KEY": "ab" * 32}


def compose() -> dict[str, Any]:
    """With its variables filled in as Compose does it."""

    def value(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return GIVEN.get(name) or default.removeprefix("-")

    text = re.sub(r"\$\{([^}]+)\}", value, (DEPLOY / "compose.yaml").read_text())
    read: dict[str, Any] = yaml.safe_load(text)
    return read


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_servers_of_compose_have_settings_that_exist(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = compose()["services"][name]["environment"]
    assert all(isinstance(value, str) for value in environment.values())
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load(environment)
    assert settings.instance == name
    build(settings)
    assert settings.drain_seconds + 30 <= int(compose()["services"][name]["stop_grace_period"].removesuffix("s"))


def test_the_parts_of_compose_fit_together() -> None:
    """Hosts, ports and volumes that are named are there; the second server waits for the first."""
    read = compose()
    services = read["services"]
    text = (DEPLOY / "compose.yaml").read_text()
    assert set(re.findall(r"(?:@|//|server=| )(postgres|s3|first|second)[:/]\d*", text)) <= services.keys()
    assert services["caddy"]["environment"]["UPONCE_SERVERS"].split() == ["first:8000", "second:8000"]
    named = [volume.split(":")[0] for service in services.values() for volume in service.get("volumes", [])]
    assert {volume for volume in named if not volume.startswith(".")} == read["volumes"].keys()
    assert all((DEPLOY / volume).exists() for volume in named if volume.startswith("."))
    assert services["second"]["depends_on"] == {"first": {"condition": "service_healthy"}}
    for service in services.values():
        assert set(service.get("depends_on", ())) <= services.keys()
        assert ":" in service["image"] if "image" in service else service["build"]["dockerfile"] == "deploy/Dockerfile"


def test_the_image_is_built_of_files_that_exist() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    variables = dict(pair.split("=") for pair in re.findall(r"UPONCE_\w+=\S+", text))
    assert load(variables).host == "0.0.0.0"


def test_the_unit_is_one(tmp_path: Path) -> None:
    """As systemd reads it, with the program of this checkout."""
    verify = shutil.which("systemd-analyze")
    if verify is None:
        pytest.skip("ABSENT: systemd-analyze is not installed")
    program = Path(sys.executable).with_name("uponce")
    unit = tmp_path / "uponce.service"
    unit.write_text((DEPLOY / "uponce.service").read_text().replace("/opt/uponce/bin/uponce", str(program)))
    (tmp_path / "broken.service").write_text(unit.read_text().replace("ExecStart=", "ExecStrat="))
    checked = {
        path.name: subprocess.run(
            [verify, "verify", "--man=no", str(path)],
            env=os.environ | {"SYSTEMD_LOG_LEVEL": "warning"},
            capture_output=True,
            text=True,
            check=False,
        )
        for path in (unit, tmp_path / "broken.service")
    }
    assert (checked["uponce.service"].returncode, checked["uponce.service"].stderr) == (0, "")
    assert checked["broken.service"].returncode != 0


def test_the_unit_waits_as_long_as_a_server_may_take() -> None:
    text = (DEPLOY / "uponce.service").read_text()
    match = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert match is not None and int(match[1]) >= 40
