"""The rules of a sign endpoint: which users get a signature, what a page may choose, and what a refusal says."""

import json
from typing import Any

import pytest

from uponce import UponceError
from uponce.contrib import MAX_BODY, SignReply, SignRules

URL = "cloudinary://123:secret@media?upload_prefix=https://media.example"
JSON = "application/json; charset=utf-8"
ALLOW = {"folder": ["cats", "dogs"], "public_id": ["avatars/*"]}


def ask(params: dict[str, Any], granted: Any = True, **more: Any) -> SignReply:
    rules = SignRules(URL, "auto", ALLOW, {"max_bytes": 1000, "valid_for": 60})
    return rules.reply(granted, JSON, json.dumps({"params": params, **more}).encode())


def refusal(reply: SignReply) -> tuple[int, str, str]:
    error = reply.body["error"]
    return reply.status, error["code"], error["message"]


def test_a_page_gets_what_the_server_fixed_and_what_it_chose() -> None:
    status, body = ask({"nonce": "n1", "folder": "cats", "public_id": "avatars/7"})
    assert (status, body["url"]) == (200, "https://media.example/v1_1/media/auto/upload")
    fields = body["fields"]
    assert (fields["nonce"], fields["folder"], fields["public_id"]) == ("n1", "cats", "avatars/7")
    assert (fields["max_bytes"], fields["valid_for"]) == ("1000", "60")


def test_without_a_nonce_each_answer_has_another_one() -> None:
    assert ask({}).body["fields"]["nonce"] != ask({}).body["fields"]["nonce"]


@pytest.mark.parametrize(
    ("params", "code", "says"),
    [
        ({"tags": "x"}, "unknown_parameter", "Parameter tags cannot be chosen here. Ask only for: nonce, folder"),
        ({"timestamp": "1"}, "unknown_parameter", "Parameter timestamp cannot be chosen here"),
        ({"max_uses": "9"}, "unknown_parameter", "Parameter max_uses cannot be chosen here"),
        ({"max_bytes": "9"}, "invalid_parameter", "This site sets parameter max_bytes"),
        ({"valid_for": "9"}, "invalid_parameter", "This site sets parameter valid_for"),
        ({"folder": "cat"}, "invalid_parameter", "Parameter folder cannot be 'cat' here. Choose one of: cats, dogs"),
        ({"folder": "cats/"}, "invalid_parameter", "Parameter folder cannot be 'cats/' here"),
        ({"public_id": "avatars/"}, "invalid_parameter", "Parameter public_id cannot be 'avatars/' here"),
        ({"public_id": "avatars/../x"}, "invalid_parameter", "'.' or '..' segment"),
        ({"nonce": 7}, "invalid_parameter", "Parameter nonce must be text"),
        ({"folder": ["cats"]}, "invalid_parameter", "Parameter folder must be text"),
        ({"file": "x"}, "unknown_parameter", "Parameter file cannot be chosen here"),
    ],
)
def test_anything_else_is_refused_by_its_name(params: dict[str, Any], code: str, says: str) -> None:
    status, seen, message = refusal(ask(params))
    assert (status, seen) == (400, code)
    assert says in message


LISTS = {"tags": ["pet-*", "cat", "of 2026,home"], "context": ["caption=*", r"alt=a\|b"]}


@pytest.mark.parametrize(
    ("name", "value", "refused"),
    [
        ("tags", "pet-1", None),
        ("tags", "pet-1, cat,pet-2,", None),
        ("tags", "of 2026,home", None),
        ("tags", "pet-1,approved", "approved"),
        ("tags", "approved,pet-1", "approved"),
        ("tags", "pet-1,home", "home"),
        ("tags", "pet-1,pet-", "pet-"),
        ("tags", ",", ","),
        ("context", "caption=x", None),
        ("context", r"caption=x\|role=staff|alt=a\|b", None),
        ("context", "caption=x|role=staff", "role=staff"),
        ("context", "role=staff|caption=x", "role=staff"),
        ("context", r"caption=x|caption\=y=z", r"caption\=y=z"),
        ("context", "caption=x|alt=a", "alt=a"),
    ],
)
def test_each_tag_and_each_entry_of_a_context_must_be_allowed(name: str, value: str, refused: str | None) -> None:
    """Otherwise a page could add any other one behind an allowed beginning."""
    reply = SignRules(URL, "auto", LISTS, {}).reply(True, JSON, json.dumps({"params": {name: value}}).encode())
    if refused is None:
        assert reply.body["fields"][name] == value
    else:
        says = f"Parameter {name} cannot be '{refused}' here. Choose one of: {', '.join(LISTS[name])}."
        assert refusal(reply) == (400, "invalid_parameter", says)


def test_a_star_alone_allows_every_list() -> None:
    rules = SignRules(URL, "auto", {"tags": ["*"], "context": ["*"]}, {})
    for params in ({"tags": "a,b"}, {"tags": ","}, {"context": "a=b|c=d"}):
        assert rules.reply(True, JSON, json.dumps({"params": params}).encode()).status == 200


