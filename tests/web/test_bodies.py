"""Uploads as urlencoded text and as JSON, on the other addresses of uploads, and as FilePond sends."""

import asyncio
import base64
import json
import tracemalloc
from collections.abc import AsyncIterator, Callable, Mapping
from urllib.parse import quote, quote_plus, unquote_to_bytes, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.asgi import END, FORM, Answer, Message, part, parts_of, raw_part
from tests.web.test_credentials import basic
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.core.errors import MalformedRequest, UponceError
from uponce.core.policy import Limits
from uponce.web.cloudinary import text_bodies
from uponce.web.cloudinary.text_bodies import MAX_TEXT_BYTES, json_pairs, text_events
from uponce.web.request import Body, parse_query, percent_decoded

URI = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"
URLENCODED = {"content-type": "application/x-www-form-urlencoded"}
JSON = {"content-type": "application/json; charset=utf-8"}
Send = Callable[[World, Mapping[str, object]], Answer]


def cut(body: bytes, step: int) -> list[bytes]:
    return [body[at : at + step] for at in range(0, len(body), step)]


def as_json(fields: Mapping[str, object]) -> bytes:
    return json.dumps(fields).encode()


def as_php(fields: Mapping[str, object]) -> bytes:
    """PHP escapes slashes, .NET the digits of base64 that are no letters."""
    return as_json(fields).replace(b"/", rb"\/").replace(b"=", rb"\u003d").replace(b"+", rb"\u002B")


BODIES: dict[str, tuple[dict[str, str], Callable[[Mapping[str, object]], bytes]]] = {
    "urlencoded": (URLENCODED, lambda fields: urlencode(fields).encode()),
    "urlencoded, wholly escaped": (
        URLENCODED,
        lambda fields: "&".join(
            f"%{ord(n[0]):02x}{n[1:]}={quote(str(v), safe='')}" for n, v in fields.items()
        ).encode(),
    ),
    "no type, as PHP and Go send it": ({}, lambda fields: urlencode(fields).encode()),
    "an empty type": ({"content-type": ""}, lambda fields: urlencode(fields).encode()),
    "JSON": (JSON, as_json),
    "JSON with escapes": (JSON, as_php),
    "JSON with spaces": (JSON, lambda fields: json.dumps(fields, indent=4).encode()),
}
ORDERS: dict[str, Callable[[dict[str, str]], dict[str, object]]] = {
    "file last": lambda fields: {**fields, "file": URI},
    "file first": lambda fields: {"file": URI, **fields},
    "file amid": lambda fields: {
        "signature": fields["signature"],
        "file": URI,
        **{name: value for name, value in fields.items() if name != "signature"},
    },
}


@pytest.mark.parametrize("step", [1, 7, 10_000])
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("body", BODIES)
def test_every_body_uploads_the_same_in_every_order(shared: World, body: str, order: str, step: int) -> None:
    headers, write = BODIES[body]
    fields = shared.sign({"tags": "a b,c+d", "context": 'alt="file":"ö|x={,'.replace("|", "\\|").replace("={", "\\={")})
    wanted = ORDERS[order](fields)
    answer = shared.request("POST", shared.route(), headers=headers, chunks=cut(write(wanted), step))
    assert_accepted(answer)
    assert (answer.json["bytes"], answer.json["format"], answer.json["tags"]) == (len(PNG), "png", ["a b", "c+d"])
    again = shared.request("POST", shared.route(), headers=headers, chunks=[write(wanted)])
    assert_refused(again, 400, "signature_used")


def test_typed_json_signs_as_sdks_write_it(world: World) -> None:
    """Numbers as written, booleans as words, null as not sent, a list as repeated fields."""
    fields: dict[str, object] = {**world.sign({"overwrite": "true", "tags": "a,b"})}
    fields |= {"timestamp": int(str(fields["timestamp"])), "overwrite": True, "public_id": None, "file": URI}
    fields["tags[]" if "tags[]" in fields else "tags"] = ["a", "b"]
    answer = world.request("POST", world.route(), headers=JSON, chunks=[as_json(fields)])
    assert assert_accepted(answer).json["tags"] == ["a", "b"]


