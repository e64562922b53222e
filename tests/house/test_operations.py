"""Each operation on the database says whether it writes: PostgreSQL would run a read outside of a transaction."""

import ast
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest

import uponce.adapters.database
from uponce.adapters.database.statements import load

STATEMENTS = load("sqlite") | load("postgres")
FUNCTIONS = [
    node
    for path in sorted(Path(uponce.adapters.database.__file__).parent.rglob("*.py"))
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.FunctionDef)
]


def keywords(function: ast.FunctionDef) -> set[str | None] | None:
    """Return those of its `@operation`; None if it is another function."""
    for mark in function.decorator_list:
        if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "operation":
            return {keyword.arg for keyword in mark.keywords}
    return None


OPERATIONS = [(function, said) for function in FUNCTIONS if (said := keywords(function)) is not None]
HELPERS = [function for function in FUNCTIONS if keywords(function) is None]


def named(function: ast.FunctionDef, followed: frozenset[str] = frozenset()) -> Iterator[str]:
    """Return the statements that it names, itself, by helpers or by the steps of operations.

    Helpers of one name count as one, and so do operations of one name.
    """
    for part in chain.from_iterable(map(ast.walk, function.body)):
        match part:
            case ast.Constant(value=str(text)):
                pattern = re.escape(text)
            case ast.JoinedStr(values=values):
                pattern = "".join(str(each.value) if isinstance(each, ast.Constant) else r"\w+" for each in values)
                if pattern == r"\w+_":  # a part of another one
                    continue
            case ast.Attribute(value=ast.Name(id=name) | ast.Attribute(attr=name), attr="steps"):
                for other, _ in OPERATIONS:
                    if other.name == name and name not in followed:
                        yield from named(other, followed | {name})
                continue
            case ast.Name(id=name) | ast.Attribute(attr=name) if name not in followed:
                for helper in HELPERS:
                    if helper.name == name:
                        yield from named(helper, followed | {name})
                continue
            case _:
                continue
        yield from (name for name in STATEMENTS if re.fullmatch(pattern, name))


def writes(function: ast.FunctionDef) -> bool:
    return any(STATEMENTS[name].writes for name in named(function))


@pytest.mark.parametrize(("function", "said"), OPERATIONS, ids=lambda each: getattr(each, "name", ""))
def test_an_operation_says_whether_it_writes(function: ast.FunctionDef, said: set[str | None]) -> None:
    assert writes(function) == bool(said & {"writes", "rules", "grouped"})


def test_the_check_finds_writes_of_helpers() -> None:
    """The control: a helper names the statement of the first, an operation that of the second.

    A table completes that of the third.
    """
    by_name = {function.name: function for function, _ in OPERATIONS}
    assert writes(by_name["begin_of_series"])
    assert writes(by_name["commit_or_refuse"])
    assert writes(by_name["add_rows"])
    assert not writes(by_name["page"])
    assert len(OPERATIONS) > 60
