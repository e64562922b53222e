"""The exact bytes behind a signature, against the official SDK and rule by rule."""

import cloudinary.utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.strategies import as_fields, parameter_values, sdk_parameters
from uponce.core.errors import DuplicateParameter, InvalidParameter
from uponce.core.parameters import PARAMETERS, UNSIGNED
from uponce.core.signature import collect, refuse_ambiguous_escapes, string_to_sign

KNOWN = sorted(PARAMETERS.keys() - UNSIGNED)


@pytest.mark.parametrize("version", [1, 2])
@given(params=sdk_parameters)
def test_the_string_is_the_sdks_string(version: int, params: dict[str, str | list[str]]) -> None:
    """For any parameters, what arrives as form fields is signed as the SDK signed it."""
    assert string_to_sign(collect(as_fields(params)), version=version) == cloudinary.utils.api_string_to_sign(
        params, version
    )


@given(fields=st.lists(st.tuples(st.sampled_from(KNOWN), parameter_values), unique_by=lambda f: f[0]), data=st.data())
def test_order_of_arrival_does_not_matter(fields: list[tuple[str, str]], data: st.DataObject) -> None:
    """Fields in any order give one string, so that no client has to know ours."""
    shuffled = data.draw(st.permutations(fields))
    assert string_to_sign(collect(shuffled)) == string_to_sign(collect(fields))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([], {}),
        ([("b", "2"), ("a", "1")], {"b": "2", "a": "1"}),
        ([("t[]", "b"), ("x", "1"), ("t[]", "a"), ("t[]", "c")], {"t": "b,a,c", "x": "1"}),
        ([("t[]", "only")], {"t": "only"}),
        ([("t[]", ""), ("t[]", "a")], {"t": ",a"}),
        ([("a", ""), ("b", "1")], {"b": "1"}),
        ([("a", " ")], {"a": " "}),
        ([("a", "0")], {"a": "0"}),
        ([("t[0]", "b"), ("x", "1"), ("t[1]", "a")], {"t": "b,a", "x": "1"}),
        ([("t[2]", "c"), ("t[10]", "b"), ("t[0]", "a")], {"t": "a,b,c"}),
        ([("t[0]", "")], {}),
        ([("t[00]", "x"), ("u[-1]", "x"), ("[0]", "x")], {"t[00]": "x", "u[-1]": "x", "[0]": "x"}),
        ([("v[0][1]", "x"), ("w[][0]", "x")], {"v[0][1]": "x", "w[][0]": "x"}),
        ([("file[0]", "x"), ("signature[0]", "x")], {"file[0]": "x", "signature[0]": "x"}),
    ],
)
def test_collect(fields: list[tuple[str, str]], expected: dict[str, str]) -> None:
    """One value per name: arrays joined in order of arrival or as Go does it, empty values omitted, nothing trimmed."""
    assert collect(fields) == expected


@pytest.mark.parametrize(
    "fields",
    [
        [("a", "1"), ("a", "2")],
        [("a", "1"), ("a", "1")],
        [("a", ""), ("a", "1")],
        [("a", "1"), ("a", "")],
        [("a", "1"), ("a[]", "2")],
        [("a[]", "1"), ("a", "2")],
        [("a", "1"), ("a[0]", "2")],
        [("a[0]", "1"), ("a", "2")],
        [("a[0]", "1"), ("a[]", "2")],
        [("a[]", "1"), ("a[0]", "2"), ("a[]", "3")],
        [("a[0]", "1"), ("a[1]", "2"), ("a[0]", "1")],
        [("signature", "0"), ("x", "1"), ("signature", "1")],
    ],
)
def test_a_scalar_that_stands_twice_is_refused(fields: list[tuple[str, str]]) -> None:
    with pytest.raises(DuplicateParameter, match=f"Parameter {fields[0][0].partition('[')[0]} was sent more than"):
        collect(fields)


@pytest.mark.parametrize("name", sorted(UNSIGNED))
def test_what_is_not_signed_is_left_out(name: str) -> None:
    assert string_to_sign({name: "x", "timestamp": "1"}) == "timestamp=1"


def test_unsigned_names_are_exactly_these() -> None:
    """Anybody may add an unsigned parameter to a signed upload, so none of them may decide more than the URL does."""
    options = {"stream", "chunk_size", "timeout", "x_unique_upload_id"}
    assert {"file", "cloud_name", "resource_type", "api_key", "signature", *options} == UNSIGNED


@pytest.mark.parametrize(
    ("value", "v1", "v2"),
    [
        ("x&y", "k=x&y", "k=x%26y"),
        ("&&", "k=&&", "k=%26%26"),
        ("a=b+c d%20|\\é図", "k=a=b+c d%20|\\é図", "k=a=b+c d%20|\\é図"),
        ("", "", ""),
    ],
)
def test_version_2_escapes_the_ampersand_and_nothing_else(value: str, v1: str, v2: str) -> None:
    assert (string_to_sign({"k": value}, version=1), string_to_sign({"k": value})) == (v1, v2)


@pytest.mark.parametrize(("params", "name"), [({"k": "x%26y"}, "k"), ({"%26": "x"}, "%26")])
def test_an_escape_that_signs_like_an_ampersand_is_refused(params: dict[str, str], name: str) -> None:
    with pytest.raises(InvalidParameter, match=f"Parameter {name} contains %26"):
        refuse_ambiguous_escapes(params)


@given(params=st.dictionaries(st.sampled_from(KNOWN), parameter_values.filter(bool), max_size=4))
def test_without_ambiguous_escapes_the_string_has_one_reading(params: dict[str, str]) -> None:
    """From a version 2 string the parameters can be read back, so no two sets of them sign alike."""
    try:
        refuse_ambiguous_escapes(params)
    except InvalidParameter:
        return
    pairs = [pair for pair in string_to_sign(params).split("&") if pair]
    assert dict(pair.replace("%26", "&").split("=", 1) for pair in pairs) == params


def test_what_is_not_signed_may_hold_any_escape() -> None:
    refuse_ambiguous_escapes({"cloud_name": "a%26b", "tags": "x%2526y&z"})


@pytest.mark.parametrize("field", [("tags", "\ud800"), ("\udfff", "x")])
def test_lone_surrogates_are_refused(field: tuple[str, str]) -> None:
    """They have no UTF-8 form, so nothing could be hashed."""
    with pytest.raises(InvalidParameter, match="surrogate"):
        collect([field])
