"""Calls of a cloud with an upstream that are no uploads."""

import base64
import json
from collections.abc import Mapping
from urllib.parse import urlencode

import pytest

from tests.asgi import END, FORM, Answer, part, parts_of
from tests.upstreams import StubUpstream, Trouble
from tests.web.relays import EachOnItsLoop, md5
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.adapters.upstream import Times
from uponce.app.ports.relaying import UpstreamReply


def basic(world: World, key: str = "server") -> str:
    found = getattr(world, key)
    return "Basic " + base64.b64encode(f"{found.api_key}:{found.secrets[0]}".encode()).decode()


def act(world: World, path: str, fields: Mapping[str, str] | list[tuple[str, str]], **headers: str) -> Answer:
    body = urlencode(fields).encode()
    more = {"content-type": "application/x-www-form-urlencoded", "content-length": str(len(body)), **headers}
    return world.request("POST", f"/v1_1/demo/{path}", headers=more, chunks=[body])


def test_the_upstream_answers_reads_of_servers(relay: World, stub: StubUpstream) -> None:
    assert_accepted(relay.upload(relay.sign({"public_id": "pets/kätzchen 1"}), kind="raw"))
    path = "/v1_1/demo/resources/raw/upload/pets/k%C3%A4tzchen%201?media_metadata=true"
    answer = assert_accepted(relay.get(path, authorization=basic(relay)))
    assert answer.json["etag"] == md5(PNG)
    assert assert_accepted(relay.get("/v1_1/demo/ping", authorization=basic(relay))).json == {"status": "ok"}
    assert relay.get("/v1_1/demo/usage", authorization=basic(relay)).status == 404
    asked = len(stub.requests)
    assert_refused(relay.get("/v1_1/demo/ping", authorization=basic(relay, "browser")), 401, "scope_denied")
    assert_refused(relay.get("/v1_1/demo/ping"), 401, "bad_credentials")
    stub.reads = iter([Trouble.LIMITED])
    limited = relay.get("/v1_1/demo/ping", authorization=basic(relay))
    assert (limited.status, limited.headers["x-featureratelimit-remaining"]) == (420, "0")
    assert len(stub.requests) == asked + 1


def test_the_upstream_does_what_keys_for_servers_may(relay: World, stub: StubUpstream) -> None:
    for how in ("signed", "basic"):
        assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
        if how == "signed":
            answer = act(relay, "raw/destroy", relay.sign({"public_id": "cat"}, key=relay.server))
        else:
            answer = act(relay, "raw/destroy", {"public_id": "cat"}, authorization=basic(relay))
        assert assert_accepted(answer).json == {"result": "ok"}
        assert not stub.store


def test_a_request_needs_the_upstream_of_its_own_cloud_alone(relay: World) -> None:
    """With hundreds of relayed clouds, to decrypt all their secrets keeps other requests waiting."""
    relay.sql("INSERT INTO upstreams (cloud, url, url_secret) VALUES ('damaged', 'cloudinary://1@acme', x'00')")
    assert_accepted(relay.get("/v1_1/demo/ping", authorization=basic(relay)))
    assert_refused(relay.get("/v1_1/elsewhere/ping"), 401, "bad_credentials")
    for cloud, status in (("demo", 401), ("elsewhere", 404), ("damaged", 503)):
        answer = relay.request("POST", f"/relay/{cloud}/notifications", headers={"content-length": "2"}, chunks=[b"{}"])
        assert answer.status == status


def test_uponce_signs_parameters_that_only_the_upstream_knows(relay: World, stub: StubUpstream) -> None:
    """For servers that ask it to, and for uploads with HTTP Basic, as it accepts them when an SDK signed them."""
    params = {"eager": "w_100", "folder": "a"}
    signed = assert_accepted(act(relay, "signatures/sign", params, authorization=basic(relay))).json["fields"]
    assert_accepted(relay.upload(signed, kind="raw"))
    body = parts_of(params), part("file", PNG, "a.bin"), END
    assert_accepted(relay.post(*body, kind="raw", headers={"authorization": basic(relay)}))
    assert [request.fields["eager"] for request in stub.requests] == ["w_100"] * 2
    refused = act(relay, "signatures/sign", {"folder": ".."}, authorization=basic(relay))
    assert_refused(refused, 400, "invalid_parameter")


