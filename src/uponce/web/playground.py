"""`/playground`: a page on which people see that a signature works once. It exists only if the operator turns it on."""

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from starlette.types import ASGIApp

from uponce.app.browse import show_signed
from uponce.app.manage_keys import playground_key
from uponce.app.revoke import revoke_signed
from uponce.app.services import Services
from uponce.contrib import SignRules
from uponce.core.canonical import collect
from uponce.core.errors import ScopeDenied, UponceError
from uponce.signing import Params
from uponce.web.body import Body, Receive, Scope, Send
from uponce.web.pages.assets import AssetEndpoint
from uponce.web.request import Head, base_url, read_head
from uponce.web.respond import Header, send_error, send_json
from uponce.web.signatures import describe_sighting
from uponce.web.small import body_fields

ROOT = "/playground"
ACTIONS = ("sign", "status", "revoke")
ASSETS = (
    "tokens.css",
    "playground.css",
    "playground.js",
    "snippets.js",
    *(f"samples/{name}" for name in ("dusk.jpg", "morning.jpg", "moon.gif", "sunrise.mp4", "sunrise.jpg")),
)
SCRIPTS = tuple(f"playground/{name}" for name in ASSETS if name.endswith(".js"))
_MAX_BODY = 16 * 1024
_LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")
# A server in front hides how far away its clients are.
_OF_PROXIES = ("x-forwarded-for", "x-real-ip", "forwarded", "via")


@dataclass(frozen=True, slots=True)
class Playground:
    """For whom the playground is, and the most bytes of a file that it signs for."""

    local: bool
    max_bytes: int


class Guarded:
    """Refuses clients that the playground is not for."""

    def __init__(self, endpoint: ASGIApp, playground: Playground) -> None:
        self._endpoint = endpoint
        self._local = playground.local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if self._local and not _is_local(scope, read_head(scope)):
                raise ScopeDenied("This playground is only for browsers on the machine of the server.")
        except UponceError as error:
            await send_error(scope, receive, send, error, body_complete=False, status=403)
            return
        await self._endpoint(scope, receive, send)


def _is_local(scope: Scope, head: Head) -> bool:
    """Whether client and called name are this machine: a name of another site that leads here is a trick."""
    name = urlsplit(f"//{head.get('host')}").hostname or ""
    direct = not any(head.get(header) for header in _OF_PROXIES)
    return direct and _is_loopback(scope["client"][0] if scope.get("client") else "") and name in _LOOPBACK_NAMES


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


class PageEndpoint:
    """The page itself. It runs the scripts of this server and no others, and shows media of this server."""

    def __init__(self, public_url: str | None) -> None:
        self._public_url = public_url
        self._page = files("uponce.web.pages").joinpath("playground.html").read_bytes()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        head = read_head(scope)
        policy = _policy(base_url(scope, head, None), base_url(scope, head, self._public_url))
        etag = f'"{hashlib.sha256(self._page + policy.encode()).hexdigest()[:32]}"'
        headers: list[Header] = [
            (b"content-security-policy", policy.encode()),
            (b"etag", etag.encode()),
            (b"cache-control", b"no-cache"),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"no-referrer"),
            (b"cross-origin-opener-policy", b"same-origin"),
        ]
        if etag in head.get("if-none-match"):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b""})
            return
        headers.append((b"content-type", b"text/html; charset=utf-8"))
        headers.append((b"content-length", str(len(self._page)).encode()))
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else self._page})


def _policy(page: str, base: str) -> str:
    """The Content-Security-Policy. Uploads go to the public URL, which can differ from that of the page."""
    scripts = " ".join(f"{page}/{name}" for name in (*SCRIPTS, "widget.js"))
    origin = "/".join(base.split("/", 3)[:3])
    return (
        f"default-src 'none'; script-src {scripts}; style-src 'self'; img-src 'self' blob: {origin}; "
        f"media-src 'self' blob: {origin}; connect-src 'self' {origin}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


class ActionEndpoint:
    """Signs, shows and revokes signatures of the playground's own key, for its own page only."""

    def __init__(self, services: Services, public_url: str | None, playground: Playground) -> None:
        self._services = services
        self._public_url = public_url
        self._max_bytes = playground.max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = Body(receive, self._services.limits.idle_seconds)
        try:
            head = read_head(scope)
            base = base_url(scope, head, self._public_url)
            _check_origin(head, base)
            if scope["path"].endswith("/sign"):
                status, answer = await self._sign(base, head, await body.read(_MAX_BODY))
            else:
                fields = collect(await body_fields(head, body, self._services.limits))
                status, answer = 200, await self._look(fields, head, revoke=scope["path"].endswith("/revoke"))
        except UponceError as error:
            refused = 403 if isinstance(error, ScopeDenied) else None
            await send_error(scope, receive, send, error, body_complete=body.complete, status=refused)
            return
        await send_json(scope, send, status, answer)

    async def _sign(self, base: str, head: Head, body: bytes) -> tuple[int, dict[str, Any]]:
        """As a back end does it: the page may choose a nonce and how long the signature lives."""
        key, now = await playground_key(self._services), self._services.clock.now()
        url = f"cloudinary://{key.api_key}:{quote(key.secrets[0], safe='')}@{key.cloud}?upload_prefix={base}"
        fixed = Params(max_bytes=self._max_bytes, timestamp=int(now))
        rules = SignRules(url, "auto", {"valid_for": ["*"]}, fixed)
        status, answer = rules.reply(True, head.get("content-type"), body)
        if status != 200:
            return status, dict(answer)
        lifetime = min(key.window, int(answer["fields"].get("valid_for", key.window)))
        return 200, {**answer, "now": now, "expires_at": int(now) + lifetime}

    async def _look(self, fields: dict[str, str], head: Head, *, revoke: bool) -> dict[str, Any]:
        key = await playground_key(self._services)
        if revoke:
            await revoke_signed(self._services, key, fields, head.caller)
        return describe_sighting(await show_signed(self._services, key, fields))


def _check_origin(head: Head, base: str) -> None:
    """Refuse other sites, and programs that are no browser: a browser sends the origin of the page with every POST."""
    origin = urlsplit(head.origin or "").netloc
    if not origin or origin not in (head.get("host"), urlsplit(base).netloc):
        raise ScopeDenied("Only the page of the playground can ask here. Make your own signatures with your own key.")


def endpoints(services: Services, public_url: str | None, playground: Playground) -> dict[str, ASGIApp]:
    """Return every address of the playground with its endpoint. Those of ACTIONS take POST, all others GET."""
    action = ActionEndpoint(services, public_url, playground)
    found: dict[str, ASGIApp] = {ROOT: PageEndpoint(public_url)}
    found |= {f"{ROOT}/{name}": AssetEndpoint(name) for name in ASSETS}
    found |= {f"{ROOT}/{name}": action for name in ACTIONS}
    return {path: Guarded(endpoint, playground) for path, endpoint in found.items()}
