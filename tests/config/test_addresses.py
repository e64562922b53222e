"""Settings that are URLs or addresses."""

import pytest

from tests.config.test_settings import refusal
from uponce.config import load

BASE = "a URL like https://media.example or https://xn--bcher-kva.example, without a path"
NETWORKS = "127.0.0.1, ::ffff:172.17.0.1 ::ffff:10.0.0.0/104,2001:db8::/32 ::ffff:0:0/96"
RECEIVER = "empty, or a URL like https://app.example/uploaded"


@pytest.mark.parametrize(
    "url",
    [
        *("http://[", "media.example", "https://example.com/media", "https://media.example?a=b"),
        *("https://media.example?", "https://media.example#", "https://", "https://:8443"),
        *("https://media.example:port", "https://media.example:65536", "https://a b.example"),
        "https://b\xfccher.example",  # browsers read the header Location as Latin-1
    ],
)
def test_a_base_of_urls_that_clients_cannot_use_is_refused(url: str) -> None:
    said = refusal({"UPONCE_PUBLIC_URL": url})
    assert said == f"UPONCE_PUBLIC_URL={url} (environment) is not valid: it must be {BASE}."


@pytest.mark.parametrize("url", ["app.example/hook", "https://:8443/hook", "http://app.example:port/hook"])
def test_a_receiver_that_no_notification_could_reach_is_refused(url: str) -> None:
    said = refusal({"UPONCE_NOTIFICATION_URL": url})
    assert said == f"UPONCE_NOTIFICATION_URL={url} (environment) is not valid: it must be {RECEIVER}."


@pytest.mark.parametrize(
    ("environ", "base"),
    [
        ({"UPONCE_PUBLIC_URL": "https://media.example/"}, "https://media.example"),
        ({"UPONCE_PUBLIC_URL": "HTTPS://Media_1.example:8443"}, "HTTPS://Media_1.example:8443"),
        ({"UPONCE_PUBLIC_URL": "http://[2001:db8::5]:8000"}, "http://[2001:db8::5]:8000"),
        ({"UPONCE_PUBLIC_URL": "https://user:p%40ss@media.example"}, "https://user:p%40ss@media.example"),
        ({"UPONCE_HOST": "0.0.0.0", "UPONCE_PORT": "81"}, "http://127.0.0.1:81"),
        ({"UPONCE_HOST": "::"}, "http://[::1]:8000"),
        ({"UPONCE_HOST": "::1"}, "http://[::1]:8000"),
        ({"UPONCE_HOST": "box"}, "http://box:8000"),
    ],
)
def test_urls_that_are_made_outside_of_a_request_can_be_called(environ: dict[str, str], base: str) -> None:
    assert load(environ).base_url == base


@pytest.mark.parametrize("name", ["TRUSTED_PROXIES", "NOTIFICATION_NETWORKS"])
def test_an_address_of_ipv4_inside_ipv6_is_that_of_ipv4(name: str) -> None:
    settings = load({f"UPONCE_{name}": NETWORKS})
    found = settings.proxy_networks if name == "TRUSTED_PROXIES" else settings.private_receivers
    assert list(map(str, found)) == ["127.0.0.1/32", "172.17.0.1/32", "10.0.0.0/8", "2001:db8::/32", "0.0.0.0/0"]