def test_an_upload_to_an_address_with_a_slash_at_its_end_is_told_so(relay: World) -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\nx\r\n--b--\r\n'
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = relay.request("POST", "/v1_1/demo/raw/upload/", headers=headers, chunks=[body])
    assert_refused(answer, 404, "not_found")
    path = "/v1_1/demo/resources/image/upload/"  # this is the upstream's to answer
    assert relay.request("DELETE", path, headers={"authorization": basic(relay)}).code != "unsupported_call"


@pytest.mark.parametrize("path", ["image/private", "raw/authenticated"])
def test_an_upload_to_an_address_of_its_type_is_told_where_to_upload(
    relay: World, stub: StubUpstream, path: str
) -> None:
    body = parts_of(relay.sign()), part("file", PNG, "a.png"), END
    answer = relay.request("POST", f"/v1_1/demo/{path}", headers=FORM, chunks=body)
    assert_refused(answer, 400, "unsupported_call")
    kind, _, type_ = path.partition("/")
    assert f"Sign type={type_} and upload to /v1_1/<cloud>/{kind}/upload." in answer.json["error"]["message"]
    assert not stub.requests


@pytest.mark.parametrize("status", [600, 999])
def test_a_status_that_http_does_not_have_is_not_passed_on(relay: World, status: int) -> None:
    class Odd(EachOnItsLoop):
        async def get(self, *_: object) -> UpstreamReply:
            return UpstreamReply(status, {}, "{}")

        async def call(self, *_: object) -> UpstreamReply:
            return UpstreamReply(status, {}, "{}")

    relay.swap(upstream=Odd())
    assert_refused(relay.get("/v1_1/demo/ping", authorization=basic(relay)), 503, "upstream_unavailable")
    answer = relay.request("DELETE", "/v1_1/demo/folders/a", headers={"authorization": basic(relay)})
    assert_refused(answer, 503, "outcome_unknown")


NAMED_UPLOAD = [
    *("folders/upload", "upload_presets/upload", "transformations/upload", "streaming_profiles/upload"),
    *("metadata_fields/upload", "metadata_rules/upload", "triggers/upload"),
]


@pytest.mark.parametrize("path", NAMED_UPLOAD)
def test_an_admin_call_whose_address_ends_like_that_of_uploads_goes_on(
    relay: World, stub: StubUpstream, path: str
) -> None:
    for method in ("GET", "POST", "PUT", "DELETE"):
        relay.request(method, f"/v1_1/demo/{path}", headers={"authorization": basic(relay)})
        assert (stub.requests[-1].method, stub.requests[-1].path) == (method, f"/v1_1/{stub.upstream.cloud}/{path}")


@pytest.mark.parametrize("path", NAMED_UPLOAD)
def test_without_an_upstream_such_a_call_is_refused_by_name(world: World, path: str) -> None:
    answer = world.request("PUT", f"/v1_1/demo/{path}", headers={"authorization": basic(world)})
    assert_refused(answer, 400, "unsupported_call")


def test_other_methods_go_on_as_they_are(relay: World, stub: StubUpstream) -> None:
    """Also a name that the query repeats, and a body of any type."""
    for name in ("cat", "dog", "cow"):
        assert_accepted(relay.upload(relay.sign({"public_id": name}), kind="raw"))
    gone = "/v1_1/demo/resources/raw/upload?public_ids[]=cat&public_ids[]=dog"
    assert_refused(relay.request("DELETE", gone), 401, "bad_credentials")
    assert_refused(
        relay.request("DELETE", gone, headers={"authorization": basic(relay, "browser")}), 401, "scope_denied"
    )
    assert len(stub.store) == 3
    answer = relay.request("DELETE", gone, headers={"authorization": basic(relay)})
    assert assert_accepted(answer).json == {"deleted": {"cat": "deleted", "dog": "deleted"}}
    assert [name for *_, name in stub.store] == ["cow"]
    headers = {"authorization": basic(relay), "content-type": "application/json", "content-length": "13"}
    for method, path in (("PUT", "upload_presets/a"), ("POST", "resources/raw/upload/cow")):
        answer = relay.request(method, f"/v1_1/demo/{path}", headers=headers, chunks=[b'{"tags": [1]}'])
        assert assert_accepted(answer).json == {"sent": '{"tags": [1]}', "as": "application/json"}
    bare = {name: headers[name] for name in ("authorization", "content-length")}
    assert_accepted(relay.request("PUT", "/v1_1/demo/upload_presets/a", headers=bare, chunks=[b'{"tags": [1]}']))
    assert "content-type" not in stub.requests[-1].headers
    large = relay.request("PUT", "/v1_1/demo/upload_presets/a", headers=headers, chunks=[bytes(300_000)])
    assert_refused(large, 400, "malformed_request")


