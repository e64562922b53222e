"""The playground over HTTP: off by default, for this machine only, for its own page only, and with its own key."""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.asgi import Answer, call
from tests.world import World, _no_lifespan
from uponce.adapters.notifier import Notifier
from uponce.app.manage_keys import playground_key, set_up
from uponce.web import whole_bodies
from uponce.web.cloudinary.notifications import Notifications
from uponce.web.pages.playground import ACTIONS, ASSETS, Playground
from uponce.web.routes import create_app

PAGES = Path(__file__).parents[2] / "src/uponce/web/pages"
HOST = "localhost:8000"
JSON = {"content-type": "application/json", "origin": f"http://{HOST}", "host": HOST}
MAX_BYTES = 5000
KEEP_SECONDS = 3600


class From:
    """The application, as a client with this address reaches it over plain HTTP."""

    def __init__(self, app: ASGIApp, address: str) -> None:
        self.app, self.address = app, address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app({**scope, "client": (self.address, 1), "scheme": "http"}, receive, send)


def serve(world: World, *, local: bool = True, address: str = "127.0.0.1", public_url: str | None = None) -> World:
    playground = Playground(local, MAX_BYTES, KEEP_SECONDS)
    app = create_app(world.services, _no_lifespan, public_url, None, None, playground)
    world.app = From(app, address)  # type: ignore[assignment]
    return world


def ask(world: World, action: str, body: Any, **headers: str) -> Answer:
    given = JSON | {name.replace("_", "-"): value for name, value in headers.items()}
    data = json.dumps(body).encode()
    sent = {name: value for name, value in given.items() if value}
    return world.request("POST", f"/playground/{action}", headers=sent, chunks=[data])


def sign(world: World, **params: str) -> dict[str, Any]:
    answer = ask(world, "sign", {"params": params})
    assert answer.status == 200, answer.body
    return dict(answer.json)


# --- the clients that may open it


@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in (*ASSETS, *ACTIONS))])
def test_it_does_not_exist_unless_it_is_turned_on(world: World, path: str) -> None:
    for method in ("GET", "POST"):
        assert world.request(method, f"/playground{path}", headers=JSON).status == 404


@pytest.mark.parametrize("address", ["192.0.2.7", "10.0.0.1", "::ffff:192.0.2.7", "fe80::1"])
@pytest.mark.parametrize("path", ["", *(f"/{name}" for name in ASSETS)])
def test_another_machine_is_refused(world: World, address: str, path: str) -> None:
    answer = serve(world, address=address).get(f"/playground{path}", host=HOST)
    assert (answer.status, answer.code) == (403, "scope_denied")


@pytest.mark.parametrize("action", ACTIONS)
def test_another_machine_can_ask_for_nothing(world: World, action: str) -> None:
    with serve(world, address="192.0.2.7").untouched():
        assert ask(world, action, {"params": {}}).status == 403


@pytest.mark.parametrize("host", ["media.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil"])
def test_a_foreign_name_that_leads_here_is_refused(world: World, host: str) -> None:
    """DNS rebinding: the page of another site calls this machine by its own name."""
    serve(world)
    assert world.get("/playground", host=host).status == 403
    assert ask(world, "sign", {"params": {}}, host=host, origin=f"http://{host}").status == 403


@pytest.mark.parametrize("name", ["[", "[::1", "localhost]", "[localhost]", "[::::]", "localhost:x", ""])
def test_a_host_and_an_origin_that_are_none_are_refused(world: World, name: str) -> None:
    serve(world)
    assert world.get("/playground", host=name).status == 403
    assert ask(world, "sign", {"params": {}}, origin=f"http://{name}").status == 403
    serve(world, local=False)
    assert ask(world, "sign", {"params": {}}, host=name, origin="http://evil.example").status in (400, 403)


@pytest.mark.parametrize("header", ["x-forwarded-for", "x-real-ip", "forwarded", "via"])
def test_a_request_through_a_proxy_is_refused(world: World, header: str) -> None:
    """Every client of a proxy on this machine has the proxy's address."""
    answer = serve(world).request("GET", "/playground", headers={"host": HOST, header: "127.0.0.1"})
    assert answer.status == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1:8000", "[::1]:8000", "localhost"])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_let_in(world: World, host: str, address: str) -> None:
    assert serve(world, address=address).get("/playground", host=host).status == 200


