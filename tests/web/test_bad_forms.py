"""Forms that break their own format: a clear 400, nothing stored, and the genuine signature in them still works."""

import tracemalloc
from dataclasses import dataclass, field

import pytest

from tests.asgi import BOUNDARY, END, FORM, part, parts_of, raw_part
from tests.world import PNG, World, assert_accepted, assert_refused

FILE = part("file", PNG, "cat.png")
DISPOSITION = 'Content-Disposition: form-data; name="folder"'
MALFORMED = "malformed_request"


@dataclass(frozen=True)
class Bad:
    """A form with genuine signed fields and something bad: `before` them, between them and the file, or `behind`."""

    code: str = MALFORMED
    before: bytes = b""
    between: bytes = b""
    file: bytes = FILE
    behind: bytes = b""
    end: bytes = END
    headers: dict[str, str] = field(default_factory=dict)


FORMS = {
    "no final boundary": Bad(end=b""),
    "LF instead of CRLF": Bad(before=b"--" + BOUNDARY.encode() + b"\n" + DISPOSITION.encode() + b"\n\ncats\n"),
    "boundary with a tail": Bad(between=b"--" + BOUNDARY.encode() + b"x\r\n"),
    "text before the first boundary": Bad(before=b"preamble"),
    "a line before the first boundary": Bad(before=b"preamble\r\n"),
    "preamble flood": Bad(before=b"\r" * (8 * 1024 * 1024)),
    "epilogue flood": Bad(end=END + b"\r" * (8 * 1024 * 1024)),
    "same scalar twice": Bad("duplicate_parameter", between=part("folder", "a") + part("folder", "a")),
    "same scalar twice, another value": Bad("duplicate_parameter", between=part("timestamp", "1")),
    "signature twice": Bad("duplicate_parameter", between=part("signature", "0" * 40)),
    "scalar and array": Bad("duplicate_parameter", between=part("tags", "a") + part("tags[]", "b")),
    "array and scalar": Bad("duplicate_parameter", between=part("tags[]", "a") + part("tags", "b")),
    "oversized field": Bad("invalid_parameter", between=part("context", b"k=" + b"v" * 64 * 1024)),
    "oversized field behind": Bad("late_parameter", behind=part("context", b"k=v")),
    "100k parts": Bad(between=part("tags[]", "a") * 100_000),
    "many large fields": Bad(before=part("tags[]", b"x" * 60_000) * 100),
    "9 headers in a part": Bad(between=raw_part(DISPOSITION + "".join(f"\r\nX-{n}: 1" for n in range(8)), "cats")),
    "10k headers in a part": Bad(between=raw_part(DISPOSITION + "\r\nX: 1" * 10_000, "cats")),
    "9 lines of one header": Bad(between=raw_part(DISPOSITION + "\r\n x" * 8, "cats")),
    "header line of 1 MB": Bad(between=raw_part(DISPOSITION + "\r\nX-Long: " + "x" * 1_000_000, "cats")),
    "name of 64 KiB": Bad(between=part("n" * 65536, "cats")),
    "header twice": Bad(between=raw_part(f'{DISPOSITION}\r\nContent-Disposition: form-data; name="file"', "cats")),
    "header without a colon": Bad(between=raw_part(f"{DISPOSITION}\r\nrubbish", "cats")),
    "header with a bare LF": Bad(between=raw_part('Content-Disposition: form-data; name="fol\nder"', "cats")),
    "header with NUL": Bad(between=raw_part('Content-Disposition: form-data; name="fol\0der"', "cats")),
    "invalid UTF-8 in a value": Bad(between=part("folder", b"c\xc3\x28ts")),
    "UTF-16 surrogate in a value": Bad(between=part("folder", b"\xed\xa0\x80")),
    "invalid UTF-8 in a name": Bad(between=raw_part(b'Content-Disposition: form-data; name="f\xff"', "cats")),
    "a line end in the file's name": Bad(
        file=raw_part(b'Content-Disposition: form-data; name="file"; filename="\x0a.png"', PNG)
    ),
    "half a line end in the file's name": Bad(
        file=raw_part(b'Content-Disposition: form-data; name="file"; filename="\x0d.png"', PNG)
    ),
    "no name": Bad(between=raw_part("Content-Disposition: form-data", "cats")),
    "empty name": Bad(between=part("", "cats")),
    "name* only": Bad(between=raw_part("Content-Disposition: form-data; name*=UTF-8''folder", "cats")),
    "no disposition": Bad(between=raw_part("Content-Type: text/plain", "cats")),
    "attachment": Bad(between=raw_part('Content-Disposition: attachment; name="folder"', "cats")),
    "file[]": Bad("invalid_parameter", file=part("file[]", PNG, "cat.png")),
    "two files": Bad("duplicate_parameter", behind=part("file", PNG, "dog.png")),
    "file under another name": Bad("duplicate_parameter", between=part("image", PNG, "cat.png")),
    "no file": Bad("missing_parameter", file=b""),
    "base64 transfer encoding": Bad(
        between=raw_part(f"{DISPOSITION}\r\nContent-Transfer-Encoding: base64", "Y2F0cw==")
    ),
    "quoted-printable file": Bad(
        file=raw_part(
            'Content-Disposition: form-data; name="file"; filename="a.png"\r\n'
            "Content-Transfer-Encoding: quoted-printable",
            PNG,
        )
    ),
    "field in another charset": Bad(
        between=raw_part(f"{DISPOSITION}\r\nContent-Type: text/plain; charset=utf-16", "c")
    ),
    "field in Latin-1": Bad(
        between=raw_part(f"{DISPOSITION}\r\nContent-Type: text/plain; charset=iso-8859-1", "caf\u00e9")
    ),
    "file under another name by an extended name": Bad(
        "duplicate_parameter", between=raw_part("Content-Disposition: form-data; name=image; filename*=UTF-8''a", PNG)
    ),
    "wrong length in a part": Bad(between=raw_part(f"{DISPOSITION}\r\nContent-Length: 3", "cats")),
    "urlencoded": Bad(headers={"content-type": "application/x-www-form-urlencoded"}),
    "JSON": Bad(headers={"content-type": "application/json"}),
    "an empty content type": Bad(headers={"content-type": ""}),
    "multipart/mixed": Bad(headers={"content-type": f"multipart/mixed; boundary={BOUNDARY}"}),
    "no boundary": Bad(headers={"content-type": "multipart/form-data"}),
    "empty boundary": Bad(headers={"content-type": 'multipart/form-data; boundary=""'}),
    "two boundaries": Bad(headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}; boundary=other"}),
    "the same boundary twice": Bad(
        headers={"content-type": f"multipart/form-data; boundary={BOUNDARY}; Boundary = {BOUNDARY}"}
    ),
    "another boundary": Bad(headers={"content-type": "multipart/form-data; boundary=other"}),
    "boundary of 1000": Bad(headers={"content-type": f"multipart/form-data; boundary={'b' * 1000}"}),
    "boundary in Latin-1": Bad(headers={"content-type": "multipart/form-data; boundary=\xe9"}),
    "gzip": Bad(headers={"content-encoding": "gzip"}),
    "gzip on the way": Bad(headers={"transfer-encoding": "gzip, chunked"}),
    "a chunk of a file": Bad("malformed_request", headers={"content-range": "bytes 0-9/100"}),
    "a chunk without an end": Bad("malformed_request", headers={"content-range": "bytes 0-9/-1"}),
    "a range of 5000 digits": Bad("malformed_request", headers={"content-range": f"bytes 0-{'9' * 5000}/1"}),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_bad_form_is_refused_and_free(shared: World, name: str) -> None:
    bad, fields = FORMS[name], shared.sign()
    with shared.untouched():
        answer = shared.post(
            bad.before, parts_of(fields), bad.between, bad.file, bad.behind, bad.end, headers=bad.headers
        )
    assert_refused(answer, 400, bad.code)
    assert_accepted(shared.upload(fields))


@pytest.mark.parametrize("name", [name for name, bad in FORMS.items() if not bad.headers])
def test_a_bad_form_is_refused_alike_when_it_comes_in_small_pieces(shared: World, name: str) -> None:
    bad = FORMS[name]
    body = b"".join([bad.before, parts_of(shared.sign()), bad.between, bad.file, bad.behind, bad.end])
    step = 7 if len(body) < 100_000 else 4093
    with shared.untouched():
        answer = shared.post(*(body[at : at + step] for at in range(0, len(body), step)))
    assert_refused(answer, 400, bad.code)


@pytest.mark.parametrize("between", [b"", part("tags", "a&b")])
@pytest.mark.parametrize("step", [7, 1_000_000])
def test_a_form_without_a_content_type_is_told_so(shared: World, between: bytes, step: int) -> None:
    """It is read as urlencoded, where no name has a line break."""
    body = b"".join([parts_of(shared.sign()), between, FILE, END])
    with shared.untouched():
        answer = shared.request(
            "POST", shared.route(), chunks=[body[at : at + step] for at in range(0, len(body), step)]
        )
    assert_refused(answer, 400, MALFORMED)
    assert "Send header Content-Type: multipart/form-data" in answer.message


def test_floods_are_cut_off_in_flat_memory(world: World) -> None:
    """A header line that never ends, fields that never end: the parser holds kilobytes of it."""
    unfinished = raw_part(f"{DISPOSITION}\r\nX: ", b"").partition(b"\r\n\r\n")[0]
    for flood in (unfinished, part("context", b"")[:-2], b"\r"):
        tracemalloc.start()
        with world.untouched():
            answer = world.post(flood, *([b"x" * 4096] * 2048))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert answer.status == 400
        assert peak < 1024 * 1024


@pytest.mark.parametrize("range_", ["bytes 0-{last}/{size}"])
def test_a_chunk_that_is_the_whole_file_is_an_upload(world: World, range_: str) -> None:
    headers = {"content-range": range_.format(last=len(PNG) - 1, size=len(PNG)), "x-unique-upload-id": "7"}
    assert_accepted(world.upload(world.sign(), headers=headers))


@pytest.mark.parametrize(
    "content_type",
    [
        f'multipart/form-data; boundary="{BOUNDARY}"',
        f"Multipart/Form-Data;boundary={BOUNDARY}",
        f"multipart/form-data; charset=utf-8; boundary={BOUNDARY}",
    ],
)
def test_ordinary_spellings_of_the_content_type_are_understood(world: World, content_type: str) -> None:
    assert_accepted(world.upload(world.sign(), headers={"content-type": content_type}))


@pytest.mark.parametrize("value", ["7bit", "8bit", "binary"])
def test_a_transfer_encoding_that_changes_nothing_is_accepted(world: World, value: str) -> None:
    head = f'Content-Disposition: form-data; name="file"; filename="a.png"\r\nContent-Transfer-Encoding: {value}'
    assert_accepted(world.post(parts_of(world.sign()), raw_part(head, PNG), END))


@pytest.mark.parametrize("charset", ["ISO-8859-1", "windows-1252", "UTF-16LE", "binary", "x" * 100])
def test_the_charset_of_a_file_describes_its_content(world: World, charset: str) -> None:
    head = f'Content-Disposition: form-data; name="file"; filename="a.csv"\r\nContent-Type: text/csv; charset={charset}'
    answer = assert_accepted(world.post(parts_of(world.sign()), raw_part(head, b"caf\xe9"), END, kind="raw"))
    assert answer.json["bytes"] == 4


@pytest.mark.parametrize("charset", ["UTF-8", "us-ascii", "ISO-8859-1", "latin1", "Windows-1252"])
def test_a_field_of_ascii_may_be_in_any_charset_with_the_same_letters(world: World, charset: str) -> None:
    head = f"{DISPOSITION}\r\nContent-Type: text/plain; charset={charset}"
    fields = world.sign({"folder": "cats"})
    del fields["folder"]
    answer = assert_accepted(world.post(parts_of(fields), raw_part(head, "cats"), FILE, END))
    assert answer.json["public_id"].startswith("cats/")


FILE_HEAD = 'Content-Disposition: form-data; name="file"'


@pytest.mark.parametrize(
    ("head", "shown"),
    [
        (f"{FILE_HEAD}; filename*=UTF-8''%C3%BC.png", "ü"),
        (f"{FILE_HEAD}; filename=\"=?utf-8?B?w7wucG5n?=\"; filename*=utf-8''%C3%BC.png", "ü"),
        (f"{FILE_HEAD}; FILENAME* = \"UTF-8'de'%C3%BC.png\"; filename=x.png", "ü"),
        (f"{FILE_HEAD}; filename=x.png; filename*=iso-8859-1'en'%FC.png", "x"),
        (f"{FILE_HEAD}; filename=x.png; filename*=UTF-8''%FC.png", "x"),
        (f"{FILE_HEAD}; filename=x.png; filename*=UTF-8''a%00b.png", "x"),
        (f"{FILE_HEAD}; filename=x.png; filename*=a.png", "x"),
        (f"{FILE_HEAD}; filename=\"x; filename*=UTF-8''y.png\"", "x; filename*=UTF-8''y"),
    ],
)
def test_the_extended_name_of_a_file_counts_if_it_can_be_read(world: World, head: str, shown: str) -> None:
    """.NET sends both names, the plain one in a way that only mail understands."""
    for world.whole_bodies in (False, True):
        answer = assert_accepted(world.post(parts_of(world.sign()), raw_part(head, PNG), END))
        assert answer.json["original_filename"] == shown


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        ("../../etc/passwd", "passwd"),
        ("C:\\\\fakepath\\\\dog.png", "dog"),
        ("a%22b.png", 'a"b'),
        ("a%0D%0Ab.png", "ab"),
        ("\N{RIGHT-TO-LEFT OVERRIDE}gnp.exe", "gnp"),
        ("katze \N{SNOWMAN}.png", "katze \N{SNOWMAN}"),
    ],
)
def test_a_filename_is_a_label_and_never_a_path(shared: World, filename: str, shown: str) -> None:
    fields = shared.sign({"use_filename": "true"})
    answer = assert_accepted(shared.upload(fields, filename=filename)).json
    assert answer["original_filename"] == shown
    assert not set(answer["public_id"]) & set('/\\"\r\n\N{RIGHT-TO-LEFT OVERRIDE}')


