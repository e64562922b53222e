"""A cloud with an upstream: what its clients get, what the upstream gets, and what the ledger says afterwards."""

import asyncio
import base64
from collections.abc import AsyncIterable, Mapping
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest

from tests.asgi import END, FORM, Answer, part, parts_of
from tests.upstreams import StubUpstream, Trouble
from tests.web.relays import LIMITS, EachOnItsLoop, md5
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.app.outbox import Work, run_due
from uponce.app.ports.relaying import Query, Sign, UpstreamCall, UpstreamReply
from uponce.app.relaying.reconcile import reconcile as look_up
from uponce.core.policy import Limits
from uponce.core.relaying import bound
from uponce.core.values import GrantStatus, Upstream


def status_of(world: World, fields: Mapping[str, str]) -> GrantStatus:
    """What the ledger says of the one grant there is."""
    page = asyncio.run(world.database.list_grants("demo", api_key=None, status=None, limit=2, cursor=None))
    assert len(page.items) <= 1, fields
    return page.items[0].status if page.items else GrantStatus.UNUSED


def reconcile(world: World, after: float = 0) -> int:
    """Let the outbox run what is due in so many seconds."""
    world.clock.time += after
    return asyncio.run(run_due(world.services, "relay", Work(look_up)))


def stored(stub: StubUpstream) -> list[str]:
    return [asset.etag for asset in stub.store.values()]


SIZES = {"in memory": PNG, "as it arrives": b"x" * 50_000, "in chunks": bytes(range(256)) * 500}


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_an_upload_is_stored_upstream_once_and_refused_here_afterwards(
    relay: World, stub: StubUpstream, file: bytes
) -> None:
    fields = relay.sign({"tags": "a,b", "ocr": "adv_ocr"})
    answer = assert_accepted(relay.upload(fields, file, kind="raw"))
    assert answer.json["secure_url"].startswith(stub.upstream.prefix)
    assert answer.json["etag"] == md5(file)
    assert_refused(relay.upload(fields, b"another file", kind="raw"), 400, "signature_used")
    assert stored(stub) == [md5(file)]
    assert status_of(relay, fields) is GrantStatus.USED
    assert all("nonce" not in request.names for request in stub.requests)
    assert {"tags", "ocr"} < set(stub.requests[-1].names)
    assert not relay.traces().spooled and not relay.traces().blobs
    assert relay.services.attempts.memory.take(8 * 1024 * 1024)


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_a_file_before_its_fields_is_passed_on_too(relay: World, stub: StubUpstream, file: bytes) -> None:
    fields = relay.sign()
    assert_accepted(relay.post(part("file", file, "a.bin"), parts_of(fields), END, kind="raw"))
    assert stored(stub) == [md5(file)]
    assert not relay.traces().spooled


@pytest.mark.parametrize("file_first", [False, True])
@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_the_upstream_gets_the_type_that_a_field_names(
    relay: World, stub: StubUpstream, file: bytes, file_first: bool
) -> None:
    form = [parts_of(relay.sign() | {"resource_type": "raw"}), part("file", file, "cat.png")]
    answer = assert_accepted(relay.post(*(form[::-1] if file_first else form), END, kind="auto"))
    assert answer.json["resource_type"] == "raw"
    assert [asset.kind for asset in stub.store.values()] == ["raw"]


def test_a_data_uri_that_goes_in_chunks_has_fewer_bytes_than_its_text(relay: World, stub: StubUpstream) -> None:
    file = SIZES["in chunks"] * 4
    uri = f"data:application/octet-stream;base64,{base64.b64encode(file).decode()}"
    assert_accepted(relay.post(parts_of({**relay.sign(), "file": uri}), END, kind="raw"))
    assert stored(stub) == [md5(file)]


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_the_signature_leaves_last_and_after_the_commit(relay: World, stub: StubUpstream, file: bytes) -> None:
    seen: list[Any] = []

    class Watching(EachOnItsLoop):
        async def upload(
            self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
        ) -> UpstreamReply:
            async def watched() -> Mapping[str, str]:
                assert sign is not None
                fields = await sign()
                seen.append((relay.sql("SELECT count(*) FROM relays"), int(fields["timestamp"])))
                return fields

            return await super().upload(upstream, call, file, watched if sign is not None else None)

    relay.swap(upstream=Watching())
    assert_accepted(relay.upload(relay.sign(), file, kind="raw"))
    # The signature is so old that it dies when the fence is over.
    assert seen == [(1, int(relay.clock.time) - 3600 + LIMITS.relay_fence)]
    names = stub.requests[-1].names
    assert names.index("file") < names.index("signature")


