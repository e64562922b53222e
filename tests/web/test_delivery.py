"""Originals come back byte for byte, and stay inert whatever they are."""

from typing import Any
from urllib.parse import quote, urlsplit

import pytest
from cloudinary.utils import cloudinary_url

from tests.app.planted import put_assets, put_packed
from tests.asgi import Answer
from tests.contract.stores import local_of
from tests.world import OTHER_PNG, PNG, World, assert_accepted, assert_refused
from uponce.app.ports import Presigner
from uponce.core.signature import sign_delivery

RAW = b"0123456789abcdefghij"


def store(world: World, file: bytes = PNG, *, kind: str = "auto", filename: str = "cat.png", **params: object) -> Any:
    answer = assert_accepted(world.upload(world.sign(params), file, kind=kind, filename=filename)).json
    return answer | {"path": urlsplit(answer["url"]).path}


def raw(world: World) -> Any:
    return store(world, RAW, kind="raw", filename="a.txt")


def signed_path(world: World, public_id: str, **options: Any) -> str:
    """A delivery path as the official SDK makes it."""
    secret = world.browser.secrets[0]
    url: str
    url, _ = cloudinary_url(public_id, cloud_name="demo", api_secret=secret, sign_url=True, secure=True, **options)
    return urlsplit(url).path


def assert_inert(answer: Answer) -> None:
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "default-src 'none'; media-src 'self'; sandbox"
    assert answer.headers["cross-origin-resource-policy"] == "cross-origin"
    assert "set-cookie" not in answer.headers


