"""What tus refuses: with a status that its clients understand, and the upload as it was."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chunks import NO_ROWS, noise, rows
from tests.tus import Client, assert_refused, assert_state, play, stored
from tests.upstreams import StubUpstream, Trouble
from tests.world import QuickWorld, World
from uponce.core.policy import Limits

DATA = noise(5007)
MOST = 20_000


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=Limits(max_raw_bytes=MOST, max_video_bytes=MOST, max_image_bytes=MOST))
    yield world
    world.close()


@pytest.fixture
def client(world: World) -> Client:
    return Client(world, DATA)


COMPRESSED = {"content-type": "application/offset+octet-stream", "content-length": "9", "content-encoding": "gzip"}
BAD_CREATIONS: dict[str, tuple[dict[str, Any], int, str]] = {
    "another version": ({"tus-resumable": "0.2.2"}, 412, "unsupported_version"),
    "no length": ({"upload-length": ""}, 400, "malformed_request"),
    "both lengths": ({"upload-defer-length": "1"}, 400, "malformed_request"),
    "an empty file": ({"upload-length": "0"}, 400, "empty_file"),
    "too large": ({"upload-length": "20001"}, 413, "file_too_large"),
    "a number without end": ({"upload-length": "9" * 30}, 400, "malformed_request"),
    "a negative one": ({"upload-length": "-1"}, 400, "malformed_request"),
    "a part of a concatenation": ({"upload-concat": "partial"}, 400, "unsupported_parameter"),
    "no metadata": ({"upload-metadata": ""}, 400, "missing_parameter"),
    "bad base64": ({"upload-metadata": "tags !"}, 400, "malformed_request"),
    "no UTF-8": ({"upload-metadata": "tags /w=="}, 400, "malformed_request"),
    "no ASCII": ({"upload-metadata": "filename gr\xf6\xdfe"}, 400, "malformed_request"),
    "no key": ({"upload-metadata": "\x7f YQ=="}, 400, "malformed_request"),
    "a key twice": ({"upload-metadata": "tags YQ==,tags YQ=="}, 400, "duplicate_parameter"),
    "a file": ({"upload-metadata": "file YQ=="}, 400, "invalid_parameter"),
    "a compressed body": (COMPRESSED, 400, "malformed_request"),
    "a body of another type": ({"content-type": "text/plain"}, 415, "unsupported_content_type"),
}


@pytest.mark.parametrize("name", BAD_CREATIONS)
def test_a_bad_creation_leaves_nothing(world: World, client: Client, name: str) -> None:
    headers, status, code = BAD_CREATIONS[name]
    with world.untouched():
        (answer,) = play(lambda: client.create(headers=headers))
        assert_refused(answer, status, code)
        assert rows(world) == NO_ROWS
    assert answer.headers.get("tus-version") == ("1.0.0" if status == 412 else None)


def test_metadata_may_have_as_many_items_as_a_form(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are counted before any is decoded: that of a whole head would hold the event loop."""
    facts = ",".join(f"k{number} YQ==" for number in range(world.services.limits.max_fields))
    (allowed,) = play(lambda: client.create(headers={"upload-metadata": facts}))
    assert_refused(allowed, 400, "missing_parameter")
    monkeypatch.setattr("uponce.web.tus.headers._pair", None)
    (refused,) = play(lambda: client.create(headers={"upload-metadata": f"{facts},k YQ=="}))
    assert_refused(refused, 400, "malformed_request")
    assert "has 129 items, the limit is 128" in refused.json["error"]["message"]


@pytest.mark.parametrize("type_", ["application/x-www-form-urlencoded", "application/offset+octet-stream"])
def test_a_creation_whose_body_is_empty_has_no_type_to_check(client: Client, type_: str) -> None:
    """Some HTTP libraries add a Content-Type to every POST."""
    created, last = play(
        lambda: client.create(headers={"content-type": type_, "content-length": "0"}), lambda: client.patch(0)
    )
    assert (created.status, last.status) == (201, 204)


@pytest.mark.parametrize("changed", [{"signature": "0" * 40}, {"tags": "added"}, {"api_key": "unknown"}])
def test_forgeries_leave_nothing(world: World, changed: dict[str, str]) -> None:
    client = Client(world, DATA, fields={**world.sign(), **changed})
    with world.untouched():
        (answer,) = play(client.create)
        assert answer.status == 401
        assert rows(world) == NO_ROWS


def test_a_name_that_is_too_long_is_refused_before_the_first_byte(world: World) -> None:
    """Its parts are allowed, and too long together: no file could be stored under it."""
    client = Client(world, DATA, fields=world.sign({"folder": "f" * 200, "public_id": "p" * 100}))
    with world.untouched():
        (answer,) = play(client.create)
        assert_refused(answer, 400, "invalid_parameter")
        assert rows(world) == NO_ROWS