def test_the_body_of_a_read_goes_on(relay: World, stub: StubUpstream) -> None:
    """The Ruby SDK sends the parameters of a GET so: a list without its prefix would be one of other assets."""
    body = b'{"prefix":"tmp/","max_results":500}'
    headers = {"authorization": basic(relay), "content-type": "application/json", "content-length": str(len(body))}
    relay.request("GET", "/v1_1/demo/resources/image/upload?tags=1", headers=headers, chunks=[body])
    asked = stub.requests[-1]
    assert (asked.query, bytes(asked.body), asked.headers["content-type"]) == (
        [("tags", "1")],
        body,
        "application/json",
    )
    assert_accepted(relay.get("/v1_1/demo/ping", authorization=basic(relay)))
    assert not {"content-type", "content-length"} & stub.requests[-1].headers.keys()
    stub.reads = iter([Trouble.SILENT] * 5)
    answer = relay.request("GET", "/v1_1/demo/ping", headers=headers, chunks=[body])
    assert_refused(answer, 503, "upstream_unavailable")


@pytest.mark.parametrize("kind", ["urlencoded", "multipart", "json", "query"])
def test_a_signature_beside_basic_is_verified_and_signed_for_the_upstream(
    relay: World, stub: StubUpstream, kind: str
) -> None:
    """The SDKs of PHP and .NET send both."""
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    fields = relay.sign({"public_id": "cat"}, key=relay.server)
    forms: dict[str, tuple[str, str, list[bytes]]] = {
        "urlencoded": ("", "application/x-www-form-urlencoded", [urlencode(fields).encode()]),
        "multipart": ("", FORM["content-type"], [parts_of(fields), END]),
        "json": ("", "application/json", [json.dumps(fields).encode()]),
        "query": (f"?{urlencode(fields)}", "", []),
    }
    query, type_, body = forms[kind]
    headers = {"authorization": basic(relay), "content-type": type_, "content-length": str(sum(map(len, body)))}
    answer = relay.request("POST", f"/v1_1/demo/raw/destroy{query}", headers=headers, chunks=body)
    assert assert_accepted(answer).json == {"result": "ok"}
    assert stub.requests[-1].fields["api_key"] == stub.upstream.api_key
    assert_accepted(act(relay, "signatures/revoke", fields, authorization=basic(relay)))
    answer = relay.request("POST", f"/v1_1/demo/raw/destroy{query}", headers=headers, chunks=body)
    assert_refused(answer, 400, "signature_revoked")


@pytest.mark.parametrize(
    ("type_", "body"),
    [
        ("application/json", b'{"expression": "signature", "sort_by": [{"created_at": "desc"}]}'),
        ("application/x-www-form-urlencoded", b"signature=&a=1&a=2"),
        ("text/csv", b"signature,a"),
        ("", b"signature"),
    ],
)
def test_other_bodies_with_basic_go_on_unchanged(relay: World, stub: StubUpstream, type_: str, body: bytes) -> None:
    headers = {"authorization": basic(relay), "content-type": type_, "content-length": str(len(body))}
    answer = relay.request("POST", "/v1_1/demo/resources/search", headers=headers, chunks=[body])
    assert assert_accepted(answer).json == {"sent": body.decode(), "as": type_ or None}


