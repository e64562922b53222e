"""Every back end of a port is held to the same number of cases."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from tests.contract.databases import BACKENDS
from tests.contract.stores import STORES

HERE = Path(__file__).parent


SUITES: dict[str, Collection[str]] = {"test_database": BACKENDS, "test_blob": STORES}


def test_no_back_end_runs_fewer_cases_than_another() -> None:
    collect = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", "", "-p", "no:cacheprovider"]
    files = sorted(str(file) for suite in SUITES for file in HERE.glob(f"{suite}*.py"))
    listed = subprocess.run([*collect, *files], check=True, capture_output=True, text=True).stdout
    for suite, backends in SUITES.items():
        case = rf"/{suite}\w*\.py::.*\[(?:\S*-)?({'|'.join(backends)})(?:-\S*)?\]$"
        cases = Counter(re.findall(case, listed, re.MULTILINE))
        assert cases.keys() == set(backends)
        assert len(set(cases.values())) == 1
        assert cases.total() > 150
