"""The pages for people: what this server is, and how to upload to it. Also the answers for crawlers and browsers."""

from html import escape
from string import Template

from uponce import __version__
from uponce.app.check import check_ready
from uponce.app.services import Services
from uponce.web.html import html_page
from uponce.web.pages.playground import Playground, admits
from uponce.web.request import Head, Header, Request
from uponce.web.response import NO_SNIFF, Response, json_response, length_header

UPLOAD_PATH = "/v1_1/<cloud>/auto/upload"

_HOME = Template("""<h1>uponce</h1>
<p>A media upload server whose upload signatures work once.</p>
<dl>
<dt>Version</dt><dd>$version</dd>
<dt>Health</dt><dd class="$mood">$health</dd>
<dt>Upload to</dt><dd><code>$upload_url</code></dd>
<dt>Resume with tus</dt><dd><code>$tus_url</code></dd>
<dt>Guide</dt><dd><a href="/guide">How to upload</a></dd>
$more</dl>""")

_PLAYGROUND = """<dt>Playground</dt><dd><a href="/playground">See a signature work once</a></dd>
"""

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

_ONE_DAY: Header = (b"cache-control", b"public, max-age=86400")
_BY_ACCEPT: Header = (b"vary", b"accept")


async def home(playground: Playground | None, services: Services, request: Request) -> Response:
    """Return name, version, health, where to upload and where the guide is. JSON for clients that ask for JSON.

    Clients that may open the playground also get a link to it.
    """
    head, base = request.head, request.base_url()
    checks = await check_ready(services)
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
        return json_response(body, headers=(_BY_ACCEPT,))
    content = _HOME.substitute(
        version=escape(__version__),
        mood="good" if healthy else "bad",
        health="ready" if healthy else "unavailable: see /readyz",
        upload_url=escape(upload_url),
        tus_url=escape(f"{base}/tus/<cloud>/"),
        more=_PLAYGROUND if playground and admits(playground, request) else "",
    )
    return html_page("uponce", content, headers=(_BY_ACCEPT,))


async def guide(request: Request) -> Response:
    """Return the page that shows the first upload in three steps."""
    return html_page("How to upload – uponce", _GUIDE.substitute(upload_url=escape(request.base_url() + UPLOAD_PATH)))


async def robots(_: Request) -> Response:
    """Return the rules for crawlers: delivered files may be indexed, calls may not."""
    text = b"User-agent: *\nDisallow: /v1_1/\nDisallow: /tus/\n"
    plain = (b"content-type", b"text/plain; charset=utf-8")
    return Response(200, (plain, length_header(len(text)), _ONE_DAY, NO_SNIFF), text)


async def favicon(_: Request) -> Response:
    """Return no content. Browsers ask for an icon beside every picture, and then not again for a day."""
    return Response(204, (_ONE_DAY, NO_SNIFF))


def _wants_json(head: Head) -> bool:
    """Return whether the client names JSON without HTML before it, which browsers name."""
    accept = head.get("accept").lower()
    return "application/json" in accept.partition("text/html")[0]
