"""Code stays small: a function fits on a screen, and the database has few modules for two engines."""

import ast
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src/uponce"
MOST_LINES, MOST_MODULES = 60, 26


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield the name of each function in a module's text, and how many lines it has."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def test_no_function_is_longer_than_a_screen() -> None:
    found = {
        f"{path.relative_to(SOURCE)}: {name}": lines
        for path in SOURCE.rglob("*.py")
        for name, lines in functions(path.read_text())
        if lines > MOST_LINES
    }
    assert found == {}


def test_the_check_counts_the_lines_of_a_function() -> None:
    long = "def short():\n    pass\n\n\nasync def long():\n" + "    x = 1\n" * MOST_LINES
    assert dict(functions(long)) == {"short": 2, "long": MOST_LINES + 1}


def test_the_database_has_few_modules() -> None:
    """One ledger for two engines: each of them keeps what is its own."""
    assert len(list((SOURCE / "adapters/database").rglob("*.py"))) <= MOST_MODULES