def test_a_failed_creation_with_bytes_leaves_nothing(world: World, client: Client) -> None:
    """No client has received its address."""
    with world.untouched():
        (torn,) = play(lambda: client.create(body=[DATA[:2000]], torn=True))
        assert_refused(torn, 400, "malformed_request")
        assert rows(world) == NO_ROWS
    created, _ = play(client.create, lambda: client.patch(0))
    assert created.status == 201


BAD_PATCHES: dict[str, tuple[dict[str, Any], int, str]] = {
    "another version": ({"headers": {"tus-resumable": "2.0.0"}}, 412, "unsupported_version"),
    "another type": ({"headers": {"content-type": "text/plain"}}, 415, "unsupported_content_type"),
    "compressed": ({"headers": {"content-encoding": "gzip"}}, 400, "malformed_request"),
    "compressed on the way": ({"headers": {"transfer-encoding": "gzip, chunked"}}, 400, "malformed_request"),
    "no offset": ({"headers": {"upload-offset": ""}}, 400, "malformed_request"),
    "an offset with a sign": ({"headers": {"upload-offset": "+100"}}, 400, "malformed_request"),
    "more than the length": ({"headers": {"content-length": "4908"}}, 413, "file_too_large"),
    "another length": ({"headers": {"upload-length": "5008"}}, 400, "chunk_conflict"),
    "an unknown checksum": ({"headers": {"upload-checksum": "crc7 AA=="}}, 400, "invalid_parameter"),
    "a checksum that is none": ({"headers": {"upload-checksum": "sha1 ?"}}, 400, "malformed_request"),
    "a checksum that is not ASCII": ({"headers": {"upload-checksum": "sha1 \xe9"}}, 400, "malformed_request"),
}


@pytest.mark.parametrize("name", BAD_PATCHES)
def test_a_bad_patch_leaves_the_upload_as_it_was(world: World, client: Client, name: str) -> None:
    arguments, status, code = BAD_PATCHES[name]
    _, _, refused, last = play(
        client.create, lambda: client.patch(0, 100), lambda: client.patch(100, **arguments), lambda: client.patch(100)
    )
    assert_refused(refused, status, code)
    assert stored(world, last.headers["upload-asset"]) == DATA


def test_more_than_the_length_unannounced(world: World, client: Client) -> None:
    """What fits does not complete the file: it may be another one."""
    _, refused, state = play(client.create, lambda: client.patch(0, data=[DATA, b"x"]), client.head)
    assert_refused(refused, 413, "file_too_large")
    assert (state.status, world.traces().assets) == (200, 0)


def test_more_than_any_file_may_have(world: World, client: Client) -> None:
    data = noise(20_001)
    _, refused, state = play(lambda: client.create(length="later"), lambda: client.patch(0, data=[data]), client.head)
    assert_refused(refused, 413, "file_too_large")
    assert refused.json["error"]["message"] == "File size too large. Got at least 20001. Maximum is 20000."
    assert_state(state, 200, 0)


def test_the_address_of_a_refused_file_says_what_may_have_happened(world: World) -> None:
    """The reason was in the answer to the last PATCH."""
    client = Client(world, DATA, fields=world.sign({"allowed_formats": "png"}))
    _, refused, state, shown, more, ended = play(
        client.create, lambda: client.patch(0), client.head, client.get, lambda: client.patch(0), client.delete
    )
    assert_refused(refused, 400, "format_not_allowed")
    assert state.status == 404
    for answer in (shown, more, ended):
        assert_refused(answer, 404, "series_gone")
        assert answer.message == (
            "There is no upload at this address: it was cancelled or refused, it ended long ago, or it never existed. "
            "Begin a new one."
        )


@pytest.mark.parametrize(
    "path",
    [
        "/tus/demo/{key}/{other}",
        "/tus/elsewhere/{key}/{id}",
        "/tus/demo/{zeros}/{id}",
        "/tus/demo/x/{id}",
        "/tus/demo/{upper}/{id}",
    ],
)
def test_addresses_that_are_none(world: World, client: Client, path: str) -> None:
    """Before and after the upload is complete."""

    async def run() -> None:
        await client.create()
        *_, key, number = client.url.split("/")
        right = client.url
        wrong = path.format(key=key, id=number, other="0" * 32, zeros="0" * 64, upper=key.upper())
        for _ in range(2):
            client.url = wrong
            assert (await client.head()).status == 404
            assert_refused(await client.patch(0), 404, "series_gone")
            assert_refused(await client.delete(), 404, "series_gone")
            client.url = right
            if not _:
                assert_state(await client.patch(0), 204, len(DATA))

    if "{upper}" in path:
        client.fields = world.sign({"nonce": "with letters in its digest"})
    asyncio.run(run())


def test_tus_clients_get_a_refusal_of_the_upstream_with_the_status_and_headers_of_tus(
    relay: World, stub: StubUpstream
) -> None:
    client = Client(relay, DATA)
    stub.uploads = iter([Trouble.LIMITED])
    _, refused = play(client.create, lambda: client.patch(0))
    assert (refused.status, refused.headers["tus-resumable"]) == (503, "1.0.0")
    assert refused.json["error"]["message"] == "Rate Limit Exceeded"
