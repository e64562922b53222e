"""Parameters and files that are refused one by one: the right status and code, and nothing is spent."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import pytest

from tests.asgi import END, part, parts_of
from tests.world import OTHER_PNG, PNG, START, World, assert_accepted, assert_refused


@dataclass(frozen=True)
class Bad:
    """What is signed, what is changed after signing, and how it is sent."""

    status: int
    code: str
    signed: dict[str, object] = field(default_factory=dict)
    changed: dict[str, str] = field(default_factory=dict)
    dropped: tuple[str, ...] = ()
    file: bytes = PNG
    kind: str = "auto"
    headers: dict[str, str] = field(default_factory=dict)


SHA = sha256(PNG).hexdigest()
HTTPS = "https://app.example"
CASES = {
    # The key and its signature.
    "nothing signed": Bad(400, "missing_parameter", dropped=("api_key", "signature", "timestamp")),
    "no api_key": Bad(400, "missing_parameter", dropped=("api_key",)),
    "no signature": Bad(400, "missing_parameter", dropped=("signature",)),
    "no timestamp": Bad(400, "missing_parameter", dropped=("timestamp",)),
    "empty signature": Bad(400, "missing_parameter", changed={"signature": ""}),
    "upload preset": Bad(400, "unsupported_parameter", changed={"upload_preset": "p"}, dropped=("signature",)),
    "unknown key": Bad(401, "unknown_api_key", changed={"api_key": "123456789012345"}),
    "key with NUL": Bad(401, "unknown_api_key", changed={"api_key": "1\0"}),
    "wrong signature": Bad(401, "invalid_signature", changed={"signature": "0" * 40}),
    "upper case": Bad(401, "invalid_signature", changed={"signature": "A" * 40}),
    "39 digits": Bad(401, "invalid_signature", changed={"signature": "0" * 39}),
    "not hex": Bad(401, "invalid_signature", changed={"signature": "x" * 40}),
    "added parameter": Bad(401, "invalid_signature", changed={"public_id": "mine"}),
    "added unknown parameter": Bad(401, "invalid_signature", changed={"no_such": "1"}),
    "changed parameter": Bad(401, "invalid_signature", {"folder": "a"}, {"folder": "b"}),
    "dropped parameter": Bad(401, "invalid_signature", {"folder": "a"}, dropped=("folder",)),
    "name with a space": Bad(401, "invalid_signature", changed={" tags": "a"}),
    # When.
    "an hour and a second old": Bad(400, "stale_request", {"timestamp": START - 3601}),
    "valid_for is over": Bad(400, "stale_request", {"timestamp": START - 61, "valid_for": 60}),
    "milliseconds of long ago": Bad(400, "stale_request", {"timestamp": (START - 3601) * 1000}),
    "from the future": Bad(400, "future_timestamp", {"timestamp": START + 301}),
    "year 33658": Bad(400, "future_timestamp", {"timestamp": "999999999999"}),
    "valid_for beyond the window": Bad(400, "invalid_parameter", {"valid_for": 3601}),
    "valid_for zero": Bad(400, "invalid_parameter", {"valid_for": "0"}),
    "valid_for in full-width digits": Bad(400, "invalid_parameter", {"valid_for": "１０"}),
    "timestamp with a sign": Bad(400, "invalid_parameter", {"timestamp": f"+{START}"}),
    "timestamp with underscores": Bad(400, "invalid_parameter", {"timestamp": "1_767_225_60"}),
    "timestamp in full-width digits": Bad(400, "invalid_parameter", {"timestamp": "１７６７２２５６００"}),
    "timestamp of 30 digits": Bad(400, "invalid_parameter", {"timestamp": "1" * 30}),
    "fractional timestamp": Bad(400, "invalid_parameter", {"timestamp": f"{START}.5"}),
    # From where.
    "no origin": Bad(400, "origin_mismatch", {"origin": HTTPS}),
    "another origin": Bad(400, "origin_mismatch", {"origin": HTTPS}, headers={"origin": "https://evil.example"}),
    "origin with a tail": Bad(400, "origin_mismatch", {"origin": HTTPS}, headers={"origin": HTTPS + ".evil.example"}),
    "null origin": Bad(400, "origin_mismatch", {"origin": HTTPS}, headers={"origin": "null"}),
    "origin that is none": Bad(400, "invalid_parameter", {"origin": "app.example"}),
    # What for.
    "unsupported parameter": Bad(400, "unsupported_parameter", {"eager": "w_100"}),
    "auto_video_details": Bad(400, "unsupported_parameter", {"auto_video_details": '{"fields":["title"]}'}),
    "public_ids": Bad(400, "unsupported_parameter", {"public_ids": "a,b"}),
    "a signed upload that is called unsigned": Bad(400, "unsupported_parameter", {"unsigned": "true"}),
    "eager_notification_url": Bad(400, "unsupported_parameter", {"eager_notification_url": "https://a.example"}),
    "notification_url by ftp": Bad(400, "invalid_parameter", {"notification_url": "ftp://a.example/x"}),
    "notification_url with a user": Bad(400, "invalid_parameter", {"notification_url": "http://u:p@a.example/"}),
    "notification_url with a backslash": Bad(400, "invalid_parameter", {"notification_url": "http://a.example/\\b"}),
    "two notification_urls": Bad(400, "invalid_parameter", {"notification_url": "http://a.example\nhttp://b.example"}),
    "notification_url without a signature": Bad(401, "invalid_signature", changed={"notification_url": "http://a.b/"}),
    "unknown parameter": Bad(400, "unknown_parameter", {"no_such": "1"}),
    "unknown and empty": Bad(400, "unknown_parameter", changed={"no_such": ""}),
    "another access mode": Bad(400, "unsupported_parameter", {"access_mode": "authenticated"}),
    "callback of a plain form": Bad(
        400, "unsupported_parameter", {"callback": "https://app.example/cors.html"}, headers={"accept": "text/html,*/*"}
    ),
    "a switch that is on": Bad(400, "unsupported_parameter", {"colors": "true"}),
    "other case": Bad(400, "unknown_parameter", {"Tags": "a"}),
    "version": Bad(400, "unknown_parameter", {"version": "1"}),
    "%26": Bad(400, "invalid_parameter", {"tags": "a%26b"}),
    "not a boolean": Bad(400, "invalid_parameter", {"overwrite": "yes"}),
    "not a type": Bad(400, "invalid_parameter", {"type": "public"}),
    "not a context": Bad(400, "invalid_parameter", {"context": "novalue"}),
    "a tag too long": Bad(400, "invalid_parameter", {"tags": "t" * 256}),
    "max_uses zero": Bad(400, "invalid_parameter", {"max_uses": "0"}),
    "another cloud_name": Bad(400, "invalid_parameter", changed={"cloud_name": "elsewhere"}),
    "another resource_type": Bad(400, "invalid_parameter", changed={"resource_type": "raw"}, kind="image"),
    # Which name.
    "traversal": Bad(400, "invalid_parameter", {"public_id": "../../etc/passwd"}),
    "dot segment": Bad(400, "invalid_parameter", {"public_id": "a/./b"}),
    "absolute": Bad(400, "invalid_parameter", {"public_id": "/etc/passwd"}),
    "NUL": Bad(400, "invalid_parameter", {"public_id": "a\0b"}),
    "line end": Bad(400, "invalid_parameter", {"public_id": "a\r\nX-Evil: 1"}),
    "backslash": Bad(400, "invalid_parameter", {"public_id": "..\\a"}),
    "oracle": Bad(400, "invalid_parameter", {"public_id": "a&timestamp=4102444800"}),
    "oracle in the folder": Bad(400, "invalid_parameter", {"folder": "a&b"}),
    "oracle in the prefix": Bad(400, "invalid_parameter", {"public_id_prefix": "a&b"}),
    "256 characters": Bad(400, "invalid_parameter", {"public_id": "x" * 256}),
    "folder and name too long together": Bad(400, "invalid_parameter", {"public_id": "x" * 200, "folder": "f" * 60}),
    "a name like a version": Bad(400, "invalid_parameter", {"folder": "v12", "public_id": "a"}),
    # Which file.
    "empty file": Bad(400, "empty_file", file=b""),
    "text as image": Bad(400, "invalid_media", file=b"hello", kind="image"),
    "image as video": Bad(400, "invalid_media", kind="video"),
    "HTML as image": Bad(400, "invalid_media", file=b"<!doctype html><script>", kind="image"),
    "format not allowed": Bad(400, "format_not_allowed", {"allowed_formats": "jpg,gif"}),
    "raw named like an allowed format": Bad(
        400, "format_not_allowed", {"allowed_formats": "png"}, file=b"MZ", kind="raw"
    ),
    "one byte too many": Bad(400, "file_too_large", {"max_bytes": len(PNG) - 1}),
    "other bytes": Bad(400, "content_mismatch", {"sha256": SHA}, file=OTHER_PNG),
    "not a SHA-256": Bad(400, "invalid_parameter", {"sha256": SHA.upper()}),
}


def test_a_file_that_is_too_large_is_told_its_size_where_the_request_says_it(world: World) -> None:
    """While a form streams, more of the file may come than what has arrived."""
    query = world.sign({"max_bytes": 10})
    pieces = [PNG[:20], PNG[20:]]
    told = world.request("PUT", world.route("auto", query), headers={"content-length": str(len(PNG))}, chunks=pieces)
    assert told.json["error"]["message"] == f"File size too large. Got {len(PNG)}. Maximum is 10."
    unknown = world.request("PUT", world.route("auto", query), chunks=pieces)
    assert unknown.json["error"]["message"] == "File size too large. Got at least 20. Maximum is 10."
    form = world.post(parts_of(query), part("file", PNG, "cat.png"), END)
    assert form.json["error"]["message"] == f"File size too large. Got at least {len(PNG)}. Maximum is 10."
    world.whole_bodies = True
    whole = world.upload(query)
    assert whole.json["error"]["message"] == f"File size too large. Got {len(PNG)}. Maximum is 10."


def test_no_file_is_begun_that_says_that_it_is_too_large(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []
    real = world.blobs.receive

    async def receive() -> Any:
        begun.append("a file")
        return await real()

    monkeypatch.setattr(world.blobs, "receive", receive)
    for limit, files in ((999_999, 0), (1_000_000, 1)):
        query = world.sign({"max_bytes": limit})
        world.request("PUT", world.route("raw", query), headers={"content-length": "1000000"}, chunks=[PNG])
        assert len(begun) == files


@pytest.mark.parametrize("order", ["fields first", "file first"])
@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_by_name_and_nothing_is_spent(shared: World, name: str, order: str) -> None:
    case = CASES[name]
    fields = {n: v for n, v in (shared.sign(case.signed) | case.changed).items() if n not in case.dropped}
    file = part("file", case.file, "cat.png")
    form = [parts_of(fields), file] if order == "fields first" else [file, parts_of(fields)]
    with shared.untouched():
        answer = shared.post(*form, END, kind=case.kind, headers=case.headers)
    assert_refused(answer, case.status, case.code)


NOT_THE_SIGNATURES_FAULT = [name for name, case in CASES.items() if case.status == 401 or not case.signed]


@pytest.mark.parametrize("name", NOT_THE_SIGNATURES_FAULT)
def test_the_genuine_signature_still_works_afterwards(shared: World, name: str) -> None:
    """Forged, altered and misused attempts neither spend the honest holder's signature nor block it."""
    case = CASES[name]
    fields = shared.sign(case.signed)
    forged = {n: v for n, v in (fields | case.changed).items() if n not in case.dropped}
    for _ in range(3):
        shared.post(parts_of(forged), part("file", case.file, "cat.png"), END, kind=case.kind)
    assert_accepted(shared.upload(fields))