TEXT_BODIES = {
    "no object": (JSON, b'["file"]', "malformed_request"),
    "nothing": (JSON, b"", "malformed_request"),
    "a nested object": (JSON, b'{"context":{"file":"data:;base64,aGk="}}', "malformed_request"),
    "a nested list": (JSON, b'{"tags":[["a"]]}', "malformed_request"),
    "very deep": (JSON, b'{"a":' + b"[" * 100_000, "malformed_request"),
    "a misspelt list": (JSON, as_json({"taggs": [], "file": URI}), "unknown_parameter"),
    "NaN": (JSON, b'{"timestamp":NaN}', "malformed_request"),
    "torn in the file": (JSON, b'{"file":"data:;base64,aGk=', "malformed_request"),
    "torn behind the file": (JSON, b'{"file":"data:;base64,aGk="', "malformed_request"),
    "an escape that is none": (JSON, b'{"file":"data:;base64,a\\xGk="}', "malformed_request"),
    "a lone surrogate": (JSON, b'{"file":"data:;base64,\\ud800"}', "malformed_request"),
    "a lone surrogate behind an escaped key": (JSON, b'{"fil\\u0065":"data:;base64,\\ud800"}', "malformed_request"),
    "UTF-16": (JSON, '{"a":"b"}'.encode("utf-16"), "malformed_request"),
    "a repeated field": (JSON, b'{"timestamp":1,"timestamp":2,"file":"data:;base64,aGk="}', "duplicate_parameter"),
    "the file twice": (JSON, b'{"file":"data:;base64,aGk=","file":"data:;base64,aGk="}', "duplicate_parameter"),
    "file is a number": (JSON, b'{"file":5}', "invalid_parameter"),
    "file[]": (JSON, b'{"file":null,"file[]":"data:;base64,aGk="}', "invalid_parameter"),
    "a remote file": (JSON, b'{"file":"https://example.com/a.png"}', "unsupported_parameter"),
    "unknown and empty": (JSON, b'{"no_such":"","file":"data:;base64,aGk="}', "unknown_parameter"),
    "too many fields": (JSON, as_json({f"n{i}": 1 for i in range(200)}), "malformed_request"),
    "too long a list": (JSON, as_json({"tags": ["a"] * 200}), "malformed_request"),
    "a very long list": (JSON, b'{"tags":[' + b"1," * 100_000 + b"1]}", "malformed_request"),
    "too large fields": (JSON, as_json({"context": "x" * MAX_TEXT_BYTES}), "malformed_request"),
    "too large behind": (
        JSON,
        b'{"file":"data:;base64,aGk=","context":"' + b"x" * MAX_TEXT_BYTES + b'"}',
        "malformed_request",
    ),
    "no pairs": (URLENCODED, b"hello", "malformed_request"),
    "not UTF-8": (URLENCODED, b"folder=%ff&file=data:;base64,aGk=", "malformed_request"),
    "repeated": (URLENCODED, b"timestamp=1&timestamp=2&file=data:;base64,aGk=", "duplicate_parameter"),
    "two files": (URLENCODED, b"file=data:;base64,aGk=&file=data:;base64,aGk=", "duplicate_parameter"),
    "file[] in a form": (URLENCODED, b"file%5B%5D=data:;base64,aGk=", "invalid_parameter"),
    "a remote file in a form": (URLENCODED, b"file=https%3A%2F%2Fexample.com", "unsupported_parameter"),
    "ampersands": (URLENCODED, b"&" * 100_000, "malformed_request"),
    "text without a type": ({}, b"hello", "malformed_request"),
    "JSON without a type": ({}, as_json({"folder": "cats", "file": URI}), "malformed_request"),
    "a type without a name": ({"content-type": "; charset=utf-8"}, b"folder=cats", "malformed_request"),
    "a long field": (URLENCODED, b"context=" + b"x" * MAX_TEXT_BYTES, "malformed_request"),
}


