"""The signature endpoints: what an owner can see, mint and revoke, and no other client can."""

import asyncio
import base64
import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.asgi import Answer
from tests.world import PNG, START, World, assert_accepted, assert_refused
from uponce.core.values import ApiKey

FORM = "application/x-www-form-urlencoded"


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def ask(
    world: World,
    path: str = "",
    fields: Mapping[str, object] | None = None,
    *,
    key: ApiKey | None = None,
    authorization: str | None = None,
    as_json: bool = True,
    body: bytes | None = None,
    content_type: str = "application/json",
) -> Answer:
    """GET without fields and body, else POST."""
    signer = key or world.browser
    headers = {"authorization": authorization or basic(signer.api_key, signer.secrets[0])}
    target = f"/v1_1/demo/signatures{path}"
    if fields is None and body is None:
        return world.request("GET", target, headers=headers)
    if fields is not None:
        body = json.dumps(dict(fields)).encode() if as_json else urlencode(fields).encode()
        content_type = content_type if as_json else FORM
    return world.request("POST", target, headers=headers | {"content-type": content_type}, chunks=[body or b""])


def minted(world: World, fields: Mapping[str, object], **options: Any) -> Any:
    return assert_accepted(ask(world, "/sign", fields, **options)).json


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer abc",
        "Basic",
        "Basic !!!",
        "Basic caf\xe9",
        "Basic " + base64.b64encode(b"no colon").decode(),
        "Basic " + base64.b64encode(b"\xff:\xff").decode(),
        basic("1", "x"),
        basic("1\0", "x\0"),
        basic("", ""),
    ],
)
def test_no_or_wrong_credentials_are_401_with_a_challenge(shared: World, authorization: str) -> None:
    for path in ("", "/" + "0" * 64):
        answer = shared.get(f"/v1_1/demo/signatures{path}", authorization=authorization)
        assert_refused(answer, 401, "bad_credentials")
        assert answer.headers["www-authenticate"].startswith("Basic realm=")
    with shared.untouched():
        assert_refused(ask(shared, "/sign", {}, authorization=authorization or "x"), 401, "bad_credentials")


def test_credentials_are_good_for_their_own_cloud_only(shared: World) -> None:
    assert_refused(ask(shared, key=shared.foreign), 401, "bad_credentials")
    wrong = basic(shared.browser.api_key, shared.server.secrets[0])
    assert_refused(ask(shared, authorization=wrong), 401, "bad_credentials")
    answer = shared.get("/v1_1/nowhere/signatures", authorization=basic("1", "x"))
    assert_refused(answer, 401, "invalid_cloud_name")


@pytest.mark.parametrize("as_json", [True, False], ids=["JSON", "form"])
@pytest.mark.parametrize("algorithm", ["sha1", "sha256"])
def test_minted_fields_really_upload_once(shared: World, as_json: bool, algorithm: str) -> None:
    wanted = {"folder": "minted & more", "tags": "a,b", "signature_algorithm": algorithm}
    with shared.untouched():
        answer = ask(shared, "/sign", {**wanted, "folder": "a&b"}, as_json=as_json)
        assert_refused(answer, 400, "invalid_parameter")
        answer = ask(shared, "/sign", wanted | {"folder": "minted", "timestamp": START}, as_json=as_json)
    sheet = assert_accepted(answer).json
    assert len(sheet["fields"]["signature"]) == {"sha1": 40, "sha256": 64}[algorithm]
    assert sheet["fields"]["nonce"]
    assert sheet["upload_url"] == "https://media.example/v1_1/demo/auto/upload"
    assert assert_accepted(shared.upload(sheet["fields"])).json["folder"] == "minted"
    assert_refused(shared.upload(sheet["fields"]), 400, "signature_used")


