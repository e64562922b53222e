"""The frame of every page for people. A page loads nothing and runs no script."""

import base64
import hashlib
from collections.abc import Iterable
from html import escape
from importlib.resources import files
from string import Template

from uponce.web.request import Header
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