def test_other_clouds_store_their_uploads_here(relay: World, stub: StubUpstream) -> None:
    body = parts_of(relay.sign(key=relay.foreign)), part("file", PNG, "cat.png"), END
    assert_accepted(relay.request("POST", "/v1_1/elsewhere/auto/upload", headers=FORM, chunks=body))
    assert not stub.requests
    assert len(relay.traces().blobs) == 1


REFUSALS = {
    "one byte too many": ({"max_bytes": 10}, "file_too_large"),
    "other bytes than signed": ({"sha256": "0" * 64}, "content_mismatch"),
    "another origin": ({"origin": "https://app.example"}, "origin_mismatch"),
}


@pytest.mark.parametrize(("params", "code"), REFUSALS.values(), ids=REFUSALS)
@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_what_is_signed_for_uponce_is_enforced_here(
    relay: World, stub: StubUpstream, params: dict[str, object], code: str, file: bytes
) -> None:
    fields = relay.sign(params)
    answer = relay.upload(fields, file, kind="raw")
    assert answer.status == 400
    assert answer.code == code
    assert not stub.store
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert not relay.traces().spooled


def test_a_signed_parameter_does_not_vanish_in_a_name(relay: World, stub: StubUpstream) -> None:
    """`=` separates the signed name from its value, and an upstream may ignore names that it does not know."""
    fields = relay.sign({"context": "owner=42"})
    split = {name: value for name, value in fields.items() if name != "context"} | {"context=owner": "42"}
    assert_refused(relay.upload(split, kind="raw"), 400, "invalid_parameter")
    assert not stub.store
    assert_accepted(relay.upload(fields, kind="raw"))


@pytest.mark.parametrize("trouble", [Trouble.REFUSED, Trouble.LIMITED])
@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_a_refusal_of_the_upstream_comes_back_as_it_is_and_spends_nothing(
    relay: World, stub: StubUpstream, trouble: Trouble, file: bytes
) -> None:
    fields = relay.sign()
    stub.uploads = iter([trouble])
    answer = relay.upload(fields, file, kind="raw")
    assert answer.status == (420 if trouble is Trouble.LIMITED else 400)
    assert "message" in answer.json["error"]
    assert ("x-featureratelimit-limit" in answer.headers) is (trouble is Trouble.LIMITED)
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert_accepted(relay.upload(fields, file, kind="raw"))
    assert stored(stub) == [md5(file)]


UNKNOWN = [
    Trouble.FAILED_LATE,
    Trouble.TIMED_OUT,
    Trouble.HTML,
    Trouble.TORN_JSON,
    Trouble.SHORT,
    Trouble.SILENT,
    Trouble.RESET_LATE,
    Trouble.HUGE,
]


@pytest.mark.parametrize("trouble", UNKNOWN)
@pytest.mark.parametrize("file", [PNG, SIZES["as it arrives"]], ids=["in memory", "as it arrives"])
def test_an_unknown_outcome_freezes_until_the_asset_is_found(
    relay: World, stub: StubUpstream, trouble: Trouble, file: bytes
) -> None:
    fields = relay.sign()
    stub.uploads = iter([trouble])
    answer = relay.upload(fields, file, kind="raw")
    assert_refused(answer, 503, "outcome_unknown")
    assert int(answer.headers["retry-after"]) > 0
    again = relay.upload(fields, file, kind="raw")
    assert_refused(again, 503, "outcome_unknown")
    assert status_of(relay, fields) is GrantStatus.PENDING
    assert reconcile(relay) == 1
    assert status_of(relay, fields) is GrantStatus.USED
    assert_refused(relay.upload(fields, file, kind="raw"), 400, "signature_used")
    assert stored(stub) == [md5(file)]


NOT_STORED = [Trouble.FAILED, Trouble.FORGETS, Trouble.PORTAL]


@pytest.mark.parametrize("trouble", NOT_STORED)
def test_nothing_is_released_before_the_signature_is_dead_and_two_look_ups_found_nothing(
    relay: World, stub: StubUpstream, trouble: Trouble
) -> None:
    fields, begun = relay.sign(), relay.clock.time
    stub.uploads = iter([trouble])
    assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    looked = []
    while status_of(relay, fields) is GrantStatus.PENDING:
        (effect,) = asyncio.run(relay.database.list_effects(2))
        if reconcile(relay, after=max(1, effect.due_at - relay.clock.time)):
            looked.append(relay.clock.time - begun)
        assert relay.clock.time < begun + 9999
    late = [seconds for seconds in looked if seconds >= bound(LIMITS)]
    assert len(late) == 2, looked
    assert len(looked) <= 6, "the upstream counts look-ups"
    assert not stub.store


