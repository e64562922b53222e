"""The Idempotency-Key header, and an answer that is given again."""

import json

import pytest

from tests.asgi import END, FORM, part, parts_of
from tests.world import OTHER_PNG, PNG, World, assert_accepted, assert_refused
from uponce.core.errors import MalformedRequest
from uponce.core.signature import grant_key, string_to_sign
from uponce.web.cloudinary.upload import MAX_KEY_LENGTH, read_idempotency_key

UUID = "8e03978e-40d5-43dd-bc93-6894a57f9324"
KEYED = {"idempotency-key": UUID}


@pytest.mark.parametrize(
    ("header", "key"),
    [
        (UUID, UUID),
        (f'"{UUID}"', UUID),
        ("!", "!"),
        ("a/b+c==", "a/b+c=="),
        (":YWJj:", ":YWJj:"),
        (r'"a\"b\\c"', r'a"b\c'),
        ('"a,b;c"', "a,b;c"),
        ("x" * MAX_KEY_LENGTH, "x" * MAX_KEY_LENGTH),
        (f'"{"x" * MAX_KEY_LENGTH}"', "x" * MAX_KEY_LENGTH),
        (None, None),
    ],
)
def test_a_key_is_read_with_and_without_quotes(header: str | None, key: str | None) -> None:
    assert read_idempotency_key(header) == key


@pytest.mark.parametrize(
    "header",
    [
        "",
        '""',
        '"',
        " ",
        "a b",
        '"a b"',
        "a\tb",
        "a\x7f",
        "ä",
        '"ä"',
        '"open',
        'close"',
        '"a"b',
        '"a";p=1',
        '"a", "b"',
        "a, b",
        "a;b",
        r"a\b",
        r'"a\b"',
        r'"a\"',
        "x" * (MAX_KEY_LENGTH + 1),
        f'"{"x" * (MAX_KEY_LENGTH + 1)}"',
    ],
)
def test_anything_else_is_refused_in_words(header: str) -> None:
    with pytest.raises(MalformedRequest, match="Idempotency-Key must be 1 to 255 visible ASCII characters"):
        read_idempotency_key(header)


def test_a_repeat_gets_the_very_same_bytes_and_says_so(world: World) -> None:
    fields = world.sign({"folder": "cats", "tags": "a,b", "context": "alt=ü"})
    first = assert_accepted(world.upload(fields, headers=KEYED))
    assert "idempotent-replayed" not in first.headers
    world.clock.time += 61
    with world.untouched():
        again = assert_accepted(world.upload(fields, headers={"idempotency-key": f'"{UUID}"'}))
    assert again.body == first.body
    assert again.headers["idempotent-replayed"] == "true"


def test_also_of_a_private_asset_by_put_and_in_another_order(world: World) -> None:
    """The delivery URL in the answer is signed; nothing about it may change."""
    fields = world.sign({"type": "private"})
    first = assert_accepted(world.upload(fields, headers=KEYED))
    file_first = world.post(part("file", PNG, "cat.png"), parts_of(fields), END, headers=KEYED)
    put = world.request("PUT", world.route("auto", fields), headers=KEYED, chunks=[PNG])
    for again in (file_first, put):
        assert (again.status, again.body, again.headers["idempotent-replayed"]) == (200, first.body, "true")


def test_an_overwritten_or_deleted_asset_is_answered_as_it_was(world: World) -> None:
    fields = world.sign({"public_id": "tom"})
    first = assert_accepted(world.upload(fields, headers=KEYED))
    later = assert_accepted(world.upload(world.sign({"public_id": "tom"}), OTHER_PNG))
    assert later.json["version"] > first.json["version"]
    assert world.upload(fields, headers=KEYED).body == first.body
    world.sql("DELETE FROM assets")
    assert world.upload(fields, headers=KEYED).body == first.body


def test_other_bytes_and_other_keys_are_refused(world: World) -> None:
    fields = world.sign()
    assert_accepted(world.upload(fields, headers=KEYED))
    assert_refused(world.upload(fields, OTHER_PNG, headers=KEYED), 400, "idempotency_key_reused")
    assert_refused(world.upload(fields), 400, "signature_used")
    assert_refused(world.upload(fields, headers={"idempotency-key": UUID[:-1]}), 400, "signature_used")


def test_a_repeat_has_to_come_from_where_it_was_signed_for(world: World) -> None:
    fields, home = world.sign({"origin": "https://app.example"}), {**KEYED, "origin": "https://app.example"}
    assert_accepted(world.upload(fields, headers=home))
    elsewhere = {**home, "origin": "https://other.example"}
    assert_refused(world.upload(fields, headers=elsewhere), 400, "origin_mismatch")
    assert world.upload(fields, headers=home).headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("header", ["", "a b", '"open', "x" * 256, "\xe4"])
def test_a_bad_key_is_refused_before_anything_is_read_and_costs_nothing(world: World, header: str) -> None:
    fields = world.sign()
    with world.untouched():
        assert_refused(world.upload(fields, headers={"idempotency-key": header}), 400, "malformed_request")
    assert_accepted(world.upload(fields))


def test_two_keys_are_refused(world: World) -> None:
    headers = [*FORM.items(), *KEYED.items(), *KEYED.items()]
    body = [parts_of(world.sign()), part("file", PNG, "cat.png"), END]
    with world.untouched():
        answer = world.request("POST", world.route(), headers=headers, chunks=body)
    assert_refused(answer, 400, "malformed_request")


def test_a_page_may_send_the_key_and_read_whether_the_answer_is_a_repeat(world: World) -> None:
    asks = {
        "origin": "https://app.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "idempotency-key",
    }
    preflight = world.request("OPTIONS", world.route(), headers=asks)
    assert preflight.status == 200
    assert "idempotency-key" in preflight.headers["access-control-allow-headers"].lower()
    answer = assert_accepted(world.upload(world.sign(), headers={**KEYED, "origin": "https://app.example"}))
    assert "Idempotent-Replayed" in answer.headers["access-control-expose-headers"]
    assert json.loads(answer.body)["bytes"] == len(PNG)


def test_a_key_is_no_address_of_a_resumable_upload(world: World) -> None:
    """The address of such an upload shows its answer without a signature: its id is a secret, the key is not."""
    fields = world.sign({"type": "private"})
    assert_accepted(world.upload(fields, headers=KEYED))
    signed = {name: value for name, value in fields.items() if name != "signature"}
    grant = grant_key("demo", fields["api_key"], int(fields["timestamp"]), string_to_sign(signed))
    assert_refused(world.get(f"/tus/demo/{grant.hex()}/{UUID}"), 404, "series_gone")
