"""The delivery URL: read, written, signed, and against what the SDK builds."""

from urllib.parse import quote, urlsplit

import cloudinary.utils
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.strategies import asset_names, formats, secrets
from uponce.core.errors import NotFound, UnsupportedCall
from uponce.core.naming import parse_path, path_of, source_of, spellings_of
from uponce.core.signature import sign_delivery, verify_delivery
from uponce.core.values import Algorithm, AssetName, DeliveryType, ResourceType

SECRET = "abcd"
UPLOAD, PRIVATE, AUTHENTICATED = DeliveryType
IMAGE, VIDEO, RAW = ResourceType
CROP = "c_crop,h_20,w_10/image.jpg"


def _name(public_id: str, kind: ResourceType = IMAGE, type_: DeliveryType = UPLOAD) -> AssetName:
    return AssetName("demo", kind, type_, public_id)


@pytest.mark.parametrize(
    ("path", "candidates", "signature", "source"),
    [
        ("/demo/image/upload/a.jpg", [("a", "jpg"), ("a.jpg", None)], None, "a.jpg"),
        ("/demo/image/upload/a", [("a", None)], None, "a"),
        ("/demo/image/upload/v12/a.JPG", [("a", "jpg"), ("a.JPG", None)], None, "a.JPG"),
        ("/demo/image/upload/v12/f/g/a.jpg", [("f/g/a", "jpg"), ("f/g/a.jpg", None)], None, "f/g/a.jpg"),
        ("/demo/image/upload/s--XG-ejARI--/v1/a.jpg", [("a", "jpg"), ("a.jpg", None)], "XG-ejARI", "a.jpg"),
        ("/demo/image/upload/s----SjmNDA--/a", [("a", None)], "--SjmNDA", "a"),
        (f"/demo/image/upload/s--{'x' * 32}--/a", [("a", None)], "x" * 32, "a"),
        ("/demo/image/upload/v12", [("v12", None)], None, "v12"),
        ("/demo/image/upload/v1/v12", [("v12", None)], None, "v12"),
        ("/demo/image/upload/s--AAAAAAAA--", [("s--AAAAAAAA--", None)], None, "s--AAAAAAAA--"),
        ("/demo/image/upload/s--AAAAAAAA--/v12", [("v12", None)], "AAAAAAAA", "v12"),
        ("/demo/image/upload/s--AAAAAAA--/a", [("s--AAAAAAA--/a", None)], None, "s--AAAAAAA--/a"),
        ("/demo/image/upload/s--AAAAAAAAA--/a", [("s--AAAAAAAAA--/a", None)], None, "s--AAAAAAAAA--/a"),
        (f"/demo/image/upload/s--{'A' * 33}--/a", [(f"s--{'A' * 33}--/a", None)], None, None),
        ("/demo/image/upload/v1/.hidden", [(".hidden", None)], None, ".hidden"),
        ("/demo/image/upload/v1/a.", [("a.", None)], None, "a."),
        ("/demo/image/upload/v1/a.not-an-ext", [("a.not-an-ext", None)], None, "a.not-an-ext"),
        ("/demo/image/upload/v1/a.b.c", [("a.b", "c"), ("a.b.c", None)], None, "a.b.c"),
        ("/demo/image/upload/v1/my%20pic%20%C3%A9.png", [("my pic é", "png"), ("my pic é.png", None)], None, None),
        ("/demo/image/upload/v1/f%2Fa", [("f/a", None)], None, "f%2Fa"),
    ],
)
def test_parse_path(
    path: str, candidates: list[tuple[str, str | None]], signature: str | None, source: str | None
) -> None:
    parsed = parse_path(path)
    assert parsed.candidates == tuple((_name(public_id), extension) for public_id, extension in candidates)
    assert parsed.signature == signature
    assert source in (None, parsed.source)


@pytest.mark.parametrize("type_", ["fetch", "facebook", "list", "sprite", "multi", "text", "youtube"])
def test_another_delivery_type_is_refused_by_name(type_: str) -> None:
    with pytest.raises(UnsupportedCall, match=f"^Delivery type {type_} is not supported by uponce yet"):
        parse_path(f"/demo/image/{type_}/http://example.com/a.jpg")


