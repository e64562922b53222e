"""Who calls, by which scheme and host: only trusted proxies and well-formed text can say so."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import nullcontext
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest

from tests.asgi import FORM, Answer, call
from tests.world import World, assert_refused
from uponce.config import load
from uponce.core.errors import SettingRefused
from uponce.core.policy import Limits
from uponce.web.proxies import TrustedProxies
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
        assert caplog.messages == []  # strangers send it too
        for _ in range(2):
            applied(proxies, "192.168.1.5", (FORWARDED, b"6.6.6.6"))
    assert len(caplog.messages) == 1
    assert "UPONCE_TRUSTED_PROXIES=192.168.1.5" in caplog.text


@pytest.mark.parametrize("host", ["evil@good", "evil/x", "evil\\x", "", "a b", "a:99999", "a:", "[::1", "a" * 300])
def test_a_host_that_is_none_is_refused_and_spends_nothing(shared: World, host: str) -> None:
    with shared.untouched():
        answer = shared.upload(shared.sign(), headers={"host": host})
    assert_refused(answer, 400, "malformed_request")
    assert "Header Host" in answer.message


@pytest.mark.parametrize("host", ["media.example", "media.example:8443", "[::1]:8000", "10.0.0.1"])
def test_the_urls_of_an_answer_name_the_host_that_was_called(shared: World, host: str) -> None:
    answer = shared.upload(shared.sign(), headers={"host": host})
    assert answer.json["secure_url"].startswith(f"https://{host}/demo/")


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
