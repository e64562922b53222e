"""HTTP Basic in place of a signature, and beside one."""

import base64
from collections.abc import Mapping

import pytest

from tests.asgi import END, part, parts_of, raw_part
from tests.world import OTHER_PNG, PNG, World, assert_accepted, assert_refused
from uponce.core.policy import Limits
from uponce.core.values import ApiKey


def basic(key: ApiKey, secret: str | None = None) -> dict[str, str]:
    text = f"{key.api_key}:{secret or key.secrets[0]}"
    return {"authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


@pytest.mark.parametrize("name", ["browser", "server"])
def test_credentials_upload_without_a_signature(world: World, name: str) -> None:
    key: ApiKey = getattr(world, name)
    answers = [
        world.upload({"folder": "cats", "tags": "a"}, data, headers=basic(key)) for data in (PNG, OTHER_PNG, PNG)
    ]
    assert [assert_accepted(answer).json["folder"] for answer in answers] == ["cats"] * 3
    assert len({answer.json["public_id"] for answer in answers}) == 3
    assert answers[0].json["api_key"] == key.api_key


FIELDS: dict[str, dict[str, str]] = {
    "no field": {},
    "fields": {"tags": "a", "folder": "b"},
    "a type": {"resource_type": "raw"},
}


@pytest.mark.parametrize("fields", FIELDS.values(), ids=FIELDS)
def test_credentials_upload_a_file_that_comes_first(world: World, fields: dict[str, str]) -> None:
    answer = world.post(part("file", PNG, "a.png"), parts_of(fields), END, headers=basic(world.server))
    assert assert_accepted(answer).json["folder"] == fields.get("folder", "")
    assert answer.json["resource_type"] == fields.get("resource_type", "image")


def test_chunks_may_bring_credentials(world: World) -> None:
    world.swap(limits=Limits(min_chunk_bytes=1))
    middle = len(PNG) // 2
    for first, last in ((0, middle), (middle, len(PNG))):
        range_ = {"content-range": f"bytes {first}-{last - 1}/{len(PNG)}", "x-unique-upload-id": "u"}
        answer = world.upload({"public_id": "c"}, PNG[first:last], headers={**basic(world.server), **range_})
    assert (answer.json["done"], answer.json["public_id"]) == (True, "c")


def wrong(world: World) -> dict[str, tuple[dict[str, str], dict[str, str], str]]:
    right = basic(world.browser)
    return {
        "a wrong secret": ({}, basic(world.browser, "wrong"), "bad_credentials"),
        "a key of another cloud": ({}, basic(world.foreign), "bad_credentials"),
        "a bearer token": ({}, {"authorization": "Bearer x"}, "bad_credentials"),
        "from a web page": ({}, {**right, "origin": "https://evil.example"}, "missing_parameter"),
        "another key in the fields": ({"api_key": world.server.api_key}, right, "invalid_parameter"),
        "another cloud in the fields": ({"cloud_name": "elsewhere"}, right, "invalid_parameter"),
        "an unsupported parameter": ({"eager": "w_100"}, right, "unsupported_parameter"),
        "an Idempotency-Key": ({}, {**right, "idempotency-key": "k"}, "invalid_parameter"),
        "too old a timestamp": ({"timestamp": "1000"}, right, "stale_request"),
        "a wrong signature beside it": (
            {"signature": "0" * 40, "timestamp": "1", "api_key": "2"},
            right,
            "unknown_api_key",
        ),
    }


def test_credentials_are_refused_where_they_must_be(world: World) -> None:
    for name, (fields, headers, code) in wrong(world).items():
        with world.untouched():
            assert world.upload(fields, headers=headers).code == code, name


def test_credentials_of_a_page_are_refused_with_the_reason(world: World) -> None:
    answer = world.upload({}, headers={**basic(world.browser), "origin": "https://app.example"})
    assert "HTTP Basic is for servers, not for web pages" in answer.json["error"]["message"]


def test_a_signature_counts_before_credentials(world: World) -> None:
    """A site behind HTTP Basic adds its own credentials to what its pages send."""
    assert_accepted(world.upload(world.sign(), headers={"authorization": "Basic c2l0ZTpwYXNz"}))


def by_name(fields: Mapping[str, str], data: bytes = PNG) -> bytes:
    """Return the parts of a form as the SDK of .NET sends them: in the order of their names, `file` among them."""
    head = "Content-Disposition: form-data; name=file; filename=cat.png; filename*=utf-8''cat.png"
    parts = {name: part(name, value) for name, value in fields.items()} | {"file": raw_part(head, data)}
    return b"".join(parts[name] for name in sorted(parts))


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("params", [{}, {"context": "a=b", "folder": "cats", "overwrite": "true"}])
def test_a_signature_behind_the_file_counts_before_credentials(
    world: World, params: dict[str, str], whole: bool
) -> None:
    """The SDK of .NET sends HTTP Basic with every signed upload."""
    world.whole_bodies = whole
    fields = world.sign(params)
    assert_accepted(world.post(by_name(fields), END, headers=basic(world.browser)))
    assert_refused(world.post(by_name(fields), END, headers=basic(world.browser)), 400, "signature_used")


def test_so_do_those_of_chunks(world: World) -> None:
    world.swap(limits=Limits(min_chunk_bytes=1))
    fields, middle = world.sign({"folder": "cats"}), len(PNG) // 2
    for first, last in ((0, middle), (middle, len(PNG))):
        range_ = {"content-range": f"bytes {first}-{last - 1}/{len(PNG)}", "x-unique-upload-id": "u"}
        form = by_name(fields, PNG[first:last])
        answer = assert_accepted(world.post(form, END, headers={**basic(world.browser), **range_}))
    assert answer.json["public_id"].startswith("cats/")


def test_credentials_do_not_stand_for_a_wrong_signature_behind_the_file(world: World) -> None:
    fields = world.sign({"folder": "cats"}) | {"folder": "dogs"}
    with world.untouched():
        answer = world.post(by_name(fields), END, headers=basic(world.browser))
    assert_refused(answer, 401, "invalid_signature")


def test_credentials_stand_for_a_signature_though_the_form_names_the_key(world: World) -> None:
    fields = {"api_key": world.server.api_key, "public_id": "c"}
    answer = world.post(by_name(fields), END, headers=basic(world.server))
    assert assert_accepted(answer).json["public_id"] == "c"


def test_a_file_that_is_too_large_for_a_signature_behind_it_learns_to_omit_the_key(world: World) -> None:
    world.swap(limits=Limits(max_unverified_bytes=10))
    fields = {"api_key": world.server.api_key, "public_id": "c"}
    refused = world.post(by_name(fields), END, headers=basic(world.server))
    assert_refused(refused, 400, "file_too_large")
    assert "omits api_key" in refused.message
    alone = world.post(part("file", PNG, "a.png"), END, headers=basic(world.server))
    assert_refused(alone, 400, "file_too_large")
    assert "Send a field before the file, such as nonce, or PUT the file." in alone.message
    assert_accepted(world.upload({"public_id": "c"}, headers=basic(world.server)))
