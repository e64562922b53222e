"""Health, routes, methods and CORS: what the server says beside its main business."""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.app.failing import Failing
from tests.asgi import END, Answer, call, part, parts_of
from tests.world import PNG, Sniffer, World, assert_accepted, assert_refused
from uponce.core.errors import ServerBusy


def test_liveness_needs_nothing(world: World) -> None:
    world.database.close()
    answer = world.get("/healthz")
    assert (answer.status, answer.json) == (200, {"status": "ok"})


def test_readiness_names_every_part(world: World) -> None:
    answer = world.get("/readyz")
    checks = {"database": "ok", "storage": "ok", "decoders": "ok"}
    assert (answer.status, answer.json) == (200, {"status": "ok", "checks": checks})
    assert world.request("HEAD", "/readyz").body == b""


class Counting:
    """A port that counts the pings. They end when they may."""

    def __init__(self, real: Any, may_end: asyncio.Event) -> None:
        self._real = real
        self.may_end = may_end
        self.pings = self.looks = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def ping(self) -> None:
        self.pings += 1
        await self.may_end.wait()
        await self._real.ping()

    async def frozen(self) -> bool:
        self.looks += 1
        return bool(await self._real.frozen())


def test_requests_share_one_check_of_the_parts(world: World) -> None:
    """Each check writes to the database, asks the store and takes a decoder, and any stranger may ask for one."""
    real = world.services
    may_end = asyncio.Event()
    ports = [Counting(port, may_end) for port in (real.database, real.blobs, real.inspector)]
    database, blobs, inspector = ports
    paths = ["/readyz", "/", "/readyz?for=balancer"]
    world.swap(database=database, blobs=blobs, inspector=inspector)

    async def flood() -> list[Answer]:
        requests = [asyncio.create_task(call(world.app, "GET", path)) for path in paths * 100]
        for _ in range(100):  # until all of them wait
            await asyncio.sleep(0)
        may_end.set()
        return await asyncio.gather(*requests)

    assert {answer.status for answer in asyncio.run(flood())} == {200}
    assert [port.pings for port in ports] == [1, 1, 1]
    assert [port.looks for port in ports] == [0, 0, 0]


def test_requests_share_the_look_at_a_database_that_fails(world: World) -> None:
    database = Counting(world.services.database, asyncio.Event())
    database.may_end.set()
    world.swap(database=database)
    world.database.close()

    async def flood() -> list[Answer]:
        return await asyncio.gather(*(call(world.app, "GET", "/readyz?for=balancer") for _ in range(100)))

    assert {answer.status for answer in asyncio.run(flood())} == {503}
    assert database.looks == 1


def test_a_failure_and_its_end_show_at_once(world: World) -> None:
    assert world.get("/readyz").status == 200
    world.swap(inspector=NoDecoders())
    assert world.get("/readyz").status == 503
    assert world.get("/", accept="application/json").json["health"] == "unavailable"
    world.swap(inspector=Sniffer())
    assert world.get("/readyz").status == 200


class NoDecoders(Sniffer):
    async def ping(self) -> None:
        raise ServerBusy("The decoders do not answer.")


def _break(world: World, part_: str) -> None:
    if part_ == "database":
        world.database.close()
    elif part_ == "storage":
        (world.media / "spool").rename(world.media / "gone")
    else:
        world.swap(inspector=NoDecoders())


@pytest.mark.parametrize("broken", ["database", "storage", "decoders"])
def test_readiness_is_503_and_names_the_part_that_fails(world: World, broken: str) -> None:
    _break(world, broken)
    answer = world.get("/readyz")
    assert answer.status == 503
    assert answer.json["status"] == "unavailable"
    assert {name for name, said in answer.json["checks"].items() if said != "ok"} == {broken}


