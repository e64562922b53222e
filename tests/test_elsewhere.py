"""The core of the suite on a system that has nothing of Linux alone: macOS, as far as it can be played here."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CORE = (
    "tests/adapters/database/sqlite/test_file.py",
    "tests/adapters/media/test_facts.py",
    "tests/adapters/test_secretbox.py",
    "tests/app/test_attempts.py",
    "tests/app/test_series.py",
    "tests/contract/test_blob_parts.py",
    "tests/contract/test_blobs.py",
    "tests/e2e/test_curl.py",
)
# Other databases and stores are other programs. The last one watches a call that only Linux has.
LEFT_OUT = ("postgres", "s3", "azure", "before_they_are_recorded")


@pytest.mark.proof
@pytest.mark.timeout(900)  # it runs many tests
def test_uploads_work_without_what_only_linux_has() -> None:
    """Stores, series, decoders, and a real server with its command line."""
    chosen = " and ".join(f"not {word}" for word in LEFT_OUT)
    run = subprocess.run(
        [sys.executable, "tests/elsewhere.py", "-m", "pytest", "-q", "-p", "no:cacheprovider", *CORE, "-k", chosen],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:]
    passed = re.search(r"([0-9]+) passed", run.stdout)
    assert passed is not None
    assert int(passed[1]) > 100


def test_few_modules_call_what_only_linux_has() -> None:
    """Each has another way beside it. A new call elsewhere would need one too."""
    calls = re.compile(r"ctypes|/proc/|F_OFD|RWF_|MSG_TRUNC|TCP_NOTSENT_LOWAT")
    source = ROOT / "src/uponce"
    found = {path.relative_to(source).as_posix() for path in source.rglob("*.py") if calls.search(path.read_text())}
    assert found == {
        "adapters/files.py",
        "adapters/media/sandbox.py",
        "adapters/spool/locks.py",
        "adapters/store/packs.py",
        "adapters/system.py",
        "web/connections.py",
        "web/discarding.py",
    }


def test_it_really_takes_away_what_only_linux_has() -> None:
    code = (
        "import fcntl, os\n"
        "from uponce.adapters import system\n"
        "from uponce.adapters.media import sandbox\n"
        "from uponce.adapters.spool import locks\n"
        "print(system.LINUX, locks.LOCKS.across_processes, hasattr(os, 'fdatasync'), hasattr(system._LIBC, 'prctl'),"
        " sandbox.confine(['/']))\n"
    )
    run = subprocess.run(
        [sys.executable, "tests/elsewhere.py", "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.stdout.split() == ["False"] * 5, run.stderr


def test_doctor_says_what_this_system_lacks(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "tests/elsewhere.py", "-m", "uponce", "doctor", "--json", "--data", str(tmp_path / "new")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    warnings = {each["name"]: each["detail"] for each in json.loads(run.stdout) if each["state"] == "warning"}
    assert "good for development, one server process on one folder. Run uponce on Linux" in warnings["system"]
    assert "no Landlock: decoders have resource limits only" in warnings["sandbox"]
