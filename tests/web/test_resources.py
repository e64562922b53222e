"""The reads of the Admin API that uponce has: a server sees its own cloud alone."""

import asyncio
import json
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from tests.asgi import Answer
from tests.web.test_signatures import basic
from tests.world import PNG, START, World, assert_accepted, assert_refused, create_key
from uponce.app.ports import CONTEXT_WINDOW
from uponce.core.policy import Limits
from uponce.core.signature import sign_delivery
from uponce.core.values import ApiKey, KeyScope

CALLS = """
ping config resources/image/upload/cat resources/image/context?key=k upload_presets upload_presets/p
""".split()


def ask(world: World, path: str, by: ApiKey | None = None, /, **query: object) -> Answer:
    asks = by or world.server
    target = f"/v1_1/demo/{path}" + (f"?{urlencode(query)}" if query else "")
    return world.get(target, authorization=basic(asks.api_key, asks.secrets[0]))


def stored(world: World, kind: str = "auto", **params: object) -> Any:
    return assert_accepted(world.upload(world.sign(params, key=world.server), kind=kind)).json


def found(world: World, **query: object) -> list[str]:
    """The public_ids of a page."""
    answer = assert_accepted(ask(world, "resources/image/context", **query))
    return [each["public_id"] for each in answer.json["resources"]]


def test_ping(shared: World) -> None:
    answer = assert_accepted(ask(shared, "ping"))
    assert answer.json == {"status": "ok"}
    assert answer.headers["cache-control"] == "no-store"


def test_config(shared: World) -> None:
    """`cld upload_dir` asks for the folder mode before it uploads."""
    assert assert_accepted(ask(shared, "config")).json == {"cloud_name": "demo"}
    asked = {"cloud_name": "demo", "settings": {"folder_mode": "fixed"}}
    assert assert_accepted(ask(shared, "config", settings="true")).json == asked


@pytest.mark.parametrize("path", CALLS)
def test_only_a_key_of_scope_all_reads_and_only_its_own_cloud(shared: World, path: str) -> None:
    shared_secret = basic(shared.browser.api_key, shared.server.secrets[0])
    for authorization in ("", "Bearer x", basic("1", "x"), shared_secret):
        answer = shared.get(f"/v1_1/demo/{path}", authorization=authorization)
        assert_refused(answer, 401, "bad_credentials")
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    assert_refused(ask(shared, path, shared.foreign), 401, "bad_credentials")
    refused = ask(shared, path, shared.browser)
    assert_refused(refused, 401, "scope_denied")
    assert "Use a key of scope all" in refused.message


@pytest.mark.parametrize("path", CALLS)
def test_no_page_of_a_browser_reads(shared: World, path: str) -> None:
    """A browser adds credentials that it remembers."""
    own = basic(shared.server.api_key, shared.server.secrets[0])
    answer = shared.get(f"/v1_1/demo/{path}", authorization=own, origin="https://media.example")
    assert_refused(answer, 401, "bad_credentials")
    assert "access-control-allow-origin" not in answer.headers


def test_wrong_credentials_count_as_failures(world: World) -> None:
    world.swap(limits=Limits(max_failed_credentials=2))
    codes = [ask(world, "ping", world.foreign).code for _ in range(4)]
    assert codes == ["bad_credentials", "bad_credentials", "too_many_failures", "too_many_failures"]
    assert_accepted(ask(world, "ping"))


def test_an_asset_in_the_shape_of_the_admin_api(world: World) -> None:
    uploaded = stored(world, public_id="cats/tabby", tags="pet,grey,cat", context="alt=A cat|k=v", type="upload")
    answer = assert_accepted(ask(world, "resources/image/upload/cats/tabby"))
    assert answer.json == {
        "asset_id": uploaded["asset_id"],
        "public_id": "cats/tabby",
        "folder": "cats",
        "version": START,
        "width": 16,
        "height": 16,
        "format": "png",
        "pages": 1,
        "resource_type": "image",
        "type": "upload",
        "created_at": "2026-01-01T00:00:00Z",
        "bytes": len(PNG),
        "url": uploaded["url"],
        "secure_url": uploaded["secure_url"],
        "tags": ["cat", "grey", "pet"],
        "context": {"custom": {"alt": "A cat", "k": "v"}},
        "derived": [],
    }
    assert not [name for name in answer.headers if name.startswith("x-featureratelimit")]