def test_the_message_names_the_parameter_the_value_and_the_cure(shared: World) -> None:
    cases: dict[str, tuple[str, ...]] = {
        "unsupported parameter": ("eager", "not supported", "without it"),
        "unknown parameter": ("no_such", "spelling"),
        "valid_for beyond the window": ("valid_for", "3601", "3600"),
        "one byte too many": (str(len(PNG)), str(len(PNG) - 1)),
        "another origin": (HTTPS, "evil.example"),
        "format not allowed": ("png", "gif, jpg"),
        "an hour and a second old": ("Stale request - reported time is", "which is more than 1 hour ago"),
        "other bytes": (SHA,),
    }
    for name, words in cases.items():
        case = CASES[name]
        answer = shared.upload(shared.sign(case.signed), case.file, headers=case.headers)
        assert all(word in answer.message for word in words), answer.message


def test_an_error_text_of_any_content_stays_one_header_line(shared: World) -> None:
    answer = shared.upload(shared.sign() | {"tags": "a\r\nSet-Cookie: x=\N{SNOWMAN}" + "y" * 1000})
    assert_refused(answer, 401, "invalid_signature")
    assert answer.headers["x-cld-error"].isascii()
    assert answer.headers["x-cld-error"].isprintable()
    assert len(answer.headers["x-cld-error"]) <= 500