def test_public_lets_every_client_in(world: World) -> None:
    serve(world, local=False, address="192.0.2.7")
    assert world.get("/playground", host="media.example").status == 200
    answer = ask(world, "sign", {"params": {}}, host="media.example", origin="http://media.example")
    assert answer.status == 200


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize(
    "origin", ["", "null", "http://evil.example", "http://localhost:9000", "http://localhost", "x"]
)
@pytest.mark.parametrize("action", ACTIONS)
def test_only_its_own_page_can_ask(world: World, local: bool, origin: str, action: str) -> None:
    """Another site, another port of this machine, and a program that is no browser."""
    with serve(world, local=local).untouched():
        answer = ask(world, action, {"params": {}}, origin=origin)
    assert (answer.status, answer.code) == (403, "scope_denied")
    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded"])
def test_a_form_cannot_ask_for_a_signature(world: World, content_type: str) -> None:
    answer = ask(serve(world), "sign", {"params": {}}, content_type=content_type)
    assert (answer.status, answer.json["error"]["code"]) == (400, "malformed_request")


@pytest.mark.parametrize("action", ACTIONS)
def test_a_body_that_does_not_end_is_refused_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    monkeypatch.setattr(whole_bodies, "_SECONDS", 0.01)
    serve(world)

    async def body() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    answer = asyncio.run(call(world.app, "POST", f"/playground/{action}", headers=JSON, chunks=body()))
    assert (answer.code, "longer than 0.01 seconds" in answer.message) == ("request_too_slow", True)


# --- what it signs


def test_its_signature_stores_once_in_its_own_cloud(world: World) -> None:
    signed = sign(serve(world), nonce="n1")
    assert signed["url"] == f"http://{HOST}/v1_1/playground/auto/upload"
    fields = signed["fields"]
    assert (fields["nonce"], fields["max_bytes"]) == ("n1", str(MAX_BYTES))
    assert (signed["expires_at"], signed["keep_seconds"]) == (int(fields["timestamp"]) + 600, KEEP_SECONDS)

    url = "/v1_1/playground/auto/upload"
    first = world.request("PUT", f"{url}?{_query(fields)}", headers={"host": HOST}, chunks=[b"once"])
    again = world.request("PUT", f"{url}?{_query(fields)}", headers={"host": HOST}, chunks=[b"twice"])
    assert (first.status, again.code) == (200, "signature_used")
    assert first.json["secure_url"].startswith(f"http://{HOST}/playground/raw/upload/")
    assert ask(world, "status", fields).json["status"] == "used"


def test_it_signs_nothing_that_its_page_does_not_need(world: World) -> None:
    serve(world)
    for name in ("public_id", "folder", "max_bytes", "max_uses", "timestamp", "overwrite", "type"):
        answer = ask(world, "sign", {"params": {name: "1"}})
        assert answer.status == 400
        assert f"arameter {name}" in answer.json["error"]["message"]
    assert sign(world, valid_for="3")["fields"]["valid_for"] == "3"
    assert ask(world, "sign", {"params": {"valid_for": "0"}}).status == 400


def test_a_larger_file_is_refused(world: World) -> None:
    fields = sign(serve(world))["fields"]
    sent = world.request("PUT", f"/v1_1/playground/raw/upload?{_query(fields)}", chunks=[bytes(MAX_BYTES + 1)])
    assert sent.code == "file_too_large"


def test_it_revokes_its_own_signature_and_no_other(world: World) -> None:
    fields = sign(serve(world))["fields"]
    assert ask(world, "revoke", fields).json["status"] == "revoked"
    sent = world.request("PUT", f"/v1_1/playground/raw/upload?{_query(fields)}", chunks=[b"x"])
    assert sent.code == "signature_revoked"

    foreign = world.sign()
    for action in ("revoke", "status"):
        with world.untouched():
            assert ask(world, action, foreign).status == 401
    assert world.upload(foreign).status == 200


def test_it_never_tells_its_secret_nor_those_of_the_owner(world: World) -> None:
    serve(world)
    signed = ask(world, "sign", {"params": {}})
    texts = signed.body + ask(world, "status", signed.json["fields"]).body + world.get("/playground", host=HOST).body
    keys = asyncio.run(world.database.list_keys())
    assert [key.cloud for key in keys].count("playground") == 1
    for key in keys:
        assert key.secrets[0].encode() not in texts
        assert key.cloud == "playground" or key.api_key.encode() not in texts


def test_its_uploads_notify_no_receiver_of_the_owner(world: World) -> None:
    """The receiver could check no signature: the secret of the playground's key stays on the server."""
    notifications = Notifications(Notifier(), "https://media.example", "https://app.example/uploaded")
    world.swap(after_commit=[notifications.effect_of])
    serve(world)
    sent = world.request("PUT", f"/v1_1/playground/raw/upload?{_query(sign(world)['fields'])}", chunks=[b"x"])
    assert sent.status == 200, sent.body
    assert world.sql("SELECT count(*) FROM outbox") == 0
    assert world.upload(world.sign()).status == 200
    assert world.sql("SELECT count(*) FROM outbox") == 1