@pytest.mark.parametrize("key", ["browser", "server"])
def test_two_mints_of_one_second_are_two_signatures(shared: World, key: str) -> None:
    """Also for a key of unlimited uses, if the signature has a limit."""
    ids = {minted(shared, {"folder": "x", "max_uses": "2"}, key=getattr(shared, key))["id"] for _ in range(3)}
    assert len(ids) == 3


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        *(({name: "1"}, "invalid_parameter") for name in ("api_key", "signature")),
        ({"file": "x"}, "invalid_parameter"),
        ({"eager": "w_1"}, "unsupported_parameter"),
        ({"no_such": "1"}, "unknown_parameter"),
        ({"timestamp": "soon"}, "invalid_parameter"),
        ({"public_id": "a&b"}, "invalid_parameter"),
        ({"folder": "f" * 200, "public_id": "p" * 100}, "invalid_parameter"),
        ({"valid_for": "3601"}, "invalid_parameter"),
        ({"tags": "a%26b"}, "invalid_parameter"),
        ({"signature_algorithm": "md5"}, "invalid_parameter"),
        ({"tags": "a", "tags[]": "b"}, "duplicate_parameter"),
        ({"timestamp": "9" * 5000}, "invalid_parameter"),
        *(({"tags[]": "", name: ""}, "invalid_parameter") for name in ("origin", "public_id_prefix")),
        *(({name: []}, "invalid_parameter") for name in ("allowed_formats", "origin", "max_bytes")),
    ],
)
def test_what_could_not_upload_is_not_signed(shared: World, fields: dict[str, Any], code: str) -> None:
    assert_refused(ask(shared, "/sign", fields), 400, code)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"{", "application/json"),
        (b"[1]", "application/json"),
        (b'"text"', "application/json"),
        (b'{"folder": [["a"]]}', "application/json"),
        (b'{"folder": {}}', "application/json"),
        (b'{"folder": "\xff"}', "application/json"),
        (b'{"timestamp": NaN}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"x" * 300_000, "application/json"),
        (b"{}", "text/plain"),
        (b"{}", ""),
        (b"folder=%ff", FORM),
        (b"\xff=1", FORM),
        (b"a=1&" * 200, FORM),
    ],
    ids=lambda value: str(value[:24]),
)
def test_a_body_that_is_no_flat_set_of_fields_is_refused(shared: World, body: bytes, content_type: str) -> None:
    for action in ("/sign", "/status", "/revoke"):
        answer = ask(shared, action, body=body, content_type=content_type)
        assert_refused(answer, 400, "malformed_request")


def test_status_follows_a_signature_from_unused_to_used_with_every_refused_reuse(world: World) -> None:
    fields = world.sign()
    with world.untouched():
        before = assert_accepted(ask(world, "/status", fields)).json
    assert (before["status"], before["uses"], before["max_uses"], before["history"]) == ("unused", 0, 1, [])
    assert before["expires_at"] == START + 3600
    world.clock.time += 5
    asset = assert_accepted(world.upload(fields)).json
    refused = world.upload(fields)
    for after in (ask(world, "/status", fields, as_json=False).json, ask(world, f"/{before['id']}").json):
        assert (after["status"], after["uses"], after["used_at"]) == ("used", 1, START + 5)
        spent, reuse = after["history"]
        assert (spent["event"], spent["asset_id"], spent["public_id"]) == (
            "spent",
            asset["asset_id"],
            asset["public_id"],
        )
        assert (reuse["event"], reuse["code"], reuse["address"]) == ("refused", "signature_used", "192.0.2.7")
        assert reuse["request_id"] == refused.headers["x-request-id"]


@pytest.mark.parametrize("by", ["fields", "id"])
def test_the_history_is_paged_and_its_newest_rows_come_first(world: World, by: str) -> None:
    fields = world.sign({"max_uses": 9})
    for _ in range(4):
        assert_accepted(world.upload(fields))
    grant_id = ask(world, "/revoke", fields).json["id"]

    def shown(**page: object) -> Any:
        answer = (
            ask(world, "/status", fields | page) if by == "fields" else ask(world, f"/{grant_id}?{urlencode(page)}")
        )
        return assert_accepted(answer).json

    pages, cursor = [shown(max_results=2)], ""
    while cursor := pages[-1].get("next_cursor", ""):
        pages.append(shown(max_results=2, next_cursor=cursor))
    assert [line["event"] for line in pages[0]["history"]] == ["spent", "revoked"]
    assert [len(page["history"]) for page in pages] == [2, 2, 1]
    whole = shown()
    assert [line for page in reversed(pages) for line in page["history"]] == whole["history"]
    assert "next_cursor" not in whole
    assert "next_cursor" not in shown(max_results=5)


def test_the_history_of_one_signature_is_never_cut_in_silence(world: World) -> None:
    fields = world.sign({"max_uses": 600})
    known = assert_accepted(world.upload(fields)).json
    columns = "at, grant_key, cloud, api_key, event, code, asset_id, public_id, address, request_id, count"
    more = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 599)"
    world.sql(f"{more} INSERT INTO audit ({columns}) SELECT {columns} FROM audit, n")
    assert_accepted(ask(world, "/revoke", fields))
    page = assert_accepted(ask(world, "/status", fields)).json
    assert page["history"][-1]["event"] == "revoked"
    assert len(page["history"]) == 500
    rest = assert_accepted(ask(world, "/status", fields | {"next_cursor": page["next_cursor"]})).json
    assert len(rest["history"]) == 101
    assert rest["history"][0]["asset_id"] == known["asset_id"]


