"""The endpoints of the guide, each in its framework: what they answer uploads to a real server, once."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cloudinary
import pytest
from django.core.exceptions import ValidationError
from starlette.applications import Starlette
from starlette.routing import Route

from tests.asgi import call
from tests.e2e.conftest import NODE
from tests.e2e.test_readme import block
from tests.server import Server, asked
from tests.stores.service import free_ports
from uponce.contrib import MAX_BODY

pytestmark = pytest.mark.xdist_group("node sdk")

GUIDE = "docs/guide/sign-endpoints.md"
Reply = tuple[int, dict[str, Any]]
Ask = Callable[[dict[str, str], str], Reply]


@pytest.fixture(autouse=True)
def account(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDINARY_URL", server.urls[0])


def code_of(containing: str) -> dict[str, Any]:
    """Run a block of the guide; the names that it defines."""
    names: dict[str, Any] = {"__name__": "guide"}
    exec(block(GUIDE, "python", containing), names)
    return names


def by_asgi(app: Any, user: str, params: dict[str, str]) -> Reply:
    headers = {"content-type": "application/json"} | ({"x-user": user} if user else {})
    answer = asyncio.run(call(app, "POST", "/sign", headers=headers, chunks=[json.dumps({"params": params}).encode()]))
    return answer.status, answer.json


def fastapi() -> Ask:
    app = code_of("fastapi")["app"]
    return lambda params, user: by_asgi(app, user, params)


def starlette() -> Ask:
    sign = code_of("fastapi")["sign"]
    app = Starlette(routes=[Route("/sign", sign, methods=["POST"])])
    return lambda params, user: by_asgi(app, user, params)


def flask() -> Ask:
    client = code_of("flask")["app"].test_client()

    def ask(params: dict[str, str], user: str) -> Reply:
        answer = client.post("/sign", json={"params": params}, headers={"X-User": user} if user else {})
        assert answer.headers["Cache-Control"] == "no-store"
        return answer.status_code, answer.json

    return ask


def logged_in(get_response: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware in place of a project's login."""

    def respond(request: Any) -> Any:
        user = request.headers.get("X-User", "")
        request.user = SimpleNamespace(pk=user, is_authenticated=bool(user))
        return get_response(request)

    return respond


