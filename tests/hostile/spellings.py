"""One grant in every spelling that the server reads: other orders, places, protocols, encodings, digests.

All spellings of a grant have one string to sign, so they share one row of the ledger. The signing here is separate from
the server's code and from the SDK: an error stays hidden only if all three have it.
"""

import base64
import hashlib
import http.client
import itertools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple
from urllib.parse import quote, quote_plus, urlsplit

from tests.server import Key, Server

Pairs = list[tuple[str, str]]

_BOUNDARY = "----one-grant"
_NUMBERS = itertools.count()
_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Grant:
    """What a backend signed. The values hold characters that every encoding treats in its own way."""

    params: Mapping[str, str]
    key: Key

    def string(self, version: int = 2) -> str:
        pairs = (f"{name}={value}" for name, value in self.params.items())
        return "&".join(sorted(pair.replace("&", "%26") if version == 2 else pair for pair in pairs))

    def digest(self, algorithm: str = "sha1", version: int = 2) -> str:
        return hashlib.new(algorithm, (self.string(version) + self.key.secret).encode()).hexdigest()

    def pairs(self, algorithm: str = "sha1") -> Pairs:
        """The fields in the order of the SDKs."""
        return [*self.params.items(), ("signature", self.digest(algorithm)), ("api_key", self.key.key)]


def fresh(key: Key, timestamp: float, **params: str) -> Grant:
    """A grant that no other call returns."""
    signed = {
        "timestamp": str(int(timestamp)),
        "nonce": f"grant {next(_NUMBERS)}",
        "tags": "b c,a+é",
        "context": "k=v:w",
    }
    return Grant(signed | params, key)


class Reply(NamedTuple):
    status: int
    code: str
    asset: str

    @property
    def stored(self) -> bool:
        return bool(self.asset)