@pytest.mark.parametrize(("broken", "status"), [("database", 503), ("storage", 503), ("decoders", 200), ("full", 200)])
def test_a_balancer_leaves_out_only_what_another_server_may_do_better(
    world: World, monkeypatch: pytest.MonkeyPatch, broken: str, status: int
) -> None:
    """A server with a full disk delivers files, and says why it takes none."""
    assert world.get("/readyz?for=balancer").status == 200
    if broken == "full":
        monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_bavail=0, f_files=0))
    else:
        _break(world, broken)
    assert world.get("/readyz").status == 503
    assert world.get("/readyz?for=balancer").status == status


def test_an_upload_without_a_database_is_503_with_retry_after_and_leaves_nothing(world: World) -> None:
    fields = world.sign()
    world.database.close()
    answer = world.upload(fields)
    assert_refused(answer, 503, "database_unavailable")
    assert int(answer.headers["retry-after"]) > 0
    traces = world.traces()
    assert (traces.spooled, traces.blobs, traces.assets, traces.grants) == (frozenset(), frozenset(), 0, 0)


def test_an_upload_without_storage_is_503_and_free(world: World) -> None:
    fields = world.sign()
    (world.media / "spool").rename(world.media / "gone")
    assert_refused(world.upload(fields), 503, "storage_unavailable")
    (world.media / "gone").rename(world.media / "spool")
    assert_accepted(world.upload(fields))


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/v1_1", "/v1_1/demo/image", "/v1_1/demo/image/upload/", "/v1_1/demo/audio/upload", "/%00"],
)
def test_an_unknown_address_is_404_in_the_same_shape(shared: World, path: str) -> None:
    answer = shared.request("POST", path)
    assert_refused(answer, 404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("GET", "/v1_1/demo/image/upload", "POST, PUT"),
        ("DELETE", "/v1_1/demo/auto/upload", "POST, PUT"),
        ("OPTIONS", "/v1_1/demo/auto/upload", "POST, PUT"),
        ("POST", "/demo/image/upload/cat.png", "GET, HEAD"),
        ("DELETE", "/demo/raw/upload/cat", "GET, HEAD"),
        ("PUT", "/v1_1/demo/signatures", "GET, POST"),
        ("OPTIONS", "/v1_1/demo/image/destroy", "POST"),
        ("PATCH", "/v1_1/demo/image/destroy", "POST"),
        ("POST", "/healthz", "GET, HEAD"),
        ("POST", "/readyz", "GET, HEAD"),
        ("BREW", "/healthz", "GET, HEAD"),
    ],
)
def test_another_method_is_405_with_allow(shared: World, method: str, path: str, allow: str) -> None:
    answer = shared.request(method, path)
    assert_refused(answer, 405, "malformed_request")
    assert answer.headers["allow"] == allow
    assert f"Use {allow.replace(', ', ' or ')}, not {method}." in answer.message


def test_a_request_id_is_fresh_for_each_request(shared: World) -> None:
    ids = {shared.get("/healthz", x_request_id="mine").headers["x-request-id"] for _ in range(3)}
    assert len(ids) == 3
    assert "mine" not in ids


def preflight(world: World, path: str, method: str, **headers: str) -> Any:
    given = {"origin": "https://app.example", "access-control-request-method": method, **headers}
    return world.request("OPTIONS", path, headers=given)


@pytest.mark.parametrize("method", ["POST", "PUT"])
def test_a_browser_may_upload_from_any_origin_with_any_header(shared: World, method: str) -> None:
    wanted = {"access-control-request-headers": "x-requested-with, content-range, x-unique-upload-id, idempotency-key"}
    answer = preflight(shared, "/v1_1/demo/auto/upload", method, **wanted)
    assert answer.status == 200
    assert answer.headers["access-control-allow-origin"] == "*"
    assert method in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == wanted["access-control-request-headers"]
    assert "access-control-allow-credentials" not in answer.headers
    assert answer.headers["x-request-id"]


def test_a_preflight_for_another_method_is_refused(shared: World) -> None:
    assert preflight(shared, "/v1_1/demo/auto/upload", "DELETE").status == 400