def test_its_key_does_not_count_as_a_first_start(world: World) -> None:
    """Or a server whose playground was used first would never print keys for its owner."""
    asyncio.run(playground_key(world.services))
    world.sql("DELETE FROM api_keys WHERE cloud <> 'playground'")
    assert [key.name for key in asyncio.run(set_up(world.services, "media"))] == ["browser", "server"]
    assert asyncio.run(set_up(world.services, "media")) == ()


# --- the page


def test_the_page_runs_its_own_scripts_and_no_others(world: World) -> None:
    answer = serve(world).get("/playground", host=HOST)
    page, policy = answer.body.decode(), answer.headers["content-security-policy"]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    own = f"http://{HOST}"
    assert rules["default-src"] == "'none'"
    assert rules["script-src"].split() == [
        f"{own}/playground/playground.js",
        f"{own}/playground/snippets.js",
        f"{own}/widget.js",
    ]
    assert (rules["frame-ancestors"], rules["form-action"], rules["base-uri"]) == ("'none'",) * 3
    assert rules["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in policy
    assert not re.search(r"<script(?! type=\"module\" src=)|style=|\bon[a-z]+=|javascript:", page)
    linked = set(re.findall(r'(?:src|href)="([^"]*)"', page))
    assert linked <= {"/", "/guide", *(f"/playground/{name}" for name in ASSETS)}


def test_at_an_address_of_ipv6_the_page_runs_its_own_scripts_and_no_others(world: World) -> None:
    """A Content-Security-Policy cannot name such an address: browsers drop the source."""
    serve(world)
    answer, other = (world.get("/playground", host="[::1]:8000", accept_encoding="gzip") for _ in range(2))
    policy = answer.headers["content-security-policy"]
    (nonce,) = re.findall(r" script-src 'nonce-([\w-]{22})';", policy)
    assert answer.body.decode().count(f"<script nonce={nonce} type=") == answer.body.decode().count("<script") == 1
    assert "[" not in policy
    assert " connect-src 'self';" in policy
    assert answer.headers["cache-control"] == "no-store"
    assert "etag" not in answer.headers
    assert nonce not in other.headers["content-security-policy"]


def test_media_of_a_public_url_are_shown(world: World) -> None:
    answer = serve(world, local=False, public_url="https://media.example/").get("/playground", host=HOST)
    policy = answer.headers["content-security-policy"]
    assert "img-src 'self' blob: https://media.example;" in policy
    assert "connect-src 'self' https://media.example;" in policy
    assert f"script-src http://{HOST}/playground/playground.js " in policy


def test_a_browser_that_has_the_page_gets_304(world: World) -> None:
    serve(world)
    for path in ("/playground", *(f"/playground/{name}" for name in ASSETS)):
        etag = world.get(path, host=HOST).headers["etag"]
        again = world.get(path, host=HOST, if_none_match=etag)
        assert (again.status, again.body) == (304, b"")
        for other, status in (('"other"', 200), (f"x{etag}", 200), ("*", 304)):
            assert world.get(path, host=HOST, if_none_match=other).status == status


def test_every_file_has_its_type(world: World) -> None:
    serve(world)
    types = {"js": "text/javascript", "jpg": "image/jpeg", "gif": "image/gif", "mp4": "video/mp4"}
    for name in ASSETS:
        answer = world.get(f"/playground/{name}", host=HOST)
        assert answer.headers["content-type"].split(";")[0] == types[name.rpartition(".")[2]]
        assert answer.body == (PAGES / name).read_bytes()
    page, head = (world.request(method, "/playground", headers={"host": HOST}) for method in ("GET", "HEAD"))
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(len(page.body)))


def test_scripts_are_compressed_and_media_are_not_compressed_again(world: World) -> None:
    serve(world)
    for name in ASSETS:
        answer = world.get(f"/playground/{name}", host=HOST, accept_encoding="gzip")
        is_script = name.endswith(".js")
        assert answer.headers.get("content-encoding") == ("gzip" if is_script else None), name
        assert (answer.body == (PAGES / name).read_bytes()) is not is_script


def test_the_page_is_small(world: World) -> None:
    """All that it loads without media and without the widget, as a browser receives it."""
    serve(world)
    names = ["", *(f"/{name}" for name in ASSETS if not name.startswith("samples/"))]
    sizes = [len(world.get(f"/playground{name}", host=HOST, accept_encoding="gzip").body) for name in names]
    assert sum(sizes) < 25_000


def _query(fields: dict[str, str]) -> str:
    return "&".join(f"{name}={value}" for name, value in fields.items())
