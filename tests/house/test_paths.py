"""Code asks `uponce.adapters.files.exists` whether a file is there. From Python 3.14, pathlib's answer hides errors."""

import ast
from pathlib import Path

import pytest

from tests.house.files import files_below

SOURCES = Path(__file__).parents[2] / "src"
HIDING = ("exists", "is_file", "is_dir")


def hiding_calls(text: str) -> list[str]:
    """Return the calls that hide errors. Calls with arguments are those of other objects, such as `os.DirEntry`."""
    return [
        f"{node.lineno}: {ast.unparse(node)}"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in HIDING
        if not node.args and not node.keywords
    ]


def test_no_code_asks_pathlib_whether_a_file_is_there() -> None:
    found = [f"{path}:{call}" for path in files_below(SOURCES, ".py") for call in hiding_calls(path.read_text())]
    assert found == []


@pytest.mark.parametrize("call", ["path.exists()", "(folder / name).is_file()", "path.parent.is_dir()"])
def test_the_check_finds_each_call(call: str) -> None:
    assert hiding_calls(f"if {call}:\n    pass") == [f"1: {call}"]
