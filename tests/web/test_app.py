"""Which client asks, and what the log says of its request.

Only trusted proxies name another client. No secret and no signature reaches the log.
"""

import asyncio
import base64
import io
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, nullcontext
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import END, FORM, Answer, call, part, parts_of
from tests.tus import VERSION, metadata
from tests.world import PNG, QuickWorld, World, assert_accepted, assert_refused
from uponce.adapters.logs import TextLines
from uponce.config import load
from uponce.core.errors import DatabaseUnavailable, InvalidMedia, SettingRefused
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, Payer, ResourceType
from uponce.web.app import TrustedProxies
from uponce.web.routes import create_app

FORWARDED = b"x-forwarded-for"


def applied(proxies: TrustedProxies, peer: str, *headers: tuple[bytes, bytes]) -> tuple[str, str]:
    """The client's address and scheme after the proxies were taken into account."""
    scope: dict[str, Any] = {"client": (peer, 1234), "scheme": "http", "headers": list(headers)}
    proxies.apply(scope)
    return scope["client"][0] if scope["client"] else "", scope["scheme"]


@pytest.fixture
def proxies() -> TrustedProxies:
    return TrustedProxies([ip_network("127.0.0.1"), ip_network("10.0.0.0/8"), ip_network("::1")])


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("6.6.6.6", "6.6.6.6"),
        ("6.6.6.6, 7.7.7.7", "7.7.7.7"),  # only the last hop was written by the proxy
        ("6.6.6.6, 7.7.7.7, 10.1.2.3", "7.7.7.7"),
        ("10.1.2.3", "10.1.2.3"),
        ("6.6.6.6:1234", "6.6.6.6"),
        ("[2001:db8::1]:80", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:6.6.6.6", "6.6.6.6"),
        ("fe80::1%" + "a" * 7000, "fe80::1"),
        ("evil<script>", "127.0.0.1"),
        ("6.6.6.6, evil", "127.0.0.1"),
        ("6.6.6.6, evil, 7.7.7.7", "7.7.7.7"),
        ("a" * 7000, "127.0.0.1"),
        ("6.6.6.6," * 5000 + "10.0.0.1," * 30 + "10.0.0.2", "10.0.0.1"),
        ("", "127.0.0.1"),
        (",", "127.0.0.1"),
        ("1.2.3", "127.0.0.1"),
        ("unix:", "127.0.0.1"),
    ],
    ids=lambda text: text[:30],
)
def test_the_address_is_the_last_hop_that_no_trusted_proxy_is(
    proxies: TrustedProxies, value: str, address: str
) -> None:
    assert applied(proxies, "127.0.0.1", (FORWARDED, value.encode())) == (address, "http")


def test_several_header_lines_are_one_list(proxies: TrustedProxies) -> None:
    lines = (FORWARDED, b"6.6.6.6"), (FORWARDED, b"7.7.7.7")
    assert applied(proxies, "127.0.0.1", *lines)[0] == "7.7.7.7"


@pytest.mark.parametrize("peer", ["9.9.9.9", "127.0.0.2", "2001:db8::9"])
def test_forwarded_headers_of_others_are_ignored(proxies: TrustedProxies, peer: str) -> None:
    lines = (FORWARDED, b"6.6.6.6"), (b"x-forwarded-proto", b"https"), (b"forwarded", b"for=6.6.6.6;proto=https")
    assert applied(proxies, peer, *lines) == (peer, "http")
    assert applied(TrustedProxies(), "127.0.0.1", *lines) == ("127.0.0.1", "http")


@pytest.mark.parametrize(
    ("value", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http", "http"),
        ("wss", "http"),
        ("javascript", "http"),
        ("https, http", "http"),
        ("http, https", "https"),
        ("", "http"),
        ("https:", "http"),
    ],
)
def test_a_trusted_proxy_says_http_or_https(proxies: TrustedProxies, value: str, scheme: str) -> None:
    assert applied(proxies, "127.0.0.1", (b"x-forwarded-proto", value.encode()))[1] == scheme


def test_an_unknown_proxy_is_named_once_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    proxies = TrustedProxies()
    with caplog.at_level(logging.WARNING, "uponce"):
        applied(proxies, "9.9.9.9", (FORWARDED, b"6.6.6.6"))
        assert ours(caplog) == []  # strangers send it too
        for _ in range(2):
            applied(proxies, "192.168.1.5", (FORWARDED, b"6.6.6.6"))
    assert len(ours(caplog)) == 1
    assert "UPONCE_TRUSTED_PROXIES=192.168.1.5" in caplog.text


def test_trusted_proxies_are_addresses_and_networks() -> None:
    settings = load({"UPONCE_TRUSTED_PROXIES": "127.0.0.1, 10.0.0.0/8 ::1"})
    assert [str(network) for network in settings.proxy_networks] == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
    assert load({}).proxy_networks == ()
    for wrong in ("nginx", "10.0.0.1/8", "*", "127.0.0.1;::1"):
        with pytest.raises(SettingRefused, match="UPONCE_TRUSTED_PROXIES"):
            load({"UPONCE_TRUSTED_PROXIES": wrong})


