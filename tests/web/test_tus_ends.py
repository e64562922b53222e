"""A PATCH without bytes at the end of a complete upload. tuspy and tus-java-client send it, and need a 204."""

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.app.test_series import revoke
from tests.asgi import Answer
from tests.chunks import noise
from tests.tus import BYTES, VERSION, Client, assert_refused, assert_state, play
from tests.upstreams import StubUpstream
from tests.web.test_app import Lines, lines
from tests.world import QuickWorld, World
from uponce.app.uploading import resumable
from uponce.core.errors import ServerBusy

__all__ = ["lines"]  # the fixture of the neighbour

DATA = noise(5007)
SIZE = len(DATA)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path)
    yield world
    world.close()


@pytest.fixture
def client(world: World) -> Client:
    """All bytes are stored."""
    client = Client(world, DATA)
    play(client.create, lambda: client.patch(0))
    return client


def empty(client: Client, **headers: str) -> Answer:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    (answer,) = play(lambda: client.patch(SIZE, data=[], headers=sent))
    return answer


@pytest.mark.parametrize("headers", [{}, {"content_length": "0"}, {"upload_length": str(SIZE)}])
def test_a_patch_without_bytes_at_the_end_shows_the_asset(
    world: World, client: Client, headers: dict[str, str]
) -> None:
    (state,) = play(client.head)
    with world.untouched():
        answer = empty(client, **headers)
    assert_state(answer, 204, SIZE)
    assert answer.headers["upload-asset"] == state.headers["upload-asset"]


def test_it_returns_json_to_a_client_that_prefers_it(client: Client) -> None:
    (shown,) = play(client.get)
    answer = empty(client, prefer="return=representation")
    assert_state(answer, 200, SIZE)
    assert answer.json == shown.json


def test_it_may_come_as_a_post(client: Client) -> None:
    sent = {**VERSION, **BYTES, "upload-offset": str(SIZE), "x-http-method-override": "PATCH"}
    (answer,) = play(lambda: client.send("POST", client.url, sent))
    assert_state(answer, 204, SIZE)


@pytest.mark.parametrize(
    ("offset", "data", "headers"),
    [
        (SIZE, [b"x"], {}),
        (SIZE, [b"x"], {"content-length": "1"}),
        (SIZE, [], {"upload-length": str(SIZE + 1)}),
        (SIZE - 1, [], {}),
        (SIZE + 1, [], {}),
        (0, [], {"content-length": "0"}),
    ],
)
def test_another_patch_is_refused(
    world: World, client: Client, offset: int, data: list[bytes], headers: dict[str, str]
) -> None:
    with world.untouched():
        (answer,) = play(lambda: client.patch(offset, data=data, headers=headers))
    assert_refused(answer, 409, "upload_complete")


def test_its_checksum_is_that_of_no_bytes(client: Client) -> None:
    def checksum(data: bytes) -> str:
        return f"sha1 {base64.b64encode(hashlib.sha1(data).digest()).decode()}"

    assert_state(empty(client, upload_checksum=checksum(b"")), 204, SIZE)
    assert_refused(empty(client, upload_checksum=checksum(b"x")), 460, "checksum_mismatch")


def test_it_must_reach_its_end(client: Client) -> None:
    (torn,) = play(lambda: client.patch(SIZE, data=[], torn=True))
    assert_refused(torn, 400, "malformed_request")


def test_the_offset_counts_the_bytes_that_were_sent(world: World) -> None:
    """With `overwrite=0` the asset has others."""
    name = {"public_id": "cat", "overwrite": "0"}
    assert world.upload(world.sign(name), noise(100)).status == 200
    client = Client(world, DATA, fields=world.sign(name))
    *_, last, of_the_asset = play(client.create, lambda: client.patch(0), lambda: client.patch(100, data=[]))
    assert_refused(of_the_asset, 409, "upload_complete")
    answer = empty(client)
    assert_state(answer, 204, SIZE)
    assert answer.headers["upload-asset"] == last.headers["upload-asset"]


def test_a_revocation_after_the_end_hides_no_asset(world: World) -> None:
    client = Client(world, DATA, fields=world.sign({"max_uses": 3}))
    play(client.create, lambda: client.patch(0))
    asyncio.run(revoke(world, client.fields))
    assert_state(empty(client), 204, SIZE)


def test_an_asset_of_an_upstream(relay: World, stub: StubUpstream) -> None:
    client = Client(relay, DATA)
    _, last = play(client.create, lambda: client.patch(0))
    sent = len(stub.requests)
    answer = empty(client)
    assert_state(answer, 204, SIZE)
    assert answer.headers["upload-asset"] == last.headers["upload-asset"]
    assert len(stub.requests) == sent


def test_the_log_shows_an_upload_that_a_head_completes(
    world: World, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last PATCH brought all bytes, and got no further."""
    client = Client(world, DATA)

    async def stopped(*_: object) -> None:
        raise ServerBusy("The server stops.")

    with monkeypatch.context() as stopping:
        stopping.setattr(resumable, "finish", stopped)
        assert [answer.status for answer in play(client.create, lambda: client.patch(0))] == [201, 503]
    play(client.head, client.head)
    assert [message for _, message, _ in lines()].count("stored") == 1


def test_the_log_shows_one_stored_upload(client: Client, lines: Lines) -> None:
    empty(client)
    assert [message for _, message, _ in lines()] == ["repeated"]