@pytest.mark.parametrize(
    "signed",
    [
        {"timestamp": START - 3600},
        {"timestamp": START + 300},
        {"timestamp": START * 1000},
        {"timestamp": START - 3540, "valid_for": 3600},
        {"timestamp": START - 60, "valid_for": 60},
        {"origin": f"https://other.example,{HTTPS}"},
        {"allowed_formats": "jpg,PNG"},
        {"max_bytes": len(PNG)},
        {"sha256": SHA},
        {"type": "private", "overwrite": "0", "context": "a=b|c=d\\|e"},
        {"public_id": "x" * 255},
    ],
    ids=str,
)
def test_the_last_good_value_on_each_side_is_accepted(shared: World, signed: dict[str, Any]) -> None:
    fields = shared.sign(signed)
    assert_accepted(shared.upload(fields, headers={"origin": HTTPS}))
    assert_refused(shared.upload(fields, headers={"origin": HTTPS}), 400, "signature_used")


def test_three_uses_are_three_uses(world: World) -> None:
    fields = world.sign({"max_uses": 3})
    assert [world.upload(fields).code for _ in range(4)] == ["ok", "ok", "ok", "signature_used"]
    assert world.traces().assets == 3


def test_a_signature_of_an_unlimited_key_works_until_it_is_stale(world: World) -> None:
    fields = world.sign(key=world.server)
    assert [world.upload(fields).status for _ in range(3)] == [200] * 3
    world.clock.time += 3601
    assert_refused(world.upload(fields), 400, "stale_request")


def test_keys_are_good_for_their_own_cloud_only(world: World) -> None:
    for key in (world.foreign,):
        with world.untouched():
            assert_refused(world.upload(world.sign(key=key)), 401, "unknown_api_key")
    with world.untouched():
        answer = world.request("PUT", "/v1_1/nowhere/auto/upload?a=1&api_key=1&signature=1&timestamp=1", chunks=[PNG])
        assert_refused(answer, 401, "invalid_cloud_name")


def test_a_key_cannot_sign_for_another(world: World) -> None:
    fields = world.sign(key=world.server) | {"api_key": world.browser.api_key}
    with world.untouched():
        assert_refused(world.upload(fields), 401, "invalid_signature")