def test_get_gives_the_bytes_and_head_the_same_headers(shared: World) -> None:
    asset = store(shared)
    got, head = shared.get(asset["path"]), shared.request("HEAD", asset["path"])
    assert (got.status, got.body) == (200, PNG)
    assert got.headers["content-type"] == "image/png"
    assert got.headers["content-length"] == str(len(PNG))
    assert got.headers["etag"] == f'"{asset["etag"]}"'
    assert got.headers["last-modified"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert got.headers["cache-control"].startswith("public")
    assert "content-disposition" not in got.headers
    assert_inert(got)
    assert (head.status, head.body) == (200, b"")
    drop = "x-request-id"
    assert {**head.headers, drop: ""} == {**got.headers, drop: ""}


def test_a_version_is_optional_and_any_will_do(shared: World) -> None:
    store(shared, public_id="plain")
    for path in ("plain.png", "v1/plain.png", "v1/plain", "plain", "plain.PNG"):
        assert shared.get(f"/demo/image/upload/{path}").body == PNG


LONG_LIVED = "public, no-transform, max-age=2592000"
ASK = "public, no-transform, no-cache"


def cached(world: World, path: str, **headers: str) -> str:
    """How long caches keep the answer. nginx gets this for the file alone, under another name."""
    told = world.get(path, **headers).headers
    return told["x-uponce-cache" if "x-accel-redirect" in told else "cache-control"]


def test_only_the_url_with_the_assets_own_version_is_kept_for_long(world: World) -> None:
    """A cache would else keep the bytes of today under the URL of the next overwrite, which anybody can guess."""
    first = store(world, public_id="cat")
    own, version = first["path"], first["version"]
    assert cached(world, own) == LONG_LIVED
    for other in (f"v{version + 1}/", f"v{version - 1}/", "v1/", f"v0{version + 1}/", ""):
        path = f"/demo/image/upload/{other}cat.png"
        assert cached(world, path) == ASK
        assert cached(world, path, range="bytes=0-3") == ASK
        not_modified = world.get(path, if_none_match=f'"{first["etag"]}"')
        assert (not_modified.status, not_modified.headers["cache-control"]) == (304, ASK)

    second = store(world, OTHER_PNG, public_id="cat")
    assert cached(world, second["path"]) == LONG_LIVED
    assert cached(world, own) == ASK
    assert world.get(own).body == OTHER_PNG


def test_a_url_that_another_asset_can_get_is_not_kept_for_long(world: World) -> None:
    """`cat.png` as a PNG is delivered at the URL that `cat` gets if it is uploaded in the same second."""
    named = store(world, public_id="pets/cat.png")
    shared_url = f"/demo/image/upload/v{named['version']}/pets/cat.png"
    for spelling in (shared_url, shared_url.replace(".", "%2E")):
        assert (world.get(spelling).body, cached(world, spelling)) == (PNG, ASK)
    assert cached(world, named["path"]) == cached(world, f"{shared_url}.PNG") == LONG_LIVED

    cat = store(world, OTHER_PNG, public_id="pets/cat")
    assert (cat["path"], world.get(shared_url).body) == (shared_url, OTHER_PNG)
    assert cached(world, shared_url) == cached(world, shared_url[:-4]) == LONG_LIVED
    assert world.get(named["path"]).body == PNG


def test_private_assets_are_kept_for_an_hour_by_their_own_version_only(shared: World) -> None:
    asset = store(shared, public_id="mine", type="private")
    assert cached(shared, asset["path"]) == "private, no-transform, max-age=3600"
    other = asset["path"].replace(f"/v{asset['version']}/", f"/v{asset['version'] + 1}/")
    assert cached(shared, other) == "private, no-transform, no-cache"


def test_what_is_not_there_yet_is_never_kept(shared: World) -> None:
    for path in ("/demo/image/upload/v1/soon.png", "/demo/image/upload/soon.png", "/demo/image/private/v1/soon.png"):
        assert cached(shared, path) == "no-store"


def location_of(key: str) -> str:
    return f"/_blobs/{key}"


async def url_of(key: str) -> str:
    return f"https://bucket.example/{key}"


SIGNER = Presigner(60, url_of)


@pytest.mark.parametrize(
    ("ports", "kept"),
    [({"location_of": location_of}, LONG_LIVED), ({"presigner": SIGNER}, "public, no-transform, max-age=30")],
    ids=["by nginx", "by a bucket"],
)
def test_the_same_holds_where_another_server_sends_the_bytes(world: World, ports: dict[str, Any], kept: str) -> None:
    asset = store(world, public_id="cat")
    world.swap(**ports)
    assert cached(world, asset["path"]) == kept
    # Without validators, a cache would take the time of a 304 for that of the redirect it keeps.
    assert cached(world, asset["path"], if_none_match=f'"{asset["etag"]}"') == kept
    for other in (f"v{asset['version'] + 1}/", ""):
        path = f"/demo/image/upload/{other}cat.png"
        assert cached(world, path) == ASK
        assert cached(world, path, if_none_match=f'"{asset["etag"]}"') == ASK
        # The bucket decides on its own tags. nginx would know the time of the file alone.
        assert world.get(path, if_match='"x"').status == (412 if "location_of" in ports else 302)


def test_nginx_sends_files_and_uponce_what_is_in_packs(world: World) -> None:
    (packed,) = put_packed(world, PNG)
    put_assets(world, [packed], PNG)
    filed = store(world, bytes(300_000), kind="raw", public_id="cat")
    world.swap(location_of=local_of(world.blobs).location_of("/_blobs/"))
    assert world.get(filed["path"]).headers["x-accel-redirect"].startswith("/_blobs/")
    answer = world.get(f"/demo/raw/upload/{packed}")
    assert (answer.status, answer.body, "x-accel-redirect" in answer.headers) == (200, PNG, False)


@pytest.mark.parametrize(
    ("header", "expected", "content_range"),
    [
        ("bytes=0-3", RAW[:4], "bytes 0-3/20"),
        ("bytes=5-", RAW[5:], "bytes 5-19/20"),
        ("bytes=-4", RAW[-4:], "bytes 16-19/20"),
        ("bytes=-100", RAW, "bytes 0-19/20"),
        ("bytes=10-1000", RAW[10:], "bytes 10-19/20"),
        ("bytes=10-9223372036854775807", RAW[10:], "bytes 10-19/20"),
        ("BYTES=19-19", RAW[19:], "bytes 19-19/20"),
        ("bytes=0-1, 100-200", RAW[:2], "bytes 0-1/20"),
    ],
)
def test_one_range(shared: World, header: str, expected: bytes, content_range: str) -> None:
    answer = shared.get(raw(shared)["path"], range=header)
    assert (answer.status, answer.body) == (206, expected)
    assert answer.headers["content-range"] == content_range
    assert answer.headers["content-length"] == str(len(expected))
    assert_inert(answer)


def test_several_ranges_come_as_multipart_with_an_exact_length(shared: World) -> None:
    answer = shared.get(raw(shared)["path"], range="bytes=0-1,4-5,-2")
    assert answer.status == 206
    media_type, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert media_type == "multipart/byteranges"
    assert len(answer.body) == int(answer.headers["content-length"])
    pieces = answer.body.split(f"--{boundary}".encode())
    assert [piece.partition(b"\r\n\r\n")[2].rstrip() for piece in pieces[1:-1]] == [b"01", b"45", b"ij"]
    assert [
        b"content-range: bytes %b/20" % r in p for r, p in zip((b"0-1", b"4-5", b"18-19"), pieces[1:-1], strict=True)
    ]
    assert_inert(answer)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=0-1,2-3,4-5,6-7,8-9,10-11",
        "bytes=0-5,3-8",
        "bytes=5-2",
        "bytes=,",
        "bytes=-",
        "bytes=a-b",
        "bytes=1-2-3",
        "bytes 0-1",
        "lines=0-1",
        "bytes=" + "0-0," * 10_000,
        f"bytes={'9' * 5000}-",
        "",
    ],
    ids=lambda header: header[:20],
)
def test_a_range_that_makes_no_sense_gives_the_whole(shared: World, header: str) -> None:
    answer = shared.get(raw(shared)["path"], range=header)
    assert (answer.status, answer.body) == (200, RAW)


