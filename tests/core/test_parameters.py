"""Each upload parameter: what its values become, and how a wrong one is refused."""

import re
from dataclasses import replace

import cloudinary.utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from uponce.app.authorise import check_route
from uponce.core.errors import InvalidParameter, UnknownParameter, UnsupportedParameter, shown
from uponce.core.naming import Naming
from uponce.core.parameters import (
    MAX_CONTEXT_LENGTH,
    MAX_NONCE_LENGTH,
    MAX_TAG_LENGTH,
    MAX_TAGS,
    MAX_URL_LENGTH,
    MAX_USES,
    PARAMETERS,
    ROWS,
    UNSIGNED,
    Call,
    UploadSpec,
    Use,
    names,
    narrowed,
    parse_timestamp,
    read_parameters,
)
from uponce.core.signature import collect_known
from uponce.core.values import DeliveryType, ResourceType

HASH = "0123456789abcdef" * 4
SUPPORTED = names(Use.SPEC, Use.NAMING, Use.SIGNED_ONLY, Use.NO_EFFECT, Use.SWITCH)

HARMLESS = [
    ("invalidate", "1"),
    ("invalidate", "false"),
    ("source", "uw"),
    ("access_mode", "public"),
    ("access_mode", "undefined"),
    ("eager_async", "true"),
    ("clear_invalid", "1"),
    ("use_asset_folder_as_public_id_prefix", "0"),
    *((name, value) for name in names(Use.SWITCH) for value in ("0", "false")),
]

READ = [
    ({"timestamp": "1700000000"}, UploadSpec()),
    ({"nonce": "n" * MAX_NONCE_LENGTH}, UploadSpec()),
    ({"folder": "/"}, UploadSpec()),
    ({"public_id_prefix": "//"}, UploadSpec()),
    ({"public_id": "a/b"}, UploadSpec(naming=Naming(public_id="a/b"))),
    ({"public_id_prefix": "a/b"}, UploadSpec(naming=Naming(public_id_prefix="a/b"))),
    ({"folder": "a/b"}, UploadSpec(naming=Naming(folder="a/b"))),
    ({"folder": "/Xmas/XX/"}, UploadSpec(naming=Naming(folder="Xmas/XX"))),
    ({"folder": "/a/b/"}, UploadSpec(naming=Naming(folder="a/b"))),
    ({"filename_override": "x.jpg"}, UploadSpec(naming=Naming(filename_override="x.jpg"))),
    ({"use_filename": "1"}, UploadSpec(naming=Naming(use_filename=True))),
    ({"unique_filename": "false"}, UploadSpec(naming=Naming(unique_filename=False))),
    ({"discard_original_filename": "true"}, UploadSpec(discard_original_filename=True)),
    ({"overwrite": "0"}, UploadSpec(overwrite=False)),
    ({"type": "upload"}, UploadSpec()),
    ({"type": "private"}, UploadSpec(type=DeliveryType.PRIVATE)),
    ({"type": "authenticated"}, UploadSpec(type=DeliveryType.AUTHENTICATED)),
    ({"tags": "b, a,,b , c d"}, UploadSpec(tags=("b", "a", "c d"))),
    ({"tags": " , "}, UploadSpec()),
    (
        {"tags": ",".join(f"{number}".rjust(MAX_TAG_LENGTH, "t") for number in range(MAX_TAGS))},
        UploadSpec(tags=tuple(f"{number}".rjust(MAX_TAG_LENGTH, "t") for number in range(MAX_TAGS))),
    ),
    ({"allowed_formats": "JPEG,png, tif"}, UploadSpec(allowed_formats=frozenset({"jpg", "png", "tiff"}))),
    ({"valid_for": "60"}, UploadSpec(valid_for=60)),
    ({"max_bytes": "1"}, UploadSpec(max_bytes=1)),
    ({"callback": "https://app.example/cors.html"}, UploadSpec(callback="https://app.example/cors.html")),
    *(
        ({"notification_url": url}, UploadSpec(notification_url=url))
        for url in ("https://app.example/a?b=c", "HTTP://10.0.0.7:8080", "http://[::1]:80/", "http://a.example?b")
    ),
    ({"max_uses": str(MAX_USES)}, UploadSpec(max_uses=MAX_USES)),
    ({"sha256": HASH}, UploadSpec(sha256=HASH)),
    (
        {"origin": "https://app.example,http://localhost:8080"},
        UploadSpec(origin=("https://app.example", "http://localhost:8080")),
    ),
    *(
        ({"origin": origin}, UploadSpec(origin=(origin,)))
        for origin in ("http://[::1]:8000", "https://xn--bcher-kva.example", "http://a_b.example:443", "https://a:80")
    ),
    ({"context": "a=b"}, UploadSpec(context=(("a", "b"),))),
]


