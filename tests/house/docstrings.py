"""The docstrings and comments of the code, in paragraphs."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tests.house.files import files_below

_ROOT = Path(__file__).parents[2]
_FOLDERS = ("src/uponce", "proof", "tests")

_DIRECTIVE = re.compile(r"# (noqa|type:|fmt:)")
# A row of a table, of a tree or of an example, or an item of a list: it is a separate paragraph.
_ROW = re.compile(r"\s|[-├│└] |.*\S {2,}\S")


class Docstring(NamedTuple):
    path: str
    line: int
    name: str
    is_function: bool
    text: str


class Paragraph(NamedTuple):
    path: str
    line: int
    text: str


@cache
def docstrings() -> Sequence[Docstring]:
    return tuple(_docstrings())


def _docstrings() -> Iterator[Docstring]:
    for path in _modules():
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            text = ast.get_docstring(node)
            if text is not None:
                is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
                yield Docstring(_shown(path), node.body[0].lineno, getattr(node, "name", ""), is_function, text)


@cache
def of_docstrings() -> Sequence[Paragraph]:
    return tuple(_of_docstrings())


def _of_docstrings() -> Iterator[Paragraph]:
    for found in docstrings():
        for text in paragraphs(found.text):
            yield Paragraph(found.path, found.line, text)


@cache
def of_comments() -> Sequence[Paragraph]:
    return tuple(_of_comments())


def _of_comments() -> Iterator[Paragraph]:
    """Yield the comments. Those on successive lines are one paragraph."""
    for path in _modules():
        kept: list[str] = []
        first = last = 0
        for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
            if token.type != tokenize.COMMENT or _DIRECTIVE.match(token.string):
                continue
            line, column = token.start
            whole = token.line[:column].isspace() or column == 0
            if kept and not (whole and line == last + 1):
                yield Paragraph(_shown(path), first, " ".join(kept))
                kept = []
            first, last = (first if kept else line), line if whole else -1
            kept.append(token.string.lstrip("# "))
        if kept:
            yield Paragraph(_shown(path), first, " ".join(kept))


def paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a docstring, and each row of its tables."""
    kept: list[str] = []
    for line in [*text.split("\n"), ""]:
        row = _ROW.match(line) is not None
        if kept and (row or not line):
            yield " ".join(kept)
            kept = []
        if row:
            yield line.strip()
        elif line:
            kept.append(line)


def _modules() -> Iterator[Path]:
    return (path for folder in _FOLDERS for path in files_below(_ROOT / folder, ".py"))


def _shown(path: Path) -> str:
    return str(path.relative_to(_ROOT))
