"""A refusal as a page, for a person who opens an address in a browser. Programs get the same refusal as JSON."""

from collections.abc import Iterable
from html import escape
from string import Template

from uponce.core.errors import UponceError
from uponce.web.html import html_page
from uponce.web.request import Header, Request
from uponce.web.response import Response

_HEADINGS = {404: "Not found", 405: "This address is for programs"}
_CONTENT = Template("""<p><a href="/">uponce</a></p>
<h1>$heading</h1>
<p>$message</p>
<dl>
<dt>Status</dt><dd>$status</dd>
<dt>Code</dt><dd><code>$code</code></dd>
<dt>Guide</dt><dd><a href="/guide">How to upload</a></dd>
</dl>""")


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
