"""Cloudinary's chunked protocol, request by request."""

import asyncio
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.asgi import END, Answer, part, parts_of
from tests.chunks import CHUNK, NO_ROWS, Client, form, headers, noise, orders, rows, spans, stored
from tests.world import PNG, QuickWorld, World, assert_accepted, assert_refused
from uponce.core.policy import Limits

DATA = noise(4 * CHUNK + 7)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=Limits(min_chunk_bytes=CHUNK))
    yield world
    world.close()


@pytest.fixture
def client(world: World) -> Client:
    return Client(world, DATA)


def test_chunks_make_one_asset_with_the_hashes_of_the_whole(world: World, client: Client) -> None:
    *interim, final = asyncio.run(client.all_of())

    assert [answer.json for answer in interim] == [
        {"done": False, "bytes": (n + 1) * CHUNK, "kind": "upload", "resource_type": "raw"} for n in range(4)
    ]
    assert stored(world, final) == DATA
    assert final.json["done"] is True
    assert final.json["bytes"] == len(DATA)
    assert final.json["etag"] == hashlib.md5(DATA).hexdigest()
    assert final.json["original_filename"] == "film"
    assert world.sql(f"SELECT count(*) FROM assets WHERE sha256 = '{hashlib.sha256(DATA).hexdigest()}'") == 1
    assert rows(world) == NO_ROWS
    assert world.traces().spooled == frozenset()


@pytest.mark.parametrize("order", orders(len(DATA)), ids=["ascending", "descending", "shuffled"])
@pytest.mark.parametrize("unknown", [None, "-1", "*"])
def test_any_order_with_or_without_a_total(
    world: World, client: Client, order: list[tuple[int, int]], unknown: str | None
) -> None:
    """Only the chunk that ends the file has to know where that is."""

    async def play() -> list[Answer]:
        last = client.spans[-1]
        return [await client.chunk(*span, total=len(DATA) if span == last else unknown) for span in order]

    *interim, final = asyncio.run(play())
    assert not any(answer.json["done"] for answer in interim)
    assert stored(world, final) == DATA
    assert final.json["etag"] == hashlib.md5(DATA).hexdigest()


def test_a_name_that_is_too_long_is_refused_with_the_first_chunk(world: World) -> None:
    """Its parts are allowed, and too long together: no file could be stored under it."""
    client = Client(world, DATA, fields=world.sign({"folder": "f" * 240}))
    with world.untouched():
        assert_refused(asyncio.run(client.chunk(*client.spans[0])), 400, "invalid_parameter")
        assert rows(world) == NO_ROWS


def test_ten_in_parallel(world: World) -> None:
    """As Directus does it: one signature, one total at the end, whatever order they arrive in."""
    data = noise(30 * CHUNK)
    client = Client(world, data)

    async def play() -> list[Answer]:
        gate = asyncio.Semaphore(10)

        async def one(span: tuple[int, int]) -> Answer:
            async with gate:
                return await client.chunk(*span, total=len(data) if span[1] == len(data) - 1 else "-1")

        return await asyncio.gather(*(one(span) for span in client.spans))

    answers = asyncio.run(play())
    (final,) = [assert_accepted(answer) for answer in answers if assert_accepted(answer).json["done"]]
    assert stored(world, final) == data
    assert (world.traces().assets, world.traces().grants) == (1, 1)


def test_a_file_of_500_chunks_may_have_a_signature_for_each(world: World) -> None:
    """As `upload_large` makes them."""
    data = noise(500 * CHUNK)
    client = Client(world, data)

    async def play() -> list[Answer]:
        return [await client.chunk(*span, fields=world.sign({"nonce": f"{span[0]}"})) for span in client.spans]

    *_, final = asyncio.run(play())
    assert stored(world, final) == data
    assert world.sql("SELECT count(*) FROM grants") == 500


def test_a_signature_beyond_the_limit_is_refused_and_those_before_still_count(tmp_path: Path) -> None:
    world = QuickWorld(tmp_path, limits=Limits(min_chunk_bytes=CHUNK, signatures_per_series=2))
    client, fields = Client(world, DATA), [world.sign({"nonce": f"{n}"}) for n in range(3)]

    async def play() -> list[Answer]:
        return [await client.chunk(*span, fields=fields[n]) for n, span in enumerate(client.spans[:3])]

    *before, beyond = asyncio.run(play())
    assert [answer.status for answer in before] == [200, 200]
    assert_refused(beyond, 400, "too_many_signatures")
    assert "has 2 signatures, and 2 are allowed" in beyond.json["error"]["message"]
    *_, final = [asyncio.run(client.chunk(*span, fields=fields[1])) for span in client.spans[2:]]
    assert stored(world, final) == DATA
    assert world.sql("SELECT count(*) FROM grants") == 2
    world.close()


