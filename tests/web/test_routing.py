"""Routes find their paths, and pages of other origins get from us what Starlette's CORS middleware would send."""

import asyncio
from collections.abc import Sequence
from contextlib import nullcontext
from itertools import product

import pytest
from starlette.middleware.cors import CORSMiddleware

from tests.asgi import scope_of
from tests.web.bare import request
from uponce.app.manage_keys import check_policy
from uponce.app.services import Services
from uponce.core.errors import InvalidParameter
from uponce.web import delivery
from uponce.web.app import _EXPOSED, Route, cross_origin_headers, preflight
from uponce.web.operators import Scrape
from uponce.web.pages.playground import Playground
from uponce.web.request import Header, Message, Receive, Scope, Send
from uponce.web.response import Response
from uponce.web.routes import create_app

APP = create_app(
    Services(*[None] * 7),  # type: ignore[arg-type]
    lambda _: nullcontext(),
    None,
    Scrape("token", bytes),
    None,
    Playground(True, 1, 3600),
)
ROWS = APP.routes
PATHS = [(path, row) for row in ROWS for path in row.paths]
ORIGINS: tuple[dict[str, str], ...] = ({}, {"origin": "https://app.example"})
ASKED: tuple[dict[str, str], ...] = (
    {},
    *({"access-control-request-method": method} for method in ("POST", "PATCH", "DELETE", "post")),
)
NAMES: tuple[dict[str, str], ...] = ({}, {"access-control-request-headers": "x-a, Idempotency-Key, é"})
PRIVATE: tuple[dict[str, str], ...] = ({}, {"access-control-request-private-network": "true"})
HEADERS: tuple[tuple[Header, ...], ...] = (
    ((b"content-length", b"0"),),
    ((b"access-control-allow-origin", b"*"), (b"content-length", b"0")),
)


@pytest.mark.parametrize(("path", "row"), PATHS, ids=[path for path, _ in PATHS])
def test_no_earlier_row_takes_the_path_of_a_later_one(path: str, row: Route) -> None:
    example = path.replace("{rest:path}", "upload/v1/a/b.png").replace("{", "").replace("}", "")
    match = APP.match(example)

    assert match.route is row
    assert match.template == path.replace(":path", "")


@pytest.mark.parametrize("path", [path for path, _ in PATHS if not path.endswith("}")])
def test_a_path_ends_at_its_end_and_not_before_a_line_break(path: str) -> None:
    """The rules of a front server compare the whole path, as for /metrics."""
    match = APP.match(path.replace("{", "").replace("}", "") + "\n")

    assert match.template != path


@pytest.mark.parametrize("name", sorted({path.split("/")[1] for path, _ in PATHS} - {"{cloud}", ""}))
def test_no_cloud_has_a_name_whose_files_another_row_would_take(name: str) -> None:
    try:
        check_policy(name, 1)
    except InvalidParameter:
        return
    for rest in ("image/upload/cat", "image/upload/v1/cat", "raw/private/s--12345678--/v1/a/b.txt"):
        match = APP.match(f"/{name}/{rest}")
        assert match.params["cloud"] == name
        assert match.route.paths is delivery.PATHS


def test_the_rest_of_a_path_may_have_slashes_and_a_part_may_not() -> None:
    deliver, upload = APP.match("/c/raw/upload/a/b"), APP.match("/v1_1/c/raw/upload")

    assert deliver.params == {"cloud": "c", "rest": "upload/a/b"}
    assert upload.params == {"cloud": "c", "resource_type": "raw"}
    assert APP.match("/tus/c/s/u/v").template == ""


def open_rows() -> list[Route]:
    return [row for row in ROWS if row.open]


@pytest.mark.parametrize("method", ["OPTIONS", "POST"])
def test_what_other_origins_get_is_what_starlettes_middleware_sends(method: str) -> None:
    """The same headers in the same order, and the same status and body of a preflight.

    Except that a question about private networks changes nothing: there Starlette refuses.
    """
    assert len(open_rows()) == 5
    cases = product(open_rows(), ORIGINS, ASKED, NAMES, PRIVATE, HEADERS)
    for row, origin, asked, names, private, sent in cases:
        given = {**origin, **asked, **names}
        ours, theirs = _ours(row, method, given | private, sent), _theirs(row, method, given, sent)

        assert ours == theirs, (row.paths, given)


def test_a_route_that_is_not_open_has_no_such_headers() -> None:
    closed = next(row for row in ROWS if "/healthz" in row.paths)
    asked = request(scope_of("OPTIONS", "/healthz", ORIGINS[1] | ASKED[1]), _nothing)

    assert preflight(closed, asked) is None
    assert cross_origin_headers(closed, asked, Response(200)) == ()


Wire = tuple[int, Sequence[Header], bytes]


def _ours(row: Route, method: str, given: dict[str, str], sent: tuple[Header, ...]) -> Wire:
    asked = request(scope_of(method, "/", given), _nothing)
    answer = preflight(row, asked)
    if answer is not None:
        assert isinstance(answer.body, bytes)
        return answer.status, answer.headers, answer.body
    response = Response(200, sent)
    return 200, (*sent, *cross_origin_headers(row, asked, response)), b""


def _theirs(row: Route, method: str, given: dict[str, str], sent: tuple[Header, ...]) -> Wire:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": list(sent)})
        await send({"type": "http.response.body", "body": b""})

    middleware = CORSMiddleware(
        app,
        allow_origins=["*"],
        allow_methods=[*row.methods, "OPTIONS"],
        allow_headers=["*"],
        expose_headers=[*_EXPOSED, *row.exposed],
        max_age=3600,
    )
    messages: list[Message] = []

    async def keep(message: Message) -> None:
        messages.append(message)

    asyncio.run(middleware(scope_of(method, "/", given), _nothing, keep))
    head, body = messages
    return head["status"], tuple(head["headers"]), body["body"]


async def _nothing() -> Message:
    return {"type": "http.request", "body": b"", "more_body": False}