@pytest.mark.parametrize("step", [9, 1_000_000])
@pytest.mark.parametrize("name", TEXT_BODIES)
def test_a_bad_text_body_is_refused_and_free(shared: World, name: str, step: int) -> None:
    headers, body, code = TEXT_BODIES[name]
    with shared.untouched():
        answer = shared.request("POST", shared.route(), headers=headers, chunks=cut(body, max(step, len(body) // 2000)))
    assert_refused(answer, 400, code)


@pytest.mark.parametrize(("headers", "name"), [(URLENCODED, "tags"), (JSON, "tags"), (JSON, "\ud800")])
def test_a_field_behind_the_file_changes_nothing(world: World, headers: dict[str, str], name: str) -> None:
    """All was verified before the file. The refusal cannot repeat half of a character."""
    wanted = {**world.sign(), "file": URI, name: "late"}
    body = as_json(wanted) if headers is JSON else urlencode(wanted).encode()
    with world.untouched():
        assert_refused(world.request("POST", world.route(), headers=headers, chunks=[body]), 400, "late_parameter")


@pytest.mark.parametrize("headers", [URLENCODED, JSON], ids=["urlencoded", "JSON"])
def test_a_large_data_uri_takes_little_memory(world: World, headers: dict[str, str]) -> None:
    fields = world.sign()
    start = (as_json(fields)[:-1] + b',"file":"data:;base64,', urlencode(fields).encode() + b"&file=data:;base64,")
    block = base64.b64encode(bytes(48 * 1024)).replace(b"=", b"")
    body = [start[headers is URLENCODED], *([block] * 300), b'"}' if headers is JSON else b""]
    tracemalloc.start()
    answer = world.request("POST", world.route("raw"), headers=headers, chunks=body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert assert_accepted(answer).json["bytes"] == 300 * 48 * 1024
    assert peak < 4 * 1024 * 1024


def test_json_fields_keep_order_and_repetition() -> None:
    assert json_pairs(b'{"a":1,"b":[true,"x"],"a":1.50,"c":null,"d":false}', Limits()) == (
        ("a", "1"),
        ("b[]", "true"),
        ("b[]", "x"),
        ("a", "1.50"),
        ("d", "false"),
    )
    with pytest.raises(UponceError):
        json_pairs(b'{"a":[{}]}', Limits())


def test_a_repeated_field_of_a_json_deletion_is_refused(world: World) -> None:
    body = b'{"public_id":"a","public_id":"b"}'
    answer = world.request("POST", "/v1_1/demo/image/destroy", headers=JSON, chunks=[body])
    assert_refused(answer, 400, "duplicate_parameter")


@pytest.mark.parametrize("path", ["/v1_1/demo/upload", "/v1_1/demo/image/upload_chunked", "/v1_1/demo/auto/upload"])
def test_every_address_of_uploads_takes_uploads(world: World, path: str) -> None:
    fields = world.sign()
    body = [parts_of(fields), part("file", PNG, "cat.png"), END]
    for expected in ("ok", "signature_used"):
        answer = world.request("POST", path, headers=FORM, chunks=body)
        assert answer.code == expected


def test_credentials_upload_json(world: World) -> None:
    headers = {**JSON, **basic(world.browser)}
    answer = world.request("POST", world.route(), headers=headers, chunks=[as_json({"public_id": "j", "file": URI})])
    assert assert_accepted(answer).json["public_id"] == "j"


# FilePond sends a field file={} before the bytes.


@pytest.mark.parametrize("text", ["{}", " { } ", "{\n}"])
def test_filepond_sends_metadata_before_the_bytes(world: World, text: str) -> None:
    fields = world.sign()
    file = part("file", text) + part("file", PNG, "cat.png")
    answer = assert_accepted(world.post(parts_of(fields), file, END))
    assert (answer.json["bytes"], answer.json["original_filename"]) == (len(PNG), "cat")


@pytest.mark.parametrize("step", [1, 5])
def test_filepond_is_understood_in_small_pieces(world: World, step: int) -> None:
    body = parts_of(world.sign()) + part("file", "{}") + part("file", PNG, "cat.png") + END
    assert_accepted(world.post(*cut(body, step)))


@pytest.mark.parametrize(
    ("file", "code"),
    [
        (part("file", '{"crop":{}}') + part("file", PNG, "a.png"), "unsupported_parameter"),
        (part("file", "{") + part("file", PNG, "a.png"), "unsupported_parameter"),
        (part("file", "{}"), "missing_parameter"),
        (part("file", "{}" + " " * 70_000) + part("file", PNG, "a.png"), "invalid_parameter"),
        (part("file", PNG, "a.png") + part("file", URI), "duplicate_parameter"),
    ],
)
def test_other_metadata_is_refused(world: World, file: bytes, code: str) -> None:
    fields = world.sign()
    with world.untouched():
        assert_refused(world.post(parts_of(fields), file, END), 400, code)
    assert_accepted(world.upload(fields))


def test_a_plus_in_an_urlencoded_data_uri_is_a_digit(world: World) -> None:
    """Of clients that escape nothing; quote_plus never writes one."""
    data = b"\xfb\xef\xbe" * 20
    uri = f"data:;base64,{base64.b64encode(data).decode()}"
    assert "+" in uri
    for text in (uri, quote_plus(uri)):
        body = f"{urlencode(world.sign())}&file={text}".encode()
        answer = world.request("POST", world.route("raw"), headers=URLENCODED, chunks=[body])
        assert assert_accepted(answer).json["bytes"] == len(data)


@given(st.binary(max_size=40) | st.text("%%%0aAfFxuN\\\n4{}", max_size=12).map(str.encode))
def test_escapes_are_read_as_python_reads_them(text: bytes) -> None:
    assert percent_decoded(text) == unquote_to_bytes(text)


def test_a_text_of_percent_signs_is_refused() -> None:
    """Each of them alone is taken as it is. Thousands would cost the event loop much time."""
    assert percent_decoded(b"%" * 1000) == b"%" * 1000
    with pytest.raises(UnicodeError):
        percent_decoded(b"%" * 1001)
    with pytest.raises(MalformedRequest):
        parse_query(b"a=" + b"%" * 2000, Limits())


def test_a_packet_costs_the_same_after_a_long_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name of 255,000 bytes was decoded again for each packet behind it: 7 ms of the event loop each time."""
    decoded: list[int] = []

    def counting(text: bytes) -> bytes:
        decoded.append(len(text))
        return percent_decoded(text)

    async def packets() -> AsyncIterator[Message]:
        for packet in (b"%41" * 85_000 + b"=", *[b"x"] * 100):
            yield {"type": "http.request", "body": packet, "more_body": True}
        yield {"type": "http.disconnect"}

    async def play() -> None:
        arriving = packets()
        with pytest.raises(MalformedRequest, match="The connection ended"):
            async for _ in text_events(Body(lambda: anext(arriving), 30), False, Limits()):
                pass

    monkeypatch.setattr(text_bodies, "percent_decoded", counting)
    asyncio.run(play())
    assert len(decoded) <= 1


@pytest.mark.parametrize(
    "header", [("x-requested-with", "XMLHttpRequest"), ("sec-fetch-mode", "cors"), ("accept", "*/*"), ("accept", "")]
)
def test_scripts_and_programs_may_send_the_callback_that_forms_need(world: World, header: tuple[str, str]) -> None:
    """Cloudinary's form helpers sign one always; it is for browsers that post the form themselves."""
    fields = world.sign({"callback": "https://app.example/cloudinary_cors.html"})
    for posted in ({"sec-fetch-mode": "navigate"}, {"sec-fetch-mode": "no-cors"}, {"accept": "text/html,*/*"}):
        assert_refused(world.upload(fields, headers=posted), 400, "unsupported_parameter")
    assert_accepted(world.upload(fields, headers={"accept": "text/html,*/*"} | dict([header])))


LIMITS = Limits(max_fields=12, max_field_bytes=1000, max_form_bytes=4000)
MANY = [("tags[]", "a")] * 13


@pytest.mark.parametrize(
    ("headers", "body", "named"),
    [
        (URLENCODED, urlencode(MANY).encode(), "more than 12 fields"),
        (JSON, as_json({"tags": ["a"] * 13}), "13 fields and list items, the limit is 12"),
        (FORM, parts_of(dict.fromkeys(map(str, range(14)), "a")) + END, "more than 12 fields"),
        (FORM, part("context", b"x" * 1001) + END, "more than 1000 bytes"),
        (FORM, part("a", b"x" * 900) * 5 + END, "more than 4000 bytes"),
        (FORM, raw_part("X: " + "x" * 9000, "a") + END, "a header of more than 8192 bytes"),
    ],
    ids=["urlencoded", "json", "form", "field", "form's bytes", "header"],
)
def test_limits_of_fields_are_settings_and_refusals_name_them(
    world: World, headers: dict[str, str], body: bytes, named: str
) -> None:
    world.swap(limits=LIMITS)
    answer = world.request("POST", world.route("raw"), headers=headers, chunks=[body])
    assert answer.status == 400
    assert named in answer.body.decode()


def test_the_limit_of_fields_holds_for_queries(world: World) -> None:
    world.swap(limits=LIMITS)
    answer = world.request("POST", f"{world.route('raw')}?{urlencode(MANY)}", headers=FORM, chunks=[END])
    assert_refused(answer, 400, "malformed_request")
    assert "The request has 13 fields, the limit is 12." in answer.body.decode()