@pytest.mark.parametrize(
    ("params", "spec"), READ, ids=[f"{name}={value[:20]}" for p, _ in READ for name, value in p.items()]
)
def test_each_parameter_is_read(params: dict[str, str], spec: UploadSpec) -> None:
    assert read_parameters(params) == spec


def test_what_alike_parameters_ask_for_is_remembered_and_nothing_else_is() -> None:
    params = {"timestamp": "1", "public_id": "p", "nonce": "a", "tags": "x,y"}
    spec = read_parameters(params)
    assert read_parameters({**params, "timestamp": "2", "nonce": "b", "file": "z", "signature": "f"}) is spec
    assert read_parameters({**params, "tags": "x"}) == replace(spec, tags=("x",))
    for name, value in (("timestamp", "x"), ("nonce", "n" * 256), ("max_uses", "0")):
        for _ in range(2):
            with pytest.raises(InvalidParameter, match=name):
                read_parameters({**params, name: value})
    with pytest.raises(UnknownParameter, match="tags"):
        read_parameters(params, Call.DESTROY)
    longest = {**params, "context": f"a={'b' * 1000}", "folder": "f" * 18}
    assert read_parameters(longest) is read_parameters(longest)
    long = {**longest, "folder": "f" * 19}
    assert read_parameters(long) == read_parameters(long)
    # Else the holders of long signatures could fill the memory.
    assert read_parameters(long) is not read_parameters(long)


@pytest.mark.parametrize(("name", "value"), HARMLESS)
def test_what_changes_no_result_is_accepted(name: str, value: str) -> None:
    assert read_parameters({name: value}) == UploadSpec()


@pytest.mark.parametrize("value", ["1", "true", "yes", '{"translate":["fr"]}'])
@pytest.mark.parametrize("name", names(Use.SWITCH))
def test_a_switch_of_a_missing_feature_is_refused_by_name_when_it_is_on(name: str, value: str) -> None:
    with pytest.raises(UnsupportedParameter, match=rf"^Parameter {name} is not supported by this server yet, except"):
        read_parameters({name: value})


def test_another_access_mode_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedParameter, match="Parameter access_mode=authenticated is not supported"):
        read_parameters({"access_mode": "authenticated"})


@pytest.mark.parametrize("name", ["no_such", "no_such[]", "Tags"])
def test_an_unknown_parameter_is_refused_even_when_it_is_empty(name: str) -> None:
    with pytest.raises(UnknownParameter, match="Unknown parameter"):
        collect_known([("timestamp", "1"), (name, "")])


def test_a_known_parameter_may_be_empty() -> None:
    """Cloudinary's rule: an empty parameter is a parameter that was not sent."""
    assert collect_known([(name, "") for name in PARAMETERS] + [("id", "")], "id") == {}
    assert collect_known([("tags[]", "")]) == {}


def test_the_tables_above_cover_every_supported_parameter() -> None:
    assert {*(name for params, _ in READ for name in params), *dict(HARMLESS)} == set(SUPPORTED)


def test_all_parameters_together_and_those_that_are_not_signed() -> None:
    everything = {name: value for params, _ in READ for name, value in params.items()}
    spec = read_parameters({**everything, **dict.fromkeys(UNSIGNED, "x")})
    assert spec.naming.folder == "a/b"
    assert spec.max_uses == MAX_USES


@pytest.mark.parametrize(("text", "expected"), [("1", True), ("true", True), ("0", False), ("false", False)])
@pytest.mark.parametrize("name", ["discard_original_filename", "overwrite"])
def test_booleans_in_the_spellings_of_all_sdks(name: str, text: str, expected: bool) -> None:
    assert getattr(read_parameters({name: text}), name) is expected


