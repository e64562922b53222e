"""Checks of compose.yaml and the systemd units that need no Docker daemon and no running systemd."""

import os
import re
import shutil
import subprocess
import sys
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest
import yaml

from uponce.config import load
from uponce.wiring import build

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GIVEN = {"UPONCE_SECRET_KEY": "ab" * 32, "POSTGRES_PASSWORD": "cd" * 16, "S3_SECRET": "ef" * 16}
UNITS = ("uponce.service", "uponce-backup.service", "uponce-backup.timer")


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
    service = compose()["services"][name]
    environment = service["environment"]
    assert all(isinstance(value, str) for value in environment.values())
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    settings = load(environment)
    assert settings.instance == name
    build(settings)
    assert settings.drain_seconds + 30 + 5 + 5 <= int(service["stop_grace_period"].removesuffix("s"))
    assert service["init"] is True  # as process 1 the supervisor of workers would never reap their decoders


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


def test_compose_does_not_start_without_each_password() -> None:
    """It would be the same one on every machine that never set it."""
    text = (DEPLOY / "compose.yaml").read_text()
    for name in GIVEN:
        uses = re.findall(rf"\$\{{{name}(.*?)\}}", text)
        assert uses and all(use.startswith(":?") for use in uses), name
    assert set(re.findall(r"\$\{(\w+):-", text)) == {"UPONCE_PUBLIC_URL"}
    secrets = re.findall(r"(?:PASSWORD|SECRET\w*): (\S+)", text)
    assert secrets and all(value.startswith("${") for value in secrets)


def test_every_container_of_compose_is_confined_and_bounded() -> None:
    for name, service in compose()["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["read_only"] is True, name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"] and service["pids_limit"], name


def test_the_servers_of_compose_trust_their_caddy_alone() -> None:
    services = compose()["services"]
    address = services["caddy"]["networks"]["default"]["ipv4_address"]
    (pool,) = compose()["networks"]["default"]["ipam"]["config"]
    subnet, given = IPv4Network(pool["subnet"]), IPv4Network(pool["ip_range"])
    assert IPv4Address(address) in subnet
    assert given.subnet_of(subnet) and IPv4Address(address) not in given  # no other container can get it
    for name in ("first", "second"):
        (network,) = load(services[name]["environment"]).proxy_networks
        assert str(network) == f"{address}/32"


def test_the_job_for_the_bucket_ends_only_with_a_bucket(tmp_path: Path) -> None:
    """`weed shell` ends with 0 also while there is no filer. Here the second try finds one."""
    weed, tries, made = tmp_path / "weed", tmp_path / "tries", tmp_path / "made"
    weed.write_text(
        "#!/bin/sh\nread line; case $line in "
        f"*create*) echo >> {tries}; [ $(wc -l < {tries}) -lt 2 ] || touch {made};; "
        f"*) [ ! -e {made} ] || echo '  media size:0';; esac\n"
    )
    weed.chmod(0o755)
    words = compose()["services"]["bucket"]["entrypoint"]
    done = subprocess.run(words, env={"PATH": f"{tmp_path}:{os.environ['PATH']}"}, timeout=60, check=False)
    assert (done.returncode, made.exists(), len(tries.read_text())) == (0, True, 2)


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("ABSENT: systemd-analyze is not installed")
    environment = os.environ | {"SYSTEMD_LOG_LEVEL": "warning", "SYSTEMD_COLORS": "0"}
    command = [program, *map(str, words)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_units_are_such(tmp_path: Path) -> None:
    """As systemd reads them, with the program of this checkout."""
    program = Path(sys.executable).with_name("uponce")
    for name in UNITS:
        (tmp_path / name).write_text((DEPLOY / name).read_text().replace("/opt/uponce/bin/uponce", str(program)))
    broken = tmp_path / "broken.service"
    broken.write_text((tmp_path / "uponce.service").read_text().replace("ExecStart=", "ExecStrat="))
    checked = analyze("verify", "--man=no", *(tmp_path / name for name in UNITS))
    assert (checked.returncode, checked.stderr) == (0, "")
    assert analyze("verify", "--man=no", broken).returncode != 0


@pytest.mark.parametrize("name", [name for name in UNITS if name.endswith(".service")])
def test_a_unit_leaves_little_open(name: str) -> None:
    """Below 2.0 of systemd's ten points, where ten is no protection at all."""
    judged = analyze("security", "--offline=true", "--threshold=19", DEPLOY / name)
    assert judged.returncode == 0, judged.stdout[-200:]
    for line in ("MemoryMax=", "ProtectProc=invisible\n", "SystemCallFilter=@system-service"):
        assert f"\n{line}" in (DEPLOY / name).read_text()


def test_each_server_trusts_its_front_alone() -> None:
    """The address from which the front of each guide calls."""
    named = {
        page: re.findall(r"^ *(?:Environment=)?UPONCE_TRUSTED_PROXIES[=:] ?'?([^'\s]+)", text, re.MULTILINE)
        for page, text in (
            ("uponce.service", (DEPLOY / "uponce.service").read_text()),
            *(
                (name, (DEPLOY.parent / f"docs/guide/{name}.md").read_text())
                for name in ("one-box", "production", "containers")
            ),
        )
    }
    assert named == {
        "uponce.service": ["127.0.0.1"],
        "one-box": ["127.0.0.1"],
        "production": ["10.0.0.10"],
        "containers": ["172.17.0.1"],
    }


def test_the_unit_waits_as_long_as_a_server_may_take() -> None:
    text = (DEPLOY / "uponce.service").read_text()
    match = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    settings = load(dict(re.findall(r"^Environment=(UPONCE_\w+)=(\S+)$", text, re.MULTILINE)))
    assert match is not None and settings.drain_seconds + 30 + 5 + 5 <= int(match[1])


def test_systemd_never_gives_up_to_start_the_server() -> None:
    """By default it does after five failed starts in ten seconds, such as at a boot before the database's."""
    text = (DEPLOY / "uponce.service").read_text()
    unit, service = text.split("[Service]")
    assert "\nStartLimitIntervalSec=0\n" in unit
    assert "\nRestart=always\n" in service


def test_a_backup_needs_the_disk_that_belongs_there() -> None:
    unit, service = (DEPLOY / "uponce-backup.service").read_text().split("[Service]")
    assert "\nRequiresMountsFor=/var/lib/uponce-backup\n" in unit
    assert "\nStateDirectory=uponce uponce-backup\n" in service
    guide = (ROOT / "docs/guide/one-box.md").read_text()
    assert "LABEL=backup /var/lib/uponce-backup ext4" in guide
