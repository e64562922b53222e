"""Secrets stay where they belong, whatever is asked: API secrets, signatures, delivery signatures, keys, tokens."""

import base64
import http.client
import json
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import quote, urlsplit

import pytest

from tests.e2e.commands import beside, printed
from tests.hostile.canaries import Canaries, found_in, in_arguments, in_files, in_texts, spelled
from tests.hostile.frame import PICTURE, raw
from tests.hostile.spellings import WAYS, Grant, fresh
from tests.server import Key, Server

pytestmark = pytest.mark.proof

TOKEN = "the-token-of-the-metrics-0123456789"
SETTINGS = {"UPONCE_LOG_LEVEL": "debug", "UPONCE_METRICS_TOKEN": TOKEN}

Answers = list[tuple[str, bytes]]


def ask(server: Server, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b"") -> bytes:
    """The whole answer: status line, headers, body."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, target, body, dict(headers or {}))
        answer = connection.getresponse()
        head = "".join(f"{name}: {value}\r\n" for name, value in answer.getheaders())
        return f"{answer.status}\r\n{head}\r\n".encode("latin-1") + answer.read()
    finally:
        connection.close()


def basic(key: Key) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(":".join(key).encode()).decode()}


def query(grant: Grant, **more: str) -> str:
    return "&".join(f"{quote(name)}={quote(value)}" for name, value in [*grant.pairs(), *more.items()])


def provoked(server: Server, live: Grant, private: str) -> Answers:
    """Requests of every kind that carry a secret, right and wrong, and what came back.

    `live` is not spent by any of them. `private` is the signed path of a private asset.
    """
    cloud, where = server.cloud, f"/v1_1/{server.cloud}/auto/upload"
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    as_json = {"Content-Type": "application/json"}
    signed = query(live)
    status = f"/v1_1/{cloud}/signatures/status"
    fields = json.dumps(dict(live.pairs())).encode()
    wrong = Key(server.browser.key, server.server.secret)
    tus = {"Tus-Resumable": "1.0.0", "Upload-Length": "x", "Upload-Metadata": f"signature {live.digest()}"}
    asked: list[tuple[str, str, str, Mapping[str, str], bytes]] = [
        ("a form of nothing, signature in the query", "POST", f"{where}?{signed}", form, b""),
        ("a parameter more", "PUT", f"{where}?{signed}&folder=x", {}, PICTURE),
        ("a parameter twice", "PUT", f"{where}?{signed}&nonce=x", {}, PICTURE),
        ("an unknown parameter", "PUT", f"{where}?{signed}&unknown_one=x", {}, PICTURE),
        ("an unknown cloud", "PUT", f"/v1_1/no-such-cloud/auto/upload?{signed}", {}, PICTURE),
        ("an unknown route", "PUT", f"/v1_1/{cloud}/auto/nothing?{signed}", {}, PICTURE),
        ("no route at all", "GET", f"/nothing?{signed}", {}, b""),
        ("another method", "DELETE", f"{where}?{signed}", {}, b""),
        ("a destroy", "POST", f"/v1_1/{cloud}/image/destroy?{signed}", form, b"public_id=x"),
        ("a picture that is none", "PUT", f"/v1_1/{cloud}/image/upload?{signed}", {}, b"no picture"),
        ("tus without a length", "POST", f"/tus/{cloud}/?{signed}", tus, b""),
        ("the status", "POST", status, {**basic(server.browser), **as_json}, fields),
        ("the status, wrong password", "POST", status, {**basic(wrong), **as_json}, fields),
        ("the status, no JSON", "POST", status, {**basic(server.browser), **as_json}, fields[:-3]),
        ("the list", "GET", f"/v1_1/{cloud}/signatures", basic(server.server), b""),
        ("the list, a bad cursor", "GET", f"/v1_1/{cloud}/signatures?next_cursor=x", basic(server.server), b""),
        ("a password in the path", "GET", f"/v1_1/{cloud}/{server.server.secret}", basic(server.server), b""),
        ("metrics", "GET", "/metrics", {"Authorization": f"Bearer {TOKEN}"}, b""),
        ("metrics, half a token", "GET", "/metrics", {"Authorization": f"Bearer {TOKEN[:-3]}"}, b""),
        ("metrics, the token in the query", "GET", f"/metrics?token={TOKEN}", {}, b""),
        ("a private asset", "GET", private, {}, b""),
        ("a private asset's sibling", "GET", private.replace("/mine", "/other"), {}, b""),
        ("a private asset, bad range", "GET", private, {"Range": "bytes=9-1"}, b""),
    ]
    answers = [(what, ask(server, method, target, head, body)) for what, method, target, head, body in asked]
    address = f"Host: 127.0.0.1\r\nAuthorization: {basic(server.server)['Authorization']}\r\n".encode()
    broken = f"PUT {where}?{signed} HTTP/1.1\r\n".encode() + address
    for what, rest in {
        "a bad header": b"Content-Length: x\r\n\r\n",
        "a bad chunk": b"Transfer-Encoding: chunked\r\n\r\nZZ\r\n",
        "a head without an end": b"X: " + b"a" * 200_000,
    }.items():
        answers.append((what, raw(server.base, broken + rest, wait=5).data))
    return answers


@pytest.fixture(scope="module")
def live(server: Server) -> Iterator[Grant]:
    """A grant that nothing has spent, on a server that has started again: the first start prints keys."""
    server.stop()
    server.start()
    yield fresh(server.browser, time.time())


@pytest.fixture(scope="module")
def private(server: Server, live: Grant) -> str:
    """The signed path of a private asset."""
    fields = server.signed({"type": "private", "public_id": "mine"})
    return urlsplit(str(server.post(fields, PICTURE).json()["url"])).path


@pytest.fixture(scope="module")
def canaries(server: Server, live: Grant, private: str) -> Canaries:
    delivery = re.search(r"/(s--[^/]+--)/", private)
    assert delivery is not None
    return {
        "secret key": (server.data_dir / "secret.key").read_bytes(),
        "API secret (once)": server.browser.secret.encode(),
        "API secret (unlimited)": server.server.secret.encode(),
        "live signature": live.digest().encode(),
        "live signature, SHA-256": live.digest("sha256").encode(),
        "delivery signature": delivery[1].encode(),
        "metrics token": TOKEN.encode(),
    }


@pytest.fixture(scope="module")
def answers(server: Server, live: Grant, private: str, canaries: Canaries) -> Answers:
    return provoked(server, live, private)


def test_no_secret_is_logged(server: Server, canaries: Canaries, answers: Answers) -> None:
    log = server.output
    assert len(log.splitlines()) > len(answers) / 2, "the server logs what it refuses"
    assert in_texts([("the log", line.encode()) for line in log.splitlines()], canaries) == []


def test_no_secret_is_in_an_answer(server: Server, live: Grant, canaries: Canaries, answers: Answers) -> None:
    """A refusal may repeat the signature that the client sent, as Cloudinary's does. It knows no other."""
    sent = {"live signature"}
    own = {"a private asset"}
    told = [(what, text) for what, text in answers if what not in own]
    assert in_texts(told, {name: secret for name, secret in canaries.items() if name not in sent}) == []