@pytest.mark.parametrize(
    ("rest", "transformation"),
    [
        ("w_100/cat.jpg", "w_100"),
        ("c_fill,w_100,h_1.5/v1/cat.jpg", "c_fill,w_100,h_1.5"),
        ("c_limit,w_100/e_sepia/v12/f/cat.jpg", "c_limit,w_100/e_sepia"),
        ("s--XG-ejARI--/t_thumb/cat.jpg", "t_thumb"),
        ("l_text:Arial_20:Hello%2C%20you/cat", "l_text:Arial_20:Hello%2C%20you"),
        ("$width_100/w_$width/cat", "$width_100/w_$width"),
        ("if_w_gt_100/cat", "if_w_gt_100"),
        ("sp_auto/cat.m3u8", "sp_auto"),
        ("w_100", None),
        ("v1/w_100/cat.jpg", None),
        ("my_cats/cat.jpg", None),
        ("w_100,cats/cat.jpg", None),
        ("cats/w_100/cat.jpg", None),
        ("w_/cat", None),
    ],
)
def test_what_reads_like_a_transformation(rest: str, transformation: str | None) -> None:
    assert parse_path(f"/demo/image/upload/{rest}").transformation == transformation


def test_a_long_segment_that_is_no_transformation_takes_no_time() -> None:
    """Each length is read once: a pattern that tried every split would take minutes here."""
    for text in ("$" + "_" * 60_000 + ",", "$" + "a_" * 30_000 + ",", "w_1," * 15_000 + ",", "w_" * 30_000 + ","):
        with pytest.raises(NotFound):  # longer than any name
            parse_path(f"/demo/image/upload/{text}/cat")


@pytest.mark.parametrize(
    ("public_id", "source"),
    [("f/a:b-c_d.e", "f/a:b-c_d.e.jpg"), ("a b", "a%20b.jpg"), ("a~b", "a%7Eb.jpg"), ("é", "%C3%A9.jpg")],
)
def test_what_is_escaped(public_id: str, source: str) -> None:
    """As the SDKs do it."""
    assert source_of(public_id, "jpg") == source
    assert path_of(_name(public_id), 7, "jpg") == f"/demo/image/upload/v7/{source}"


@given(text=st.text("az09AZ_-./~%:é @", max_size=8), format_=st.none() | formats)
def test_a_name_without_anything_to_escape_is_left_as_it_is(text: str, format_: str | None) -> None:
    whole = f"{text}.{format_}" if format_ else text
    assert source_of(text, format_) == quote(whole, safe="/:-_.").replace("~", "%7E")


def test_a_cloud_is_one_segment() -> None:
    name = AssetName("a/b", IMAGE, UPLOAD, "c")
    assert path_of(name, 7, None) == "/a%2Fb/image/upload/v7/c"
    assert parse_path("/a%2Fb/image/upload/v7/c").candidates == ((name, None),)


def test_a_raw_asset_keeps_its_extension() -> None:
    """There the extension is part of the public_id, so nothing else can be meant."""
    parsed = parse_path("/demo/raw/authenticated/v1/docs/report.pdf")
    assert parsed.candidates == ((_name("docs/report.pdf", RAW, AUTHENTICATED), None),)


def test_a_cloud_is_decoded_and_a_missing_slash_does_not_matter() -> None:
    assert parse_path("d%C3%A9mo/video/private/a").candidates[0][0] == AssetName("démo", VIDEO, PRIVATE, "a")


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/demo",
        "/demo/image/upload",
        "/demo/image/a.jpg",
        "/demo/images/a/b.jpg",
        "/demo/Image/upload/a.jpg",
        "/demo/auto/upload/a.jpg",
        "/demo/image/upload/%ff",
        "/%ff/image/upload/a",
    ],
)
def test_what_is_no_delivery_url_is_not_found(path: str) -> None:
    with pytest.raises(NotFound, match="Resource not found"):
        parse_path(path)


