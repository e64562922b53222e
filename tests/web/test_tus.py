"""tus 1.0, request by request (https://tus.io/protocols/resumable-upload)."""

import asyncio
import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.app.test_series import revoke
from tests.asgi import Answer
from tests.chunks import NO_ROWS, noise, rows
from tests.tus import BYTES, VERSION, Client, assert_refused, assert_state, metadata, play, stored
from tests.world import PNG, QuickWorld, World
from uponce.core.policy import Limits

DATA = noise(5007)
LIMITS = Limits(record_bytes=1000, takeover_seconds=60)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=LIMITS)
    yield world
    world.close()


@pytest.fixture
def client(world: World) -> Client:
    return Client(world, DATA)


def test_one_upload_from_creation_to_the_asset(world: World, client: Client) -> None:
    created, before, first, between, last, after = play(
        client.create,
        client.head,
        lambda: client.patch(0, 2000),
        client.head,
        lambda: client.patch(2000),
        client.head,
    )
    assert_state(created, 201, 0)
    assert created.headers["location"].startswith("https://media.example/tus/demo/")
    assert created.headers["upload-expires"] == "Fri, 02 Jan 2026 00:00:00 GMT"
    assert_state(before, 200, 0)
    assert before.headers["upload-length"] == str(len(DATA))
    assert_state(first, 204, 2000)
    assert first.headers["upload-expires"] == created.headers["upload-expires"]
    assert_state(between, 200, 2000)
    assert_state(last, 204, len(DATA))
    assert_state(after, 200, len(DATA))
    assert stored(world, last.headers["upload-asset"]) == DATA
    assert after.headers["upload-asset"] == last.headers["upload-asset"]
    assert after.headers["upload-length"] == str(len(DATA))
    assert (world.traces().assets, world.traces().grants, world.traces().spooled) == (1, 1, frozenset())
    assert rows(world) == NO_ROWS


def test_a_folder_that_only_a_relay_refuses(world: World) -> None:
    client = Client(world, DATA, fields=world.sign({"public_id": "cat", "folder": "//pets//"}))
    _, first, last = play(client.create, lambda: client.patch(0, 2000), lambda: client.patch(2000))
    assert_state(first, 204, 2000)
    assert last.headers["upload-asset"].endswith("/pets/cat")


def test_the_last_answer_is_that_of_a_plain_upload_for_who_prefers_it(world: World, client: Client) -> None:
    _, last, told = play(
        client.create, lambda: client.patch(0, headers={"prefer": "return=representation"}), client.get
    )
    assert_state(last, 200, len(DATA))
    assert last.headers["preference-applied"] == "return=representation"
    plain = world.upload(world.sign(), DATA, filename="film.bin").json
    varying = {"asset_id", "public_id", "version", "version_id", "signature", "url", "secure_url"}
    assert {**{n: v for n, v in plain.items() if n not in varying}, "done": True} == {
        name: value for name, value in last.json.items() if name not in varying
    }
    assert last.json["etag"] == hashlib.md5(DATA).hexdigest()
    assert last.json["original_filename"] == "film"
    assert stored(world, last.json["secure_url"]) == DATA
    assert told.json == last.json


def test_all_answers_have_one_signature_whatever_signed_the_request(world: World) -> None:
    client = Client(world, DATA, fields=world.sign(algorithm="sha256"))
    _, last, told = play(
        client.create, lambda: client.patch(0, headers={"prefer": "return=representation"}), client.get
    )
    assert last.json["signature"] == told.json["signature"]
    assert len(told.json["signature"]) == 40


def test_get_shows_the_state(client: Client) -> None:
    *_, told = play(client.create, lambda: client.patch(0, 10), client.get)
    assert told.json == {"done": False, "bytes": 10, "kind": "upload"}


def test_the_bytes_may_come_with_the_creation(world: World, client: Client) -> None:
    created, _ = play(lambda: client.create(body=[DATA[:100], DATA[100:500]]), lambda: client.patch(500))
    assert_state(created, 201, 500)
    assert created.body == b""
    whole = Client(world, DATA)
    (made,) = play(lambda: whole.create(body=[DATA]))
    assert_state(made, 201, len(DATA))
    assert made.json["bytes"] == len(DATA)
    assert stored(world, made.headers["upload-asset"]) == DATA