def test_look_ups_that_the_upstream_does_not_answer_release_nothing(relay: World, stub: StubUpstream) -> None:
    fields = relay.sign()
    stub.uploads = iter([Trouble.SILENT])
    stub.reads = repeat(Trouble.LIMITED)
    assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    for _ in range(20):
        reconcile(relay, after=400)
        assert status_of(relay, fields) is GrantStatus.PENDING
    stub.reads = iter(())
    reconcile(relay, after=4000)
    assert status_of(relay, fields) is GrantStatus.USED


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize("trouble", [Trouble.HTML, Trouble.MOVED, Trouble.FAILED, Trouble.TORN_JSON, Trouble.NO_ROUTE])
def test_only_the_upstreams_own_word_counts_as_nothing(
    relay: World, stub: StubUpstream, trouble: Trouble, marked: bool
) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=marked)))
    fields = relay.sign()
    stub.uploads, stub.reads = iter([Trouble.FORGETS]), repeat(trouble)
    assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    for _ in range(20):
        reconcile(relay, after=400)
    assert status_of(relay, fields) is GrantStatus.PENDING
    stub.reads = iter(())
    for _ in range(3):
        reconcile(relay, after=4000)
    assert status_of(relay, fields) is GrantStatus.UNUSED


def test_a_list_by_context_is_read_to_its_end(relay: World, stub: StubUpstream) -> None:
    """A page may be empty, and another one follow."""
    pages: list[str | None] = []

    class Paging(EachOnItsLoop):
        async def get(self, upstream: Upstream, path: str, query: Query = (), **how: bool) -> UpstreamReply:
            cursor = dict(query).get("next_cursor")
            pages.append(cursor)
            if path.endswith("raw/context") and cursor is None:
                return UpstreamReply(200, {"resources": [], "next_cursor": "more"}, "{}")
            return await super().get(upstream, path, query)

    relay.swap(upstream=Paging())
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    fields = relay.sign()
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    reconcile(relay)
    assert pages == [None, "more"]
    assert status_of(relay, fields) is GrantStatus.USED


def test_an_asset_that_is_stored_late_is_found(relay: World, stub: StubUpstream) -> None:
    fields = relay.sign()
    stub.uploads, stub.delay = iter([Trouble.SILENT]), LIMITS.relay_processing - 10
    assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    while status_of(relay, fields) is GrantStatus.PENDING:
        reconcile(relay, after=30)
    assert status_of(relay, fields) is GrantStatus.USED
    assert len(stub.store) == 1


def test_without_an_upstream_nothing_is_spent_and_the_next_try_works(relay: World, stub: StubUpstream) -> None:
    fields = relay.sign()
    for file in SIZES.values():
        asyncio.run(relay.database.set_upstream("demo", Upstream("up", "555", "secret", "http://127.0.0.1:9")))
        answer = relay.upload(fields, file, kind="raw")
        assert_refused(answer, 503, "upstream_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert status_of(relay, fields) is GrantStatus.UNUSED
    asyncio.run(relay.database.set_upstream("demo", stub.upstream))
    assert_accepted(relay.upload(fields, kind="raw"))


@pytest.mark.parametrize("trouble", [Trouble.RESET, Trouble.HANG_UP])
def test_a_connection_that_breaks_before_the_signature_left_spends_nothing(
    relay: World, stub: StubUpstream, trouble: Trouble
) -> None:
    relay.swap(limits=Limits(max_failed_credentials=10**6))
    fields, more_than_sockets_hold = relay.sign(), bytes(32 * 1024 * 1024)
    stub.uploads = iter([trouble])
    assert_refused(relay.upload(fields, more_than_sockets_hold, kind="raw"), 503, "upstream_unavailable")
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert_accepted(relay.upload(fields, kind="raw"))


def test_a_client_that_breaks_off_spends_nothing_and_the_upstream_stores_nothing(
    relay: World, stub: StubUpstream
) -> None:
    for file in SIZES.values():
        fields = relay.sign()
        relay.post(parts_of(fields), part("file", file)[:-20], kind="raw", torn=True)
        assert status_of(relay, fields) is GrantStatus.UNUSED
    assert not stub.store
    assert not relay.traces().spooled


def test_an_asset_of_that_name_with_other_bytes_is_told_and_noted(relay: World, stub: StubUpstream) -> None:
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), b"the first", kind="raw"))
    fields = relay.sign({"public_id": "cat", "overwrite": "false"})
    relay.clock.time += 60
    answer = assert_accepted(relay.upload(fields, kind="raw"))
    assert answer.json["existing"] is True
    assert relay.sql("SELECT count(*) FROM audit WHERE code = 'existing'") == 1
    assert stored(stub) == [md5(b"the first")]


