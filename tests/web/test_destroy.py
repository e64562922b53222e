"""Deletions over HTTP: how they may be spelt, which keys may ask for them, and what is left afterwards."""

import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.asgi import END, FORM, Answer, part, parts_of
from tests.world import OTHER_PNG, PNG, START, World, assert_accepted, assert_refused
from uponce.core.values import ApiKey

OK, NOT_FOUND = {"result": "ok"}, {"result": "not found"}
URLENCODED, JSON = {"content-type": "application/x-www-form-urlencoded"}, {"content-type": "application/json"}


def destroy(
    world: World,
    body: bytes,
    headers: Mapping[str, str],
    *,
    kind: str = "image",
    query: str = "",
    cloud: str = "demo",
) -> Answer:
    target = f"/v1_1/{cloud}/{kind}/destroy{query}"
    return world.request("POST", target, headers=headers, chunks=[body])


def ask(world: World, fields: Mapping[str, Any], **where: str) -> Answer:
    """As the SDKs do it: a form of parts."""
    texts = {name: str(value) for name, value in fields.items()}
    return destroy(world, parts_of(texts) + END, FORM, **where)


def signed(world: World, public_id: str = "cat", key: ApiKey | None = None, **params: object) -> dict[str, str]:
    return world.sign({"public_id": public_id, **params}, key=key or world.server)


def as_key(key: ApiKey, secret: str | None = None) -> dict[str, str]:
    word = base64.b64encode(f"{key.api_key}:{secret or key.secrets[0]}".encode()).decode()
    return {"authorization": f"Basic {word}"}


def put(world: World, public_id: str = "cat", **params: object) -> dict[str, Any]:
    answer = assert_accepted(world.upload(world.sign({"public_id": public_id, **params})))
    return dict(answer.json)


def path_of(asset: Mapping[str, Any]) -> str:
    return str(asset["url"]).removeprefix("https://media.example")


def test_what_is_deleted_is_gone_and_so_are_its_bytes(world: World) -> None:
    asset = put(world)
    assert world.get(path_of(asset)).body == PNG
    answer = ask(world, signed(world))
    assert (answer.status, answer.json) == (200, OK)
    assert_refused(world.get(path_of(asset)), 404, "not_found")
    traces = world.traces()
    assert (traces.assets, traces.blobs) == (0, frozenset())
    assert assert_accepted(ask(world, signed(world))).json == NOT_FOUND


def test_what_is_not_there_is_200_and_leaves_no_trace(world: World) -> None:
    put(world)
    with world.untouched():
        assert assert_accepted(ask(world, signed(world, "dog"))).json == NOT_FOUND
        assert assert_accepted(ask(world, signed(world), kind="raw")).json == NOT_FOUND
        assert assert_accepted(ask(world, signed(world, type="private"))).json == NOT_FOUND


@pytest.mark.parametrize("spelling", ["parts", "urlencoded", "no type", "JSON", "query"])
@pytest.mark.parametrize("invalidate", [None, "1", "true", "false"])
def test_every_spelling_of_the_fields(world: World, spelling: str, invalidate: str | None) -> None:
    put(world, "a folder/größe")
    fields = signed(world, "a folder/größe", invalidate=invalidate or "")
    if spelling == "parts":
        answer = ask(world, fields)
    elif spelling in ("urlencoded", "no type"):
        answer = destroy(world, urlencode(fields).encode(), URLENCODED if spelling == "urlencoded" else {})
    elif spelling == "query":
        answer = destroy(world, b"", {}, query="?" + urlencode(fields))
    else:
        words = {"true": True, "false": False}
        typed = {name: words.get(text, text) for name, text in fields.items()} | {"type": None}
        answer = destroy(world, json.dumps(typed | {"timestamp": int(fields["timestamp"])}).encode(), JSON)
    assert assert_accepted(answer).json == OK


@pytest.mark.parametrize("type_", ["upload", "private", "authenticated"])
def test_each_delivery_type(world: World, type_: str) -> None:
    put(world, type=type_)
    assert ask(world, signed(world, type=type_)).json == OK


def test_directus_sends_the_resource_type_along(world: World) -> None:
    put(world)
    with world.untouched():
        assert_refused(ask(world, signed(world) | {"resource_type": "raw"}), 400, "invalid_parameter")
    assert ask(world, signed(world) | {"resource_type": "image"}).json == OK


def test_a_signature_of_an_upload_scope_key_never_deletes(world: World) -> None:
    """Although it is genuine, fresh and signs exactly these fields; and it still uploads afterwards."""
    asset = put(world)
    fields = signed(world, key=world.browser)
    answer = ask(world, fields)
    assert_refused(answer, 401, "scope_denied")
    assert "uponce keys create --scope all" in answer.message
    assert_refused(destroy(world, b"", as_key(world.browser), query="?public_id=cat"), 401, "scope_denied")
    assert world.get(path_of(asset)).body == PNG
    assert world.sql("SELECT count(*) FROM audit WHERE event = 'refused' AND code = 'scope_denied'") == 2
    assert world.upload(fields, OTHER_PNG).json["overwritten"]


