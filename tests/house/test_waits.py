"""A request that says nothing else waits three seconds only: a busy machine then ends a run whose server is well."""

import ast
from pathlib import Path

import pytest

from tests.house.files import files_below

ROOT = Path(__file__).parents[2]


def hasty(source: str) -> list[int]:
    """Return the lines that call `urllib3.request` without a time limit."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    requests = [call for call in calls if ast.unparse(call.func) == "urllib3.request"]
    return [call.lineno for call in requests if "timeout" not in {word.arg for word in call.keywords}]


def test_every_request_has_a_time_limit_of_its_own() -> None:
    files = [file for folder in ("tests", "proof") for file in files_below(ROOT / folder, ".py")]
    assert {str(file.relative_to(ROOT)): lines for file in files if (lines := hasty(file.read_text()))} == {}


@pytest.mark.parametrize(("more", "lines"), [("", [1]), (", timeout=60", [])])
def test_the_check_goes_red(more: str, lines: list[int]) -> None:
    assert hasty(f"urllib3.request('GET', url{more})") == lines
