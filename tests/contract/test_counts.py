"""Every back end of a port is held to the same number of cases."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.contract.databases import BACKENDS

HERE = Path(__file__).parent


def test_no_database_runs_fewer_cases_than_another() -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    suite = sorted(str(file) for file in HERE.glob("test_database*.py"))
    listed = subprocess.run([*collect, *suite], check=True, capture_output=True, text=True).stdout
    cases = Counter(re.findall(rf"\[(?:\S*-)?({'|'.join(BACKENDS)})(?:-\S*)?\]$", listed, re.MULTILINE))
    assert cases.keys() == BACKENDS.keys()
    assert len(set(cases.values())) == 1
    assert cases.total() > 150
