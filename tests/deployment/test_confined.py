"""A server and a backup under the filters of system calls that the shipped units have."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.deployment import confined
from tests.server import Server

ROOT = Path(__file__).parents[2]
LARGE = bytes(1_000_000)  # more than what a request keeps in memory

pytestmark = pytest.mark.skipif(bool(confined.absent()), reason=confined.absent() or "it is there")


def under(unit: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tests.deployment.confined", unit, *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.proof
def test_large_uploads_and_backups_work_under_the_filters_of_the_units(tmp_path: Path) -> None:
    program = ("-m", "tests.deployment.confined", "uponce.service")
    with Server(tmp_path / "box", program=program) as server:
        answer = server.post(server.signed({"public_id": "large"}), LARGE, resource_type="raw")
        assert answer.status == 200, answer.data
        data, copy = ("--data", server.data_dir), tmp_path / "copy"
        done = under("uponce-backup.service", "backup", copy, *data)
        assert done.returncode == 0, done.stderr
        assert server.stop() == 0
    restored = under("uponce-backup.service", "restore", copy, "--data", tmp_path / "restored")
    assert restored.returncode == 0, restored.stderr


@pytest.mark.parametrize("unit", ["uponce.service", "uponce-backup.service"])
def test_the_filters_refuse_what_a_server_has_no_use_for(unit: str) -> None:
    """The control: a filter that let all through would make the test above mean nothing."""
    assert "setpriority" in confined.allowed(unit)
    assert not {"mount", "reboot", "setrlimit", "sched_setaffinity", "bpf"} & confined.allowed(unit)
    code = (
        f"import os; from tests.deployment.confined import confine; confine({unit!r}); os.sched_setaffinity(0, {{0}})"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "PermissionError" in done.stderr