def ask_in_body(world: World, path: str, fields: object) -> Answer:
    """As the Ruby SDK sends the parameters of a GET."""
    by, body = world.server, json.dumps(fields).encode()
    headers = {"authorization": basic(by.api_key, by.secrets[0]), "content-type": "application/json"}
    headers["content-length"] = str(len(body))
    return world.request("GET", f"/v1_1/demo/{path}", headers=headers, chunks=[body])


def test_the_parameters_of_a_read_may_be_in_its_body(world: World) -> None:
    etag = stored(world, public_id="cat", context="a=b")["etag"]
    stored(world, public_id="dog", context="a=c")
    assert_accepted(ask_in_body(world, "ping", {}))
    assert ask_in_body(world, "resources/image/upload/cat", {"media_metadata": True}).json["etag"] == etag
    assert_refused(ask_in_body(world, "resources/image/upload/cat", {"colors": True}), 400, "unsupported_parameter")
    assert_refused(ask_in_body(world, "resources/image/upload/cat", {"no_such": 1}), 400, "unknown_parameter")
    page = ask_in_body(world, "resources/image/context?max_results=9", {"key": "a", "value": "b", "tags": True})
    assert [each["public_id"] for each in assert_accepted(page).json["resources"]] == ["cat"]
    twice = ask_in_body(world, "resources/image/context?key=a", {"key": "a"})
    assert_refused(twice, 400, "duplicate_parameter")


@pytest.mark.parametrize("kind", ["multipart/form-data", "multipart/form-data; boundary=b", "text/plain", ""])
def test_a_read_without_a_body_may_have_any_type(world: World, kind: str) -> None:
    headers = {"authorization": basic(world.server.api_key, world.server.secrets[0]), "content-type": kind}
    assert_accepted(world.request("GET", "/v1_1/demo/ping", headers=headers, chunks=[]))


def test_an_asset_without_tags_and_context_has_no_such_keys(world: World) -> None:
    stored(world, public_id="bare")
    assert {"tags", "context"} & set(ask(world, "resources/image/upload/bare").json) == set()


@pytest.mark.parametrize("name", ["media_metadata", "image_metadata"])
def test_the_etag_is_shown_on_request(world: World, name: str) -> None:
    etag = stored(world, public_id="cat")["etag"]
    for on in ("1", "true", "True"):
        assert ask(world, "resources/image/upload/cat", **{name: on}).json["etag"] == etag
    for off in ("0", "false", "False", ""):
        assert "etag" not in ask(world, "resources/image/upload/cat", **{name: off}).json


def test_the_newest_version_is_shown(world: World) -> None:
    stored(world, public_id="cat")
    world.clock.time += 10
    newest = stored(world, public_id="cat")
    answer = ask(world, "resources/image/upload/cat").json
    assert (answer["version"], answer["asset_id"]) == (newest["version"], newest["asset_id"])


def test_the_url_of_a_private_asset_is_signed_with_the_secret_of_the_key(world: World) -> None:
    stored(world, public_id="secret", type="private")
    url = ask(world, "resources/image/private/secret").json["secure_url"]
    assert f"/private/s--{sign_delivery('secret.png', world.server.secrets[0])}--/" in url
    assert_refused(ask(world, "resources/image/upload/secret"), 404, "not_found")


@pytest.mark.parametrize(
    "public_id", ["ünï/cødé 😀", "a/b/c/d.e", "tags/context/restore", "50 cats, 2 dogs=x", "a" * 255]
)
def test_any_public_id_is_found(world: World, public_id: str) -> None:
    stored(world, public_id=public_id)
    for escaped in (quote(public_id), quote(public_id, safe=""), quote(public_id.replace("ï", "i\u0308"))):
        assert ask(world, f"resources/image/upload/{escaped}").json["public_id"] == public_id


def test_a_name_of_another_kind_type_or_cloud_is_another_asset(world: World) -> None:
    stored(world, public_id="cat")
    for path in ("video/upload/cat", "raw/upload/cat", "image/authenticated/cat", "image/upload/Cat"):
        assert_refused(ask(world, f"resources/{path}"), 404, "not_found")
    other = asyncio.run(create_key(world.services, "elsewhere", scope=KeyScope.ALL))
    own = basic(other.api_key, other.secrets[0])
    assert_refused(world.get("/v1_1/elsewhere/resources/image/upload/cat", authorization=own), 404, "not_found")