def test_each_chunk_may_be_signed_anew(world: World) -> None:
    """As SDKs do it; the timestamp differs, a public_id may be there on the first one only. All are spent together."""
    signatures = []
    client = Client(world, DATA)

    async def play() -> list[Answer]:
        answers = []
        for number, span in enumerate(client.spans):
            world.clock.time += 1
            params = {"public_id": "large", "folder": "films"} if number == 0 else {"folder": "films"}
            signatures.append(world.sign(params))
            answers.append(await client.chunk(*span, fields=signatures[-1]))
            spent = world.sql("SELECT count(*) FROM grants")
            assert spent == (len(client.spans) if number == len(client.spans) - 1 else 0)
        return answers

    final = asyncio.run(play())[-1]
    assert final.json["public_id"] == "films/large"
    assert stored(world, final) == DATA
    for fields in signatures:
        assert_refused(world.upload(fields), 400, "signature_used")


@pytest.mark.parametrize("first", [{"public_id": "alice"}, {}], ids=["another name", "no name"])
def test_a_name_that_was_signed_is_the_name_of_the_asset(world: World, first: dict[str, str]) -> None:
    """Two clients that give their uploads the same id: neither gets 200 for an asset of another name."""
    client, bob = Client(world, DATA, fields=world.sign(first)), world.sign({"public_id": "bob"})

    async def play() -> list[Answer]:
        begun = await client.chunk(*client.spans[0])
        joined = await client.chunk(*client.spans[1], fields=bob)
        return [joined, begun, *[await client.chunk(*span) for span in client.spans[1:]]]

    refused, *_, final = asyncio.run(play())
    assert_refused(refused, 400, "chunk_conflict")
    assert final.json["public_id"] == first.get("public_id", final.json["public_id"])
    assert assert_accepted(world.upload(bob)).json["public_id"] == "bob"


def test_a_public_id_that_php_adds_without_signing_it(world: World, client: Client) -> None:
    """From the second chunk on; on the first one it is a forgery."""
    added = {**client.fields, "public_id": "added"}

    async def play() -> list[Answer]:
        forged = await client.chunk(*client.spans[0], fields=added)
        first = await client.chunk(*client.spans[0])
        return [forged, first, *[await client.chunk(*span, fields=added) for span in client.spans[1:]]]

    forged, *_, final = asyncio.run(play())
    assert_refused(forged, 401, "invalid_signature")
    assert stored(world, final) == DATA
    assert final.json["public_id"] != "added"


def test_the_file_may_precede_the_fields(world: World, client: Client) -> None:
    async def play() -> list[Answer]:
        return [await client.chunk(*span, file_first=True) for span in client.spans]

    assert stored(world, asyncio.run(play())[-1]) == DATA
    assert world.traces().spooled == frozenset()


def test_put(world: World) -> None:
    fields = world.sign()
    answers = [
        world.request(
            "PUT",
            world.route("raw", fields),
            chunks=[DATA[first : last + 1]],
            headers=headers(first, last, len(DATA), "put"),
        )
        for first, last in spans(len(DATA))
    ]
    assert stored(world, answers[-1]) == DATA


def test_a_picture_is_inspected_as_a_whole(world: World) -> None:
    picture = PNG + noise(2 * CHUNK)
    client = Client(world, picture, kind="auto")
    final = asyncio.run(client.all_of())[-1]
    assert (final.json["format"], final.json["resource_type"]) == ("png", "image")
    assert final.json["etag"] == hashlib.md5(picture).hexdigest()


def test_a_field_of_each_chunk_names_the_type_where_the_url_says_auto(world: World) -> None:
    picture = PNG + noise(2 * CHUNK)
    client = Client(world, picture, kind="auto", fields=world.sign() | {"resource_type": "raw"})
    first, *_, final = asyncio.run(client.all_of())
    assert (first.json["resource_type"], final.json["resource_type"]) == ("raw", "raw")


def test_one_chunk_that_is_the_whole_file_is_an_upload(world: World) -> None:
    data = noise(10)
    client = Client(world, data)
    answer = asyncio.run(client.chunk(0, 9))
    assert stored(world, answer) == data
    assert answer.json["done"] is True


