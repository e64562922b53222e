"""The tree of errors: what programs and people may rely on."""

import re

import pytest

from uponce.core import errors
from uponce.core.errors import Unavailable, UponceError

CLASSES = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, UponceError)]
LEAVES = [error for error in CLASSES if not error.__subclasses__()]


def test_codes_are_unique() -> None:
    codes = [error.code for error in LEAVES]
    assert len(set(codes)) == len(codes) > 25


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_each_class_is_explained_and_each_leaf_has_a_code(error: type[UponceError]) -> None:
    """A class that has children is never raised, so it has no code; a code is never inherited."""
    assert error.__doc__
    assert error.__doc__ != UponceError.__doc__ or error is UponceError
    assert ("code" in vars(error)) is (error in LEAVES)
    assert error not in LEAVES or re.fullmatch(r"[a-z]+(_[a-z]+)*", error.code)


@pytest.mark.parametrize("error", LEAVES, ids=lambda error: error.__name__)
def test_an_error_carries_a_public_sentence_and_a_private_detail(error: type[UponceError]) -> None:
    raised = error("Say it.", detail="private", retry_after=3)
    assert (str(raised), raised.message, raised.detail, raised.retry_after) == ("Say it.", "Say it.", "private", 3)
    assert "private" not in str(raised)
    plain = error("Say it.")
    assert (plain.detail, plain.retry_after, plain.for_operator) == ("", error.retry_seconds, "Say it.")
    assert raised.for_operator == "private"


def test_no_error_of_the_server_can_be_raised_without_a_time_to_try_again() -> None:
    """Clients stop at a 503 without Retry-After. So the class has the time, not each place that raises."""
    unavailable = [error for error in LEAVES if issubclass(error, Unavailable)]
    assert len(unavailable) >= 6
    for error in unavailable:
        assert "retry_seconds" in vars(error), error
        assert error("Say it.").retry_after


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (
            "Timeout to host https://a.example/v1/usage?q=Jane&signature=ab",
            "Timeout to host https://a.example/v1/usage",
        ),
        ("400, url='http://a.example/hook?token=abc', again", "400, url='http://a.example/hook', again"),
        ("no address", "no address"),
    ],
)
def test_a_detail_has_no_query(text: str, left: str) -> None:
    assert errors.without_queries(text) == left