@pytest.mark.parametrize(
    "public_id", ["no/such", "a//b", "..", "a/../b", "a%3Fb", "a%00b", "%ED%A0%80", "%FF", "a%25", "x" * 5000, ""]
)
def test_a_missing_asset_is_404_with_its_public_id(shared: World, public_id: str) -> None:
    answer = ask(shared, f"resources/image/upload/{public_id}")
    assert_refused(answer, 404, "not_found")
    assert answer.message.startswith("Resource not found - ")
    assert len(answer.message) < 300


def test_the_text_of_a_missing_asset_is_that_of_cloudinary(shared: World) -> None:
    assert ask(shared, "resources/image/upload/cats/ünï").message == "Resource not found - cats/ünï"


@pytest.mark.parametrize(
    "name",
    """
    accessibility_analysis cinemagraph_analysis colors exif faces phash quality_analysis related versions
    """.split(),
)
def test_what_would_add_facts_is_refused_by_name_unless_it_is_off(world: World, name: str) -> None:
    stored(world, public_id="cat")
    refused = ask(world, "resources/image/upload/cat", **{name: "true"})
    assert_refused(refused, 400, "unsupported_parameter")
    assert refused.message.startswith(f"Parameter {name} is not supported by this server yet")
    assert_accepted(ask(world, "resources/image/upload/cat", **{name: "false"}))


def test_what_has_no_effect_is_accepted(world: World) -> None:
    stored(world, public_id="cat")
    plain = ask(world, "resources/image/upload/cat").json
    harmless = {"coordinates": "true", "pages": "1", "max_results": "5", "versions": "", "image_metadata": "0"}
    assert ask(world, "resources/image/upload/cat", **harmless).json == plain


@pytest.mark.parametrize(
    ("path", "query", "code"),
    [
        ("ping", {"x": "1"}, "unknown_parameter"),
        ("resources/image/upload/cat", {"colours": ""}, "unknown_parameter"),
        ("resources/image/upload/cat", {"media_metadata": "maybe"}, "invalid_parameter"),
        ("resources/image/upload/cat", {"max_results": "501"}, "invalid_parameter"),
        ("resources/image/upload/cat", {"derived_next_cursor": "x"}, "unsupported_parameter"),
        ("resources/image/context", {}, "missing_parameter"),
        ("resources/image/context", {"key": ""}, "missing_parameter"),
        ("resources/image/context", {"key": "k" * 1025}, "invalid_parameter"),
        ("resources/image/context", {"key": "k", "max_results": "0"}, "invalid_parameter"),
        ("resources/image/context", {"key": "k", "max_results": "501"}, "invalid_parameter"),
        ("resources/image/context", {"key": "k", "direction": "asc"}, "unsupported_parameter"),
        ("resources/image/context", {"key": "k", "fields": "tags"}, "unsupported_parameter"),
        ("resources/image/context", {"key": "k", "fields[]": "tags"}, "unsupported_parameter"),
        ("resources/image/context", {"key": "k", "prefix": "a"}, "unknown_parameter"),
        *(
            ("resources/image/context", {"key": "k", "next_cursor": cursor}, "invalid_parameter")
            for cursor in ("x", "0", "-1", "1 ", "\u0661", "9" * 19, "\0")
        ),
        ("upload_presets", {"next_cursor": "x"}, "unsupported_parameter"),
    ],
)
def test_a_wrong_query_is_refused(shared: World, path: str, query: dict[str, str], code: str) -> None:
    assert_refused(ask(shared, path, **query), 400, code)


def test_a_parameter_that_is_sent_twice_is_refused(shared: World) -> None:
    assert_refused(ask(shared, "resources/image/context?key=a&key=b"), 400, "duplicate_parameter")


def test_assets_by_context_newest_first(world: World) -> None:
    for name, context in (("a", "k=1"), ("b", "k=2|other=1"), ("c", "other=k"), ("d", "k=1|x=y")):
        stored(world, public_id=name, context=context)
    stored(world, public_id="none")
    assert found(world, key="k") == ["d", "b", "a"]
    assert found(world, key="k", value="1") == ["d", "a"]
    assert found(world, key="other") == ["c", "b"]
    assert found(world, key="k", value="3") == found(world, key="K") == []
    stored(world, public_id="a", context="k=2")
    assert found(world, key="k", value="2") == ["b", "a"], "an overwritten asset keeps its place"


