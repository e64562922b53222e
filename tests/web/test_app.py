"""One line in the log for each request: what it says, at which level, and what it must never hold."""

import base64
import logging
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import END, Answer, part, parts_of
from tests.tus import VERSION, metadata
from tests.world import PNG, World, assert_accepted
from uponce.core.errors import DatabaseUnavailable
from uponce.core.policy import Limits
from uponce.core.values import MediaFacts, Payer, ResourceType


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], list[tuple[str, str, dict[str, Any]]]]]:
    """Level, message and facts of all records so far; a call forgets them."""

    def read() -> list[tuple[str, str, dict[str, Any]]]:
        found = [(record.levelname, record.getMessage(), record.__dict__["facts"]) for record in caplog.records]
        caplog.clear()
        return found

    with caplog.at_level(logging.INFO, "uponce"):
        yield read


Lines = Callable[[], list[tuple[str, str, dict[str, Any]]]]


def test_a_stored_upload_is_one_line(world: World, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    answer = assert_accepted(world.upload(world.sign({"public_id": "cats/tom"})))
    assert caplog.records[0].__dict__["request_id"] == answer.headers["x-request-id"]
    ((level, message, facts),) = lines()
    assert (level, message) == ("INFO", "stored")
    assert facts["ms"] >= 0
    assert {name: value for name, value in facts.items() if name != "ms"} == {
        "key": world.browser.api_key,
        "public_id": "cats/tom",
        "bytes": len(PNG),
        "status": 200,
        "address": "192.0.2.7",
        "method": "POST",
        "route": "/v1_1/{cloud}/{resource_type}/upload",
    }


@pytest.mark.parametrize("how", ["form", "file first", "query"])
def test_a_refusal_is_one_line_that_names_key_asset_address_and_code(world: World, lines: Lines, how: str) -> None:
    fields = world.sign({"public_id": "cats/tom"})
    for _ in range(2):
        lines()
        send(world, fields, how)
    ((level, message, facts),) = lines()
    assert (level, message) == ("INFO", "refused")
    assert (facts["key"], facts["public_id"]) == (world.browser.api_key, "cats/tom")
    assert (facts["code"], facts["status"], facts["address"]) == ("signature_used", 400, "192.0.2.7")


def send(world: World, fields: dict[str, str], how: str) -> Answer:
    match how:
        case "form":
            return world.upload(fields)
        case "file first":
            return world.post(part("file", PNG, "cat.png"), parts_of(fields), END)
    return world.put(PNG, fields)


def test_a_replay_a_deletion_and_a_part_have_their_words(world: World, lines: Lines) -> None:
    fields, again = world.sign({"public_id": "tom"}), {"idempotency-key": "k" * 16}
    for _ in range(2):
        assert_accepted(world.upload(fields, headers=again))
    gone = world.sign({"public_id": "tom"}, key=world.server)
    for _ in range(2):
        world.request(
            "POST",
            "/v1_1/demo/image/destroy",
            headers={"content-type": "multipart/form-data; boundary=b"},
            chunks=[form(gone)],
        )
    begun = world.request(
        "POST",
        "/tus/demo/",
        headers={**VERSION, "upload-length": "9", "upload-metadata": metadata(world.sign({"public_id": "tim"}))},
    )
    assert begun.status == 201
    found = lines()
    assert [message for _, message, _ in found] == ["stored", "repeated", "deleted", "absent", "part"]
    assert {facts["public_id"] for _, _, facts in found} == {"tom", "tim"}
    assert {facts["key"] for _, _, facts in found} == {world.browser.api_key, world.server.api_key}


def form(fields: dict[str, str]) -> bytes:
    parts = [f'--b\r\nContent-Disposition: form-data; name="{n}"\r\n\r\n{v}\r\n' for n, v in fields.items()]
    return "".join([*parts, "--b--\r\n"]).encode()


def test_what_the_server_cannot_do_is_an_error_with_its_detail(world: World, lines: Lines) -> None:
    class Gone:
        async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
            raise DatabaseUnavailable("Later.", detail="no route to db-7", retry_after=1)

        async def ping(self) -> None: ...

    world.swap(inspector=Gone())
    world.upload(world.sign())
    ((level, message, facts),) = lines()
    assert (level, message, facts["code"]) == ("ERROR", "failed", "database_unavailable")
    assert facts["detail"] == "no route to db-7"


def test_an_exception_nobody_expected_is_one_record_with_its_traceback(
    world: World, lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        async def inspect(self, path: str, requested: ResourceType | None, payer: Payer) -> MediaFacts:
            raise ZeroDivisionError("broken")

        async def ping(self) -> None: ...

    world.swap(inspector=Broken())
    assert world.upload(world.sign()).status == 500
    (record,) = caplog.records
    assert (record.levelname, record.getMessage()) == ("ERROR", "failed")
    assert record.exc_info is not None and record.exc_info[0] is ZeroDivisionError


def test_reading_is_for_debug(world: World, lines: Lines, caplog: pytest.LogCaptureFixture) -> None:
    path = str(assert_accepted(world.upload(world.sign())).json["url"]).removeprefix("https://media.example")
    lines()
    world.get(path)
    world.get("/healthz")
    assert lines() == []
    with caplog.at_level(logging.DEBUG, "uponce"):
        world.get(path)
    ((level, message, facts),) = lines()
    assert (level, message, facts["status"]) == ("DEBUG", "answered", 200)


@pytest.mark.parametrize("failures", [1, 100])
def test_no_secret_and_no_signature_reaches_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, failures: int
) -> None:
    """In every spelling of a grant, used and refused, and in the address of a tus upload.

    An altered field makes a live signature a wrong one. The limit of wrong credentials refuses it with another error.
    """
    with (
        closing(World(tmp_path, limits=Limits(max_failed_credentials=failures))) as world,
        caplog.at_level(logging.DEBUG),
    ):
        signatures, secrets = [], [world.browser.secrets[0], world.server.secrets[0]]
        for how in ("form", "file first", "query"):
            fields = world.sign({"public_id": f"by {how}"})
            altered = {**fields, "public_id": "other"}
            signatures.append(fields["signature"])
            for spelling in (fields, fields, altered):
                send(world, spelling, how)
        fields = world.sign({"public_id": "by tus"})
        told = {**VERSION, "upload-length": "9", "upload-metadata": metadata(fields)}
        location = world.request("POST", "/tus/demo/", headers=told).headers["location"]
        signatures += [fields["signature"], location.split("/")[-2]]
        world.request("HEAD", location.removeprefix("https://media.example"), headers=VERSION)
        basic = base64.b64encode(f"{world.server.api_key}:{secrets[1]}".encode()).decode()
        world.get("/v1_1/demo/signatures", authorization=f"Basic {basic}")
    logged = "\n".join(str(record.__dict__) for record in caplog.records)
    assert len(caplog.records) >= 12
    assert not [each for each in (*signatures, *secrets, basic) if each in logged]