@pytest.mark.parametrize(
    ("filename", "shown"),
    [
        (b"caf\xe9.png", "caf\xe9"),
        (b"\xfe.png", "\xfe"),
        (b"caf\xc3\xa9.png", "caf\xe9"),
        (b"Bob\x19s cat.png", "Bobs cat"),
        (b"\0\x7f\x1f.png", ".png"),
        (b"\x19", None),
    ],
)
def test_a_filename_in_one_byte_a_letter_is_read_as_latin_1(world: World, filename: bytes, shown: str | None) -> None:
    """As npm's SDK writes all names. A control character is what the SDK makes of an apostrophe."""
    head = b'Content-Disposition: form-data; name="file"; filename="' + filename + b'"\r\nContent-Type: image/png'
    for world.whole_bodies in (False, True):
        answer = assert_accepted(world.post(parts_of(world.sign()), raw_part(head, PNG), END)).json
        assert answer.get("original_filename") == shown


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("a line end in the file's name", "rename the file"),
        ("half a line end in the file's name", "rename the file"),
        ("invalid UTF-8 in a name", "Send UTF-8"),
        ("header without a colon", "Let your HTTP library write the form"),
    ],
)
def test_the_refusal_of_a_form_says_what_to_do(world: World, name: str, says: str) -> None:
    bad = FORMS[name]
    answer = world.post(parts_of(world.sign()), bad.between, bad.file, END)
    assert says in answer.json["error"]["message"]