def django() -> Ask:
    """With the middleware that refuses forms without a token, as projects have it."""
    from django.conf import settings
    from django.test import Client

    middleware = ["django.middleware.csrf.CsrfViewMiddleware", f"{__name__}.logged_in"]
    if not settings.configured:
        settings.configure(ROOT_URLCONF="guide_urls", MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"])
    sys.modules["guide_urls"] = SimpleNamespace(**code_of("django"))  # type: ignore[assignment]
    client = Client(enforce_csrf_checks=True)
    assert client.get("/sign").status_code == 405

    def ask(params: dict[str, str], user: str) -> Reply:
        headers = {"X-User": user} if user else {}
        answer = client.post("/sign", {"params": params}, content_type="application/json", headers=headers)
        assert answer["Cache-Control"] == "no-store"
        return answer.status_code, answer.json()

    return ask


@pytest.mark.parametrize("framework", [fastapi, starlette, flask, django])
def test_what_the_endpoint_answers_uploads_once(server: Server, media: Path, framework: Callable[[], Ask]) -> None:
    ask = framework()
    status, signed = ask({"nonce": f"{framework.__name__}-nonce"}, "7")
    assert (status, signed["url"]) == (200, server.upload_url()), signed
    assert signed["fields"]["nonce"] == f"{framework.__name__}-nonce"

    stored = server.post(signed["fields"], (media / "cat.jpg").read_bytes(), filename="cat.jpg")
    assert (stored.status, stored.json()["folder"]) == (200, "users/7"), stored.data
    again = server.post(signed["fields"], (media / "dance.gif").read_bytes(), filename="dance.gif")
    assert again.json()["error"]["code"] == "signature_used"


def test_the_form_field_of_cloudinarys_sdk_verifies_what_the_endpoint_signed(server: Server, media: Path) -> None:
    """With the SDK's defaults. The value is what the widget sends with `value-as="signed"`."""
    _, signed = django()({}, "7")
    answer = server.post(signed["fields"], (media / "cat.jpg").read_bytes(), filename="cat.jpg").json()
    value = "{resource_type}/{type}/v{version}/{public_id}.{format}#{signature}".format(**answer)

    from cloudinary.forms import CloudinaryJsFileField

    cloudinary.reset_config()  # reads CLOUDINARY_URL again
    try:
        assert CloudinaryJsFileField().clean(value).public_id == answer["public_id"]
        with pytest.raises(ValidationError, match="Signature mismatch"):
            CloudinaryJsFileField().clean(value.replace(answer["public_id"], "another"))
    finally:
        cloudinary.reset_config()


@pytest.mark.parametrize("framework", [fastapi, starlette, flask, django])
def test_strangers_and_other_parameters_are_refused(framework: Callable[[], Ask]) -> None:
    ask = framework()
    status, answer = ask({}, "")
    assert (status, answer["error"]["code"]) == (403, "scope_denied")
    status, answer = ask({"folder": "users/8"}, "7")
    assert (status, answer["error"]["message"]) == (400, "This site sets parameter folder. Ask without it.")


@pytest.mark.parametrize("framework", [starlette, flask, django])
def test_a_body_without_an_end_is_refused(framework: Callable[[], Ask]) -> None:
    status, answer = framework()({"nonce": "n" * 100_000}, "7")
    assert (status, answer["error"]["code"]) == (400, "malformed_request")


def reads_json_in_starlette(body: bytes, content_type: str) -> Reply:
    from uponce.contrib.starlette import sign_endpoint

    async def authorise(request: Any) -> dict[str, str]:
        return {"folder": (await request.json())["album"]}

    app = Starlette(routes=[Route("/sign", sign_endpoint(authorise), methods=["POST"])])
    answer = asyncio.run(call(app, "POST", "/sign", headers={"content-type": content_type}, chunks=[body]))
    return answer.status, answer.json


def reads_json_in_flask(body: bytes, content_type: str) -> Reply:
    from flask import Flask

    from uponce.contrib.flask import sign_endpoint

    app = Flask("reads")
    app.post("/sign")(sign_endpoint(lambda request: {"folder": request.get_json(force=True)["album"]}))
    answer = app.test_client().post("/sign", data=body, content_type=content_type)
    return answer.status_code, answer.get_json()


def reads_json_in_django(body: bytes, content_type: str) -> Reply:
    django()  # for its settings
    from django.test import RequestFactory

    from uponce.contrib.django import sign_endpoint

    view = sign_endpoint(lambda request: {"folder": json.loads(request.body)["album"]})
    answer: Any = view(RequestFactory().post("/sign", body, content_type=content_type))
    return answer.status_code, json.loads(answer.content)


ASKED = b'{"params": {"nonce": "n1"}, "album": "albums/3"}'


@pytest.mark.parametrize("ask", [reads_json_in_starlette, reads_json_in_flask, reads_json_in_django])
def test_authorise_may_read_what_the_page_sent(ask: Callable[[bytes, str], Reply]) -> None:
    status, answer = ask(ASKED, "application/json")
    assert status == 200, answer
    assert (answer["fields"]["folder"], answer["fields"]["nonce"]) == ("albums/3", "n1")


@pytest.mark.parametrize("ask", [reads_json_in_starlette, reads_json_in_flask, reads_json_in_django])
@pytest.mark.parametrize("size", [MAX_BODY + 1, 3_000_000])
def test_authorise_never_reads_a_body_that_is_too_long(ask: Callable[[bytes, str], Reply], size: int) -> None:
    """3 MB are more than Django itself holds."""
    status, answer = ask(ASKED + b" " * (size - len(ASKED)), "application/json")
    assert (status, answer["error"]["code"]) == (400, "malformed_request")
    assert "larger than" in answer["error"]["message"]


@pytest.mark.parametrize("ask", [reads_json_in_starlette, reads_json_in_flask, reads_json_in_django])
@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"album=3", "text/plain"),
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b"[]", "application/json"),
    ],
)
def test_authorise_never_reads_what_is_not_such_json(
    ask: Callable[[bytes, str], Reply], body: bytes, content_type: str
) -> None:
    """A form of another site would otherwise use up a quota of the user, and each `authorise` would need to catch."""
    status, answer = ask(body, content_type)
    assert (status, answer["error"]["code"]) == (400, "malformed_request")


