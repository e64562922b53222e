"""The account behind a relay: its URL, what it is sent, under which name the asset is found again."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.core.signing import verified
from uponce.core.errors import InvalidParameter
from uponce.core.formats import FORMATS, canonical_format
from uponce.core.parameters import OWN, Use, context, names
from uponce.core.upstream import (
    _OTHER_MEDIA,
    Target,
    aim,
    parse_upstream,
    passed_on,
    read_relayed,
    seed_of,
    signed,
    url_of,
)
from uponce.core.values import Algorithm, Grant, ResourceType, Upstream

ACCOUNT = Upstream("demo", "123", "the secret of the account")
SEED = b"a grant"


def aimed(
    params: Mapping[str, str],
    requested: ResourceType | None = ResourceType.IMAGE,
    filename: str | None = "My cat.jpg",
    *,
    upstream: Upstream = ACCOUNT,
    seed: bytes = SEED,
) -> Target:
    return aim(upstream, read_relayed(params), params, requested, filename, seed)


@pytest.mark.parametrize(
    ("url", "upstream"),
    [
        ("cloudinary://123:se%40cret@Demo", Upstream("Demo", "123", "se@cret")),
        (
            "cloudinary://123:topsecret@demo?upload_prefix=http://127.0.0.1:8000/&signature_algorithm=sha256&window=600",
            Upstream("demo", "123", "topsecret", "http://127.0.0.1:8000", Algorithm.SHA256, 600),
        ),
        ("cloudinary://123:topsecret@demo?identify=context", Upstream("demo", "123", "topsecret", marked=True)),
        (
            "cloudinary://123:topsecret@demo?upload_prefix=https://h/a%2Bb%252Fc",
            Upstream("demo", "123", "topsecret", "https://h/a+b%2Fc"),
        ),
        (
            "cloudinary://123:topsecret@demo?upload_prefix=https://h/X/",
            Upstream("demo", "123", "topsecret", "https://h/X"),
        ),
    ],
)
def test_a_url_names_the_account_and_can_be_written_without_the_secret(url: str, upstream: Upstream) -> None:
    assert parse_upstream(url) == upstream
    assert upstream.secret not in url_of(upstream)
    assert parse_upstream(url_of(upstream), upstream.secret) == upstream


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("", "it has another form"),
        ("https://123:topsecret@demo", "it has another form"),
        ("cloudinary://123:topsecret@demo/folder", "it has another form"),
        ("cloudinary://123@demo", "it has no secret"),
        ("cloudinary://:topsecret@demo", "it has another form"),
        ("cloudinary://123:topsecret@", "it has another form"),
        ("cloudinary://123:topsecret@demo?upload_prefix=ftp://host", "upload_prefix does not match https?://"),
        ("cloudinary://123:topsecret@demo?prefix=https://host", "it has the unknown option prefix"),
        ("cloudinary://123:topsecret@demo?upload_prefix=https://a:topsecret@host", "upload_prefix does not match "),
        ("cloudinary://123:topsecret@demo?window=0", "window does not match [1-9]"),
        ("cloudinary://123:topsecret@demo?identify=luck", "identify does not match public_id|context"),
        ("cloudinary://123:topsecret@demo?signature_algorithm=md5", "signature_algorithm does not match sha1|sha256"),
        ("cloudinary://123:topsecret@[demo", "it cannot be read"),
    ],
)
def test_a_wrong_url_is_refused_by_its_problem_and_without_its_secret(url: str, problem: str) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        parse_upstream(url)
    assert "topsecret" not in str(refusal.value)
    assert str(refusal.value).startswith(f"The URL of the upstream is not usable: {problem}")
    assert "Write cloudinary://KEY:SECRET@CLOUD?" in str(refusal.value)


def test_the_secret_is_in_no_representation() -> None:
    assert ACCOUNT.secret not in repr(ACCOUNT)


def test_parameters_of_uponce_are_kept_and_all_others_passed_on() -> None:
    params = {
        "timestamp": "1700000000",
        "nonce": "n",
        "valid_for": "60",
        "max_bytes": "1000",
        "sha256": "0" * 64,
        "origin": "https://app.example",
        "max_uses": "1",
        "public_id": "cat",
        "tags": "a,b",
        "ocr": "adv_ocr",
        "upload_preset": "mine",
        "an_add_on_of_tomorrow": "1",
        "api_key": "1",
        "signature": "2",
    }
    target = aimed(params)
    assert target.fields == {
        "public_id": "cat",
        "tags": "a,b",
        "ocr": "adv_ocr",
        "upload_preset": "mine",
        "an_add_on_of_tomorrow": "1",
    }
    assert (target.kind, target.type, target.names, target.marker) == ("image", "upload", (("image", "cat"),), None)


def test_an_asset_is_looked_for_below_its_asset_folder_where_that_is_a_prefix_and_without_it() -> None:
    on = {"asset_folder": "shop/new", "use_asset_folder_as_public_id_prefix": "true"}
    assert aimed({"public_id": "cat", **on}).names == (("image", "shop/new/cat"), ("image", "cat"))
    assert aimed({"public_id": "cat", "asset_folder": "shop"}).names == (("image", "cat"),)
    computed = aimed(on)
    name = computed.fields["public_id"]
    assert computed.names == (("image", f"shop/new/{name}"), ("image", name))
    auto = {f"{folder}{name}" for folder in ("", "shop/") for name in ("a", "a.pdf")}
    plain = {"public_id": "", "use_filename": "1", "unique_filename": "0", "asset_folder": "shop"}
    assert {name for _, name in aimed({**plain, **on, "asset_folder": "shop"}, None, "a.pdf").names} == auto


@pytest.mark.parametrize("name", ["public_id", "public_id_prefix", "folder", "asset_folder", "type"])
@pytest.mark.parametrize("value", ["..", "a/../b", "./a", "a/."])
def test_a_name_that_no_look_up_can_ask_for_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter, match=name):
        read_relayed({name: value})
    assert aimed({name: "a.b/..c/d.."}).names


@pytest.mark.parametrize("public_id", ["/cat", "cat/", " cat", "cat ", "a//b"])
def test_a_name_that_the_account_may_trim_is_refused(public_id: str) -> None:
    """The look-ups after a lost answer would not find it, so the grant would be used a second time."""
    with pytest.raises(InvalidParameter, match=r"^public_id \(.*begins or ends with a space or '/', or has '//' in it"):
        read_relayed({"public_id": public_id})
    assert aimed({"public_id": f"X{public_id.replace('//', '/')}X"}).names


@pytest.mark.parametrize("name", ["public_id_prefix", "folder", "asset_folder"])
@pytest.mark.parametrize("value", [" pets", "pets ", "/ pets", "pets /", "//pets", "pets//", "a//b", "//", " "])
def test_a_folder_that_the_account_may_trim_is_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidParameter, match=rf"^{name} \(.*begins or ends with a space, or has '//'"):
        read_relayed({"public_id": "cat", name: value})
    for plain in ("/", "/my pets/", "pets/of 2026", "X pets X"):
        assert aimed({"public_id": "cat", name: plain}).names


@pytest.mark.parametrize("name", ["public_id=a", "=", "alt\r\nX-Evil: 1", "a\0", "a\x7f"])
def test_a_name_that_could_be_part_of_a_value_is_refused(name: str) -> None:
    """`public_id=a=b` is signed as one parameter. It must not be read as another one, which the account ignores."""
    with pytest.raises(InvalidParameter, match="contains = or a control character"):
        read_relayed({"public_id": "cat", name: "b"})


def test_a_signed_public_id_is_looked_for_below_its_folder_and_prefix() -> None:
    target = aimed({"public_id": "cat&dog", "folder": "pets/", "public_id_prefix": "2026", "type": "private"})
    assert target.names == (("image", "pets/2026/cat&dog"),)
    assert (target.fields["public_id"], target.type) == ("cat&dog", "private")
    assert "overwrite" not in target.fields


def test_without_a_name_one_grant_has_one_name_that_replaces_nothing() -> None:
    one, again, other = aimed({"folder": "pets"}), aimed({"folder": "pets"}), aimed({}, seed=b"another grant")
    assert one == again
    assert one.fields["public_id"] != other.fields["public_id"]
    assert one.names == (("image", f"pets/{one.fields['public_id']}"),)
    assert len(one.fields["public_id"]) == 20
    assert one.fields["overwrite"] == "false"
    assert one.is_own
    foreign = aimed({"folder": "pets"}, upstream=Upstream("demo", "123", "another secret"))
    assert foreign.fields["public_id"] != one.fields["public_id"]


def test_another_version_of_uponce_computes_the_same_names() -> None:
    """A repeat after an upgrade would otherwise not find the asset of the first try."""
    assert aimed({}, None).fields["public_id"] == "3qyd2urwyyqvyp5su1q2"
    assert aimed({"use_filename": "1"}, None).fields["public_id"] == "My_cat_uncocn"
    assert aimed({}, upstream=replace(ACCOUNT, marked=True)).marker == "eqwqamt73h5euydhgzfi"


def test_a_target_is_in_the_account_and_to_auto_unless_a_kind_is_requested() -> None:
    target = aimed({}, None)
    assert (target.kind, target.account) == ("auto", ACCOUNT.account)


def test_a_name_after_the_file_is_computed_as_the_upstream_would() -> None:
    unique = aimed({"use_filename": "true"})
    assert unique.fields["public_id"].startswith("My_cat_")
    assert len(unique.fields["public_id"]) == len("My_cat_") + 6
    assert unique.fields["overwrite"] == "false"
    plain = aimed({"use_filename": "1", "unique_filename": "0"})
    assert plain.fields["public_id"] == "My_cat"
    assert "overwrite" not in plain.fields
    assert (unique.is_own, plain.is_own, aimed({"public_id": "My_cat"}).is_own) == (True, False, False)


def test_a_raw_file_keeps_its_extension_and_auto_is_looked_for_everywhere() -> None:
    raw = aimed({"use_filename": "1", "unique_filename": "0"}, ResourceType.RAW, "a.pdf")
    assert raw.fields["public_id"] == "a.pdf"
    assert raw.names == (("raw", "a.pdf"),)
    auto = aimed({"use_filename": "1", "unique_filename": "0"}, None, "a.pdf")
    assert auto.fields["public_id"] == "a"
    assert set(auto.names) == {("image", "a"), ("video", "a"), ("raw", "a.pdf"), ("raw", "a")}


@pytest.mark.parametrize("filename", ["a.docx", "a.XLSX", "a.tar.gz", "a.do c ", "a.x%"])
def test_to_auto_an_extension_of_no_media_format_is_sent_and_looked_for(filename: str) -> None:
    """Otherwise the account has a document without an extension, and `a.docx` and `a.xlsx` under one name."""
    named = ({"use_filename": "1", "unique_filename": "0"}, {"use_filename": "1", "folder": "f"})
    for params in named if filename == "a.do c " else (*named, {}):
        raw, auto = (aimed(params, kind, filename) for kind in (ResourceType.RAW, None))
        assert (auto.fields, auto.is_own) == (raw.fields, raw.is_own)
        ((_, name),) = raw.names
        assert auto.names == (("image", name), ("video", name), ("raw", name))


@pytest.mark.parametrize(
    "filename", ["a.JPEG", "a.tif", "a.mp4", "a.heic", "a.PSD", "a.ogv", "a.jpg ", "a", ".a", None]
)
def test_to_auto_an_extension_that_may_be_of_a_media_format_is_not_sent(filename: str | None) -> None:
    for params in ({"use_filename": "1", "unique_filename": "0"}, {}):
        image, auto = (aimed(params, kind, filename) for kind in (ResourceType.IMAGE, None))
        assert auto.fields == image.fields
        assert "." not in auto.fields["public_id"]
        assert ("raw", aimed(params, ResourceType.RAW, filename).fields["public_id"]) in auto.names


@pytest.mark.parametrize("filename", ["a.jpg_large", "Ms. Doe 12.3.1980", "a.1980", "a.jpg!w600", "a.mp2", "a.do c "])
def test_a_random_name_gets_nothing_of_a_file_name_but_an_extension(filename: str) -> None:
    assert "." not in aimed({}, None, filename).fields["public_id"]


def test_to_auto_a_signed_name_is_sent_as_it_is() -> None:
    for name in ("a", "a.docx"):
        auto = aimed({"public_id": name}, None, "b.docx")
        assert auto.fields["public_id"] == name
        assert auto.names == (("image", name), ("video", name), ("raw", name))
    override = {"use_filename": "1", "unique_filename": "0", "filename_override": "b.docx"}
    assert aimed(override, None, "a.jpg").fields["public_id"] == "b.docx"


def test_a_name_that_is_cut_in_its_folder_is_looked_for_as_it_was_sent() -> None:
    params = {"use_filename": "1", "folder": "f" * 190, "public_id_prefix": "p"}
    raw, auto = (aimed(params, kind, "n" * 99 + ".pdf") for kind in (ResourceType.RAW, None))
    assert raw.names == (("raw", f"{'f' * 190}/p/{raw.fields['public_id']}"),)
    sent = f"{'f' * 190}/p/{auto.fields['public_id']}"
    assert set(auto.names) == {("image", sent), ("video", sent), ("raw", sent), ("raw", f"{sent}.pdf")}
    assert len(f"{sent}.pdf") == 255


def test_where_presets_name_assets_a_context_entry_finds_them() -> None:
    marked = Upstream("demo", "123", "secret", marked=True)
    target = aimed({"context": "alt=A cat"}, None, upstream=marked)
    assert target.marker is not None
    assert target.fields["context"] == f"uponce={target.marker}|alt=A cat"
    assert "public_id" not in target.fields
    assert (target.kind, target.type, target.is_own, target.account) == ("auto", "upload", True, marked.account)
    assert [kind for kind, _ in target.names] == ["image", "video", "raw"]
    image = aimed({"public_id": "cat"}, upstream=marked)
    assert image.fields["context"] == f"uponce={target.marker}"
    assert image.names == (("image", ""), ("image", "cat"))
    named = aimed({"public_id": "cat", "folder": "pets"}, None, upstream=marked)
    assert set(named.names) == {(kind, name) for kind in ("image", "video", "raw") for name in ("", "pets/cat")}
    assert named.names[:3] == target.names


@pytest.mark.parametrize(
    ("signed_context", "others"),
    [
        ("dir=C:", {"dir": "C:"}),
        ("dir=C:\\", {"dir": "C:\\"}),  # before a | it would escape that
        ("uponce=of another asset|alt=A\\|B|uponce=", {"alt": "A|B"}),
    ],
)
def test_no_signed_context_hides_the_entry_that_finds_the_asset(signed_context: str, others: dict[str, str]) -> None:
    target = aimed({"context": signed_context}, upstream=Upstream("demo", "123", "secret", marked=True))
    assert dict(context("context", target.fields["context"])) == {"uponce": target.marker, **others}


def test_a_grant_for_several_uploads_has_a_name_for_each_attempt_or_idempotency_key() -> None:
    once, often = (Grant(b"K", "c", "k", 1, uses, 2) for uses in (1, 3))
    assert seed_of(once, "a", None) == seed_of(once, "b", b"key")
    assert seed_of(often, "a", None) != seed_of(often, "b", None)
    assert seed_of(often, "a", b"key") == seed_of(often, "b", b"key") != seed_of(often, "a", b"other")


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_the_signature_is_what_the_account_accepts(algorithm: Algorithm) -> None:
    account = Upstream("demo", "123", "secret", algorithm=algorithm)
    fields = {"public_id": "a&b", "tags": "x,y"}
    trailer = signed(account, fields, 1_700_000_000)
    assert (trailer["timestamp"], trailer["api_key"]) == ("1700000000", "123")
    assert verified(fields | trailer, ["secret"], algorithms=[algorithm])


# What Cloudinary's Upload API knows, of what uponce takes.
CLOUDINARYS = """
    timestamp public_id public_id_prefix folder use_filename unique_filename filename_override discard_original_filename
    overwrite type tags context allowed_formats callback notification_url invalidate source access_mode eager_async
    clear_invalid use_asset_folder_as_public_id_prefix
    """


def test_every_parameter_belongs_to_cloudinary_or_to_uponce_alone() -> None:
    """A parameter of uponce without `is_own` goes to the account, and no relay would obey it."""
    taken = set(names(Use.SPEC, Use.NAMING, Use.SIGNED_ONLY, Use.NO_EFFECT))
    assert taken - OWN == set(CLOUDINARYS.split())


def test_an_account_gets_nothing_that_only_uponce_knows() -> None:
    assert passed_on({**dict.fromkeys(OWN, "1"), "folder": "a"}) == {"folder": "a"}


def test_every_other_extension_is_none_of_a_format_here() -> None:
    assert {name for name in _OTHER_MEDIA if canonical_format(name) in FORMATS} == set()