def test_a_refusal_repeats_little_of_what_was_sent(world: World) -> None:
    """A client that reads no answers could fill the memory with them. A control character takes six bytes there."""
    name = "\x01" * 131_000
    urlencoded = {"content-type": "application/x-www-form-urlencoded"}
    twice = world.request("POST", world.route(), headers=urlencoded, chunks=[f"{name}=1&{name}=1".encode()])
    forged = {**world.sign(), "signature": "0" * 40}
    many = [part(f"t{number}", "\x01" * 65_000) for number in range(15)]
    long = world.post(parts_of(forged), *many, FILE, END)
    assert (twice.code, long.code) == ("duplicate_parameter", "invalid_signature")
    assert max(len(twice.body), len(long.body)) < 32 * 1024


@pytest.mark.parametrize("content_type", [FORM["content-type"], "Multipart/Form-Data"])
def test_a_form_by_put_is_no_file(world: World, content_type: str) -> None:
    """Its envelope would be the asset: no file has this type."""
    fields = world.sign()
    headers = {"content-type": content_type}
    for query, body in ((fields, FILE + END), ({}, parts_of(fields) + FILE + END)):
        with world.untouched():
            answer = world.request("PUT", world.route("auto", query), headers=headers, chunks=[body])
        assert_refused(answer, 400, MALFORMED)
        assert "PUT the bytes of the file, or POST the form" in answer.json["error"]["message"]
    assert_accepted(world.put(PNG, fields))


def test_a_query_is_held_to_the_same_rules(world: World) -> None:
    fields = world.sign()
    file = part("file", PNG, "a.png")
    cases = {
        "duplicate_parameter": "?timestamp=1&timestamp=1",
        "invalid_parameter": "?file=data:image/png;base64,AAAA",
        MALFORMED: "?folder=%ff",
    }
    for code, query in cases.items():
        with world.untouched():
            answer = world.request("POST", world.route() + query, headers=FORM, chunks=[parts_of(fields), file, END])
        assert_refused(answer, 400, code)
    too_many = "?" + "&".join(f"tags[]={n}" for n in range(200))
    answer = world.request("POST", world.route() + too_many, headers=FORM, chunks=[parts_of(fields), file, END])
    assert_refused(answer, 400, MALFORMED)
    assert_refused(world.post(parts_of(fields), file, END, query={"timestamp": "1"}), 400, "duplicate_parameter")
    assert_accepted(world.upload(fields))