@given(name=asset_names, version=st.integers(1, 10**10), format_=st.none() | formats, signature=st.booleans())
def test_what_is_written_is_read_back(name: AssetName, version: int, format_: str | None, signature: bool) -> None:
    """Every asset is reached under its own path, in its own format, with its own signature."""
    format_ = None if name.resource_type is RAW else format_
    signed = sign_delivery(source_of(name.public_id, format_), SECRET) if signature else None
    parsed = parse_path(path_of(name, version, format_, signed))
    assert (name, format_) in parsed.candidates
    if format_ is not None:
        assert parsed.candidates[0] == (name, format_)
    assert parsed.signature == signed
    assert parsed.source == source_of(name.public_id, format_)


@given(name=asset_names, version=st.integers(1, 10**10), format_=st.none() | formats)
def test_the_path_is_plain_ascii_of_few_characters(name: AssetName, version: int, format_: str | None) -> None:
    """No character that a browser, a proxy or a shell reads as something else."""
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789/:-_.%")
    assert set(path_of(name, version, format_)) <= allowed


def _sdk_path(name: AssetName, **options: object) -> str:
    url, _ = cloudinary.utils.cloudinary_url(
        name.public_id,
        cloud_name=name.cloud,
        resource_type=str(name.resource_type),
        type=str(name.type),
        api_secret=SECRET,
        **options,
    )
    return urlsplit(str(url)).path


sdk_assets = asset_names.filter(lambda name: not name.public_id.startswith(("http:", "https:")))


@given(name=sdk_assets, version=st.integers(1, 10**10), format_=st.none() | formats)
def test_our_path_is_the_sdks_path(name: AssetName, version: int, format_: str | None) -> None:
    """So `url` in an answer and a URL built by a client's SDK are one, character by character."""
    signature = sign_delivery(source_of(name.public_id, format_), SECRET)
    assert path_of(name, version, format_) == _sdk_path(name, version=version, format=format_)
    assert path_of(name, version, format_, signature) == _sdk_path(name, version=version, format=format_, sign_url=True)


@given(
    name=sdk_assets,
    format_=st.none() | formats,
    version=st.none() | st.integers(1, 10**10),
    algorithm=st.sampled_from(Algorithm),
    long=st.booleans(),
)
def test_urls_of_the_sdk_are_understood(
    name: AssetName, format_: str | None, version: int | None, algorithm: Algorithm, long: bool
) -> None:
    """With and without version, extension and signature of each kind, they lead to the asset and verify."""
    plain = parse_path(_sdk_path(name, version=version, format=format_))
    signed = parse_path(
        _sdk_path(
            name,
            version=version,
            format=format_,
            sign_url=True,
            signature_algorithm=str(algorithm),
            long_url_signature=long,
        )
    )
    if name.resource_type is RAW and format_ is not None:
        name, format_ = AssetName(name.cloud, RAW, name.type, f"{name.public_id}.{format_}"), None
    assert plain.signature is None
    assert (name, format_) in plain.candidates
    assert signed.candidates == plain.candidates
    assert signed.signature is not None
    assert verify_delivery(signed.source, signed.signature, ["another", SECRET])


@pytest.mark.parametrize(
    ("source", "secret", "signature"),
    [
        ("image.jpg", SECRET, "XG-ejARI"),
        (CROP, SECRET, "gXeltJKN"),
        ("c_scale,w_100/e_sepia/folder/my%20pic%20%C3%A9.png", SECRET, "ia5F8kuA"),
        ("c_limit,w_100/image.jpg", SECRET, "T5_xUS5k"),
        ("docs/report.pdf", SECRET, "vI0CbtnN"),
        ("http://example.com/a%20b.jpg%3Fx%3D1%26y%3D2", SECRET, "zH5T11uF"),
        ("l_text:Arial_20:Hello%252C%20world%252F1%25/image.jpg", SECRET, "i5EnAwi0"),
        ("image.jpg", "b", "--SjmNDA"),
        (CROP, "b", "Ai4Znfl3"),
        ("http://google.com/path/to/image.png", "b", "hH_YcbiS"),
        ("sample.jpg", "b", "v2fTPYTu"),
    ],
)
def test_vectors_of_short_signatures(source: str, secret: str, signature: str) -> None:
    assert sign_delivery(source, secret) == signature
    assert verify_delivery(source, signature, [secret])