@pytest.mark.parametrize("told", ["with the first bytes", "with the last bytes", "with no bytes"])
def test_the_length_may_be_told_later(world: World, client: Client, told: str) -> None:
    length = {"upload-length": str(len(DATA))}
    steps: dict[str, list[tuple[int, int, dict[str, str]]]] = {
        "with the first bytes": [(0, 10, length), (10, 5007, {})],
        "with the last bytes": [(0, 10, {}), (10, 5007, length)],
        "with no bytes": [(0, 5007, {}), (5007, 5007, length)],
    }

    async def run() -> Answer:
        await client.create(length="later")
        for offset, end, headers in steps[told]:
            before = await client.head()
            answer = await client.patch(offset, end, headers=headers)
        assert before.headers.get("upload-defer-length") == (None if told == "with the first bytes" else "1")
        return answer

    assert stored(world, asyncio.run(run()).headers["upload-asset"]) == DATA


def test_what_arrived_of_a_torn_request_stays(world: World, client: Client) -> None:
    _, torn, state, last = play(
        client.create,
        lambda: client.patch(0, data=[DATA[:700], DATA[700:1501]], torn=True),
        client.head,
        lambda: client.patch(1501),
    )
    assert_refused(torn, 400, "malformed_request")
    assert_state(state, 200, 1501)
    assert stored(world, last.headers["upload-asset"]) == DATA


def test_what_arrived_is_recorded_on_the_way(world: World, client: Client) -> None:
    """So that a server that dies during a long request has not forgotten all of it."""

    async def run() -> None:
        await client.create()

        async def body() -> Any:
            for start in range(0, 3500, 500):
                yield DATA[start : start + 500]
            assert world.sql("SELECT json_extract(spans, '$[0][1]') FROM series") == 3000
            yield DATA[3500:]

        assert_state(await client.patch(0, data=body()), 204, len(DATA))

    asyncio.run(run())


@pytest.mark.parametrize("algorithm", ["sha1", "md5", "sha256", "sha512"])
def test_checksums(world: World, client: Client, algorithm: str) -> None:
    def checksum(data: bytes) -> dict[str, str]:
        digest = hashlib.new(algorithm, data).digest()
        return {"upload-checksum": f"{algorithm} {base64.b64encode(digest).decode()}"}

    _, wrong, torn, state, right, last = play(
        client.create,
        lambda: client.patch(0, 3000, headers=checksum(DATA[:2999])),
        lambda: client.patch(0, data=[DATA[:2500]], headers=checksum(DATA), torn=True),
        client.head,
        lambda: client.patch(0, 3000, headers=checksum(DATA[:3000])),
        lambda: client.patch(3000, headers=checksum(DATA[3000:])),
    )
    assert_refused(wrong, 460, "checksum_mismatch")
    assert_refused(torn, 400, "malformed_request")
    assert_state(state, 200, 0)
    assert_state(right, 204, 3000)
    assert stored(world, last.headers["upload-asset"]) == DATA


def test_termination_frees_the_signature(world: World, client: Client) -> None:
    with world.untouched():
        _, _, ended, again, head, patch = play(
            client.create,
            lambda: client.patch(0, 100),
            client.delete,
            client.delete,
            client.head,
            lambda: client.patch(100),
        )
        assert ended.status == 204
        assert_refused(again, 404, "series_gone")
        assert head.status == 404
        assert_refused(patch, 404, "series_gone")
        assert rows(world) == NO_ROWS
    assert world.upload(client.fields).status == 200


def test_a_finished_upload_takes_nothing_more(world: World, client: Client) -> None:
    play(client.create, lambda: client.patch(0))
    before = world.traces()
    again, further, ended, created = play(
        lambda: client.patch(0), lambda: client.patch(len(DATA), data=[b"x"]), client.delete, client.create
    )
    for refused in (again, further, ended):
        assert_refused(refused, 409, "upload_complete")
    assert_refused(created, 400, "signature_used")
    after = world.traces()
    assert (after.assets, after.grants, after.blobs, after.spooled) == (1, 1, before.blobs, frozenset())