def test_a_page_on_the_internet_gets_no_leave_for_a_private_network_and_no_refusal(shared: World) -> None:
    """Chromium asks both in one. Without the header of the leave it decides itself."""
    path, private = "/v1_1/demo/auto/upload", {"access-control-request-private-network": "true"}
    with_it, without = preflight(shared, path, "POST", **private), preflight(shared, path, "POST")
    assert (with_it.status, with_it.body) == (without.status, without.body) == (200, b"OK")
    assert "access-control-allow-private-network" not in with_it.headers


def test_answers_and_refusals_can_be_read_across_origins(shared: World) -> None:
    fields, origin = shared.sign(), {"origin": "https://app.example"}
    for answer in (shared.upload(fields, headers=origin), shared.upload(fields, headers=origin)):
        assert answer.headers["access-control-allow-origin"] == "*"
        exposed = answer.headers["access-control-expose-headers"].split(", ")
        assert {"X-Cld-Error", "X-Cld-Error-Code", "X-Request-Id", "Retry-After"} <= set(exposed)
        assert "access-control-allow-credentials" not in answer.headers
    assert answer.code == "signature_used"


@pytest.mark.parametrize("call", ["image/private", "raw/authenticated", "image/delete_by_token", "delete_by_token"])
def test_a_page_can_read_why_a_call_of_its_widget_is_missing(shared: World, call: str) -> None:
    path = f"/v1_1/demo/{call}"
    assert preflight(shared, path, "POST").status == 200
    answer = shared.request("POST", path, headers={"origin": "https://app.example"})
    assert_refused(answer, 400, "unsupported_call")
    assert answer.headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("path", ["upload/", "image/upload/", "auto/upload_chunked/"])
def test_a_page_can_read_that_an_address_of_uploads_has_no_slash_at_its_end(shared: World, path: str) -> None:
    assert preflight(shared, f"/v1_1/demo/{path}", "POST").status == 200
    answer = shared.request("POST", f"/v1_1/demo/{path}", headers={"origin": "https://app.example"})
    assert_refused(answer, 404, "not_found")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_page_can_read_that_something_went_wrong_here(world: World) -> None:
    world.swap(database=Failing(world.database, before={"commit": ZeroDivisionError()}))
    answer = world.upload(world.sign(), headers={"origin": "https://app.example"})
    assert_refused(answer, 500, "internal_error")
    assert answer.headers["access-control-allow-origin"] == "*"


def test_a_delivery_can_be_read_across_origins_also_out_of_a_cache(shared: World) -> None:
    """A cache keeps the answer to an <img>, sent without Origin, and gives it to a later fetch()."""
    assert_accepted(shared.upload(shared.sign({"public_id": "cors"})))
    for headers in ({}, {"origin": "https://app.example"}):
        assert shared.get("/demo/image/upload/cors.png", **headers).headers["access-control-allow-origin"] == "*"


@pytest.mark.parametrize("host", ["", "a b", "evil/x", "a\xe9", "u:p@host", "host:999999"])
def test_a_host_that_is_none_is_refused_before_anything_is_spent(shared: World, host: str) -> None:
    fields = shared.sign()
    with shared.untouched():
        assert_refused(shared.upload(fields, headers={"host": host}), 400, "malformed_request")
    assert_accepted(shared.upload(fields))


@pytest.mark.parametrize("name", ["host", "content-type", "content-range", "origin"])
def test_a_header_that_may_stand_once_is_refused_twice(shared: World, name: str) -> None:
    fields = shared.sign()
    value = {"host": "media.example", "content-type": "text/plain"}.get(name, "x")
    form = [parts_of(fields), part("file", PNG, "a.png"), END]
    with shared.untouched():
        answer = shared.request("POST", shared.route(), headers=[(name, value), (name, value)], chunks=form)
    assert_refused(answer, 400, "malformed_request")