@pytest.mark.parametrize(
    ("source", "secret", "long"),
    [
        (CROP, SECRET, "NOJNjJaG35ua6pG28jgT1IGkfHxSfAGu"),
        ("sample.jpg", "b", "2hbrSMPOjj5BJ4xV7SgFbRDevFaQNUFf"),
    ],
)
def test_vectors_of_sha256_signatures(source: str, secret: str, long: str) -> None:
    """The short form of SHA-256 is the beginning of the long one."""
    assert sign_delivery(source, secret, long=True) == long
    assert sign_delivery(source, secret, algorithm=Algorithm.SHA256) == long[:8]
    assert verify_delivery(source, long, [secret])
    assert verify_delivery(source, long[:8], [secret])


@pytest.mark.parametrize(
    ("path", "signature"),
    [
        ("/demo/image/upload/s--XG-ejARI--/v1234/image.jpg", True),
        ("/demo/image/authenticated/s--XG-ejARI--/image.jpg", True),
        ("/demo/raw/authenticated/s--vI0CbtnN--/v1/docs/report.pdf", True),
        ("/demo/image/upload/s--XG-ejARJ--/v1234/image.jpg", False),
        ("/demo/image/upload/s--xG-ejARI--/v1234/image.jpg", False),
        ("/demo/image/upload/s--XG-ejARI--/v1234/image.png", False),
        ("/demo/image/upload/s--XG-ejARI--/v1234/image%2Ejpg", False),
    ],
)
def test_a_signature_covers_the_escaped_text_after_the_version(path: str, signature: bool) -> None:
    parsed = parse_path(path)
    assert parsed.signature is not None
    assert verify_delivery(parsed.source, parsed.signature, [SECRET]) is signature


@given(source=st.text("abc/%.", max_size=20), secret=secrets, signature=st.text(max_size=40))
def test_a_signature_that_was_not_made_does_not_verify(source: str, secret: str, signature: str) -> None:
    """Of any length and alphabet; without a secret nothing verifies."""
    made = [
        sign_delivery(source, secret),
        sign_delivery(source, secret, long=True),
        sign_delivery(source, secret, algorithm=Algorithm.SHA256),
    ]
    assert verify_delivery(source, signature, [secret]) is (signature in made)
    assert not any(verify_delivery(source, each, []) for each in made)
    assert all(verify_delivery(source, each, ["another", secret]) for each in made)


@pytest.mark.parametrize(
    ("source", "spellings"),
    [
        ("a.jpg", ("a.jpg",)),
        ("a%20b", ("a%20b", "a b")),
        ("a~b~", ("a~b~", "a%7Eb%7E")),
        ("a%7eb~", ("a%7eb~", "a~b~", "a%7Eb%7E")),
        ("a%7E%20", ("a%7E%20", "a~%20", "a~ ")),
        ("a(1),b", ("a(1),b", "a%281%29%2Cb")),
        ("a%281)", ("a%281)", "a(1)", "a%281%29")),
        ("a%c3%a4", ("a%c3%a4", "aä", "a%C3%A4")),
    ],
)
def test_a_signature_may_cover_each_form_of_a_tilde_and_of_the_name(source: str, spellings: tuple[str, ...]) -> None:
    assert spellings_of(source) == spellings


@pytest.mark.parametrize(
    ("rest", "version", "unversioned"),
    [
        ("v12/a.jpg", 12, None),
        ("c_crop,w_10/v12/f/a.jpg", None, "c_crop,w_10/f/a.jpg"),
        ("c_crop,w_10/h_9/v12/a.jpg", None, "c_crop,w_10/h_9/a.jpg"),
        ("c_crop,w_10/v12", None, None),
        ("c_crop,w_10/f/v12/a.jpg", None, None),
    ],
)
def test_the_version_behind_a_transformation_can_be_taken_out(
    rest: str, version: int | None, unversioned: str | None
) -> None:
    path = parse_path(f"/demo/image/upload/{rest}")
    assert (path.version, path.unversioned) == (version, unversioned)
