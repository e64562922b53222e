"""The frame of every page for people, and a refusal as such a page. A page loads nothing and runs no script."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template

from uponce.core.errors import UponceError
from uponce.web.request import Head, Header, Request
from uponce.web.response import NO_SNIFF, NO_STORE, Response, length_header


def template(name: str) -> Template:
    """Return a file of the pages with placeholders. Their values must be HTML."""
    return Template(page_file(name))


def page_file(name: str) -> str:
    """Return the text of a file of the pages."""
    return files("uponce.web.pages").joinpath(name).read_text("utf-8")


def style_hash(text: str) -> str:
    """Return the source for a Content-Security-Policy that allows this inline style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_FRAME, _STYLE = template("page.html"), page_file("tokens.css") + page_file("page.css")
_CSP = f"default-src 'none'; style-src '{style_hash(_STYLE)}'; base-uri 'none'; form-action 'none'"
_PAGE: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", f"{_CSP}; frame-ancestors 'none'".encode()),
    NO_SNIFF,
    (b"referrer-policy", b"no-referrer"),
    NO_STORE,
)


def html_page(
    title: str, content: str, *, status: int = 200, headers: Iterable[Header] = (), lingers: bool = False
) -> Response:
    """Return a page with this title and this content, which is HTML."""
    page = _FRAME.substitute(title=escape(title), style=_STYLE, content=content).encode()
    return Response(status, (*_PAGE, length_header(len(page)), *headers), page, lingers)


_HEADINGS = {404: "Not found", 405: "This address is for programs"}
_CONTENT = Template("""<p><a href="/">uponce</a></p>
<h1>$heading</h1>
<p>$message</p>
<dl>
<dt>Status</dt><dd>$status</dd>
<dt>Code</dt><dd><code>$code</code></dd>
<dt>Guide</dt><dd><a href="/guide">How to upload</a></dd>
</dl>""")


BY_ACCEPT: Header = (b"vary", b"accept")


def wants_json(head: Head) -> bool:
    """Return whether the client names JSON, and not HTML before it, as browsers do."""
    accept = head.get("accept").lower()
    return "application/json" in accept.partition("text/html")[0]


def wants_page(request: Request) -> bool:
    """Return whether this is a read that names HTML, and not JSON before it. Browsers do so when they open a URL."""
    before, html, _ = (request.raw_header(b"accept") or b"").lower().partition(b"text/html")
    return request.method in ("GET", "HEAD") and html != b"" and b"application/json" not in before


def refusal_page(error: UponceError, status: int, headers: Iterable[Header], *, lingers: bool) -> Response:
    """Return the page with this status and these headers."""
    heading = _HEADINGS.get(status, "The server refused this request")
    content = _CONTENT.substitute(
        heading=heading, message=escape(error.message), status=status, code=escape(error.code)
    )
    return html_page(f"{heading} – uponce", content, status=status, headers=headers, lingers=lingers)
