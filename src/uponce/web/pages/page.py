"""The frame of every page for people. A page loads nothing and runs no script."""

import base64
import hashlib
from html import escape
from string import Template

from uponce.web.request import Header
from uponce.web.response import NO_SNIFF, NO_STORE, Response, length_header

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


def style_hash(text: str) -> str:
    """Return what a Content-Security-Policy needs to allow this inline style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_CSP = f"default-src 'none'; style-src '{style_hash(_STYLE)}'; base-uri 'none'; form-action 'none'"
_PAGE: tuple[Header, ...] = (
    (b"content-type", b"text/html; charset=utf-8"),
    (b"content-security-policy", f"{_CSP}; frame-ancestors 'none'".encode()),
    NO_SNIFF,
    (b"referrer-policy", b"no-referrer"),
    NO_STORE,
    (b"vary", b"accept"),
)


def html_page(title: str, content: str) -> Response:
    """Return a page with this title and this content, which is HTML."""
    page = _FRAME.substitute(title=escape(title), style=_STYLE, content=content).encode()
    return Response(200, (*_PAGE, length_header(len(page))), page)