@pytest.mark.parametrize("name", ["use_filename", "unique_filename", "discard_original_filename", "overwrite"])
@pytest.mark.parametrize("text", ["True", "yes", "on", "2", "-1", " 1", "1 ", "１", "null", "undefined"])
def test_any_other_boolean_is_refused(name: str, text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"Parameter {name} must be 1, 0, true or false, not '{text}'"):
        read_parameters({name: text})


@pytest.mark.parametrize("name", names(Use.REFUSED))
def test_each_unsupported_parameter_is_refused_by_name(name: str) -> None:
    with pytest.raises(UnsupportedParameter, match=rf"Parameter {name} is not supported by this server yet\. Sign"):
        read_parameters({"timestamp": "1", name: "x"})


def test_every_parameter_of_the_sdk_is_supported_or_refused_by_name() -> None:
    """None of them is called unknown."""
    of_the_sdk = {
        name
        for table in ("__SIMPLE_UPLOAD_PARAMS", "__SERIALIZED_UPLOAD_PARAMS")
        for name in getattr(cloudinary.utils, table)
    }
    assert len(of_the_sdk) > 50
    assert of_the_sdk <= PARAMETERS.keys() - UNSIGNED


def test_parameters_are_listed_by_use() -> None:
    assert names(Use.SIGNED_ONLY) == ("timestamp", "nonce")
    assert "folder" in names(Use.SPEC, Use.NAMING)


def test_no_parameter_is_both_supported_and_not() -> None:
    """A name in two rows of the table would have the use of the last one."""
    assert len(ROWS) == len(PARAMETERS)


@pytest.mark.parametrize("name", ["version", "Tags", "x-evil", "é", "a" * 1000, "\x1b[31m"])
def test_an_unknown_parameter_is_refused(name: str) -> None:
    """Named in the error, on one line and cut."""
    with pytest.raises(UnknownParameter, match="Unknown parameter") as caught:
        read_parameters({name: "x"})
    assert str(caught.value).isprintable()
    assert str(caught.value).startswith(
        f"Unknown parameter {name[:100]}." if name.isprintable() else "Unknown parameter ?[31m."
    )


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"timestamp": "1" * 14}, "Invalid timestamp '11111111111111'. Send Unix seconds as plain digits"),
        ({"timestamp": "1767225600.123456"}, "Invalid timestamp '1767225600.123456'. Send Unix seconds as plain"),
        ({"timestamp": "2026-01-01T00:00:00Z"}, "Invalid timestamp '2026-01-01T00:00:00Z'. Send Unix seconds as"),
        ({"allowed_formats": "jpg,image/gif"}, "'image/gif' in parameter allowed_formats is no format. Write an ext"),
        ({"allowed_formats": ".gif"}, "'.gif' in parameter allowed_formats is no format. Write an extension without"),
        ({"nonce": "n" * 256}, "Parameter nonce has 256 characters, the limit is 255"),
        ({"filename_override": "n" * 256}, "Parameter filename_override has 256 characters, the limit is 255"),
        ({"tags": ",".join(map(str, range(MAX_TAGS + 1)))}, "Parameter tags has 1001 tags, the limit is 1000"),
        ({"tags": "a," + "t" * (MAX_TAG_LENGTH + 1)}, "A tag has 256 characters, the limit is 255"),
        ({"context": "k=" + "v" * 1023}, "Parameter context has 1025 characters, the limit is 1024"),
        ({"valid_for": "0"}, "Parameter valid_for must be a whole number from 1 to 1000000000, not '0'"),
        ({"valid_for": "1000000001"}, "Parameter valid_for must be a whole number from 1 to 1000000000, not '1000"),
        ({"max_bytes": "0"}, "Parameter max_bytes must be a whole number from 1 to 1000000000000000, not '0'"),
        ({"max_uses": "0"}, "Parameter max_uses must be a whole number from 1 to 1000000, not '0'"),
        ({"max_uses": "1000001"}, "Parameter max_uses must be a whole number from 1 to 1000000, not '1000001'"),
        ({"type": "fetch"}, "Parameter type must be upload, private or authenticated, not 'fetch'"),
        ({"type": "Upload"}, "Parameter type must be upload, private or authenticated, not 'Upload'"),
        ({"public_id": "/a"}, "public_id (/a) is invalid: it begins or ends with '/', has '//' in it, or is empty"),
        ({"public_id": "a?"}, "public_id (a?) is invalid: the character '?' (U+003F) is not allowed"),
        ({"public_id_prefix": "a//b"}, "public_id_prefix (a//b) is invalid: it begins or ends with '/', has '//'"),
        (
            {"folder": "f" * 200, "public_id": "p" * 100},
            "folder, public_id_prefix and public_id make a name of at least",
        ),
        ({"folder": "../etc"}, "folder (../etc) is invalid: it has a '.' or '..' segment"),
        ({"sha256": HASH.upper()}, "Parameter sha256 must be 64 lower-case hex digits"),
        ({"sha256": HASH[:-1]}, "Parameter sha256 must be 64 lower-case hex digits"),
        ({"sha256": HASH + "\n"}, "Parameter sha256 must be 64 lower-case hex digits"),
        ({"origin": "https://a.example/path"}, "Parameter origin must be a web origin like https://app.example, not"),
        ({"origin": "a.example"}, "Parameter origin must be a web origin like https://app.example, not 'a.example'"),
        ({"origin": "*"}, "Parameter origin must be a web origin like https://app.example, not '*'"),
        ({"origin": "null"}, "Parameter origin must be a web origin like https://app.example, not 'null'"),
        *(
            ({"origin": origin}, "Parameter origin must be a web origin like https://app.example, not '")
            for origin in (
                *("https://App.Example", "HTTPS://app.example", "https://app.example:443", "http://app.example:80"),
                *("http://[::1]:80", "https://b\xfccher.example", "https://u@app.example", "https://app.example:0443"),
            )
        ),
        ({"origin": "https://"}, "Parameter origin must be a web origin like https://app.example, not 'https://'"),
        ({"context": "novalue"}, "Parameter context must read key=value|key2=value2, not 'novalue'"),
        ({"context": "a=b|=c"}, "Parameter context must read key=value|key2=value2, not '=c'"),
        ({"context": "a\\=b"}, "Parameter context must read key=value|key2=value2, not 'a\\=b'"),
        ({"context": "a\nb"}, "Parameter context must read key=value|key2=value2, not 'a?b'"),
    ],
)
def test_a_wrong_value_is_refused_with_its_limit(params: dict[str, str], message: str) -> None:
    """The error names the parameter, what it was and what it may be."""
    with pytest.raises(InvalidParameter) as caught:
        read_parameters(params)
    assert str(caught.value).startswith(message)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["valid_for", "max_bytes", "max_uses"])
