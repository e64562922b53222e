"""`file` as text: a data URI is decoded however its bytes fall, anything else is refused by name."""

import base64
from itertools import pairwise

import pytest

from tests.asgi import END, Answer, part, parts_of
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.app.uploading.intake import FileStart
from uponce.core.errors import UponceError
from uponce.web.cloudinary.datauri import TextFile

PAYLOAD = b"\x89PNG\r\n\x1a\nrest"  # 12 bytes: no padding; cut to 11 and 10 it needs one and two
HEAD = b"data:image/png;base64,"


def decode(*pieces: bytes) -> bytes | str:
    """The bytes, or the code of the refusal."""
    text = TextFile()
    try:
        events = [event for piece in pieces for event in text.feed(piece)]
        events += text.finish()
        assert events[0] == FileStart(None)
        return b"".join(event for event in events if isinstance(event, bytes))
    except UponceError as error:
        return error.code


def encode(data: bytes) -> bytes:
    return HEAD + base64.b64encode(data)


def send(world: World, fields: dict[str, str], text: str | bytes) -> Answer:
    return world.post(parts_of(fields), part("file", text), END)


TEXTS = {
    "no padding": (encode(PAYLOAD), PAYLOAD),
    "one padding": (encode(PAYLOAD[:11]), PAYLOAD[:11]),
    "two paddings": (encode(PAYLOAD[:10]), PAYLOAD[:10]),
    "missing padding": (encode(PAYLOAD[:10]).rstrip(b"="), PAYLOAD[:10]),
    "half the padding": (encode(PAYLOAD[:10])[:-1], PAYLOAD[:10]),
    "whitespace": (HEAD + b" iVBO\r\n\tRw0K \nGgpyZXN0\r\n", PAYLOAD),
    "no media type": (b"data:;base64," + base64.b64encode(PAYLOAD), PAYLOAD),
    "parameters": (b"data:text/plain;charset=utf-8;name=a.txt;base64,aGk=", b"hi"),
    "nothing in it": (HEAD, b""),
    "text after the padding": (HEAD + b"aGk=aGk=", "invalid_parameter"),
    "too much padding": (HEAD + b"aGk===", "invalid_parameter"),
    "padding alone": (HEAD + b"====", "invalid_parameter"),
    "one digit": (HEAD + b"a", "invalid_parameter"),
    "five digits": (HEAD + b"aGkhaGk=a", "invalid_parameter"),
    "not base64": (HEAD + b"aG!=", "invalid_parameter"),
    "URL-safe digits": (HEAD + b"_-8=", "invalid_parameter"),
    "not base64 encoded": (b"data:text/plain,hello", "invalid_parameter"),
    "no data URI": (b"hello", "invalid_parameter"),
    "empty": (b"", "invalid_parameter"),
    "a local path": (b"/etc/passwd", "invalid_parameter"),
    "a file URL": (b"file:///etc/passwd", "invalid_parameter"),
    "http": (b"http://example.com/cat.png", "unsupported_parameter"),
    "https": (b"https://example.com/cat.png", "unsupported_parameter"),
    "s3": (b"s3://bucket/cat.png", "unsupported_parameter"),
    "half of http": (b"http:/", "invalid_parameter"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_outcome_does_not_depend_on_how_the_text_is_cut(name: str) -> None:
    text, expected = TEXTS[name]
    assert decode(text) == expected
    assert decode(*(bytes([byte]) for byte in text)) == expected
    for first in range(len(text) + 1):
        for second in range(first, len(text) + 1):
            cuts = (0, first, second, len(text))
            assert decode(*(text[a:b] for a, b in pairwise(cuts))) == expected


@pytest.mark.parametrize("length", [1000, 1024, 1025, 5000, 100_000])
def test_the_head_is_short_whether_it_comes_whole_or_in_pieces(length: int) -> None:
    head = b"data:image/png;name=" + b"n" * (length - 28) + b";base64,"
    expected = b"hi" if length <= 1024 else "invalid_parameter"
    text = head + b"aGk="
    assert len(head) == length
    assert decode(text) == decode(*(text[at : at + 100] for at in range(0, len(text), 100))) == expected


def test_a_data_uri_uploads_and_spends(shared: World) -> None:
    fields = shared.sign()
    answer = assert_accepted(send(shared, fields, encode(PNG)))
    assert (answer.json["bytes"], answer.json["format"]) == (len(PNG), "png")
    assert "original_filename" not in answer.json
    assert_refused(send(shared, fields, encode(PNG)), 400, "signature_used")


def test_a_data_uri_may_precede_its_fields(world: World) -> None:
    assert_accepted(world.post(part("file", encode(PNG)), parts_of(world.sign()), END))


@pytest.mark.parametrize("name", [name for name, (_, expected) in TEXTS.items() if isinstance(expected, str)])
def test_a_refused_text_is_free(shared: World, name: str) -> None:
    text, code = TEXTS[name]
    fields = shared.sign()
    with shared.untouched():
        assert_refused(send(shared, fields, text), 400, str(code))
    assert_accepted(shared.upload(fields))


def test_a_huge_head_and_an_empty_picture_are_free(world: World) -> None:
    fields = world.sign()
    with world.untouched():
        assert_refused(send(world, fields, b"data:image/png;name=" + b"n" * 3_000_000), 400, "invalid_parameter")
        assert_refused(send(world, fields, HEAD), 400, "empty_file")
    assert_accepted(world.upload(fields))


def test_a_text_that_declares_a_picture_is_judged_by_its_bytes(world: World) -> None:
    fields = world.sign()
    html = HEAD + base64.b64encode(b"<html><script>alert(1)</script>")
    with world.untouched():
        answer = world.post(parts_of(fields), part("file", html), END, kind="image")
    assert_refused(answer, 400, "invalid_media")
    assert_accepted(world.upload(fields))