def test_a_page_has_assets_of_all_delivery_types_and_of_one_resource_type(world: World) -> None:
    for name, kind, type_ in (("a", "image", "upload"), ("b", "image", "private"), ("c", "raw", "upload")):
        stored(world, kind, public_id=name, type=type_, context="k=v")
    assert found(world, key="k") == ["b", "a"]


def test_a_page_shows_the_short_form_of_an_asset(world: World) -> None:
    stored(world, public_id="cat", tags="b,a", context="k=v")
    (plain,) = ask(world, "resources/image/context", key="k").json["resources"]
    assert {"etag", "tags", "context", "derived", "signature"} & set(plain) == set()
    assert {"asset_id", "public_id", "version", "bytes", "secure_url", "folder"} <= set(plain)
    (full,) = ask(world, "resources/image/context", key="k", tags="True", context="1", metadata="1").json["resources"]
    assert full == plain | {"tags": ["a", "b"], "context": {"custom": {"k": "v"}}}


def test_the_pages_of_a_list(world: World) -> None:
    names = [f"n{number:02}" for number in range(12)]
    for name in names:
        stored(world, public_id=name, context="k=v")
    assert found(world, key="k") == names[:1:-1], "ten unless the request says how many"
    seen: list[str] = []
    page: dict[str, Any] = {"next_cursor": None}
    while "next_cursor" in page:
        cursor = {"next_cursor": page["next_cursor"]} if page["next_cursor"] else {}
        page = assert_accepted(
            ask(world, "resources/image/context", key="k", max_results=5, direction="desc", **cursor)
        ).json
        assert len(page["resources"]) <= 5
        seen += [each["public_id"] for each in page["resources"]]
    assert seen == names[::-1]


def test_one_request_reads_a_window_and_the_cursor_goes_on(world: World) -> None:
    stored(world, public_id="old", context="rare=1")
    world.sql(
        f"""
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {CONTEXT_WINDOW})
        INSERT INTO assets (cloud, resource_type, type, public_id, asset_id, version, version_id, created_at, blob_key,
          bytes, md5, sha256, facts, tags, context)
        SELECT cloud, resource_type, type, 'n' || i, 'a' || i, version, version_id, created_at, 'b' || i, bytes, md5,
          sha256, facts, tags, '[["common","1"]]' FROM assets, n
        """
    )
    first = ask(world, "resources/image/context", key="rare").json
    assert first["resources"] == []
    assert found(world, key="rare", next_cursor=first["next_cursor"]) == ["old"]


def test_there_are_no_presets(shared: World) -> None:
    assert assert_accepted(ask(shared, "upload_presets", max_results=500)).json == {"presets": []}
    missing = ask(shared, "upload_presets/" + quote("my préset"))
    assert_refused(missing, 404, "not_found")
    assert missing.message == "Can't find upload preset named my préset"


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("POST", "resources/image/upload/a/b", "update"),
        ("POST", "upload_presets", "create_upload_preset"),
        ("PUT", "upload_presets/p", "update_upload_preset"),
        ("DELETE", "resources/image/tags/a", "delete_resources_by_tag"),
        ("GET", "resources/image/tags/a", "resources_by_tag"),
        ("GET", "resources/image/moderations/manual/pending", "resources_by_moderation"),
        ("GET", "resources/image/facebook/a", "resources"),
        ("GET", "resources/auto/upload/a", "resources"),
    ],
)
def test_other_calls_at_these_addresses_are_still_refused_by_name(
    shared: World, method: str, path: str, name: str
) -> None:
    answer = shared.request(method, f"/v1_1/demo/{path}")
    assert_refused(answer, 400, "unsupported_call")
    assert answer.message.startswith(f"{name} is not supported by uponce yet.")


def test_a_method_that_no_call_has_is_405(shared: World) -> None:
    answer = shared.request("POST", "/v1_1/demo/ping")
    assert (answer.status, answer.headers["allow"]) == (405, "GET")
    assert answer.message.startswith("This address answers a read of the Admin API")