@pytest.mark.parametrize("path", ["raw/destroy", "folders", "no_such"])
def test_a_method_that_does_not_go_on_names_those_that_do(relay: World, stub: StubUpstream, path: str) -> None:
    answer = relay.request("PATCH", f"/v1_1/demo/{path}", headers={"authorization": basic(relay)})
    assert_refused(answer, 405, "malformed_request")
    assert answer.headers["allow"] == "GET, POST, PUT, DELETE"
    assert not stub.requests


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.HTML])
def test_a_change_without_an_answer_is_unknown_and_a_read_is_not(
    relay: World, stub: StubUpstream, trouble: Trouble
) -> None:
    stub.uploads, stub.reads = iter([trouble]), iter([trouble] * 5)
    headers = {"authorization": basic(relay)}
    assert_refused(relay.request("POST", "/v1_1/demo/folders/a", headers=headers), 503, "outcome_unknown")
    assert_refused(relay.get("/v1_1/demo/folders", authorization=basic(relay)), 503, "upstream_unavailable")


def test_a_signed_call_may_have_another_authorization(relay: World, stub: StubUpstream) -> None:
    """A proxy in front may add one. Without a signature it authenticates nothing."""
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    assert act(relay, "raw/destroy", {"public_id": "cat"}, authorization="Bearer x").status >= 400
    assert stub.store
    signed = relay.sign({"public_id": "cat"}, key=relay.server)
    assert assert_accepted(act(relay, "raw/destroy", signed, authorization="Bearer x")).json == {"result": "ok"}


def test_keys_for_browsers_only_upload(relay: World, stub: StubUpstream) -> None:
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    asked = len(stub.requests)
    assert_refused(act(relay, "raw/destroy", relay.sign({"public_id": "cat"})), 401, "scope_denied")
    forged = relay.sign({"public_id": "cat"}, key=relay.server) | {"public_id": "dog"}
    assert_refused(act(relay, "raw/destroy", forged), 401, "invalid_signature")
    stale = relay.sign({"public_id": "cat", "timestamp": 1}, key=relay.server)
    assert_refused(act(relay, "raw/destroy", stale), 400, "stale_request")
    assert len(stub.requests) == asked


def test_a_revoked_signature_does_nothing(relay: World, stub: StubUpstream) -> None:
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    fields = relay.sign({"public_id": "cat"}, key=relay.server)
    assert_accepted(act(relay, "signatures/revoke", fields, authorization=basic(relay)))
    assert_refused(act(relay, "raw/destroy", fields), 400, "signature_revoked")
    assert stub.store
    assert relay.sql("SELECT count(*) FROM audit WHERE code = 'signature_revoked'") == 1


@pytest.mark.parametrize("name", ["max_uses", "origin", "max_bytes", "sha256"])
def test_what_only_an_upload_obeys_is_refused_in_other_calls(relay: World, stub: StubUpstream, name: str) -> None:
    """So no signature that was made for one upload, or for one web page, deletes."""
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    values = {"max_uses": "1", "origin": "https://app.example", "max_bytes": "9999", "sha256": "0" * 64}
    fields = relay.sign({"public_id": "cat", name: values[name]}, key=relay.server)
    assert_refused(act(relay, "raw/destroy", fields), 400, "unknown_parameter")
    assert stub.store


def test_an_action_without_an_answer_is_unknown(relay: World, stub: StubUpstream) -> None:
    """HTML comes from a server in between: the account may have done it."""
    stub.uploads = iter([Trouble.SILENT, Trouble.HTML])
    fields = relay.sign({"public_id": "cat"}, key=relay.server)
    assert_refused(act(relay, "raw/destroy", fields), 503, "outcome_unknown")
    assert_refused(act(relay, "raw/destroy", fields), 503, "outcome_unknown")


def tag(world: World, kind: str, ids: list[tuple[str, str]], fields: Mapping[str, str]) -> Answer:
    """Send one call in the spelling of `kind`. The ids are a list in JSON, and pairs of a form elsewhere."""
    path, pairs = "/v1_1/demo/image/tags", [*ids, *fields.items()]
    if kind in ("form", "numbered"):
        return act(world, "image/tags", pairs)
    if kind == "query":
        return world.request("POST", f"{path}?{urlencode(pairs)}")
    body = json.dumps({**fields, "public_ids": [value for _, value in ids]}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body))}
    return world.request("POST", path, headers=headers, chunks=[body])