@pytest.mark.parametrize("granted", [False, None, 0, "", "yes", object()])
def test_only_true_or_parameters_let_a_page_in(granted: Any) -> None:
    assert refusal(ask({}, granted))[:2] == (403, "scope_denied")


def test_parameters_of_the_user_win_and_are_not_for_the_page_to_choose() -> None:
    fields = ask({}, {"folder": "users/7", "max_bytes": 5}).body["fields"]
    assert (fields["folder"], fields["max_bytes"]) == ("users/7", "5")
    assert "This site sets parameter folder" in refusal(ask({"folder": "cats"}, {"folder": "users/7"}))[2]
    assert ask({}, {}).status == 200


def test_none_for_a_user_keeps_what_the_server_fixed() -> None:
    """Otherwise a user whose plan names no limit could upload without one."""
    fields = ask({}, {"max_bytes": None, "valid_for": None, "tags": None}).body["fields"]
    assert (fields["max_bytes"], fields["valid_for"]) == ("1000", "60")
    assert "This site sets parameter folder" in refusal(ask({"folder": "cats"}, {"folder": None}))[2]


@pytest.mark.parametrize(
    "granted",
    [{"allowed_formats": []}, {"origin": ""}, {"max_bytes": ""}, {"sha256": ""}, {"public_id_prefix": ""}],
)
def test_an_empty_limit_of_a_user_is_refused(granted: dict[str, Any]) -> None:
    (name,) = granted
    assert refusal(ask({}, granted))[:2] == (400, "invalid_parameter")
    assert f"Parameter {name} is empty." in refusal(ask({}, granted))[2]


@pytest.mark.parametrize("folder", ["", "/"])
def test_an_empty_folder_of_a_user_leaves_no_page_free_to_name_every_asset(folder: str) -> None:
    """A page that chooses the public_id could replace the asset of any user. Without that, the folder is no limit."""
    assert refusal(ask({"public_id": "avatars/7"}, {"folder": folder}))[:2] == (400, "invalid_parameter")
    assert "Parameter folder is empty. Sign a value, or leave folder out." in refusal(ask({}, {"folder": folder}))[2]
    with pytest.raises(UponceError, match="Parameter folder is empty"):
        SignRules(URL, "auto", ALLOW, {"folder": folder})
    rules = SignRules(URL, "auto", {"tags": ["*"]}, {"folder": folder})
    assert rules.reply({"folder": folder}, JSON, b"{}").status == 200
    assert ask({"public_id": "avatars/7"}, {"folder": None}).status == 200
    for unique, status in ((False, 400), (True, 200), (None, 200)):
        fixed: Any = {"use_filename": True, "unique_filename": unique}
        by_filename = SignRules(URL, "auto", {}, fixed)
        assert by_filename.reply({"folder": folder}, JSON, b"{}").status == status


def test_a_file_that_is_too_large_is_refused_before_it_is_sent() -> None:
    assert ask({}, file={"name": "x", "size": 1000}).status == 200
    status, code, message = refusal(ask({}, file={"name": "x", "size": 1001}))
    assert (status, code, message) == (400, "file_too_large", "File size too large. Got 1001. Maximum is 1000.")
    assert ask({}, file={"size": "big"}).status == 200


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
def test_what_a_form_of_another_site_can_send_is_refused(content_type: str) -> None:
    """Browsers send these types with the user's cookies and without asking first."""
    rules = SignRules(URL, "auto", {}, {})
    assert refusal(rules.reply(True, content_type, b'{"params":{}}'))[:2] == (400, "malformed_request")


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"7", b'{"params":[]}', b"{", b"\xff", b"[" * 10_000, b'{"params":{}}' + b" " * MAX_BODY]
)
def test_a_body_that_is_no_question_is_refused(body: bytes) -> None:
    assert refusal(SignRules(URL, "auto", {}, {}).reply(True, JSON, body))[:2] == (400, "malformed_request")


def test_a_mistake_raises_when_the_program_starts() -> None:
    with pytest.raises(UponceError, match="CLOUDINARY_URL must read"):
        SignRules("cloudinary://media", "auto", {}, {})
    with pytest.raises(UponceError, match="valid_for must be a whole number"):
        SignRules(URL, "auto", {}, {"valid_for": 0})
    with pytest.raises(UponceError, match="Parameter origin is empty"):
        SignRules(URL, "auto", {}, {"max_bytes": 5, "origin": ""})
    with pytest.raises(UponceError, match="Parameter public_id_prefix is empty"):
        SignRules(URL, "auto", {}, {"public_id_prefix": ""})
    for allow in ({"public_id": "avatars/*"}, {"foldr": ["cats"]}, {"resource_type": ["image"]}):
        with pytest.raises(UponceError, match=r"name a parameter of uponce\.sign, and a list of its values"):
            SignRules(URL, "auto", allow, {})
