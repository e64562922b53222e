"""The pages for people: what this server is, and how to upload to it. They load nothing and run no script."""

import base64
import hashlib
from dataclasses import dataclass
from html import escape
from string import Template

from uponce import __version__
from uponce.app.check import check_ready
from uponce.app.services import Services
from uponce.core.errors import UponceError
from uponce.web.body import Receive, Scope, Send
from uponce.web.request import Head, base_url, read_head
from uponce.web.respond import Header, send_error, send_json

METHODS = ("GET", "HEAD")
UPLOAD_PATH = "/v1_1/<cloud>/auto/upload"

_STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8881; --good: #18794e; --bad: #b42318; --link: #0b5cad }
@media (prefers-color-scheme: dark) { :root { --good: #4cc38a; --bad: #ff8b80; --link: #7cb8ff } }
body { margin: 0; font: 1rem/1.6 system-ui, sans-serif }
main { max-width: 44rem; margin: 0 auto; padding: 3rem 1.25rem }
h1 { margin: 0; font-size: 2rem; line-height: 1.2 }
h2 { margin: 2rem 0 .5rem; font-size: 1.15rem }
a { color: var(--link) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .75rem 1.5rem; margin: 2rem 0 0;
     padding: 1.5rem 0 0; border-top: 1px solid var(--line) }
dt { opacity: .7 }
dd { margin: 0; min-width: 0 }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere }
pre { margin: 0; padding: 1rem; overflow-x: auto; background: var(--soft); border: 1px solid var(--line);
      border-radius: .5rem }
pre code { overflow-wrap: normal }
.good { color: var(--good) }
.bad { color: var(--bad) }
@media (max-width: 32rem) { main { padding: 1.5rem 1rem } dl { grid-template-columns: 1fr; gap: .1rem }
  dd { margin-bottom: 1rem } }
"""

_FRAME = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<main>
$content
</main>
</body>
</html>
""")

_HOME = Template("""<h1>uponce</h1>
<p>A media upload server whose upload signatures work once.</p>
<dl>
<dt>Version</dt><dd>$version</dd>
<dt>Health</dt><dd class="$mood">$health</dd>
<dt>Upload to</dt><dd><code>$upload_url</code></dd>
<dt>Resume with tus</dt><dd><code>$tus_url</code></dd>
<dt>Guide</dt><dd><a href="/guide">How to upload</a></dd>
</dl>""")

_GUIDE = Template("""<p><a href="/">uponce</a></p>
<h1>How to upload</h1>
<p>Your back end signs the parameters of an upload. The browser then sends the file here. A signature works once and
expires after an hour, unless the settings of its API key say otherwise.</p>
<h2>1. Sign on your back end</h2>
<p>Use any Cloudinary SDK. Sign a different <code>nonce</code> for each file: equal parameters signed within one second
give the same signature.</p>
<pre tabindex="0"><code>import time, uuid
from cloudinary.utils import api_sign_request

fields = {"timestamp": int(time.time()), "nonce": uuid.uuid4().hex}
fields["signature"] = api_sign_request(fields, API_SECRET)
fields["api_key"] = API_KEY</code></pre>
<h2>2. Send the fields, then the file</h2>
<pre tabindex="0"><code>const url = "$upload_url";
const form = new FormData();
for (const [name, value] of Object.entries(fields)) form.append(name, value);
form.append("file", input.files[0]);
const response = await fetch(url, { method: "POST", body: form });
const answer = await response.json();</code></pre>
<h2>3. Read the answer</h2>
<p><code>answer.secure_url</code> is the address of the stored file. A refusal has <code>answer.error.code</code> and
<code>answer.error.message</code>, which says what to do next. A refused or broken upload leaves the signature
unused, so you can send the same fields again. The code <code>signature_used</code> is final: sign again.</p>""")


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_CSP = f"default-src 'none'; style-src 'sha256-{_hash(_STYLE)}'; base-uri 'none'; form-action 'none'"
_PAGE: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", f"{_CSP}; frame-ancestors 'none'".encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"vary", b"accept"),
)


class HomeEndpoint:
    """`/`: name, version, health, where to upload and where the guide is. As JSON for clients that ask for JSON."""

    def __init__(self, services: Services, public_url: str | None) -> None:
        self._services = services
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            head = read_head(scope)
            base = base_url(scope, head, self._public_url)
        except UponceError as error:
            await send_error(scope, receive, send, error, body_complete=False)
            return
        checks = await check_ready(self._services)
        healthy = all(problem is None for problem in checks.values())
        upload_url = base + UPLOAD_PATH
        if _wants_json(head):
            body = {
                "name": "uponce",
                "version": __version__,
                "health": "ok" if healthy else "unavailable",
                "upload_url": upload_url,
                "guide_url": f"{base}/guide",
            }
            await send_json(scope, send, 200, body, ((b"vary", b"accept"),))
            return
        content = _HOME.substitute(
            version=escape(__version__),
            mood="good" if healthy else "bad",
            health="ready" if healthy else "unavailable: see /readyz",
            upload_url=escape(upload_url),
            tus_url=escape(f"{base}/tus/<cloud>/"),
        )
        await _send_page(scope, send, "uponce", content)


class GuideEndpoint:
    """`/guide`: the first upload, in three steps."""

    def __init__(self, public_url: str | None) -> None:
        self._public_url = public_url

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            base = base_url(scope, read_head(scope), self._public_url)
        except UponceError as error:
            await send_error(scope, receive, send, error, body_complete=False)
            return
        await _send_page(
            scope, send, "How to upload – uponce", _GUIDE.substitute(upload_url=escape(base + UPLOAD_PATH))
        )


@dataclass(frozen=True, slots=True)
class FixedEndpoint:
    """One small answer that never changes."""

    status: int
    content_type: str
    body: bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [
            (b"content-type", self.content_type.encode()),
            (b"content-length", str(len(self.body)).encode()),
            (b"cache-control", b"public, max-age=86400"),
            (b"x-content-type-options", b"nosniff"),
        ]
        await _send(scope, send, self.status, headers if self.body else headers[2:], self.body)


# Crawlers may index what is delivered. The calls are not for crawlers.
ROBOTS = FixedEndpoint(200, "text/plain; charset=utf-8", b"User-agent: *\nDisallow: /v1_1/\nDisallow: /tus/\n")
# Browsers ask for an icon beside every picture that they show. Without content they do not ask again for a day.
FAVICON = FixedEndpoint(204, "", b"")


def _wants_json(head: Head) -> bool:
    """Whether the client names JSON, and not HTML before it, as browsers do."""
    accept = head.get("accept").lower()
    return "application/json" in accept.partition("text/html")[0]


async def _send_page(scope: Scope, send: Send, title: str, content: str) -> None:
    page = _FRAME.substitute(title=escape(title), style=_STYLE, content=content).encode()
    await _send(scope, send, 200, [*_PAGE, (b"content-length", str(len(page)).encode())], page)


async def _send(scope: Scope, send: Send, status: int, headers: list[Header], body: bytes) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