@pytest.mark.parametrize("header", ["bytes=20-", "bytes=100-200", "bytes=-0", "bytes=20-21,30-31"])
def test_a_range_outside_the_file_is_416_with_the_size(shared: World, header: str) -> None:
    answer = shared.get(raw(shared)["path"], range=header)
    assert_refused(answer, 416, "range_not_satisfiable")
    assert answer.headers["content-range"] == "bytes */20"


def test_head_knows_no_ranges(shared: World) -> None:
    answer = shared.request("HEAD", raw(shared)["path"], headers={"range": "bytes=0-3"})
    assert (answer.status, answer.headers["content-length"], answer.body) == (200, "20", b"")


ACTIVE = {
    "page.html": b"<!doctype html><script>alert(1)</script>",
    "pic.svg": b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
    "paper.pdf": b"%PDF-1.7 app.alert(1)",
    "code.js": b"alert(1)",
    "feed.xml": b"<?xml version='1.0'?><x/>",
    "play.m3u8": b"#EXTM3U\nfile:///etc/passwd",
}
AS_IMAGES = {"pic.svg": "image/svg+xml", "paper.pdf": "application/pdf"}


@pytest.mark.parametrize("filename", ACTIVE)
@pytest.mark.parametrize("kind", ["raw", "auto"])
def test_active_content_is_a_download(shared: World, filename: str, kind: str) -> None:
    asset = store(shared, ACTIVE[filename], kind=kind, filename=filename, use_filename="1")
    is_image = kind == "auto" and filename in AS_IMAGES
    assert asset["resource_type"] == ("image" if is_image else "raw")
    answer = shared.get(asset["path"])
    assert answer.body == ACTIVE[filename]
    assert answer.headers["content-type"] == (AS_IMAGES[filename] if is_image else "application/octet-stream")
    assert answer.headers["content-disposition"].startswith("attachment; filename*=UTF-8''")
    assert_inert(answer)


def test_a_picture_stored_as_raw_is_a_download_too(shared: World) -> None:
    answer = shared.get(store(shared, kind="raw", filename="x.html")["path"])
    assert answer.headers["content-type"] == "application/octet-stream"


ODD = [
    "ünï cödé/a b",
    "a,b;c=d:e@f!g$h'(i)*j[k]",
    "w_100,h_100/x",
    "s--AAAAAAAA--",
    "v12",
    "upload",
    "double.ext.png",
    "tilde~",
    ".htaccess",
    "-rf",
    "日本/猫",
    "cafe\N{COMBINING ACUTE ACCENT}",
]


@pytest.mark.parametrize("public_id", ODD)
@pytest.mark.parametrize("kind", ["image", "raw"])
def test_odd_names_come_back_by_their_own_url(shared: World, public_id: str, kind: str) -> None:
    asset = store(shared, kind=kind, public_id=public_id)
    assert asset["url"].isascii()
    assert shared.get(asset["path"]).body == PNG
    by_hand = quote(public_id, safe="/") + (".png" if kind == "image" else "")
    assert shared.get(f"/demo/{kind}/upload/v1/{by_hand}").body == PNG


@pytest.mark.parametrize(
    "path",
    [
        "/demo/image/upload/none.png",
        "/demo/image/upload/v1/dog.jpg",
        "/demo/video/upload/v1/cat.png",
        "/demo/image/upload/",
        "/demo/image/upload/v1/",
        "/demo/other/upload/cat.png",
        "/elsewhere/image/upload/cat.png",
        "/nowhere/image/upload/cat.png",
        "/demo/image/upload/../upload/cat.png",
        "/demo/image/upload/%2e%2e/%2e%2e/etc/passwd",
        "/demo/raw/upload/..%2f..%2f..%2fetc%2fpasswd",
        "/demo/raw/upload/%252e%252e%252fetc%252fpasswd",
        "/demo/raw/upload/..%c0%af..%c0%afetc/passwd",
        "/demo/raw/upload/....//....//etc/passwd",
        "/demo/raw/upload/..%5c..%5cuponce.db",
        "/demo/raw/upload//etc/passwd",
        "/demo/raw/upload/cat%00.png",
        "/demo/image/upload/cat%ff.png",
        "/demo/image/upload/%",
        "//image/upload/cat.png",
        "/demo/image/upload%2fcat.png",
        "/demo/image/upload/cat.png/.css",
    ],
)
def test_what_is_not_there_is_404(shared: World, path: str) -> None:
    store(shared, public_id="cat")
    assert_refused(shared.get(path), 404, "not_found")