def test_forged_and_foreign_ones_leave_no_trace(world: World) -> None:
    put(world)
    good = signed(world)
    with world.untouched():
        assert_refused(ask(world, good | {"public_id": "dog"}), 401, "invalid_signature")
        assert_refused(ask(world, good | {"invalidate": "1"}), 401, "invalid_signature")
        assert_refused(ask(world, good, cloud="elsewhere"), 401, "unknown_api_key")
        assert_refused(ask(world, good, cloud="nowhere"), 401, "invalid_cloud_name")
        assert_refused(ask(world, good | {"api_key": world.browser.api_key}), 401, "invalid_signature")
        for wrong in (as_key(world.server, "wrong"), as_key(world.foreign), {"authorization": "Basic !"}):
            assert_refused(destroy(world, b"", wrong, query="?public_id=cat"), 401, "bad_credentials")


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"timestamp": START - 3601}, "stale_request"),
        ({"timestamp": START + 301}, "future_timestamp"),
        ({"timestamp": START - 11, "valid_for": 10}, "stale_request"),
        ({"tags": "x"}, "unknown_parameter"),
        ({"folder": "x"}, "unknown_parameter"),
        ({"max_uses": 2}, "unknown_parameter"),
        ({"notification_url": "https://a.example"}, "unsupported_parameter"),
        ({"batch_id": "x"}, "unsupported_parameter"),
        ({"invalidate": "yes"}, "invalid_parameter"),
        ({"type": "fetch"}, "invalid_parameter"),
        ({"public_id": "a//b"}, "invalid_parameter"),
        ({"public_id": ""}, "missing_parameter"),
    ],
    ids=str,
)
def test_what_is_refused_changes_nothing(shared: World, fields: dict[str, object], code: str) -> None:
    sent = shared.sign({"public_id": "cat", **fields}, key=shared.server)
    with shared.untouched():
        assert_refused(ask(shared, sent), 400, code)


@pytest.mark.parametrize("missing", ["api_key", "signature", "timestamp"])
def test_each_credential_is_needed(shared: World, missing: str) -> None:
    fields = signed(shared)
    del fields[missing]
    answer = ask(shared, fields)
    assert_refused(answer, 400, "missing_parameter")
    assert answer.message == f"Missing required parameter - {missing}"


@pytest.mark.parametrize(
    ("body", "headers", "code"),
    [
        (b"public_id=a&public_id=b", URLENCODED, "duplicate_parameter"),
        (b"[]", JSON, "malformed_request"),
        (b'{"public_id": [["cat"]]}', JSON, "malformed_request"),
        (b'{"public_id": "a", "public_id": "b"}', JSON, "duplicate_parameter"),
        (b"x" * 300_000, URLENCODED, "malformed_request"),
        (b"x", {"content-type": "text/plain"}, "malformed_request"),
        (b"nonsense", FORM, "malformed_request"),
        (part("public_id", "cat") + END, {}, "malformed_request"),
        (part("public_id", "cat") + part("file", PNG, "cat.png") + END, FORM, "invalid_parameter"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_body_that_is_no_set_of_fields(shared: World, body: bytes, headers: dict[str, str], code: str) -> None:
    with shared.untouched():
        assert_refused(destroy(shared, body, headers), 400, code)


@pytest.mark.parametrize("kind", ["auto", "fetch", "%00"])
def test_there_is_no_other_resource_type(shared: World, kind: str) -> None:
    answer = ask(shared, signed(shared), kind=kind)
    assert_refused(answer, 404, "not_found")
    assert answer.message.startswith("The resource_type in the address must be image, video or raw, not '")


def test_only_post_and_not_across_origins(shared: World) -> None:
    for method in ("GET", "DELETE", "PUT", "OPTIONS"):
        answer = shared.request(method, "/v1_1/demo/image/destroy", headers={"origin": "https://a.example"})
        assert answer.status == 405
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_basic_credentials_in_place_of_a_signature(world: World) -> None:
    """Each deletion is a separate signature in the ledger, with its line in the audit."""
    put(world)
    headers = as_key(world.server) | FORM
    body = parts_of({"public_id": "cat", "invalidate": "1", "resource_type": "image"}) + END
    assert assert_accepted(destroy(world, body, headers)).json == OK
    assert assert_accepted(destroy(world, body, headers)).json == NOT_FOUND
    listed = world.get("/v1_1/demo/signatures", **as_key(world.server)).json["signatures"]
    (mine,) = (row for row in listed if row["api_key"] == world.server.api_key)
    (line,) = world.get(f"/v1_1/demo/signatures/{mine['id']}", **as_key(world.server)).json["history"]
    assert (line["event"], line["public_id"], line["address"]) == ("deleted", "cat", "192.0.2.7")
    assert_refused(destroy(world, b"", as_key(world.server)), 400, "missing_parameter")
    for wrong in ({"resource_type": "raw"}, {"api_key": world.browser.api_key}):
        body = parts_of({"public_id": "cat", **wrong}) + END
        assert_refused(destroy(world, body, headers), 400, "invalid_parameter")


def test_status_and_revocation_of_a_deletion_that_was_not_asked_for_yet(world: World) -> None:
    put(world)
    fields, owner = signed(world, invalidate="true"), as_key(world.server) | JSON
    body = json.dumps(fields).encode()
    for action, told in (("status", "unused"), ("revoke", "revoked")):
        answer = world.request("POST", f"/v1_1/demo/signatures/{action}", headers=owner, chunks=[body])
        assert assert_accepted(answer).json["status"] == told
    assert_refused(ask(world, fields), 400, "signature_revoked")
    assert world.traces().assets == 1


def test_credentials_of_a_web_page_delete_nothing(world: World) -> None:
    """A form on any site can post here, with the credentials that the browser remembers."""
    world.upload(world.sign({"public_id": "cat"}))
    body, credentials = b"public_id=cat", as_key(world.server)
    page = {**URLENCODED, **credentials, "origin": "https://evil.example"}
    assert_refused(destroy(world, body, page), 400, "missing_parameter")
    assert assert_accepted(destroy(world, body, {**URLENCODED, **credentials})).json == OK