def ask(server: Server, method: str, target: str, headers: Mapping[str, str], body: bytes) -> tuple[Reply, str]:
    """One request exactly as it is written here; the reply and its Location."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=_SECONDS)
    try:
        connection.request(method, target, body, dict(headers))
        answer = connection.getresponse()
        data = answer.read()
        is_json = answer.getheader("content-type", "").startswith("application/json")
        told = json.loads(data) if is_json and data else {}
        reply = Reply(answer.status, str(told.get("error", {}).get("code", "")), str(told.get("asset_id", "")))
        return reply, answer.getheader("location", "")
    finally:
        connection.close()


def _part(name: str, value: bytes, filename: str = "") -> bytes:
    named = f'; filename="{filename}"' if filename else ""
    head = f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + value + b"\r\n"


def _form(
    server: Server,
    fields: Pairs,
    file: bytes,
    *,
    query: str = "",
    kind: str = "auto",
    action: str = "upload",
    file_first: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    parts = [_part(name, value.encode()) for name, value in fields]
    parts.insert(0 if file_first else len(parts), file)
    body = b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode()
    type_ = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY}"}
    return ask(server, "POST", _target(server, kind, query, action), {**type_, **(headers or {})}, body)[0]


def _target(server: Server, kind: str, query: str, action: str = "upload") -> str:
    return "/".join(filter(None, ("/v1_1", server.cloud, kind, action))) + (f"?{query}" if query else "")


def _file(data: bytes) -> bytes:
    return _part("file", data, "cat.png")


def _query(pairs: Pairs, encode: Callable[[str], str] = quote) -> str:
    return "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)


def _every_byte(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


# --- protocols: how the fields and the file travel

Way = Callable[[Server, Pairs, bytes], Reply]


def form(server: Server, pairs: Pairs, data: bytes) -> Reply:
    return _form(server, pairs, _file(data))


def file_first(server: Server, pairs: Pairs, data: bytes) -> Reply:
    return _form(server, pairs, _file(data), file_first=True)


def query_and_file(server: Server, pairs: Pairs, data: bytes) -> Reply:
    return _form(server, [], _file(data), query=_query(pairs))


def query_and_form(server: Server, pairs: Pairs, data: bytes) -> Reply:
    return _form(server, pairs[1::2], _file(data), query=_query(pairs[0::2]))


def _uri(data: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def data_uri(server: Server, pairs: Pairs, data: bytes) -> Reply:
    return _form(server, pairs, _part("file", _uri(data).encode()))


def filepond(server: Server, pairs: Pairs, data: bytes) -> Reply:
    return _form(server, pairs, _part("file", b"{}") + _file(data))


def with_credentials(server: Server, pairs: Pairs, data: bytes) -> Reply:
    """Also HTTP Basic, which must not make a second grant of the signature."""
    text = base64.b64encode(f"{server.browser.key}:{server.browser.secret}".encode()).decode()
    return _form(server, pairs, _file(data), headers={"Authorization": f"Basic {text}"})


def urlencoded(encode: Callable[[str], str], *, file_first: bool = False) -> Way:
    def send(server: Server, pairs: Pairs, data: bytes) -> Reply:
        file = ("file", _uri(data))
        body = _query([file, *pairs] if file_first else [*pairs, file], encode).encode()
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        return ask(server, "POST", _target(server, "auto", ""), headers, body)[0]

    return send


def _escaped(text: str) -> str:
    return '"' + "".join(f"\\u{ord(char):04x}" for char in text) + '"'


def as_json(write: Callable[[str], str] = json.dumps, *, file_first: bool = False) -> Way:
    """Repeated fields as repeated names, which a JSON object may have."""

    def send(server: Server, pairs: Pairs, data: bytes) -> Reply:
        fields = [f"{write(name)}:{write(value)}" for name, value in pairs]
        fields.insert(0 if file_first else len(fields), f'"file":{json.dumps(_uri(data))}')
        body = "{" + ",".join(fields) + "}"
        headers = {"Content-Type": "application/json"}
        return ask(server, "POST", _target(server, "auto", ""), headers, body.encode())[0]

    return send


def one_chunk(server: Server, pairs: Pairs, data: bytes) -> Reply:
    whole = f"bytes 0-{len(data) - 1}/{len(data)}"
    headers = {"X-Unique-Upload-Id": f"chunk-{next(_NUMBERS)}", "Content-Range": whole}
    return _form(server, pairs, _file(data), headers=headers)


def of_kind(kind: str, action: str = "upload") -> Way:
    return lambda server, pairs, data: _form(server, pairs, _file(data), kind=kind, action=action)


def put(encode: Callable[[str], str] = quote) -> Way:
    return lambda server, pairs, data: ask(server, "PUT", _target(server, "auto", _query(pairs, encode)), {}, data)[0]


def tus(*, at_once: bool, in_query: bool = False) -> Way:
    """Bytes with the creation or after it; the grant in the metadata or in the query."""

    def send(server: Server, pairs: Pairs, data: bytes) -> Reply:
        told = [] if in_query else [f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in pairs]
        metadata = ",".join([*told, f"filename {base64.b64encode(b'cat.png').decode()}"])
        headers = {"Tus-Resumable": "1.0.0", "Upload-Length": str(len(data)), "Upload-Metadata": metadata}
        bytes_ = {"Content-Type": "application/offset+octet-stream"}
        target = f"/tus/{server.cloud}/" + (f"?{_query(pairs)}" if in_query else "")
        reply, location = ask(server, "POST", target, headers | (bytes_ if at_once else {}), data if at_once else b"")
        if reply.status != 201:
            return reply
        where = urlsplit(location).path
        if not at_once:
            patch = {"Tus-Resumable": "1.0.0", "Upload-Offset": "0", **bytes_}
            reply, _ = ask(server, "PATCH", where, patch, data)
            if reply.status != 204:
                return reply
        return ask(server, "GET", where, {}, b"")[0]

    return send


WAYS: dict[str, Way] = {
    "form": form,
    "file first": file_first,
    "query, file in a form": query_and_file,
    "half query, half form": query_and_form,
    "data URI": data_uri,
    "urlencoded": urlencoded(quote_plus),
    "urlencoded, every byte escaped, file first": urlencoded(_every_byte, file_first=True),
    "JSON": as_json(),
    "JSON, every character escaped": as_json(_escaped),
    "JSON, file first": as_json(file_first=True),
    "FilePond": filepond,
    "with HTTP Basic": with_credentials,
    "no resource type": of_kind(""),
    "as a chunked upload": of_kind("auto", "upload_chunked"),
    "one chunk": one_chunk,
    "as image": of_kind("image"),
    "as raw": of_kind("raw"),
    "PUT": put(),
    "PUT, every byte escaped": put(_every_byte),
    "PUT, escapes in lower case": put(lambda text: _every_byte(text).lower()),
    "PUT, plus for space": put(quote_plus),
    "tus, with the creation": tus(at_once=True),
    "tus, after the creation": tus(at_once=False),
    "tus, grant in the query": tus(at_once=True, in_query=True),
}

# --- fields: what is written in them

Writing = Callable[[Grant], Pairs]


def _array(grant: Grant) -> Pairs:
    """The list as repeated fields, as SDKs send it."""
    return [
        pair
        for name, value in grant.pairs()
        for pair in ([("tags[]", tag) for tag in value.split(",")] if name == "tags" else [(name, value)])
    ]


def _numbered(grant: Grant) -> Pairs:
    """The list as Go's SDK sends it."""
    numbers = itertools.count()
    return [(f"tags[{next(numbers)}]" if name == "tags[]" else name, value) for name, value in _array(grant)]


WRITINGS: dict[str, Writing] = {
    "reversed": lambda grant: grant.pairs()[::-1],
    "sorted": lambda grant: sorted(grant.pairs()),
    "SHA-256": lambda grant: grant.pairs("sha256"),
    "list as array": _array,
    "list with numbers": _numbered,
    "empty fields": lambda grant: [*grant.pairs(), ("folder", ""), ("public_id", "")],
    "cloud and kind as fields": lambda grant: [*grant.pairs(), ("cloud_name", "media"), ("resource_type", "auto")],
    "an SDK's options": lambda grant: [("timeout", "60"), ("chunk_size", "20000000"), *grant.pairs()],
}


class Spelling(NamedTuple):
    name: str
    way: Way
    writing: Writing

    def send(self, server: Server, grant: Grant, data: bytes) -> Reply:
        return self.way(server, self.writing(grant), data)


def spellings() -> list[Spelling]:
    """Every way with plain fields, then every writing in a form and by PUT. The first one is the plainest."""
    plain = [Spelling(name, way, Grant.pairs) for name, way in WAYS.items()]
    written = [
        Spelling(f"{name}, {way}", WAYS[way], writing) for way in ("form", "PUT") for name, writing in WRITINGS.items()
    ]
    return [*plain, *written]