def test_a_revocation_after_the_end_hides_no_asset(world: World) -> None:
    """It takes the uses that are left. The address is no signature, so it still shows what the upload became."""
    client = Client(world, DATA, fields=world.sign({"max_uses": 3}))
    made = play(client.create, lambda: client.patch(0))[-1]
    asyncio.run(revoke(world, client.fields))
    state, shown, again = play(client.head, client.get, lambda: client.patch(0))
    assert_state(state, 200, len(DATA))
    assert state.headers["upload-asset"] == made.headers["upload-asset"] == shown.json["secure_url"]
    assert_refused(again, 409, "upload_complete")
    assert_refused(play(client.create)[0], 400, "signature_revoked")


def test_the_wrong_offset(client: Client) -> None:
    _, _, *refused, state = play(
        client.create,
        lambda: client.patch(0, 100),
        lambda: client.patch(0, 100),
        lambda: client.patch(99),
        lambda: client.patch(101),
        lambda: client.patch(10**17, data=[b"x"]),
        client.head,
    )
    for answer in refused:
        assert_refused(answer, 409, "offset_conflict")
    assert refused[0].message.startswith("100 bytes of this upload have arrived, but the request begins at byte 0.")
    assert_state(state, 200, 100)


def test_two_requests_at_once(world: World, client: Client) -> None:
    """The older one is silent. The newer one takes over, at the offset that a HEAD returned."""

    async def run() -> tuple[Answer, Answer, Answer]:
        await client.create()
        under_way = asyncio.Event()

        async def dying() -> Any:
            yield DATA[:700]
            under_way.set()
            await asyncio.Event().wait()

        older = asyncio.create_task(client.patch(0, data=dying()))
        await under_way.wait()
        state = await client.head()
        return await older, state, await client.patch(700)

    older, state, newer = asyncio.run(run())
    assert_refused(older, 400, "chunk_superseded")
    assert_state(state, 200, 700)
    assert stored(world, newer.headers["upload-asset"]) == DATA


@pytest.mark.parametrize("racers", [2, 5])
def test_of_equal_last_requests_one_adds_the_bytes(world: World, client: Client, racers: int) -> None:
    """All answers are true: it is done, it is done already, or a newer request took over."""

    async def run() -> list[Answer]:
        await client.create()
        await client.patch(0, 5000)
        return await asyncio.gather(*(client.patch(5000) for _ in range(racers)), client.head())

    *answers, state = asyncio.run(run())
    assert {answer.status for answer in answers} <= {204, 400, 409}
    assert 204 in {answer.status for answer in answers} or state.headers["upload-offset"] == str(len(DATA))
    assert state.status == 200
    assert (world.traces().assets, world.traces().grants) == (1, 1)


def test_the_parameters_may_stand_in_the_query(world: World, client: Client) -> None:
    async def run() -> Answer:
        query = urlencode(world.sign({"public_id": "from/query", "tags": "a,b"}))
        sent = {**VERSION, "upload-length": str(len(DATA)), "upload-metadata": metadata({"filename": "x.bin"})}
        created = await client.send("POST", f"/tus/demo/?{query}", sent)
        client.url = created.headers["location"].removeprefix("https://media.example")
        await client.patch(0)
        return await client.get()

    answer = asyncio.run(run())
    assert (answer.json["public_id"], answer.json["tags"]) == ("from/query", ["a", "b"])


def test_what_uppy_says_of_a_file_is_no_parameter(world: World) -> None:
    facts = {"name": "cat.png", "type": "image/png", "filetype": "image/png", "filename": "cat.png"}
    client = Client(world, PNG, fields={**world.sign(), **facts, "relativePath": "null"}, name="cat.png")
    *_, told = play(client.create, lambda: client.patch(0), client.get)
    assert (told.json["format"], told.json["original_filename"]) == ("png", "cat")


