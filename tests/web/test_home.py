"""The pages for people: complete, inert, and without the names of clouds and keys."""

import base64
import hashlib
import re

import pytest

from tests.app.failing import Failing
from tests.web.test_playground import serve
from tests.world import World
from uponce import __version__
from uponce.core.errors import DatabaseUnavailable

PAGES = ["/", "/guide"]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_loads_nothing_and_runs_nothing(shared: World, path: str) -> None:
    answer = shared.get(path, accept="text/html,application/xhtml+xml,*/*;q=0.8")
    page, policy = answer.body.decode(), answer.headers["content-security-policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert policy.startswith(f"default-src 'none'; style-src 'sha256-{digest}';")
    assert "frame-ancestors 'none'" in policy
    assert not re.search(r"<script|<img|<link|style=|\bon[a-z]+=|url\(|@import|src=", page)
    assert set(re.findall(r'href="([^"]*)"', page)) <= {"/", "/guide"}


def test_the_page_says_what_this_server_is(shared: World) -> None:
    page = shared.get("/").body.decode()
    for text in (__version__, "ready", "https://media.example/v1_1/&lt;cloud&gt;/auto/upload", 'href="/guide"'):
        assert text.removeprefix("https:") in page


def test_a_link_to_the_playground_for_clients_that_may_open_it(world: World) -> None:
    def links(host: str) -> bool:
        return b'href="/playground"' in world.get("/", host=host).body

    assert not links("localhost")
    serve(world)
    assert links("localhost")
    assert not links("media.example")
    serve(world, address="192.0.2.7")
    assert not links("localhost")
    serve(world, local=False, address="192.0.2.7")
    assert links("media.example")


def test_json_for_clients_that_ask_for_it(shared: World) -> None:
    answer = shared.get("/", accept="application/json")
    base = answer.json["upload_url"].partition("/v1_1")[0]
    assert answer.json == {
        "name": "uponce",
        "version": __version__,
        "health": "ok",
        "upload_url": f"{base}/v1_1/<cloud>/auto/upload",
        "guide_url": f"{base}/guide",
    }
    assert answer.headers["vary"] == shared.get("/").headers["vary"] == "accept"
    assert shared.get("/", accept="text/html, application/json").headers["content-type"].startswith("text/html")


@pytest.mark.parametrize("path", [*PAGES, "/robots.txt", "/favicon.ico"])
def test_head_has_the_headers_and_no_body(shared: World, path: str) -> None:
    got, head = shared.get(path), shared.request("HEAD", path)
    names = set(got.headers) - {"x-request-id"}
    assert {name: head.headers[name] for name in names} == {name: got.headers[name] for name in names}
    assert (head.status, head.body) == (got.status, b"")


def test_an_unavailable_server_says_so(world: World) -> None:
    world.swap(database=Failing(world.database, before={"ping": DatabaseUnavailable("The database is away.")}))
    assert "unavailable" in world.get("/").body.decode()
    assert world.get("/", accept="application/json").json["health"] == "unavailable"


def test_a_page_names_no_cloud_and_no_key(shared: World) -> None:
    text = shared.get("/").body + shared.get("/guide").body + shared.get("/", accept="application/json").body
    for secret in (shared.browser.api_key, shared.browser.secrets[0], "demo", str(shared.path)):
        assert secret.encode() not in text


@pytest.mark.parametrize("host", ["<script>", "a b", '"onload=x', ""])
def test_a_host_that_is_none_is_refused(shared: World, host: str) -> None:
    for path in PAGES:
        assert shared.get(path, host=host).status == 400


def test_crawlers_leave_the_calls_alone(shared: World) -> None:
    assert shared.get("/robots.txt").body.decode().splitlines() == [
        "User-agent: *",
        "Disallow: /v1_1/",
        "Disallow: /tus/",
    ]
    assert shared.get("/favicon.ico").status == 204