def test_private_assets_need_a_signature_of_the_cloud(shared: World) -> None:
    for type_ in ("private", "authenticated"):
        asset = store(shared, public_id="secret", type=type_)
        good = asset["path"]
        assert "/s--" in good
        answer = shared.get(good)
        assert (answer.status, answer.body) == (200, PNG)
        assert answer.headers["cache-control"].startswith("private")
        unsigned = f"/demo/image/{type_}/v1/secret.png"
        wrong = f"/demo/image/{type_}/s--AAAAAAAA--/v1/secret.png"
        moved = good.replace("secret.png", "other.png")
        unknown = f"/demo/image/{type_}/v1/there-is-none.png"
        for path in (unsigned, wrong, moved, unknown):
            assert_refused(shared.get(path), 401, "delivery_denied")
            assert_refused(shared.get(path, range="bytes=0-1"), 401, "delivery_denied")
            assert shared.request("HEAD", path).status == 401
        assert_refused(shared.get(signed_path(shared, "none.png", type=type_)), 404, "not_found")


@pytest.mark.parametrize("options", [{}, {"long_url_signature": True}, {"version": 12}], ids=str)
def test_the_official_sdks_signed_urls_work(shared: World, options: dict[str, Any]) -> None:
    store(shared, public_id="dir/ü~secret", type="authenticated")
    path = signed_path(shared, "dir/ü~secret.png", type="authenticated", **options)
    assert shared.get(path).body == PNG
    other = path.replace("demo", "elsewhere")
    assert_refused(shared.get(other), 401, "delivery_denied")


@pytest.mark.parametrize("tilde", ["~", "%7E", "%7e"])
def test_a_signed_url_works_in_each_spelling_of_a_tilde(shared: World, tilde: str) -> None:
    """RFC 3986 §6.2.2: the spellings are one. SDKs sign the escaped one, which Python's requests changes."""
    store(shared, public_id="a~b~c", type="private")
    path = signed_path(shared, "a~b~c.png", type="private")
    assert "a%7Eb%7Ec" in path
    assert shared.get(path.replace("%7E", tilde)).body == PNG
    by_hand = sign_delivery("a~b~c.png", shared.browser.secrets[0])
    assert shared.get(f"/demo/image/private/s--{by_hand}--/{f'a{tilde}b{tilde}c.png'}").body == PNG
    assert_refused(shared.get(path.replace("%7E", "%7F")), 401, "delivery_denied")


def test_a_wrong_signature_on_a_public_asset_is_refused(shared: World) -> None:
    store(shared, public_id="open")
    assert shared.get(signed_path(shared, "open.png", type="upload")).body == PNG
    assert_refused(shared.get("/demo/image/upload/s--AAAAAAAA--/v1/open.png"), 401, "delivery_denied")


def test_an_overwrite_serves_new_bytes_under_a_higher_version_and_drops_the_old(world: World) -> None:
    first = store(world, public_id="cat", tags="old")
    before = world.traces()
    second = store(world, OTHER_PNG, public_id="cat")
    after = world.traces()
    assert second["overwritten"] is True
    assert (second["asset_id"], second["tags"]) == (first["asset_id"], [])
    assert second["version"] > first["version"]
    for path in (first["path"], second["path"]):
        assert world.get(path).body == OTHER_PNG
    assert world.get(first["path"], if_none_match=f'"{first["etag"]}"').status == 200
    assert (after.assets, len(after.blobs), after.blobs & before.blobs) == (1, 1, frozenset())


def test_without_overwrite_the_old_one_stays_and_is_the_answer(world: World) -> None:
    first = store(world, public_id="cat")
    second = store(world, OTHER_PNG, public_id="cat", overwrite="false")
    assert second["existing"] is True
    assert (second["version"], second["etag"]) == (first["version"], first["etag"])
    assert world.get(second["path"]).body == PNG
    assert (world.traces().assets, len(world.traces().blobs)) == (1, 1)


def test_equal_names_of_other_types_are_other_assets(world: World) -> None:
    store(world, public_id="twin")
    store(world, OTHER_PNG, public_id="twin", type="private")
    store(world, RAW, public_id="twin", kind="raw")
    assert world.get("/demo/image/upload/twin.png").body == PNG
    assert world.get("/demo/raw/upload/twin").body == RAW
    assert world.traces().assets == 3


def test_a_file_of_many_blocks_streams_whole_and_in_pieces(shared: World) -> None:
    big = bytes(range(256)) * 4096
    path = store(shared, big, kind="raw")["path"]
    assert shared.get(path).body == big
    assert shared.get(path, range="bytes=262143-524289").body == big[262143:524290]