@pytest.mark.parametrize("text", ["-1", "+1", "1.0", "1e3", " 1", "1_0", "١", "１", "0x1", "one", "9" * 19, "9" * 9999])
def test_numbers_are_plain_digits(name: str, text: str) -> None:
    with pytest.raises(InvalidParameter, match=f"Parameter {name} must be a whole number from 1 to"):
        read_parameters({name: text})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0),
        ("1", 1),
        ("1700000000", 1700000000),
        ("999999999999", 999999999999),
        ("1000000000000", 1000000000),
        ("1700000000123", 1700000000),
        ("9999999999999", 9999999999),
    ],
)
def test_parse_timestamp(text: str, expected: int) -> None:
    """Seconds up to 12 digits, milliseconds with 13, as Directus sends them."""
    assert parse_timestamp(text) == expected


@given(timestamp=st.integers(10**9, 10**10 - 1), milliseconds=st.integers(0, 999))
def test_seconds_and_milliseconds_of_one_moment_are_one(timestamp: int, milliseconds: int) -> None:
    assert parse_timestamp(str(timestamp)) == parse_timestamp(f"{timestamp}{milliseconds:03}") == timestamp


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("a=b|c=d", {"a": "b", "c": "d"}),
        ("a=", {"a": ""}),
        ("a=b=c", {"a": "b=c"}),
        (r"a\=b=c", {"a=b": "c"}),
        (r"a=b\=c|d=e\|f", {"a": "b=c", "d": "e|f"}),
        (r"alt=caf\=e|cap=a b+c%20d", {"alt": "caf=e", "cap": "a b+c%20d"}),
        (r"path=C:\dir\file", {"path": r"C:\dir\file"}),
        ("end=a\\", {"end": "a\\"}),
        (r'list=["a\"b"]', {"list": r'["a\"b"]'}),
        ("a=1||b=2|", {"a": "1", "b": "2"}),
        ("a=1|a=2", {"a": "2"}),
        ("a=line\nline", {"a": "line\nline"}),
        ("é=ü", {"é": "ü"}),
        ("k=" + "v" * (MAX_CONTEXT_LENGTH - 2), {"k": "v" * (MAX_CONTEXT_LENGTH - 2)}),
    ],
)
def test_context(text: str, pairs: dict[str, str]) -> None:
    r"""`\=` and `\|` are escapes; any other backslash is itself."""
    assert dict(read_parameters({"context": text}).context) == pairs


