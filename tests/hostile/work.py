"""Requests that cost the one event loop as much as their senders can make them cost."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple
from urllib.parse import quote

from tests.asgi import END, FORM, part, parts_of

Fields = dict[str, str]
Signer = Callable[[Mapping[str, object]], Fields]

# Combining marks of two classes: to put them into order is insertion sort.
A, B = "\u0300", "\u0316"
HEAD = 60 * 1024  # a little less than the longest head that the server reads
MARKS = "e" + A * 16_000 + B * 16_000


class Ask(NamedTuple):
    """One request; `keyless`: its sender needs no signature and no password."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""
    keyless: bool = True


def asks(cloud: str, key: str, sign: Signer, stored: str) -> Iterator[tuple[str, Ask]]:
    """By name. `sign` returns the fields of a grant; `stored` is the path of an asset."""
    upload, raw = f"/v1_1/{cloud}/auto/upload", f"/{cloud}/raw/upload/"
    urlencoded, as_json = (f"application/{kind}" for kind in ("x-www-form-urlencoded", "json"))

    def get(path: str, **headers: str) -> Ask:
        return Ask("GET", path, {name.replace("_", "-"): value for name, value in headers.items()})

    def typed(content_type: str, body: bytes = b"x", path: str = upload) -> Ask:
        return Ask("POST", path, {"content-type": content_type}, body)

    def form(fields: Mapping[str, str], filename: str = "x", *more: bytes, keyless: bool = False) -> Ask:
        body = b"".join([parts_of(fields), *more, part("file", b"hello", filename), END])
        return Ask("POST", upload, FORM, body, keyless)

    forged = {"api_key": key, "signature": "0" * 40, "timestamp": "1"}

    yield "a plain path", get(raw + "a" * HEAD)
    yield "marks in the path", get(raw + quote("e" + A * (HEAD // 12) + B * (HEAD // 12)))
    yield "marks in turn in the path", get(raw + quote("e" + (A + B) * (HEAD // 12)))
    yield "hangul in the path", get(raw + quote("\u1100\u1161\u11a8" * (HEAD // 27)))
    yield "dots in the path", get(raw + "." * HEAD)
    yield "slashes in the path", get(raw + "/" * HEAD)
    yield "commas in the path", get(raw + "w_1," * (HEAD // 4))
    yield "a delivery signature", get(f"/{cloud}/image/private/s--AAAAAAAA--/" + "a" * HEAD)
    yield "If-None-Match", get(stored, if_none_match='W/"x",' * (HEAD // 6))
    yield "If-Modified-Since, words", get(stored, if_modified_since="a " * (HEAD // 2))
    yield "If-Modified-Since, colons", get(stored, if_modified_since="Mon, 1 Jan 2024 " + "1:" * (HEAD // 2))
    yield "If-Modified-Since, brackets", get(stored, if_modified_since="(" * HEAD)
    yield "If-Range", get(stored, range="bytes=0-0", if_range="a " * (HEAD // 2))
    yield "Range of many", get(stored, range="bytes=" + "0-0," * (HEAD // 4))
    yield "Range of digits", get(stored, range="bytes=" + "9" * HEAD + "-")
    yield "Accept", get("/", accept="a/b;q=1," * (HEAD // 8))
    yield "X-Forwarded-For", get("/healthz", x_forwarded_for="1.1.1.1, " * (HEAD // 9))
    yield "Host", get("/healthz", host="a" * HEAD)
    yield "Content-Type, escapes", typed("multipart/form-data" + ';a="\\' * (HEAD // 5))
    yield "Content-Type, quotes", typed("multipart/form-data" + ';a="' + '\\"' * (HEAD // 2))
    yield "Content-Type, spaces", typed("multipart/form-data;" + " " * HEAD + "x")
    yield "Content-Type, many spaces", typed("multipart/form-data" + (";" + " " * 200) * (HEAD // 201))
    dispositions = b"--b\r\nContent-Disposition: form-data" + (b";" + b" " * 50) * 150 + b"\r\n\r\n\r\n--b--\r\n"
    yield "Content-Disposition, spaces", typed("multipart/form-data; boundary=b", dispositions)
    folded = b"".join(b"X%d: y\r\n" % number + b" x\r\n" * 4000 for number in range(7))
    in_lines = b"--b\r\nContent-Disposition: form-data; name=a\r\n%b\r\n\r\n" % folded
    yield "headers of parts in many lines", typed("multipart/form-data; boundary=b", in_lines * 2 + b"--b--\r\n")
    many = "&".join(f"t{number}=" + "%41" * 150 for number in range(120))
    yield "a query of many fields", typed(FORM["content-type"], END, f"{upload}?{many}")
    yield "a query of one field", typed(FORM["content-type"], END, f"{upload}?tags=" + "%e4%b8%80" * (HEAD // 9))
    yield "fields of 1 MB, forged", form(forged, "x", *(part(f"t{n}", "&" * 60_000) for n in range(15)), keyless=True)
    yield "a list of 1 MB, forged", form(forged, "x", *[part("tags[]", "a" * 16_000)] * 60, keyless=True)
    yield "marks as public_id, forged", form({**forged, "public_id": MARKS}, keyless=True)
    yield "marks as filename, forged", form({**forged, "use_filename": "1"}, MARKS[:3000], keyless=True)
    flat = json.dumps({f"k{number}": "v" for number in range(14_000)}).encode()
    yield "JSON of many fields", typed(as_json, flat, f"/v1_1/{cloud}/raw/destroy")
    yield "urlencoded", typed(urlencoded, b"a=" + b"%e4%b8%80" * 29_000, f"/v1_1/{cloud}/raw/destroy")
    yield "urlencoded, many", typed(urlencoded, b"a=&" * 85_000, f"/v1_1/{cloud}/raw/destroy")
    yield "urlencoded, an upload", typed(urlencoded, b"tags=" + b"%e4%b8%80" * 29_000)
    yield "urlencoded, a file", typed(urlencoded, b"file=data:image/png;base64," + b"%2B" * 300_000)
    yield "urlencoded, an upload of many", typed(urlencoded, b"a=b&" * 60_000)
    yield "urlencoded, percent signs", typed(urlencoded, b"tags=" + b"%" * 260_000)
    yield "urlencoded, escapes and letters", typed(urlencoded, b"tags=" + b"%41a" * 65_000)
    yield "JSON, an upload", typed(as_json, json.dumps({"tags": "é" * 60_000, "x": "\u4e00" * 30_000}).encode())
    yield "JSON, an upload of depth", typed(as_json, b'{"a":' * 40_000)
    yield "JSON, an upload with a list", typed(as_json, b'{"tags":[' + b"1," * 125_000 + b"1]}")
    yield "JSON, an upload of many fields", typed(as_json, b"{" + b'"a":1,' * 43_000 + b'"a":1}')
    yield "JSON, a file of escapes", typed(as_json, b'{"file":"data:;base64,' + b"\\u0041" * 40_000 + b'"}')
    yield "a transformation in the path", get(f"/{cloud}/image/upload/" + "w_1,h_1/" * 7000 + "a")
    yield "a variable in the path", get(f"/{cloud}/image/upload/$" + "a_" * 30_000 + ",/a")
    yield "a call of many segments", get(f"/v1_1/{cloud}/resources/image/upload/" + "a/" * 30_000)
    yield "a password", get(f"/v1_1/{cloud}/signatures", authorization="Basic " + "QUFB" * (HEAD // 4))
    tus = {"tus-resumable": "1.0.0", "upload-length": "5"}
    listed = ",".join(f"k{number} YQ==" for number in range(HEAD // 12))
    yield "Upload-Metadata of many", Ask("POST", f"/tus/{cloud}/", {**tus, "upload-metadata": listed})
    short = "a," * (HEAD // 2)
    yield "Upload-Metadata of short items", Ask("POST", f"/tus/{cloud}/", {**tus, "upload-metadata": short})
    marks = base64.b64encode(MARKS.encode()).decode()[:HEAD]
    yield "Upload-Metadata of marks", Ask("POST", f"/tus/{cloud}/", {**tus, "upload-metadata": f"filename {marks}"})
    for name, more in {
        "public_id": {"public_id": MARKS},
        "folder": {"folder": MARKS},
        "public_id_prefix": {"public_id_prefix": MARKS},
        "tags": {"tags": "a," * 32_000},
        "context": {"context": "|" * 1024},
        "origin": {"origin": "http://a," * 7000},
        "allowed_formats": {"allowed_formats": "a," * 32_000},
    }.items():
        yield f"{name}, signed", form(sign(more))
    yield "marks as filename, signed", form(sign({"use_filename": "1"}), MARKS[:3000])
