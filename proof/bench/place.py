"""Where and what is measured: the machine, this commit, another commit."""

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from proof.bench.row import Version
from proof.bench.servers import BenchmarkError
from uponce.adapters.system import file_system
from uponce.adapters.versions import versions

_ROOT = Path(__file__).parents[2]
# What a change of would make figures of another program.
_CODE = ("src", "proof/bench", "pyproject.toml", "requirements.lock")


def facts() -> dict[str, Any]:
    """Return the part of a Result that says where it comes from."""
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "commit": _git("rev-parse", "--short", "HEAD"),
        "dirty": bool(_git("status", "--porcelain", "--", *_CODE)),
        "machine": _machine(),
        "versions": versions(),
    }


def other_version(cache: Path, commit: str) -> Version:
    """Return the commit's code in a separate folder and virtual environment. They are kept for the next time."""
    try:
        name = _git("rev-parse", "--short", "--verify", f"{commit}^{{commit}}")
    except subprocess.CalledProcessError:
        raise BenchmarkError(f"There is no commit {commit}.") from None
    folder = cache / "commits" / name
    if not (folder / ".venv/.ready").exists():
        folder.mkdir(parents=True, exist_ok=True)
        archive = subprocess.run(["git", "archive", name], cwd=_ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x"], cwd=folder, input=archive, check=True)
        subprocess.run(["make", "--no-print-directory", "setup", f"PYTHON={sys.executable}"], cwd=folder, check=True)
    return Version(f"uponce at {name}", str(folder / ".venv/bin/python"))


def _machine() -> dict[str, str]:
    mounts = Path("/proc/self/mountinfo").read_text(errors="surrogateescape")
    processor = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name"))
    return {
        "cores": str(os.cpu_count()),
        "processor": processor.partition(":")[2].strip(),
        "kernel": platform.release(),
        "file system": file_system(_ROOT, mounts),
    }


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=_ROOT, check=True, capture_output=True, text=True).stdout.strip()