def test_a_client_behind_a_proxy_has_a_bound_of_running_requests(
    shared: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The proxy cannot set it: one connection of HTTP/2 brings it hundreds of requests."""
    services = replace(shared.services, limits=Limits(max_connections_per_address=2))
    proxies = TrustedProxies([ip_network("192.0.2.7")])
    app = create_app(services, lambda _: nullcontext(), None, None, proxies)
    arrived, go_on = asyncio.Semaphore(0), asyncio.Event()

    async def held() -> AsyncIterator[bytes]:
        arrived.release()
        await go_on.wait()
        yield b"no form"

    async def ask(address: str) -> Answer:
        return await call(app, "GET", "/healthz", headers={FORWARDED.decode(): address})

    async def play() -> list[int]:
        headers = FORM | {FORWARDED.decode(): "2001:db8::1"}
        running = [
            asyncio.create_task(call(app, "POST", "/v1_1/demo/image/upload", headers=headers, chunks=held()))
            for _ in range(2)
        ]
        for _ in running:
            await arrived.acquire()
        refused = await ask("2001:db8::2")  # of the same /64
        assert_refused(refused, 503, "server_busy")
        assert "2 requests of this address are running, the limit" in refused.message
        others = [await ask("2001:db8:0:1::1"), await ask("192.0.2.7"), await call(app, "GET", "/healthz")]
        origin = {FORWARDED.decode(): "2001:db8::2", "origin": "https://page", "access-control-request-method": "POST"}
        others.append(await call(app, "OPTIONS", "/v1_1/demo/image/upload", headers=origin))
        go_on.set()
        ended = [await each for each in running]
        return [answer.status for answer in (*others, *ended, await ask("2001:db8::2"))]

    with caplog.at_level(logging.DEBUG, "uponce"):
        assert asyncio.run(play()) == [200, 200, 200, 200, 400, 400, 200]
    assert "failed" not in caplog.messages  # one client raises no alarm


def test_a_proxy_itself_has_no_bound() -> None:
    """It checks /readyz, and a client without an address counts as the proxy."""
    proxies = TrustedProxies([ip_network("127.0.0.1")])
    scope: dict[str, Any] = {"client": ("127.0.0.1", 1), "scheme": "http", "headers": []}
    assert not proxies.apply(scope)
    assert not proxies.apply(scope | {"client": ("6.6.6.6", 1), "headers": [(FORWARDED, b"7.7.7.7")]})
    assert proxies.apply(scope | {"headers": [(FORWARDED, b"7.7.7.7")]})


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """The records of uponce. asyncio may log what it finds in the garbage of an earlier test."""
    return [record for record in caplog.records if record.name == "uponce"]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[tuple[str, str, dict[str, Any]]]]]:
    """Level, message and facts of all records so far; a call forgets them."""

    def read() -> list[tuple[str, str, dict[str, Any]]]:
        found = [(record.levelname, record.getMessage(), record.__dict__["facts"]) for record in ours(caplog)]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO, "uponce"):
        yield read


Lines = Callable[[], list[tuple[str, str, dict[str, Any]]]]


def test_a_stored_upload_is_one_line(world: World, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    answer = assert_accepted(world.upload(world.sign({"public_id": "cats/tom"})))
    assert ours(caplog)[0].__dict__["request_id"] == answer.headers["x-request-id"]
    ((level, message, facts),) = lines()
    assert (level, message) == ("INFO", "stored")
    assert facts["ms"] >= 0
    assert {name: value for name, value in facts.items() if name != "ms"} == {
        "key": world.browser.api_key,
        "public_id": "cats/tom",
        "bytes": len(PNG),
        "status": 200,
        "address": "192.0.2.7",
        "method": "POST",
        "route": "/v1_1/{cloud}/{resource_type}/upload",
    }


@pytest.mark.parametrize("how", ["form", "file first", "query"])
def test_a_refusal_is_one_line_that_names_key_asset_address_and_code(world: World, lines: Lines, how: str) -> None:
    fields = world.sign({"public_id": "cats/tom"})
    for _ in range(2):
        lines()
        send(world, fields, how)
    ((level, message, facts),) = lines()
    assert (level, message) == ("INFO", "refused")
    assert (facts["key"], facts["public_id"]) == (world.browser.api_key, "cats/tom")
    assert (facts["code"], facts["status"], facts["address"]) == ("signature_used", 400, "192.0.2.7")


def send(world: World, fields: dict[str, str], how: str) -> Answer:
    match how:
        case "form":
            return world.upload(fields)
        case "file first":
            return world.post(part("file", PNG, "cat.png"), parts_of(fields), END)
    return world.put(PNG, fields)


def test_a_replay_a_deletion_and_a_part_have_their_words(world: World, lines: Lines) -> None:
    fields, again = world.sign({"public_id": "tom"}), {"idempotency-key": "k" * 16}
    for _ in range(2):
        assert_accepted(world.upload(fields, headers=again))
    gone = world.sign({"public_id": "tom"}, key=world.server)
    for _ in range(2):
        world.request(
            "POST",
            "/v1_1/demo/image/destroy",
            headers={"content-type": "multipart/form-data; boundary=b"},
            chunks=[form(gone)],
        )
    begun = world.request(
        "POST",
        "/tus/demo/",
        headers={**VERSION, "upload-length": "9", "upload-metadata": metadata(world.sign({"public_id": "tim"}))},
    )
    assert begun.status == 201
    found = lines()
    assert [message for _, message, _ in found] == ["stored", "repeated", "deleted", "absent", "part"]
    assert {facts["public_id"] for _, _, facts in found} == {"tom", "tim"}
    assert {facts["key"] for _, _, facts in found} == {world.browser.api_key, world.server.api_key}


def form(fields: dict[str, str]) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    return "".join([*parts, "--b--\r\n"]).encode()


def test_what_the_server_cannot_do_is_an_error_with_its_detail(world: World, lines: Lines) -> None:
    class Gone:
        async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
            raise DatabaseUnavailable("Later.", detail="no route to db-7", retry_after=1)

        async def ping(self) -> None: ...

    world.swap(inspector=Gone())
    world.upload(world.sign())
    ((level, message, facts),) = lines()
    assert (level, message, facts["code"]) == ("ERROR", "failed", "database_unavailable")
    assert facts["detail"] == "no route to db-7"


def test_every_line_about_a_request_has_its_id(world: World, lines: Lines) -> None:
    """Also of a part that knows no request, such as a relay or a decoder."""
    written = io.StringIO()
    handler = logging.StreamHandler(written)
    handler.setFormatter(TextLines("server"))
    log = logging.getLogger("uponce")

    class Talking:
        async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
            await asyncio.create_task(self.talk())
            raise InvalidMedia("No picture.")

        async def talk(self) -> None:
            log.warning("a word from below")

        async def ping(self) -> None: ...

    world.swap(inspector=Talking())
    log.addHandler(handler)
    try:
        ids = [world.upload(world.sign({"nonce": nonce})).headers["x-request-id"] for nonce in "ab"]
        log.warning("a word from outside")
    finally:
        log.removeHandler(handler)
    told = [line.split(" ", 4) for line in written.getvalue().splitlines()]
    assert [words[3] for words in told] == [ids[0], ids[0], ids[1], ids[1], "-"]


def test_an_exception_nobody_expected_is_one_record_with_its_traceback(
    world: World, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
            raise ZeroDivisionError("broken")

        async def ping(self) -> None: ...

    world.swap(inspector=Broken())
    assert world.upload(world.sign()).status == 500
    (record,) = ours(caplog)
    assert (record.levelname, record.getMessage()) == ("ERROR", "failed")
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


def test_reading_is_for_debug(world: World, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    path = str(assert_accepted(world.upload(world.sign())).json["url"]).removeprefix("https://media.example")
    lines()
    world.get(path)
    world.get("/healthz")
    assert lines() == []
    with caplog.at_level(logging.DEBUG, "uponce"):
        world.get(path)
    ((level, message, facts),) = lines()
    assert (level, message, facts["status"]) == ("DEBUG", "answered", 200)


@pytest.mark.parametrize("failures", [1, 100])
def test_no_secret_and_no_signature_reaches_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    """In every spelling of a grant, used and refused, and in the address of a tus upload.

    An altered field makes a live signature a wrong one. The limit of wrong credentials refuses it with another error.
    """
    with (
        closing(QuickWorld(tmp_path, limits=Limits(max_failed_credentials=failures))) as world,
        caplog.at_level(logging.DEBUG),
    ):
        signatures, secrets = [], [world.browser.secrets[0], world.server.secrets[0]]
        for how in ("form", "file first", "query"):
            fields = world.sign({"public_id": f"by {how}"})
            altered = {**fields, "public_id": "other"}
            signatures.append(fields["signature"])
            for spelling in (fields, fields, altered):
                send(world, spelling, how)
        fields = world.sign({"public_id": "by tus"})
        told = {**VERSION, "upload-length": "9", "upload-metadata": metadata(fields)}
        location = world.request("POST", "/tus/demo/", headers=told).headers["location"]
        signatures += [fields["signature"], location.split("/")[-2]]
        world.request("HEAD", location.removeprefix("https://media.example"), headers=VERSION)
        basic = base64.b64encode(f"{world.server.api_key}:{secrets[1]}".encode()).decode()
        world.get("/v1_1/demo/signatures", authorization=f"Basic {basic}")
    logged = "\n".join(str(record.__dict__) for record in caplog.records)
    assert len(caplog.records) >= 12
    assert not [each for each in (*signatures, *secrets, basic) if each in logged]