def test_a_body_that_is_too_long_never_fills_the_memory_of_a_django_site() -> None:
    """Also where the site itself sets no limit."""
    django()  # for its settings
    from django.test import RequestFactory, override_settings

    from uponce.contrib.django import sign_endpoint

    class Line(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            assert size is not None
            assert 0 <= size <= MAX_BODY + 1
            return super().read(size)

    request = RequestFactory().post("/sign", ASKED, content_type="application/json")
    request.environ.update({"wsgi.input": Line(ASKED + bytes(3_000_000)), "CONTENT_LENGTH": "3000000"})
    with override_settings(DATA_UPLOAD_MAX_MEMORY_SIZE=None):
        answer: Any = sign_endpoint(lambda request: True)(type(request)(request.environ))
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (400, "malformed_request")


def test_a_body_that_a_middleware_of_django_has_read_counts() -> None:
    django()  # for its settings
    from django.test import RequestFactory

    from uponce.contrib.django import sign_endpoint

    request = RequestFactory().post("/sign", ASKED, content_type="application/json")
    assert json.loads(request.body) == json.load(request)  # which also reads to the end
    answer: Any = sign_endpoint(lambda request: {"folder": json.loads(request.body)["album"]})(request)
    assert (answer.status_code, json.loads(answer.content)["fields"]["nonce"]) == (200, "n1")


def test_a_form_that_a_middleware_of_django_has_read_is_refused() -> None:
    django()  # for its settings
    from django.test import RequestFactory

    from uponce.contrib.django import sign_endpoint

    request = RequestFactory().post("/sign", {"params": "{}"})  # multipart
    assert request.POST
    answer: Any = sign_endpoint(lambda request: True)(request)
    assert (answer.status_code, json.loads(answer.content)["error"]["code"]) == (400, "malformed_request")


@pytest.fixture
def express_program(node: str, tmp_path: Path) -> Iterator[list[str]]:
    """The command that runs the guide's Express program."""
    code = block(GUIDE, "js", "express").replace('require("cloudinary")', 'require("cloudinary-2-1-0")')
    program = NODE / f"express-{tmp_path.name}.cjs"
    program.write_text(code)
    yield [node, str(program)]
    program.unlink()


@pytest.fixture
def express(express_program: list[str], tmp_path: Path) -> Iterator[str]:
    """The address of the guide's Express program."""
    (tmp_path / "public").mkdir()
    (tmp_path / "public/index.html").write_text(block(GUIDE, "html", "<uponce-upload"))
    port = str(free_ports(1)[0])
    environment = {**os.environ, "PORT": port}
    with subprocess.Popen(express_program, stdout=subprocess.PIPE, text=True, cwd=tmp_path, env=environment) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == f"Open http://localhost:{port}\n"
        yield f"http://127.0.0.1:{port}/sign"
        running.kill()


@pytest.mark.parametrize("url", [None, "cloudinary://KEY:SECRET@media"])
def test_express_does_not_start_without_the_address_of_uponce(
    express_program: list[str], monkeypatch: pytest.MonkeyPatch, url: str | None
) -> None:
    monkeypatch.delenv("CLOUDINARY_URL")
    if url is not None:
        monkeypatch.setenv("CLOUDINARY_URL", url)
    environment = {**os.environ, "PORT": str(free_ports(1)[0])}
    done = subprocess.run(express_program, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 1
    assert "Set CLOUDINARY_URL to the line of the key 'browser'" in done.stderr


def test_express_signs_what_uploads_once(server: Server, media: Path, express: str) -> None:
    def ask(user: str) -> Any:
        headers = {"X-User": user} if user else {}
        return asked("POST", express, json={"params": {"nonce": "express"}}, headers=headers)

    page = asked("GET", express.removesuffix("sign"))
    assert b"<uponce-upload sign=" in page.data
    assert ask("").status == 403
    for torn in (b"{", b" " * 20_000):
        refused = asked("POST", express, body=torn, headers={"Content-Type": "application/json", "X-User": "7"})
        assert (refused.status, refused.json()["error"]["code"]) == (400, "malformed_request")
    other = asked("POST", express, json={"params": {"folder": "users/8"}}, headers={"X-User": "7"})
    assert (other.status, other.json()["error"]["code"]) == (400, "unknown_parameter")
    hidden = {"params": {"nonce": "n&public_id=avatar"}}  # which SDKs before 2.7 sign like two parameters
    nonce = asked("POST", express, json=hidden, headers={"X-User": "7"}).json()["fields"]["nonce"]
    assert re.fullmatch("[0-9a-f-]{36}", nonce)
    signed = ask("7").json()
    assert signed["url"] == server.upload_url()
    fields = {name: str(value) for name, value in signed["fields"].items()}
    assert (fields["nonce"], fields["max_bytes"]) == ("express", "20000000")
    stored, again = (server.post(fields, (media / name).read_bytes()) for name in ("cat.jpg", "dance.gif"))
    assert (stored.status, stored.json()["folder"]) == (200, "users/7"), stored.data
    assert again.json()["error"]["code"] == "signature_used"


def test_next_signs_what_uploads_once(server: Server, media: Path, node: str) -> None:
    """The route handler, called as Next.js calls it: with a Request, for a Response."""
    code = block(GUIDE, "js", "export async function POST").replace('from "cloudinary"', 'from "cloudinary-2-1-0"')
    program = f"""{code}
        const asked = [{{ folder: "users/8" }}, {{ nonce: "n&public_id=avatar" }}, {{ nonce: "next" }}];
        for (const [user, params] of [["", {{}}], ...asked.map((params) => ["7", params])]) {{
          const [method, body] = ["POST", JSON.stringify({{ params }})];
          const answer = await POST(new Request("http://site/sign", {{ method, body, headers: {{ "X-User": user }} }}));
          console.log(JSON.stringify([answer.status, await answer.json()]));
        }}"""
    command = [node, "--input-type=module", "-e", program]
    printed = subprocess.check_output(command, cwd=NODE, text=True, timeout=60).splitlines()
    stranger, other, hidden, (status, signed) = (json.loads(line) for line in printed)
    assert re.fullmatch("[0-9a-f-]{36}", hidden[1]["fields"]["nonce"])
    assert (stranger[0], other[0], other[1]["error"]["code"]) == (403, 400, "unknown_parameter")
    assert (status, signed["url"]) == (200, server.upload_url())
    fields = {name: str(value) for name, value in signed["fields"].items()}
    stored, again = (server.post(fields, (media / name).read_bytes()) for name in ("cat.jpg", "dance.gif"))
    assert (stored.json()["folder"], fields["nonce"]) == ("users/7", "next"), stored.data
    assert again.json()["error"]["code"] == "signature_used"


def test_the_function_without_an_endpoint(server: Server, media: Path) -> None:
    code = re.sub(r"^signed\[.*$", "", block(GUIDE, "python", "uponce.sign("), flags=re.MULTILINE)
    program = code + "\nimport json; print(json.dumps(signed))"
    signed = json.loads(subprocess.check_output([sys.executable, "-c", program], text=True, timeout=60))
    stored = server.post(signed["fields"], (media / "cat.jpg").read_bytes())
    assert (stored.status, stored.json()["tags"]) == (200, ["tabby", "indoor"])