@pytest.mark.parametrize("kind", ["form", "query", "json", "numbered"])
def test_a_list_is_passed_on_as_a_list(relay: World, stub: StubUpstream, kind: str) -> None:
    """Also with commas in its items. The order counts."""
    fields = relay.sign({"command": "add", "tag": "t", "public_ids": "b,a,c,d", "type": ""}, key=relay.server)
    del fields["public_ids"]
    ids = [("public_ids[]", "b"), ("public_ids[]", "a,c"), ("public_ids[]", "d")]
    if kind == "numbered":
        ids = [(f"public_ids[{number}]", value) for number, (_, value) in enumerate(ids)]
    answer = tag(relay, kind, ids, fields)
    assert assert_accepted(answer).json == {"public_ids": ["b", "a", "c", "d"]}
    sent = [(name, value.decode()) for name, _, value in stub.requests[-1].parts]
    assert [pair for pair in sent if pair[0].startswith("public_ids")] == ids
    assert sorted(name for name, _ in sent if not name.startswith("public_ids[")) == [
        "api_key",
        "command",
        "signature",
        "tag",
        "timestamp",
    ]


def test_some_calls_may_have_two_parameters_that_are_not_signed(relay: World, stub: StubUpstream) -> None:
    """As pycloudinary 1.46.3 sends them; older ones sign them."""
    of_call = {"command": "add", "tag": "t", "public_ids": "a"}
    told = {"notification_url": "https://h.example/n", "batch_id": "1"}
    for call in ("image/tags", "image/context"):
        unsigned = relay.sign(of_call, key=relay.server) | told
        for fields in (unsigned, relay.sign(of_call | told, key=relay.server)):
            assert_accepted(act(relay, call, fields))
            assert stub.requests[-1].fields["notification_url"] == "https://h.example/n"
        assert_refused(act(relay, call, unsigned | {"tag": "u"}), 401, "invalid_signature")
    other = relay.sign({"public_id": "a"}, key=relay.server) | told
    for call in ("image/destroy", "image/explicit", "image/tags/x"):
        assert_refused(act(relay, call, other), 401, "invalid_signature")


def test_a_read_of_a_server_may_take_longer_than_a_look_up(relay: World) -> None:
    relay.swap(upstream=EachOnItsLoop(Times(look=1e-6)))
    assert_accepted(relay.get("/v1_1/demo/ping", authorization=basic(relay)))


def test_a_signed_get_does_not_ask_an_end_user_for_a_password(relay: World, stub: StubUpstream) -> None:
    """`private_download_url` and the like: links for browsers, which open a dialog for a 401 with a challenge."""
    query = urlencode(relay.sign({"public_id": "cat", "format": "jpg"}, key=relay.server))
    for path in ("image/download", "image/generate_archive", "download_backup"):
        answer = relay.get(f"/v1_1/demo/{path}?{query}")
        assert_refused(answer, 400, "unsupported_call")
        assert path in answer.json["error"]["message"]
    assert_accepted(relay.get(f"/v1_1/demo/ping?{query}", authorization=basic(relay)))


@pytest.mark.parametrize("path", ["delete_by_token", "image/delete_by_token"])
def test_a_deletion_by_token_is_refused_by_name(relay: World, stub: StubUpstream, path: str) -> None:
    answer = act(relay, path, {"token": "abc"}, origin="https://app.example")
    assert_refused(answer, 400, "unsupported_call")
    assert path in answer.json["error"]["message"]
    assert answer.headers["access-control-allow-origin"] == "*"
    assert not stub.requests


@pytest.mark.parametrize("kind", ["form", "query", "json"])
def test_a_call_takes_as_many_ids_as_the_account_does(relay: World, stub: StubUpstream, kind: str) -> None:
    fields = relay.sign({"command": "add", "tag": "t", "public_ids": ",".join(map(str, range(1000)))}, key=relay.server)
    del fields["public_ids"]
    ids = [("public_ids[]", str(number)) for number in range(1000)]
    answer = tag(relay, kind, ids, fields)
    assert len(assert_accepted(answer).json["public_ids"]) == 1000
    refused = tag(relay, "form", [*ids, *[("public_ids[]", "x")] * 100], fields)
    assert_refused(refused, 400, "malformed_request")
    assert "the limit is 1100" in refused.json["error"]["message"]