@pytest.mark.parametrize("file_first", [False, True])
def test_an_empty_chunk_at_the_end_names_the_total(world: World, file_first: bool) -> None:
    """.NET's SDK ends a stream of whole chunks so. PHP's SDK sends such a chunk after the upload is complete."""
    client = Client(world, noise(2 * CHUNK))
    end: dict[str, Any] = {"first": 2 * CHUNK, "last": 2 * CHUNK - 1, "file_first": file_first}

    async def play() -> list[Answer]:
        with world.untouched():
            assert_refused(await client.chunk(**end), 404, "series_gone")
            assert rows(world) == NO_ROWS
        interim = [await client.chunk(*span, total=-1) for span in client.spans]
        assert_refused(await client.chunk(**end, data=b"x"), 400, "malformed_request")
        assert_refused(await client.chunk(first=CHUNK, last=CHUNK - 1, total=CHUNK, data=b""), 400, "chunk_conflict")
        return [*interim, await client.chunk(**end), await client.chunk(**end)]

    *interim, final, again = asyncio.run(play())
    assert [answer.json["done"] for answer in interim] == [False, False]
    assert stored(world, final) == client.data
    assert_refused(again, 400, "signature_used")
    assert rows(world) == NO_ROWS


def test_an_empty_chunk_may_overtake_the_others(world: World) -> None:
    client = Client(world, noise(2 * CHUNK))
    first, second = client.spans

    async def play() -> list[Answer]:
        order = [(*first, -1), (2 * CHUNK, 2 * CHUNK - 1, 2 * CHUNK), (*second, -1)]
        return [await client.chunk(start, last, total=total) for start, last, total in order]

    _, empty, final = asyncio.run(play())
    assert (empty.json["done"], empty.json["bytes"]) == (False, CHUNK)
    assert stored(world, final) == client.data


@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("data", [noise(5), noise(11)], ids=["cut short", "too long"])
def test_a_whole_file_that_its_headers_describe_wrongly_is_refused(world: World, data: bytes, named: bool) -> None:
    """A proxy or a flaky client that cut the body must not spend the signature."""
    fields = world.sign()
    sent = headers(0, 9, 10, "abc.123")
    if not named:
        del sent["x-unique-upload-id"]
    for refused in (
        world.upload(fields, data, kind="raw", headers=sent),
        world.post(part("file", data, "a.bin"), parts_of(fields), END, kind="raw", headers=sent),
        world.request("PUT", world.route("raw", fields), headers=sent, chunks=[data]),
    ):
        assert_refused(refused, 400, "malformed_request")
        assert "10" in refused.json["error"]["message"]
    assert_accepted(world.upload(fields, noise(10), kind="raw", headers=sent))
    assert rows(world) == NO_ROWS


@pytest.mark.parametrize("again", [0, 1, 2])
def test_a_chunk_may_come_again(world: World, client: Client, again: int) -> None:
    async def play() -> list[Answer]:
        answers = []
        for number, span in enumerate(client.spans):
            answers.append(await client.chunk(*span))
            if number == 2:
                repeated = await client.chunk(*client.spans[again])
                assert repeated.json == answers[2].json
        return answers

    assert stored(world, asyncio.run(play())[-1]) == DATA


def test_chunks_may_overlap_where_they_agree(world: World, client: Client) -> None:
    async def play() -> list[Answer]:
        return [await client.chunk(*span) for span in [(0, 1499), (1000, 2999), (500, 3999), (2500, len(DATA) - 1)]]

    assert stored(world, asyncio.run(play())[-1]) == DATA