@pytest.mark.parametrize("page", [{"max_results": "0"}, {"max_results": "501"}, {"next_cursor": "x"}], ids=str)
def test_a_page_of_the_history_that_makes_no_sense_is_400(world: World, page: dict[str, str]) -> None:
    assert_refused(ask(world, "/status", world.sign() | page), 400, "invalid_parameter")


def test_status_wants_a_genuine_signature(world: World) -> None:
    fields = world.sign()
    with world.untouched():
        assert_refused(ask(world, "/status", fields | {"tags": "x"}), 401, "invalid_signature")
        assert_refused(ask(world, "/status", {}), 400, "missing_parameter")
        assert_refused(ask(world, "/revoke", fields | {"tags": "x"}), 401, "invalid_signature")


@pytest.mark.parametrize("grant_id", ["0" * 64, "f" * 64, "zz", "0" * 63 + "z", "a" * 1000, "%00", "%ff", "status"])
def test_an_unknown_id_is_404(shared: World, grant_id: str) -> None:
    assert_refused(ask(shared, f"/{grant_id}"), 404, "not_found")
    assert_refused(ask(shared, "/revoke", {"id": grant_id}), 404, "not_found")


def test_an_unknown_action_is_404(shared: World) -> None:
    assert_refused(ask(shared, "/mint", {}), 404, "not_found")
    assert_refused(ask(shared, "/a/b", {}), 404, "not_found")


def test_the_list_is_paged_newest_first_and_filtered_by_status(world: World) -> None:
    used = []
    for age in range(5):
        fields = world.sign({"timestamp": START - age})
        assert_accepted(world.upload(fields))
        used.append(START - age)
    revoked = world.sign({"timestamp": START - 9})
    assert_accepted(ask(world, "/revoke", revoked))
    half = world.sign({"timestamp": START - 10, "max_uses": 2})
    assert_accepted(world.upload(half))

    listed: list[tuple[int, str]] = []
    cursor: str | None = ""
    pages = 0
    while cursor is not None:
        page = ask(world, "?max_results=2" + (f"&next_cursor={cursor}" if cursor else "")).json
        listed += [(row["timestamp"], row["status"]) for row in page["signatures"]]
        cursor, pages = page.get("next_cursor"), pages + 1
    assert listed == [*((at, "used") for at in used), (START - 9, "revoked"), (START - 10, "unused")]
    assert pages == 4
    for status, count in (("used", 5), ("revoked", 1), ("unused", 1)):
        rows = ask(world, f"?status={status}").json["signatures"]
        assert [row["status"] for row in rows] == [status] * count


@pytest.mark.parametrize(
    "query",
    [
        "status=spent",
        "max_results=0",
        "max_results=501",
        "max_results=-1",
        "max_results=%EF%BC%95",
        "max_results=000001999999999",
        "max_results=" + "9" * 5000,
        "max_results=5&max_results=5",
        "next_cursor=rubbish",
        "next_cursor=%00",
        "api_key=1",
    ],
    ids=lambda query: query[:30],
)
def test_a_query_of_the_list_that_makes_no_sense_is_400(shared: World, query: str) -> None:
    code = {"max_results=5&max_results=5": "duplicate_parameter", "api_key=1": "unknown_parameter"}
    assert_refused(ask(shared, f"?{query}"), 400, code.get(query, "invalid_parameter"))


@pytest.mark.parametrize("by", ["fields", "id"])
def test_a_revoked_signature_is_refused_and_stays_so(world: World, by: str) -> None:
    sheet = minted(world, {"folder": "cats", "max_uses": 2})
    assert_accepted(world.upload(sheet["fields"]))
    answer = ask(world, "/revoke", sheet["fields"] if by == "fields" else {"id": sheet["id"]})
    assert (answer.json["status"], answer.json["revoked_at"]) == ("revoked", START)
    world.clock.time += 10
    again = ask(world, "/revoke", sheet["fields"])
    assert again.json["revoked_at"] == START
    refused = world.upload(sheet["fields"])
    assert_refused(refused, 400, "signature_revoked")
    assert "revoked at 2026-01-01 00:00:00 +0000" in refused.message
    events = [(line["event"], line.get("code", "")) for line in ask(world, f"/{sheet['id']}").json["history"]]
    assert events == [("spent", ""), ("revoked", ""), ("refused", "signature_revoked")]


def test_a_signature_the_server_has_never_seen_can_be_revoked(world: World) -> None:
    fields = world.sign()
    assert ask(world, "/revoke", fields).json["status"] == "revoked"
    assert_refused(world.upload(fields), 400, "signature_revoked")
    assert world.traces().assets == 0


