"""The playground: a page that shows that a signature works once. It exists only if the operator turns it on."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from functools import cache
from ipaddress import ip_address

from uponce.app.manage_keys import playground_key
from uponce.app.manage_signatures import revoke_signature, show_signature
from uponce.app.services import Services
from uponce.contrib import SignRules
from uponce.core.account import account_url
from uponce.core.errors import ScopeDenied, UponceError
from uponce.core.signature import collect
from uponce.core.values import ApiKey
from uponce.signing import Params
from uponce.web.cloudinary.forms import body_fields
from uponce.web.cloudinary.signatures import describe_state
from uponce.web.errors import refusal
from uponce.web.html import page_file, style_hash
from uponce.web.pages.assets import compressed
from uponce.web.request import Header, Request
from uponce.web.response import NO_SNIFF, Endpoint, Response, json_response, length_header
from uponce.web.whole_bodies import in_time

ASSETS = (
    "playground.js",
    "snippets.js",
    *(f"samples/{name}" for name in ("dusk.jpg", "morning.jpg", "moon.gif", "sunrise.mp4", "sunrise.jpg")),
)
SCRIPTS = tuple(f"playground/{name}" for name in ASSETS if name.endswith(".js"))
_MAX_BODY = 16 * 1024
_TYPE: Header = (b"content-type", b"text/html; charset=utf-8")
_LOOPBACK_HOST = re.compile(r"(?:localhost|127\.0\.0\.1|\[::1\])(?::[0-9]+)?", re.ASCII | re.IGNORECASE)
# Requests with these headers come through a server in front, which may have clients on other machines.
_PROXY_HEADERS = ("x-forwarded-for", "x-real-ip", "forwarded", "via")


@dataclass(frozen=True, slots=True)
class Playground:
    """Its limits: only this machine or all clients, the most bytes of a file, and the seconds that a file stays."""

    local: bool
    max_bytes: int
    keep_seconds: int


async def guard(playground: Playground, endpoint: Endpoint, request: Request) -> Response:
    """Run the endpoint for a client that may use the playground. Raise ScopeDenied for other clients."""
    if not admits(playground, request):
        raise ScopeDenied("This playground is only for browsers on the machine of the server.")
    return await endpoint(request)


def admits(playground: Playground, request: Request) -> bool:
    """Return whether this client may use the playground."""
    return not playground.local or _is_local(request)


def refuse(request: Request, error: UponceError) -> Response:
    """Return the refusal, with 403 for a client that may not use the playground."""
    return refusal(request, error, status=403 if isinstance(error, ScopeDenied) else None)


def _is_local(request: Request) -> bool:
    """Return whether client and called name are this machine. Another name that leads here is an attack."""
    head = request.head
    direct = not any(head.get(header) for header in _PROXY_HEADERS)
    return direct and _is_loopback(request.address) and bool(_LOOPBACK_HOST.fullmatch(head.get("host")))


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


@cache
def _html() -> tuple[bytes, str]:
    """Return the page and the hash of its style. The style is inline, so the first paint waits for one answer only."""
    style = page_file("tokens.css") + page_file("playground.css")
    html = page_file("playground.html").replace("<style></style>", f"<style>{style}</style>")
    return html.encode(), style_hash(style)


async def page(request: Request) -> Response:
    """Return the page. It runs only scripts of this server, and shows only media of this server."""
    html, style = _html()
    called = request.called_url()
    scripts = " ".join(f"{called}/{name}" for name in (*SCRIPTS, "widget.js"))
    if by_nonce := "[" in called:  # a policy cannot name an address of IPv6
        scripts = f"'nonce-{secrets.token_urlsafe(16)}'"
        html = html.replace(b"<script ", f"<script nonce={scripts[7:-1]} ".encode())
    policy = _policy(scripts, request.base_url(), style).encode()
    headers: tuple[Header, ...] = (
        (b"content-security-policy", policy),
        (b"cache-control", b"no-store" if by_nonce else b"no-cache"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
    )
    if by_nonce:  # `compressed` keeps what it has compressed
        return Response(200, (*headers, _TYPE, NO_SNIFF, length_header(len(html))), html)
    tag = hashlib.sha256(html + policy).hexdigest()[:32]
    return compressed(request, html, _TYPE[1], tag, headers)


def _policy(scripts: str, base: str, style: str) -> str:
    """Return the Content-Security-Policy. Uploads go to the public URL, which can differ from the page's URL."""
    there = "" if "[" in base else f" {base}"
    return (
        f"default-src 'none'; script-src {scripts}; style-src '{style}'; img-src 'self' blob:{there}; "
        f"media-src 'self' blob:{there}; connect-src 'self'{there}; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


async def sign(services: Services, playground: Playground, request: Request) -> Response:
    """Return signed fields, as a backend does. The page may choose a nonce and the lifetime of the signature."""
    _check_origin(request)
    content_type, body = request.head.get("content-type"), await in_time(request, request.body.read(_MAX_BODY))
    key, now = await playground_key(services), services.clock.now()
    url = account_url(key.api_key, key.secrets[0], key.cloud, upload_prefix=request.base_url())
    rules = SignRules(url, "auto", {"valid_for": ["*"]}, Params(max_bytes=playground.max_bytes, timestamp=int(now)))
    status, answer = rules.reply(True, content_type, body)
    if status != 200:
        return json_response(dict(answer), status=status)
    lifetime = min(key.window, int(answer["fields"].get("valid_for", key.window)))
    times = {"now": now, "expires_at": int(now) + lifetime, "keep_seconds": playground.keep_seconds}
    return json_response({**answer, **times})


async def status(services: Services, _: Playground, request: Request) -> Response:
    """Return the state of a signature of the playground's own key."""
    _check_origin(request)
    fields = collect(await body_fields(request, services.limits))
    return await _shown(services, await playground_key(services), fields)


async def revoke(services: Services, _: Playground, request: Request) -> Response:
    """Revoke a signature of the playground's own key, and return its state."""
    _check_origin(request)
    fields, key = collect(await body_fields(request, services.limits)), await playground_key(services)
    await revoke_signature(services, key, fields, request.caller)
    return await _shown(services, key, fields)


ACTIONS = {"sign": sign, "status": status, "revoke": revoke}


async def _shown(services: Services, key: ApiKey, fields: dict[str, str]) -> Response:
    return json_response(describe_state(await show_signature(services, key, fields)))


def _check_origin(request: Request) -> None:
    """Raise ScopeDenied for other sites, and for programs: a browser sends the origin of the page with every POST."""
    head, base = request.head, request.base_url()
    origin = (head.origin or "").partition("://")[2]
    if not origin or origin not in (head.get("host"), base.split("/")[2]):
        raise ScopeDenied("Only the page of the playground can ask here. Make your own signatures with your own key.")
