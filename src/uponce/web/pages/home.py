"""The pages for people: what this server is, and how to upload to it. Also the answers for crawlers and browsers."""

from html import escape

from uponce import __version__
from uponce.app.check import check_ready
from uponce.app.services import Services
from uponce.web.html import BY_ACCEPT, html_page, template, wants_json
from uponce.web.pages.playground import Playground, admits
from uponce.web.request import Header, Request
from uponce.web.response import NO_SNIFF, PLAIN_TEXT, Response, json_response, length_header

UPLOAD_PATH = "/v1_1/<cloud>/auto/upload"

_HOME = template("home.html")
_GUIDE = template("guide.html")
_PLAYGROUND = '<dt>Playground</dt><dd><a href="/playground">See a signature work once</a></dd>\n'

_ONE_DAY: Header = (b"cache-control", b"public, max-age=86400")


async def home(playground: Playground | None, services: Services, request: Request) -> Response:
    """Return name, version, health and addresses, as JSON if asked. Clients of the playground get a link to it."""
    head, base = request.head, request.base_url()
    checks = await check_ready(services)
    healthy = all(problem is None for problem in checks.values())
    upload_url = base + UPLOAD_PATH
    if wants_json(head):
        body = {
            "name": "uponce",
            "version": __version__,
            "health": "ok" if healthy else "unavailable",
            "upload_url": upload_url,
            "guide_url": f"{base}/guide",
        }
        return json_response(body, headers=(BY_ACCEPT,))
    content = _HOME.substitute(
        version=escape(__version__),
        mood="good" if healthy else "bad",
        health="ready" if healthy else "unavailable: see /readyz",
        upload_url=escape(upload_url),
        tus_url=escape(f"{base}/tus/<cloud>/"),
        more=_PLAYGROUND if playground and admits(playground, request) else "",
    )
    return html_page("uponce", content, headers=(BY_ACCEPT,))


async def guide(request: Request) -> Response:
    """Return the page that shows the first upload in three steps."""
    return html_page("How to upload – uponce", _GUIDE.substitute(upload_url=escape(request.base_url() + UPLOAD_PATH)))


async def robots(_: Request) -> Response:
    """Return the rules for crawlers: delivered files may be indexed, calls may not."""
    text = b"User-agent: *\nDisallow: /v1_1/\nDisallow: /tus/\n"
    return Response(200, (PLAIN_TEXT, length_header(len(text)), _ONE_DAY, NO_SNIFF), text)


async def favicon(_: Request) -> Response:
    """Return no content for a day, since browsers ask for an icon with every picture."""
    return Response(204, (_ONE_DAY, NO_SNIFF))