def test_revoking_what_is_used_changes_nothing(world: World) -> None:
    fields = world.sign()
    assert_accepted(world.upload(fields))
    with world.untouched():
        answer = ask(world, "/revoke", fields)
    assert (answer.json["status"], "revoked_at" in answer.json) == ("used", False)
    assert_refused(world.upload(fields), 400, "signature_used")


def test_a_signature_stays_used_when_the_ledger_has_forgotten_it(world: World) -> None:
    """By its fields and by its id. The audit remembers it for months, the ledger for hours."""
    signed = world.sign()
    asset = assert_accepted(world.upload(signed)).json
    grant_id = ask(world, "/status", signed).json["id"]
    world.clock.time += 10**5
    asyncio.run(world.database.purge(audit_seconds=10**6))
    for answer in (ask(world, "/status", signed), ask(world, f"/{grant_id}")):
        shown = assert_accepted(answer).json
        assert (shown["status"], shown["uses"], shown["used_at"]) == ("used", 1, START)
        assert shown["history"][0]["asset_id"] == asset["asset_id"]
    for fields in (signed, {"id": grant_id}):
        assert assert_accepted(ask(world, "/revoke", fields)).json["status"] == "used"
    for answer in (ask(world, f"/{grant_id}?dry_run=1"), ask(world, "/revoke", {"id": grant_id, "dry_run": "1"})):
        assert_refused(answer, 400, "unknown_parameter")
    assert len(ask(world, f"/{grant_id}").json["history"]) == 1


def test_an_upload_scope_key_sees_and_revokes_its_own_signatures_only(world: World) -> None:
    theirs = world.sign(key=world.server)
    assert_accepted(world.upload(theirs))
    id_ = ask(world, "/status", theirs, key=world.server).json["id"]
    with world.untouched():
        assert ask(world).json["signatures"] == []
        assert_refused(ask(world, "/status", theirs), 401, "scope_denied")
        assert_refused(ask(world, "/revoke", theirs), 401, "scope_denied")
        assert_refused(ask(world, f"/{id_}"), 404, "not_found")
        assert_refused(ask(world, "/revoke", {"id": id_}), 404, "not_found")
    mine = world.sign()
    assert_accepted(world.upload(mine))
    assert len(ask(world).json["signatures"]) == 1
    assert len(ask(world, key=world.server).json["signatures"]) == 2
    assert ask(world, "/status", mine, key=world.server).json["status"] == "used"


def test_another_cloud_sees_nothing(world: World) -> None:
    fields = world.sign()
    assert_accepted(world.upload(fields, PNG))
    id_ = ask(world, "/status", fields).json["id"]
    key = world.foreign
    credentials = basic(key.api_key, key.secrets[0])
    assert world.get("/v1_1/elsewhere/signatures", authorization=credentials).json["signatures"] == []
    assert_refused(world.get(f"/v1_1/elsewhere/signatures/{id_}", authorization=credentials), 404, "not_found")


def test_there_is_no_cors_here(shared: World) -> None:
    for answer in (
        shared.get("/v1_1/demo/signatures", origin="https://a.example", authorization=basic("1", "x")),
        shared.request(
            "OPTIONS",
            "/v1_1/demo/signatures/sign",
            headers={"origin": "https://a.example", "access-control-request-method": "POST"},
        ),
    ):
        assert not [name for name in answer.headers if name.startswith("access-control-")]
        assert answer.status in (401, 405)


@pytest.mark.parametrize("escape", [b"\\ud800", b"\\udc00"])
def test_half_a_character_is_refused(shared: World, escape: bytes) -> None:
    for action in ("/sign", "/status", "/revoke"):
        answer = ask(shared, action, body=b'{"folder": "' + escape + b'"}', content_type="application/json")
        assert_refused(answer, 400, "invalid_parameter")


def test_no_limit_of_uses_is_null(world: World) -> None:
    """Not a number that a script would take for a limit; and the name is there in every record."""
    fields = world.sign(key=world.server)
    assert world.upload(fields).status == 200
    (record,) = assert_accepted(ask(world, key=world.server)).json["signatures"]
    assert record["max_uses"] is None
    assert (record["uses"], record["status"]) == (1, "unused")


def test_a_form_on_another_site_revokes_nothing(world: World) -> None:
    """The browser would add the credentials that it remembers."""
    fields = world.sign()
    page = {"origin": "https://evil.example", "authorization": basic(world.browser.api_key, world.browser.secrets[0])}
    body = urlencode(fields).encode()
    answer = world.request(
        "POST", "/v1_1/demo/signatures/revoke", headers={**page, "content-type": FORM}, chunks=[body]
    )
    assert_refused(answer, 401, "bad_credentials")
    assert_accepted(world.upload(fields))
