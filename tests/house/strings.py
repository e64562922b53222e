"""The texts of the code that a person reads: errors, answers of commands, logs, settings.

A sentence that stands anywhere else, such as in a constant or after `return`, counts too.
"""

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.house.language import MAX_WORDS
from uponce import cli
from uponce.core import errors

SOURCE = Path(__file__).parents[2] / "src/uponce"
# What shows a text to a person, by the name that is called.
SAYS = {
    "echo",
    "print",
    "secho",
    "Option",
    "Argument",
    "Typer",
    "FsckFinding",
    "Finding",
    "_bytes",
    "_number",
    "_seconds",
    "_require",
    "_refuse",
    "fail",
    "say",
    "warn",
}
LOGS = {"debug", "info", "warning", "error", "exception", "critical"}
ERRORS = {
    name
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, Exception) and kind.__module__ == errors.__name__
}


class Text(NamedTuple):
    """A text with its place. Values that the code fills in are `CODE`."""

    path: str
    line: int
    text: str


def texts() -> Iterator[Text]:
    for path in sorted(SOURCE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        seen = _docstrings(tree)
        for node in ast.walk(tree):
            for text in [*_said(node), *_sentence(node, seen)]:
                yield Text(str(path.relative_to(SOURCE)), node.lineno, text)  # type: ignore[attr-defined]
    for what in cli.COMMANDS.values():
        yield Text("cli/__init__.py", 1, what)


def _docstrings(tree: ast.Module) -> set[ast.AST]:
    """Their expressions: another test reads these."""
    return {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }


def _sentence(node: ast.AST, seen: set[ast.AST]) -> Iterator[str]:
    """A literal of three words or more. `seen` has what is a part of another text, or no text.

    A long literal without the end of a sentence is a list of names, or the skeleton of a page.
    """
    if node in seen or not isinstance(node, (ast.Constant, ast.JoinedStr, ast.BinOp)):
        return
    text = _plain(node)
    if text:
        seen.update(ast.walk(node))
    is_list = len(re.findall(r"\w+", text)) > MAX_WORDS and not re.search(r"[.!?](?:\s|$)", text)
    if text.count(" ") >= 2 and not is_list:
        yield text


def _said(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call) and _shows(node.func):
        for value in [*node.args, *(keyword.value for keyword in node.keywords)]:
            yield from _literal(value)
    elif isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and not _shows(node.exc.func):
        for value in node.exc.args:
            yield from _literal(value)
    elif isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name) and node.value.id == "Annotated":
        yield from _literal(node.slice)  # a setting: Annotated[int, "Its meaning."]


def _shows(function: ast.expr) -> bool:
    if isinstance(function, ast.Attribute):
        return function.attr in SAYS | ERRORS or (
            function.attr in LOGS and "log" in ast.unparse(function.value).lower()
        )
    return isinstance(function, ast.Name) and function.id in SAYS | ERRORS


def _literal(value: ast.expr) -> Iterator[str]:
    """Sentences only: a text of two words or more."""
    if isinstance(value, (ast.Tuple, ast.List)):
        for element in value.elts:
            yield from _literal(element)
        return
    if isinstance(value, ast.IfExp):
        yield from _literal(value.body)
        yield from _literal(value.orelse)
        return
    text = _plain(value)
    if text.count(" ") >= 1:
        yield text


def _plain(value: ast.expr) -> str:
    if isinstance(value, ast.Constant):
        return value.value if isinstance(value.value, str) else ""
    if isinstance(value, ast.JoinedStr):
        return "".join(_plain(part) for part in value.values)
    if isinstance(value, ast.FormattedValue):
        return "CODE"
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Add):
        return _plain(value.left) + _plain(value.right)
    return ""
