"""Attacks A1 to A11 on what a signature covers: one test or table for each row of the attack list."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.signing import SECRET, SIGNED, TIMESTAMP, signed, verified
from uponce.app.authorise import check_route
from uponce.core.errors import (
    DuplicateParameter,
    FormatNotAllowed,
    FutureTimestamp,
    InvalidParameter,
    InvalidSignature,
    UnknownParameter,
)
from uponce.core.naming import Naming, check_public_id, parse_path
from uponce.core.parameters import PARAMETERS, UNSIGNED, read_parameters
from uponce.core.policy import Limits, judge_media
from uponce.core.signature import (
    check_fresh,
    collect,
    refuse_ambiguous_escapes,
    sign_delivery,
    sign_response,
    string_to_sign,
    verify_delivery,
)
from uponce.core.values import Digest, MediaFacts, ResourceType

# The doors through which a name gets in, apart from a file's own name.
DOORS = ("public_id", "folder", "public_id_prefix")


def test_a1_a_version_1_signature_over_an_ampersand_is_refused() -> None:
    """CVE-2025-12613: one value posing as two parameters."""
    carrier = signed({"folder": "u1&notification_url=http://evil", "timestamp": TIMESTAMP}, version=1)
    with pytest.raises(InvalidSignature):
        verified(carrier)


def test_a1_the_split_request_is_one_grant_with_its_carrier() -> None:
    """What only the signer can prevent: split as version 1 meant it, it verifies. It still works once."""
    carrier = signed({"folder": "u1&tags=evil", "timestamp": TIMESTAMP}, version=1)
    split = {"folder": "u1", "tags": "evil", "timestamp": TIMESTAMP, "signature": carrier["signature"]}
    assert verified(split) == verified(carrier, allow_v1=True)


def test_a1_a_version_2_signature_cannot_be_split() -> None:
    carrier = signed({"folder": "u1&tags=evil", "timestamp": TIMESTAMP})
    split = {"folder": "u1", "tags": "evil", "timestamp": TIMESTAMP, "signature": carrier["signature"]}
    with pytest.raises(InvalidSignature):
        verified(split, allow_v1=True)


def test_a2_the_two_spellings_that_sign_alike_are_one_grant_and_only_one_is_accepted() -> None:
    plain = signed({"context": "k=x&y", "timestamp": TIMESTAMP})
    escaped = {**plain, "context": "k=x%26y"}
    assert verified(plain) == verified(escaped)
    refuse_ambiguous_escapes(plain)
    with pytest.raises(InvalidParameter, match="Parameter context contains %26, which signs like &"):
        refuse_ambiguous_escapes(escaped)


ORACLE_ID = "a&timestamp=4102444800&type=authenticated"


def test_a3_the_response_signature_would_be_an_upload_signature() -> None:
    """The oracle, on paper: an answer about such an asset signs an upload that no backend granted."""
    signature = sign_response(ORACLE_ID, 1700000000, SECRET)
    forged = {"public_id": "a", "timestamp": "4102444800", "type": "authenticated", "version": "1700000000"}
    assert verified({**forged, "signature": signature}) == f"public_id={ORACLE_ID}&version=1700000000"


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("value", [ORACLE_ID, "a&b", "&", "x/&timestamp=1", "a&"])
def test_a3_no_parameter_lets_such_a_name_in(door: str, value: str) -> None:
    with pytest.raises(
        InvalidParameter, match=rf"{door} \(.*\) is invalid: the character '&' \(U\+0026\) is not allowed"
    ):
        read_parameters({door: value, "timestamp": TIMESTAMP})


@pytest.mark.parametrize("kind", ResourceType)
@pytest.mark.parametrize("unique", [True, False])
def test_a3_no_file_name_lets_such_a_name_in(kind: ResourceType, unique: bool) -> None:
    """A file's own name is not signed; its bad characters are replaced, and the extension's too."""
    for naming, filename in (
        (Naming(use_filename=True, unique_filename=unique), f"{ORACLE_ID}.a&b"),
        (Naming(use_filename=True, unique_filename=unique, filename_override=f"{ORACLE_ID}.a&b"), "x.pdf"),
        (Naming(), f"x.{ORACLE_ID}"),
    ):
        assert "&" not in naming.name(kind, filename, "r" * 20, "s" * 6)


@pytest.mark.parametrize("part", DOORS)
def test_a3_the_assembled_name_is_checked_too(part: str) -> None:
    """Even a Naming that was not read from parameters cannot name an asset so."""
    with pytest.raises(InvalidParameter, match=r"U\+0026"):
        Naming(**{part: ORACLE_ID}).name(ResourceType.IMAGE, None, "r" * 20, "s" * 6)  # type: ignore[arg-type]


def test_a3_the_rest_of_the_forgery_fails_as_well() -> None:
    """Three more locks: `version` is no upload parameter, the time is not yet, and no name reads as two."""
    with pytest.raises(UnknownParameter, match="version"):
        read_parameters({"public_id": "a", "timestamp": "4102444800", "version": "1700000000"})
    with pytest.raises(FutureTimestamp):
        check_fresh(4102444800, now=1700000000, window=3600, skew=300, watermark=None)


@given(name=st.text(min_size=1, max_size=40), version=st.integers(1, 10**12))
def test_a3_no_response_signature_verifies_with_a_timestamp(name: str, version: int) -> None:
    """Over every name that is let in, the signed text reads back as public_id and version alone."""
    try:
        public_id = check_public_id(name)
    except InvalidParameter:
        return
    text = string_to_sign({"public_id": public_id, "version": str(version)}, version=1)
    assert [pair.partition("=")[0] for pair in text.split("&")] == ["public_id", "version"]


def test_a3_an_upload_signature_opens_no_private_asset() -> None:
    """Both hash text and secret, so an upload signature is a delivery signature of a name that cannot exist."""
    string = string_to_sign({"folder": "secret", "timestamp": TIMESTAMP})
    digest = sign_delivery(string, SECRET)
    path = parse_path(f"/demo/image/private/s--{digest}--/{string}")
    assert path.signature is not None
    assert verify_delivery(path.source, path.signature, [SECRET])
    for name, _ in path.candidates:
        with pytest.raises(InvalidParameter):
            check_public_id(name.public_id)


@pytest.mark.parametrize(
    "extra", ["overwrite", "type", "eager", "notification_url", "nonce", "max_uses", "context", "anything"]
)
def test_a4_an_added_parameter_is_refused(extra: str) -> None:
    with pytest.raises(InvalidSignature):
        verified({**signed(SIGNED), extra: "1"}, allow_v1=True)


@pytest.mark.parametrize("name", SIGNED)
def test_a4_a_dropped_parameter_is_refused(name: str) -> None:
    params = signed(SIGNED)
    del params[name]
    with pytest.raises(InvalidSignature):
        verified(params, allow_v1=True)


@pytest.mark.parametrize("name", SIGNED)
def test_a4_a_changed_parameter_is_refused(name: str) -> None:
    with pytest.raises(InvalidSignature):
        verified({**signed(SIGNED), name: "2"}, allow_v1=True)


@pytest.mark.parametrize("name", ["file", "cloud_name", "resource_type", "api_key"])
def test_a5_the_excluded_names_do_not_change_the_signature(name: str) -> None:
    assert verified({**signed(SIGNED), name: "anything"}) == string_to_sign(SIGNED)


@pytest.mark.parametrize("name", ["cloud_name", "resource_type"])
def test_a5_excluded_names_must_agree_with_the_url(name: str) -> None:
    """Not signed, and still nothing that could say one thing and do another."""
    right = {"cloud_name": "demo", "resource_type": "image"}
    check_route(right, "demo", ResourceType.IMAGE)
    with pytest.raises(InvalidParameter, match=f"Parameter {name} is 'other', but the URL says {right[name]}"):
        check_route({**right, name: "other"}, "demo", ResourceType.IMAGE)


@pytest.mark.parametrize("filename", ["x.png", "x.PNG", "x.jpeg", "x.html", "x", None])
def test_a5_allowed_formats_bind_the_unsigned_resource_type(filename: str | None) -> None:
    """A signature for pictures takes no other bytes under `raw` or `auto`, whatever the file is called."""
    spec = read_parameters({"allowed_formats": "jpg,png", "timestamp": TIMESTAMP})
    digest = Digest(10, "", "")
    judge_media(MediaFacts(ResourceType.IMAGE, "png", 1, 1, 1), digest, filename, spec, Limits())
    with pytest.raises(FormatNotAllowed, match=r"Raw file format \w+ not allowed. Allowed: jpg, png"):
        judge_media(MediaFacts(ResourceType.RAW), digest, filename, spec, Limits())


@pytest.mark.parametrize("name", ["tags", "public_id", "timestamp", "signature"])
@pytest.mark.parametrize("values", [("a", "b"), ("a", "a"), ("", "a"), ("a", "")])
def test_a6_a_field_sent_twice_is_refused(name: str, values: tuple[str, str]) -> None:
    """Query and body are one list of fields, so this is also once in each."""
    with pytest.raises(DuplicateParameter, match=f"Parameter {name} was sent more than once"):
        collect([(name, value) for value in values])


@pytest.mark.parametrize("names", [("{}[]", "{}[]"), ("{}[0]", "{}[1]")])
@pytest.mark.parametrize("name", ["public_id", "folder", "filename_override"])
def test_a6_a_list_is_no_name(name: str, names: tuple[str, str]) -> None:
    """Joined by a comma it would be a name: `destroy(["a", "b"])` of an SDK would delete the asset `a,b`."""
    fields = [(sent_name.format(name), value) for sent_name, value in zip(names, "ab", strict=True)]
    with pytest.raises(InvalidParameter, match=f"Parameter {name} takes one value, not a list of 2"):
        collect(fields)
    assert collect(fields[:1]) == {name: "a"}


@pytest.mark.parametrize(("first", "second"), [*itertools.permutations(["tags", "tags[]", "tags[0]"], 2)])
def test_a6_two_ways_to_send_one_name_are_refused(first: str, second: str) -> None:
    with pytest.raises(DuplicateParameter):
        collect([(first, "a"), (second, "b")])


@pytest.mark.parametrize(
    "name",
    [
        "Tags",
        "TAGS",
        " tags",
        "tags ",
        "tags\0",
        "ｔａｇｓ",
        "tags[00]",
        "tags[-1]",
        "tags[ 0]",
        "tags[０]",
        "tags[0]\n",
        "tags[0][0]",
        "tags[][0]",
        "tags[",
        "tags[][]",
        "tаgs",
        "\ufefftags",
        "",
        "[]",
    ],
)
def test_a6_a_look_alike_name_is_another_name_and_unknown(name: str) -> None:
    params = collect([("tags", "a"), (name, "b")])
    with pytest.raises(UnknownParameter, match="Unknown parameter"):
        read_parameters(params)


def test_a7_a_late_field_cannot_replace_an_earlier_one() -> None:
    """Wherever a field stands, a second one of its name is refused rather than taken instead."""
    early = list(signed(SIGNED).items())
    for late in ("public_id", "signature"):
        with pytest.raises(DuplicateParameter):
            collect([*early, (late, "evil")])


def test_a8_arrays_mean_their_joined_text() -> None:
    """Two arrays that sign alike are one value, for the signature and for the reader."""
    one = collect([("tags[]", "a,b"), ("tags[]", "c")])
    other = collect([("tags[]", "a"), ("tags[]", "b,c")])
    numbered = collect([("tags[1]", "b,c"), ("tags[0]", "a")])
    assert one == other == numbered == {"tags": "a,b,c"}
    assert read_parameters(one).tags == ("a", "b", "c")


@pytest.mark.parametrize("name", sorted(PARAMETERS.keys() - UNSIGNED))
def test_a9_an_empty_parameter_is_an_absent_one(name: str) -> None:
    """The SDKs leave it out of the string, so it must not mean `set it empty`."""
    without = signed({key: value for key, value in SIGNED.items() if key != name})
    sent = collect([*without.items(), (name, "")])
    assert sent == without
    assert verified(sent)
    assert read_parameters(sent) == read_parameters(without)


@pytest.mark.parametrize("value", ["0", "false"])
def test_a9_what_only_looks_empty_is_signed(value: str) -> None:
    assert string_to_sign(collect([("overwrite", value)])) == f"overwrite={value}"


def test_a10_sorting_by_name_and_by_pair_agree_for_every_name_there_is() -> None:
    """SDKs sort `name=value` or names; for `a` and `a1` the two differ, for real names never."""
    assert sorted(["a=1", "a1=1"]) != [f"{name}=1" for name in sorted(["a", "a1"])]
    signed_names = PARAMETERS.keys() - UNSIGNED
    lowest_after_a_prefix = min(
        longer[len(name)] for name in signed_names for longer in signed_names if longer[: len(name)] == name != longer
    )
    assert lowest_after_a_prefix > "="


def test_a10_pairs_are_sorted_by_code_point() -> None:
    assert string_to_sign({"b": "1", "a1": "2", "a": "3", "é": "4", "Z": "5"}) == "Z=5&a1=2&a=3&b=1&é=4"


@pytest.mark.parametrize(
    ("value", "other"),
    [
        ("a b", "a+b"),
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("é", "e\u0301"),
        ("a\nb", "a\r\nb"),
        ("a", "\ufeffa"),
        ("a", "a "),
        ("a", "a\0"),
        ("é", "Ã©"),
        ("YQ==", "a"),
    ],
)
def test_a11_another_encoding_of_a_value_is_another_value(value: str, other: str) -> None:
    """The signature covers what arrived, character by character; nothing is decoded or normalised first."""
    params = signed({"tags": value, "timestamp": TIMESTAMP})
    assert verified(params) == f"tags={value}&timestamp={TIMESTAMP}"
    with pytest.raises(InvalidSignature):
        verified({**params, "tags": other})