OTHER = bytes(CHUNK)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "other bytes in the same place": ({"first": 0, "last": 999, "data": OTHER}, "chunk_conflict"),
    "an overlap with other bytes": ({"first": 500, "last": 1499, "data": OTHER}, "chunk_conflict"),
    "another total": ({"first": 1000, "last": 1999, "total": len(DATA) + 1}, "chunk_conflict"),
    "a total below what is there": ({"first": 100, "last": 998, "total": 999}, "chunk_conflict"),
    "more bytes than the range": ({"first": 1000, "last": 1999, "data": DATA[1000:2001]}, "malformed_request"),
    "fewer bytes than the range": ({"first": 1000, "last": 1999, "data": DATA[1000:1999]}, "malformed_request"),
    "too small": ({"first": 1000, "last": 1998, "total": -1}, "chunk_too_small"),
    "a range backwards": ({"first": 1999, "last": 1000}, "malformed_request"),
    "beyond the total": ({"first": 4000, "last": len(DATA)}, "malformed_request"),
    "no range": ({"first": "x", "last": "y", "data": OTHER}, "malformed_request"),
    "nonsense as a total": ({"first": 0, "last": 999, "total": "-2"}, "malformed_request"),
    "a number without end": ({"first": 0, "last": 2**70}, "malformed_request"),
    "larger than any file": ({"first": 10**17, "last": 10**17 + CHUNK, "total": -1, "data": OTHER}, "file_too_large"),
    "an absurd total": ({"first": 1000, "last": 1999, "total": 10**17}, "file_too_large"),
    "a torn body": ({"first": 1000, "last": 1999, "torn": True}, "malformed_request"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_chunk_leaves_the_series_as_it_was(world: World, client: Client, name: str) -> None:
    arguments, code = REFUSED[name]
    if name == "a torn body":
        fields, file, _ = form(client.fields, DATA[1000:2000])
        arguments = {**arguments, "chunks": [fields, file[:500]]}

    async def play() -> Answer:
        first = await client.chunk(0, 999)
        before = world.traces(), rows(world)
        assert_refused(await client.chunk(**arguments), 400, code)
        assert (world.traces(), rows(world)) == before
        assert (await client.chunk(0, 999)).json == first.json
        return [await client.chunk(*span) for span in client.spans[1:]][-1]

    assert stored(world, asyncio.run(play())) == DATA


def test_a_changed_parameter_is_named(world: World, client: Client) -> None:
    async def play() -> None:
        await client.chunk(*client.spans[0])
        other = world.sign({"tags": "other"})
        answer = await client.chunk(*client.spans[1], fields=other)
        assert_refused(answer, 400, "chunk_conflict")
        assert answer.message.startswith("Parameter tags differs from that of the upload's first chunk.")
        client.kind = "auto"
        answer = await client.chunk(*client.spans[1])
        assert_refused(answer, 400, "chunk_conflict")
        assert answer.message.startswith("Parameter resource_type differs")

    asyncio.run(play())
    assert rows(world)["series_grants"] == 1


def test_a_failed_first_chunk_leaves_nothing(world: World, client: Client) -> None:
    cut = [*form(client.fields, DATA[:CHUNK])[:1], form(client.fields, DATA[:CHUNK])[1][:500]]
    with world.untouched():
        assert_refused(asyncio.run(client.chunk(0, 999, chunks=cut, torn=True)), 400, "malformed_request")
        assert rows(world) == NO_ROWS


def test_forgeries_leave_nothing(world: World, client: Client) -> None:
    forged = {**client.fields, "signature": "0" * 40}
    with world.untouched():
        assert_refused(asyncio.run(client.chunk(0, 999, fields=forged)), 401, "invalid_signature")
        assert rows(world) == NO_ROWS
    asyncio.run(client.chunk(0, 999))
    with world.untouched():
        before = rows(world)
        assert_refused(asyncio.run(client.chunk(1000, 1999, fields=forged)), 401, "invalid_signature")
        assert rows(world) == before


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        ({"content-range": "bytes 0-999/2000"}, "malformed_request"),
        ({"content-range": "bytes 0--1/0", "x-unique-upload-id": "a"}, "empty_file"),
        ({"content-range": "bytes 0-999/2000", "x-unique-upload-id": "a b"}, "invalid_parameter"),
        ({"content-range": "bytes 0-999/2000", "x-unique-upload-id": "a" * 256}, "invalid_parameter"),
        ({"x-unique-upload-id": "a", "x-upload-part-number": "1"}, "unsupported_parameter"),
        ({"x-unique-upload-id": "a", "x-upload-total-parts": "2"}, "unsupported_parameter"),
    ],
)
def test_headers_that_make_no_chunk(world: World, sent: dict[str, str], code: str) -> None:
    with world.untouched():
        answer = world.post(*form(world.sign(), DATA[:CHUNK]), headers=sent)
    assert_refused(answer, 400, code)


def test_ids_of_two_keys_are_two_uploads(world: World) -> None:
    """Clients do not try hard to choose unguessable ones."""
    one = Client(world, DATA)
    two = Client(world, noise(len(DATA), seed=2), fields=world.sign(key=world.server))

    async def play() -> list[Answer]:
        answers = []
        for span in one.spans:
            answers += [await one.chunk(*span), await two.chunk(*span)]
        return answers

    *_, first, second = asyncio.run(play())
    assert (stored(world, first), stored(world, second)) == (one.data, two.data)