@pytest.mark.parametrize("kept", [100, 9000])
def test_an_upload_that_changes_no_asset_shows_the_bytes_that_were_sent(world: World, kept: int) -> None:
    """With `overwrite=0` it becomes the asset of that name, whose size is another one. Clients resume by the offset."""
    name = {"public_id": "cat", "overwrite": "0"}
    assert world.upload(world.sign(name), noise(kept)).status == 200
    client, size = Client(world, DATA, fields=world.sign(name)), str(len(DATA))
    _, _, last, state, again, told = play(
        client.create,
        lambda: client.patch(0, 2000),
        lambda: client.patch(2000, headers={"prefer": "return=representation"}),
        client.head,
        lambda: client.patch(2000),
        client.get,
    )
    (whole,) = play(lambda: Client(world, DATA, fields=world.sign(name)).create(body=[DATA]))
    for answer in (last, state, told, whole):
        assert (answer.headers["upload-offset"], answer.headers["upload-length"]) == (size, size)
    assert_refused(again, 409, "upload_complete")
    assert (told.json["existing"], told.json["bytes"]) == (True, kept)
    assert last.json == told.json


def test_a_delivery_type_is_a_parameter(world: World) -> None:
    client = Client(world, DATA, fields=world.sign({"type": "private"}))
    *_, told = play(client.create, lambda: client.patch(0), client.get)
    assert told.json["type"] == "private"
    forged = Client(world, DATA, fields={**world.sign({"type": "private"}), "type": "text/plain"})
    (refused,) = play(forged.create)
    assert_refused(refused, 401, "invalid_signature")


def test_head_repeats_the_metadata_without_the_signature(world: World) -> None:
    client = Client(world, DATA, fields=world.sign({"tags": "ü"}))
    _, state = play(client.create, client.head)
    pairs = dict(pair.split(" ") for pair in state.headers["upload-metadata"].split(","))
    assert base64.b64decode(pairs["tags"]).decode() == "ü"
    assert base64.b64decode(pairs["filename"]) == b"film.bin"
    assert client.fields["signature"] not in str(state)


def test_options_tell_what_the_server_can(world: World) -> None:
    answer = world.request("OPTIONS", "/tus/demo/")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["tus-version"] == "1.0.0"
    assert answer.headers["tus-max-size"] == str(5 * 1024**3)
    assert set(answer.headers["tus-extension"].split(",")) == {
        "creation",
        "creation-with-upload",
        "creation-defer-length",
        "expiration",
        "checksum",
        "termination",
    }
    assert answer.headers["tus-checksum-algorithm"].split(",")[0] == "sha1"


def test_browsers_of_any_origin_may_use_it(world: World, client: Client) -> None:
    play(client.create)
    origin = {"origin": "https://app.example"}
    asked = {"access-control-request-method": "PATCH", "access-control-request-headers": "tus-resumable,upload-offset"}
    allowed = world.request("OPTIONS", client.url, headers={**origin, **asked})
    assert allowed.status == 200
    assert {"PATCH", "HEAD", "DELETE"} <= set(allowed.headers["access-control-allow-methods"].split(", "))
    assert "upload-offset" in allowed.headers["access-control-allow-headers"].lower()
    state = world.request("HEAD", client.url, headers={**VERSION, **origin})
    assert state.headers["access-control-allow-origin"] == "*"
    exposed = set(state.headers["access-control-expose-headers"].split(", "))
    assert {"Location", "Upload-Offset", "Upload-Length", "Upload-Expires", "Tus-Resumable", "Upload-Asset"} <= exposed


def test_a_method_may_be_overridden(world: World, client: Client) -> None:
    async def run() -> Answer:
        await client.create()
        sent = {**VERSION, **BYTES, "upload-offset": "0", "x-http-method-override": "PATCH"}
        return await client.send("POST", client.url, sent, [DATA])

    assert_state(asyncio.run(run()), 204, len(DATA))
    (refused,) = play(lambda: client.send("POST", client.url, VERSION))
    assert_refused(refused, 400, "malformed_request")


def test_a_signed_origin_is_asked_for(world: World) -> None:
    client = Client(world, DATA, fields=world.sign({"origin": "https://app.example"}))
    refused, created = play(client.create, lambda: client.create(headers={"origin": "https://app.example"}))
    assert_refused(refused, 400, "origin_mismatch")
    assert created.status == 201
