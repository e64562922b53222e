"""A control says what its check must find. A broken variant that fails otherwise proves nothing about the check."""

import ast
from pathlib import Path

import pytest

from tests.house.files import files_below

ROOT = Path(__file__).parents[2]


def vague(source: str) -> list[int]:
    """Return the lines with a `pytest.raises(AssertionError)` that does not say which assertion fails."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [call.lineno for call in calls if ast.unparse(call) == "pytest.raises(AssertionError)"]


def test_every_control_says_what_its_check_must_find() -> None:
    files = [file for folder in ("tests", "proof") for file in files_below(ROOT / folder, ".py")]
    assert {str(file.relative_to(ROOT)): lines for file in files if (lines := vague(file.read_text()))} == {}


@pytest.mark.parametrize(("more", "lines"), [("", [1]), (", match='2 won'", [])])
def test_the_check_goes_red(more: str, lines: list[int]) -> None:
    assert vague(f"with pytest.raises(AssertionError{more}):\n    check()") == lines