context_values = st.text('ab=|\\\n"é', max_size=20).filter(lambda value: not value.endswith("\\"))


@given(context=st.dictionaries(st.text("abc_é ", min_size=1, max_size=10), context_values, max_size=5))
def test_context_as_the_sdk_writes_it_is_read_back(context: dict[str, str]) -> None:
    """Values that end in a backslash are left out: the SDK escapes no backslash, so those swallow the next `|`."""
    text = cloudinary.utils.encode_context(context)
    params = {"context": text} if text else {}
    assert dict(read_parameters(params).context) == context


@pytest.mark.parametrize("requested", [*ResourceType, None])
def test_check_route(requested: ResourceType | None) -> None:
    """`auto` in the URL is `auto` in the parameter; without the parameter there is nothing to compare."""
    check_route({}, "demo", requested)
    check_route({"cloud_name": "demo", "resource_type": requested or "auto"}, "demo", requested)
    with pytest.raises(
        InvalidParameter, match=f"Parameter resource_type is 'other', but the URL says {requested or 'auto'}"
    ):
        check_route({"resource_type": "other"}, "demo", requested)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("allowed_formats", "names no format. Sign allowed_formats=jpg,png, or sign without it."),
        ("origin", "names no origin. Sign origin=https://app.example, or sign without it."),
    ],
)
@pytest.mark.parametrize("value", [",", " , ,"])
def test_a_list_that_names_nothing_is_refused(name: str, told: str, value: str) -> None:
    """It would refuse every upload with a message that lists nothing."""
    with pytest.raises(InvalidParameter) as caught:
        read_parameters({name: value})
    assert str(caught.value) == f"Parameter {name} {told}"


@pytest.mark.parametrize("value", ["true", "1", "anything"])
def test_a_stream_field_changes_nothing_of_what_was_verified(value: str) -> None:
    """No signature covers it, so it may mean nothing."""
    signed = {"timestamp": "1", "public_id": "cat", "tags": "a,b"}
    assert read_parameters({**signed, "stream": value}) == read_parameters(signed)


LONGEST_URL = "https://h.example:65535/?~".ljust(MAX_URL_LENGTH, "]")
IMPOSSIBLE = "https://h:0 http://h:65536/ http://-h http://a..b http://.a http://" + "a" * 64


@pytest.mark.parametrize(
    "url", [*r"ftp://h/ https://u@h/ https://h/a\b https://h/#a".split(), *IMPOSSIBLE.split(), LONGEST_URL + "a"]
)
def test_a_url_that_names_no_place_or_two_is_refused(url: str) -> None:
    assert read_parameters({"notification_url": LONGEST_URL}).notification_url == LONGEST_URL
    message = (
        f"Parameter notification_url must be one http or https URL of at most {MAX_URL_LENGTH} ASCII characters, "
        f"with a host and port that can exist, without a user name and without #, not '{shown(url)}'."
    )
    with pytest.raises(InvalidParameter, match=f"^{re.escape(message)}$"):
        read_parameters({"notification_url": url})


@pytest.mark.parametrize(
    ("requested", "named", "kind"),
    [
        *((None, kind, kind) for kind in ResourceType),
        *((ResourceType.IMAGE, named, ResourceType.IMAGE) for named in (None, "auto", "raw")),
        *((None, named, None) for named in (None, "", "auto")),
    ],
)
def test_the_field_narrows_an_address_that_is_auto(
    requested: ResourceType | None, named: str | None, kind: ResourceType | None
) -> None:
    assert narrowed(requested, {} if named is None else {"resource_type": named}) is kind


def test_the_field_names_one_of_all_resource_types() -> None:
    with pytest.raises(InvalidParameter, match=r"Parameter resource_type must be .*, raw or auto, not 'Image'"):
        narrowed(None, {"resource_type": "Image"})
