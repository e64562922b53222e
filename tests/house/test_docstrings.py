"""Docstrings and comments are plain English, and a function's docstring begins with what its caller gets."""

import re

import pytest

from tests.house.docstrings import Docstring, docstrings, of_comments, of_docstrings, paragraphs
from tests.house.language import complaints
from tests.house.strings import ERRORS

# A text that may stay, with the reason.
ALLOWED: dict[str, str] = {}

# "Return", "Store", "Raise X if" and other verbs are right. These are not.
_NO_VERB = {"A", "All", "An", "As", "For", "How", "It", "Of", "One", "The", "What", "Where", "Whether", "Which", "Who"}


def _plain(text: str) -> str:
    """Return the text with Python's None as code, which is no word."""
    return re.sub(r"(?<!`)\bNone\b(?!`)", "`None`", text)


def _is_verb_missing(text: str) -> bool:
    return re.split(r"\W", text, maxsplit=1)[0] in _NO_VERB | ERRORS


def _is_called(each: Docstring) -> bool:
    """Return whether the docstring is of a function that other code calls. Those of tests say what is special."""
    return each.is_function and not each.path.startswith("tests/") and not each.name.startswith("test_")


def test_every_docstring_and_comment_is_plain_english() -> None:
    found = [
        f"{text.path}:{text.line}: {complaint.what}: {complaint.text}"
        for text in (*of_docstrings(), *of_comments())
        if not any(allowed in text.text for allowed in ALLOWED)
        for complaint in complaints(_plain(text.text))
    ]

    assert found == []


def test_the_docstring_of_a_function_begins_with_a_verb() -> None:
    found = [f"{each.path}:{each.line}: {each.text}" for each in docstrings() if _is_called(each)]

    assert [text for text in found if _is_verb_missing(text.partition(": ")[2])] == []


def test_every_exception_is_needed() -> None:
    everything = "\n".join(text.text for text in (*of_docstrings(), *of_comments()))

    assert [text for text in ALLOWED if text not in everything] == []
    assert all(ALLOWED.values())


def test_the_texts_of_each_kind_are_found() -> None:
    """Or the check would be empty."""
    assert sum(1 for _ in docstrings()) > 1000
    assert sum(1 for _ in of_comments()) > 300
    assert any("Use case" in text.text or "use cases" in text.text for text in of_docstrings())


@pytest.mark.parametrize(
    "bad", ["What the database holds.", "Whether it is there.", "As `find`.", "NotFound unless it exists."]
)
def test_the_check_finds_a_docstring_without_a_verb(bad: str) -> None:
    assert _is_verb_missing(bad)


def test_the_rows_of_a_table_are_paragraphs() -> None:
    text = "Keys:\n\n    <root>/a   one\n    <root>/b   two\n\nA text\nof two lines.\n- An item."

    assert list(paragraphs(text)) == ["Keys:", "<root>/a   one", "<root>/b   two", "A text of two lines.", "- An item."]


def test_none_of_python_is_no_word() -> None:
    assert list(complaints(_plain("`total` is None if it is unknown."))) == []
    assert list(complaints(_plain("There is none."))) != []
