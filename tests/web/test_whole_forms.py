"""A form that is read in one step means what it means when it is read as a stream, or is left to the stream."""

import asyncio

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.web.test_splits import BODIES, outcome
from uponce.app.uploading.intake import Event, Field, FileStart
from uponce.core.policy import Limits
from uponce.web.cloudinary.upload import WholeForm, read_whole_form

LIMITS = Limits()
TYPE = "multipart/form-data; boundary=b"
PIECES = (
    b"--b\r\n", b"\r\n--b\r\n", b"\r\n--b--\r\n", b"\r\n--b--", b"\r\n--b", b"--", b"\r\n", b"\r", b"\n",
    b"\r\n\r\n", b"b",
    b'Content-Disposition: form-data; name="a"', b'content-disposition: form-data; name="a"',
    b'Content-Disposition: form-data; name="file"; filename="f.jpg"', b'Content-Disposition: form-data; name="file"',
    b'Content-Disposition: form-data; name="file"; filename=""', b'Content-Disposition: form-data; name="file[]"',
    b'Content-Disposition: form-data; name="x"; filename="f"',
    b'Content-Disposition: form-data; filename="f"; name="file"',
    b'Content-Disposition: form-data; name="a%22b"', b'Content-Disposition: form-data; name="\xc3\xa9"',
    b'Content-Disposition: form-data; name="\xe9"', b"\r\nContent-Type: image/jpeg",
    b"\r\nContent-Type: text/plain; charset=x", b"\r\nContent-Type: text/plain; charset=iso-8859-1",
    b'Content-Disposition: form-data; name="file"; filename="f"; filename*=UTF-8\'\'g',
    b'Content-Disposition: form-data; name="file"; filename="f; filename*=UTF-8\'\'g"',
    b"\r\nContent-Transfer-Encoding: base64", b"value", b"\xff\xd8\xff", b"\x00", b'"', b"\xe9", b"",
)  # fmt: skip


def events_of(form: WholeForm) -> list[Event]:
    file = [bytes(form.file)] if form.file else []
    before, after = ([Field(*each) for each in fields] for fields in (form.fields, form.late))
    return [*before, FileStart(form.filename), *file, *after]


def check(body: bytes) -> bool:
    """Whether the form was read in one step; then the stream has to read the same."""
    form = read_whole_form(body, TYPE, LIMITS)
    if form is None:
        return False
    assert asyncio.run(outcome([body])) == events_of(form)
    return True


def body_of(*parts: tuple[str, str, bytes], end: bytes = b"--\r\n") -> bytes:
    """Of (name, the rest of the head, value)."""
    head = "--b\r\nContent-Disposition: form-data; name="
    return b"".join(f'{head}"{name}"{rest}\r\n\r\n'.encode() + value + b"\r\n" for name, rest, value in parts) + (
        b"--b" + end
    )


FILE = ("file", '; filename="cat.jpg"\r\nContent-Type: image/jpeg', b"\xff\xd8\r\n--\r\n--c\r\n")


def test_what_clients_send_is_read_in_one_step() -> None:
    assert check(body_of(("timestamp", "", b"1"), ("public_id", "", "é".encode()), FILE))
    assert check(body_of(("timestamp", "", b"1"), FILE, end=b"--"))
    assert check(body_of(FILE))
    assert check(body_of(("a", "", b""), ("file", '; filename="f"', b"")))
    assert check(body_of(FILE, ("late", "", b"1")))
    assert check(body_of(("a", "", b"1"), FILE, ("b", "", b"2"), ("c", "", b"3"), end=b"--"))


def test_a_name_that_only_looks_extended_is_read_in_one_step() -> None:
    assert check(body_of(("file", "; filename=\"f; filename*=UTF-8''g\"", b"x")))
    assert check(body_of(("a; filename*=UTF-8''g", "", b"1"), FILE))


def test_the_rest_is_left_to_the_stream() -> None:
    assert not check(body_of(FILE, ("late", "", b"\xff")))
    assert not check(body_of(FILE, ("file", "", b"data:,x")))
    assert not check(body_of(FILE, ("other", '; filename="f"', b"1")))
    assert not check(body_of(FILE, *[("a", "", b"1")] * (LIMITS.max_fields + 1)))
    assert not check(body_of(("file", "", b"data:,x")))
    assert not check(body_of(FILE, FILE))
    assert not check(body_of(("file", "; filename=\"f\"; filename*=UTF-8''g", b"x")))
    assert not check(body_of(("file", '; filename="f"\r\nContent-Type: text/csv; charset=utf-16', b"x")))
    assert not check(body_of(FILE, end=b"--\r\nepilogue"))
    assert not check(b"preamble" + body_of(FILE))
    assert not check(body_of(FILE)[:-8])
    assert not check(body_of(("a", "", b"\xff"), FILE))
    assert not check(body_of(("a", "", b"x" * (LIMITS.max_field_bytes + 1)), FILE))
    assert not check(body_of(*[("a", "", b"1")] * (LIMITS.max_fields + 1), FILE))
    assert check(body_of(*[("a", "", b"1")] * LIMITS.max_fields, FILE))
    assert check(body_of(("a", "", b"x" * LIMITS.max_field_bytes), FILE))
    assert read_whole_form(body_of(FILE), 'multipart/form-data; boundary="b"', LIMITS) is None


@settings(max_examples=3000)
@given(st.lists(st.sampled_from(PIECES), max_size=14).map(b"".join))
def test_any_pieces_mean_the_same(body: bytes) -> None:
    check(body)


@settings(max_examples=1500)
@given(st.integers(0, 400), st.binary(max_size=3), st.integers(0, 3), st.booleans())
@example(0, b"", 0, False)
def test_a_changed_form_means_the_same(at: int, put: bytes, cut: int, two: bool) -> None:
    before, after = [("timestamp", "", b"1")], [("public_id", "", b"cat")] if two else []
    body = body_of(*before, FILE, *after)
    at %= len(body)
    check(body[:at] + put + body[at + cut :])


def test_the_bodies_of_the_stream_mean_the_same() -> None:
    for body in BODIES.values():
        check(body)