@pytest.mark.parametrize("trouble", [Trouble.WRONG_ETAG, Trouble.RENAMED, Trouble.ACCEPTED])
def test_what_a_preset_of_the_account_makes_of_it_is_passed_on_and_spent(
    relay: World, stub: StubUpstream, trouble: Trouble
) -> None:
    fields = relay.sign()
    stub.uploads = iter([trouble])
    assert_accepted(relay.upload(fields, kind="raw"))
    assert status_of(relay, fields) is GrantStatus.USED


def test_where_presets_rename_assets_a_context_entry_finds_a_lost_one(relay: World, stub: StubUpstream) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    fields = relay.sign({"context": "alt=cat"})
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind="auto"), 503, "outcome_unknown")
    reconcile(relay)
    assert status_of(relay, fields) is GrantStatus.USED
    assert len(stub.store) == 1


def chunk(world: World, fields: Mapping[str, str], file: bytes, start: int, end: int, name: str = "u1") -> Answer:
    headers = {"x-unique-upload-id": name, "content-range": f"bytes {start}-{end - 1}/{len(file)}"}
    return world.upload(fields, file[start:end], kind="raw", headers=headers)


def test_chunks_of_a_client_are_passed_on_when_they_are_all_there(relay: World, stub: StubUpstream) -> None:
    relay.swap(limits=Limits(max_failed_credentials=10**6, relay_whole_bytes=4 * 1024 * 1024, relay_chunk_bytes=10**6))
    file, fields, half = b"0123456789abcdef" * 400_000, relay.sign(), 5 * 1024 * 1024
    assert chunk(relay, fields, file, 0, half).json["done"] is False
    assert not stub.store
    answer = assert_accepted(chunk(relay, fields, file, half, len(file)))
    assert (answer.json["done"], answer.json["etag"]) == (True, md5(file))
    assert_refused(chunk(relay, fields, file, half, len(file)), 400, "signature_used")
    assert stored(stub) == [md5(file)]
    assert not relay.traces().spooled


def test_an_upstream_that_is_away_leaves_the_chunks_for_the_next_try(relay: World, stub: StubUpstream) -> None:
    relay.swap(limits=Limits(max_failed_credentials=10**6))
    file, fields, half = b"0123456789abcdef" * 400_000, relay.sign(), 5 * 1024 * 1024
    chunk(relay, fields, file, 0, half)
    stub.uploads = iter([Trouble.RESET])
    assert_refused(chunk(relay, fields, file, half, len(file)), 503, "upstream_unavailable")
    assert_accepted(chunk(relay, fields, file, half, len(file)))
    assert stored(stub) == [md5(file)]


def test_tus_passes_on_too(relay: World, stub: StubUpstream) -> None:
    fields = relay.sign()
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items())
    headers = {"tus-resumable": "1.0.0", "upload-length": "9", "upload-metadata": metadata}
    created = relay.request("POST", "/tus/demo/", headers=headers)
    assert created.status == 201, created.body
    place = "/tus/" + created.headers["location"].partition("/tus/")[2]
    more = {
        "tus-resumable": "1.0.0",
        "upload-offset": "0",
        "content-type": "application/offset+octet-stream",
        "prefer": "return=representation",
    }
    answer = relay.request("PATCH", place, headers=more, chunks=[b"some data"])
    assert (answer.status, answer.headers["upload-offset"]) == (200, "9"), answer.body
    assert answer.json["etag"] == md5(b"some data")
    head = relay.request("HEAD", place, headers={"tus-resumable": "1.0.0"})
    assert (head.status, head.headers["upload-offset"]) == (200, "9")
    assert stored(stub) == [md5(b"some data")]


def test_a_file_is_judged_here_first_if_the_operator_says_so(relay: World, stub: StubUpstream) -> None:
    relay.swap(inspects=True)
    fields = relay.sign()
    assert relay.upload(fields, b"no picture", kind="image").status == 400
    assert not stub.requests
    assert_accepted(relay.upload(fields, kind="image"))
    assert stored(stub) == [md5(PNG)]
    assert not relay.traces().spooled