def test_a_refusal_never_tells_the_right_signature(server: Server, live: Grant) -> None:
    """Of an altered request, in either digest, with either version."""
    for change in ({"public_id": "x"}, {"tags": "x&y"}, {"timestamp": str(int(time.time()) - 100)}):
        altered = Grant({**live.params, **change}, live.key)
        right = [altered.digest(algorithm, version) for algorithm in ("sha1", "sha256") for version in (1, 2)]
        pairs = [*altered.params.items(), ("signature", live.digest()), ("api_key", live.key.key)]
        target = f"/v1_1/{server.cloud}/auto/upload?" + "&".join(f"{name}={quote(value)}" for name, value in pairs)
        answer = ask(server, "PUT", target, {}, PICTURE)
        assert answer.startswith(b"401"), answer
        assert [digest for digest in right if digest.encode() in answer] == []


def test_no_secret_is_in_a_file(server: Server, canaries: Canaries, answers: Answers) -> None:
    """API secrets are encrypted, signatures are kept as hashes, answers with a delivery URL are not kept."""
    assert in_files(server.data_dir, canaries) == []


def test_no_secret_is_in_an_argument(server: Server, canaries: Canaries, answers: Answers) -> None:
    assert in_arguments(server, canaries) == []


def test_commands_show_no_secret_that_they_did_not_make(server: Server, canaries: Canaries) -> None:
    words = (("keys", "list"), ("keys", "list", "--json"), ("signatures", "list"), ("doctor",), ("fsck", "--json"))
    told = [(" ".join(line), printed(beside(server, *line)).encode()) for line in words]
    assert in_texts(told, canaries) == []


def test_the_live_signature_was_live(server: Server, live: Grant, answers: Answers) -> None:
    """No refusal spent it: last, it stores."""
    assert WAYS["form"](server, live.pairs(), PICTURE).stored


def test_a_canary_that_is_out_is_found(tmp_path: Path) -> None:
    """The control, for each spelling; the file that holds a secret on purpose holds no other."""
    canaries = {"secret key": bytes(range(32)), "token": b"a-token-0123456789"}
    for number, form in enumerate(form for secret in canaries.values() for form in spelled(secret)):
        (tmp_path / str(number)).write_bytes(b"before " + form + b" after")
    for key in ("k" * 14, "k" * 15, "k" * 16):
        assert found_in(basic(Key(key, "a-token-0123456789"))["Authorization"].encode(), canaries) == {"token"}
    (tmp_path / "secret.key").write_bytes(b"".join(canaries.values()))
    leaks = in_files(tmp_path, canaries)
    assert len(leaks) == 11
    assert "token in secret.key" in leaks
    assert found_in(b"nothing", canaries) == set()
