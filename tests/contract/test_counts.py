"""Every back end of a port is held to the same number of cases."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.contract.databases import BACKENDS
from tests.contract.stores import STORES

HERE = Path(__file__).parent


@pytest.mark.parametrize(
    ("suite", "backends", "least"), [("test_database*.py", BACKENDS, 150), ("test_blob*.py", STORES, 150)]
)
def test_no_back_end_runs_fewer_cases_than_another(suite: str, backends: Collection[str], least: int) -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    files = sorted(str(file) for file in HERE.glob(suite))
    listed = subprocess.run([*collect, *files], check=True, capture_output=True, text=True).stdout
    cases = Counter(re.findall(rf"\[(?:\S*-)?({'|'.join(backends)})(?:-\S*)?\]$", listed, re.MULTILINE))
    assert cases.keys() == set(backends)
    assert len(set(cases.values())) == 1
    assert cases.total() > least
