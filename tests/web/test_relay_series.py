"""Files in chunks, of a client or of the relay, and files of tus, to an upstream that does not take them at once."""

import base64
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.asgi import END, Answer, part, parts_of
from tests.upstreams import ANSWERS, Received, StubAsset, StubUpstream, Trouble
from tests.web.relays import md5
from tests.web.test_relay import chunk, reconcile, status_of, stored
from tests.web.test_relayed_calls import act, basic
from tests.world import World, assert_accepted, assert_refused
from uponce.app.outbox import Work, run_due
from uponce.app.relaying.reconcile import reconcile as look_up
from uponce.core.policy import Limits
from uponce.core.values import GrantStatus

FILE, HALF = b"0123456789abcdef" * 400_000, 5 * 1024 * 1024
SPANS = ((0, HALF), (HALF, len(FILE)))
IN_CHUNKS = Limits(max_failed_credentials=10**6, relay_whole_bytes=4 * 1024 * 1024, relay_chunk_bytes=10**6)


@pytest.mark.parametrize("status", [400, 401, 420])
def test_an_account_that_takes_no_file_now_leaves_the_chunks_for_the_next_try(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """An account that is an uponce says 400 with Retry-After when a chunk was too slow."""
    relay.swap(limits=IN_CHUNKS)
    fields, account = relay.sign(), stub.upstream
    chunk(relay, fields, FILE, 0, HALF)
    if status == 401:
        stub.upstream = replace(account, secret="rotated")
    elif status == 400:
        _, body, headers = ANSWERS[Trouble.REFUSED]
        monkeypatch.setitem(ANSWERS, Trouble.REFUSED, (400, body, {**headers, "Retry-After": "1"}))
        stub.uploads = iter([Trouble.REFUSED])
    else:
        stub.uploads = iter([Trouble.LIMITED])
    assert chunk(relay, fields, FILE, HALF, len(FILE)).status == status
    stub.upstream = account
    assert_accepted(chunk(relay, fields, FILE, HALF, len(FILE)))
    assert stored(stub) == [md5(FILE)]
    assert not relay.traces().spooled


def test_the_last_chunk_of_a_pending_upload_is_not_stale(relay: World, stub: StubUpstream) -> None:
    relay.swap(limits=Limits(max_failed_credentials=10**6))
    fields = relay.sign({"valid_for": 60})
    chunk(relay, fields, FILE, 0, HALF)
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(chunk(relay, fields, FILE, HALF, len(FILE)), 503, "outcome_unknown")
    relay.clock.time += 61
    assert_refused(chunk(relay, fields, FILE, HALF, len(FILE)), 503, "outcome_unknown")
    assert_refused(chunk(relay, relay.sign({"valid_for": 60}) | fields, FILE, 0, HALF, "new"), 503, "outcome_unknown")


def test_a_clock_of_the_relay_that_is_ahead_costs_no_complete_series(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An uponce as the account refuses it. The client signed another time, and sends nothing again."""
    relay.swap(limits=IN_CHUNKS)
    body = b'{"error":{"message":"Timestamp is in the future - reported time is","code":"future_timestamp"}}'
    monkeypatch.setitem(ANSWERS, Trouble.REFUSED, (400, body, {}))
    fields, stub.uploads = relay.sign(), iter([Trouble.REFUSED])
    chunk(relay, fields, FILE, 0, HALF)
    assert_refused(chunk(relay, fields, FILE, HALF, len(FILE)), 503, "upstream_unavailable")
    assert_accepted(chunk(relay, fields, FILE, HALF, len(FILE)))
    assert stored(stub) == [md5(FILE)]


def test_a_client_may_begin_again_after_the_account_took_no_file(relay: World, stub: StubUpstream) -> None:
    """Its new series takes the place of the complete one: nothing was spent."""
    relay.swap(limits=IN_CHUNKS)
    fields, stub.uploads = relay.sign(), iter([Trouble.LIMITED])
    for start, end, status in ((0, HALF, 200), (HALF, len(FILE), 420)):
        assert chunk(relay, fields, FILE, start, end).status == status
    for start, end in ((0, HALF), (HALF, len(FILE))):
        assert_accepted(chunk(relay, fields, FILE, start, end, "another"))
    assert stored(stub) == [md5(FILE)]
    assert not relay.traces().spooled


def test_files_that_the_account_did_not_take_keep_no_later_upload_out(relay: World, stub: StubUpstream) -> None:
    """Their clients have given up, but the chunks stay for a day."""
    relay.swap(limits=replace(IN_CHUNKS, max_series_per_key=2))
    left, stub.uploads = [relay.sign(), relay.sign()], iter([Trouble.LIMITED, Trouble.LIMITED])
    for fields in left:
        assert [chunk(relay, fields, FILE, *span, fields["nonce"]).status for span in SPANS] == [200, 420]
    relay.clock.time += 60
    fields = relay.sign()
    for span in SPANS:
        assert_accepted(chunk(relay, fields, FILE, *span, "third"))
    assert stored(stub) == [md5(FILE)]
    assert relay.sql("SELECT count(*) FROM series") == 1


def test_the_address_of_a_tus_upload_that_the_account_takes_not_now_may_be_asked_again(
    relay: World, stub: StubUpstream
) -> None:
    relay.swap(limits=IN_CHUNKS)
    place, tus = begin_tus(relay, relay.sign(), len(FILE)), {"tus-resumable": "1.0.0"}
    stub.uploads = iter([Trouble.LIMITED, Trouble.LIMITED])
    refused = patch(relay, place, FILE)
    assert (refused.status, refused.headers["retry-after"]) == (503, "60")
    assert refused.json["error"]["message"] == "Rate Limit Exceeded"
    waiting = relay.request("HEAD", place, headers=tus)
    assert (waiting.status, waiting.headers["retry-after"]) == (423, "60")
    head = relay.request("HEAD", place, headers=tus)
    assert (head.status, head.headers["upload-offset"]) == (200, str(len(FILE)))
    assert stored(stub) == [md5(FILE)]


def test_a_tus_upload_that_goes_in_one_request_is_gone_if_the_account_takes_it_not_now(
    relay: World, stub: StubUpstream
) -> None:
    """The refusal comes after the account's signature has left. The client's signature is free again."""
    relay.swap(limits=Limits(max_failed_credentials=10**6))
    fields, tus = relay.sign(), {"tus-resumable": "1.0.0"}
    place, stub.uploads = begin_tus(relay, fields, len(FILE)), iter([Trouble.LIMITED])
    refused = patch(relay, place, FILE)
    assert (refused.status, refused.headers["retry-after"]) == (503, "60")
    assert "code" not in refused.json["error"]
    assert refused.headers["x-cld-error-code"] == "upstream_refused"
    assert relay.request("HEAD", place, headers=tus).status == 404
    assert patch(relay, begin_tus(relay, fields, len(FILE)), FILE).status == 204
    assert stored(stub) == [md5(FILE)]


def test_a_tus_upload_that_begins_with_its_bytes_may_begin_again_after_the_account_took_no_file(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the account's own Retry-After."""
    relay.swap(limits=IN_CHUNKS)
    status, body, limits = ANSWERS[Trouble.LIMITED]
    monkeypatch.setitem(ANSWERS, Trouble.LIMITED, (status, body, {**limits, "Retry-After": "7"}))
    headers = begin_headers(relay.sign(), len(FILE)) | {"content-type": "application/offset+octet-stream"}
    stub.uploads = iter([Trouble.LIMITED])
    refused = relay.request("POST", "/tus/demo/", headers=headers, chunks=[FILE])
    assert (refused.status, refused.headers["retry-after"]) == (503, "7")
    assert relay.request("POST", "/tus/demo/", headers=headers, chunks=[FILE]).status == 201
    assert stored(stub) == [md5(FILE)]


def test_tus_clients_do_not_try_again_when_the_account_refuses_the_file_itself(
    relay: World, stub: StubUpstream
) -> None:
    place, stub.uploads = begin_tus(relay, relay.sign(), 9), iter([Trouble.REFUSED])
    refused = patch(relay, place, b"some data")
    assert (refused.status, "retry-after" in refused.headers) == (400, False)


def test_an_account_that_refuses_the_file_itself_ends_the_series(relay: World, stub: StubUpstream) -> None:
    relay.swap(limits=IN_CHUNKS)
    fields, stub.uploads = relay.sign(), iter([Trouble.REFUSED])
    chunk(relay, fields, FILE, 0, HALF)
    assert chunk(relay, fields, FILE, HALF, len(FILE)).status == 400
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert not relay.traces().spooled
    assert relay.sql("SELECT count(*) FROM series") == 0


def begin_headers(fields: dict[str, str], size: int) -> dict[str, str]:
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in fields.items())
    return {"tus-resumable": "1.0.0", "upload-length": str(size), "upload-metadata": metadata}


def begin_tus(relay: World, fields: dict[str, str], size: int) -> str:
    """The address of a new upload."""
    created = relay.request("POST", "/tus/demo/", headers=begin_headers(fields, size))
    assert created.status == 201, created.body
    return "/tus/" + created.headers["location"].partition("/tus/")[2]


def patch(relay: World, place: str, file: bytes) -> Answer:
    headers = {"tus-resumable": "1.0.0", "upload-offset": "0", "content-type": "application/offset+octet-stream"}
    return relay.request("PATCH", place, headers=headers, chunks=[file])


def test_the_address_of_a_pending_tus_upload_says_that_it_is_pending(relay: World, stub: StubUpstream) -> None:
    """tus-js-client asks again after 423 only. After any other failure of HEAD it begins a new upload."""
    place, tus = begin_tus(relay, relay.sign(), 9), {"tus-resumable": "1.0.0"}
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(patch(relay, place, b"some data"), 503, "outcome_unknown")
    head = relay.request("HEAD", place, headers=tus)
    assert (head.status, head.headers["retry-after"]) == (423, "10")
    assert_refused(relay.request("GET", place), 503, "outcome_unknown")
    for method in ("PATCH", "DELETE"):
        more = {"upload-offset": "0", "content-type": "application/offset+octet-stream"}
        assert_refused(relay.request(method, place, headers=tus | more), 503, "outcome_unknown")
    reconcile(relay)
    head = relay.request("HEAD", place, headers=tus)
    assert (head.status, head.headers["upload-offset"]) == (200, "9")
    assert stored(stub) == [md5(b"some data")]


def test_an_address_that_is_asked_while_its_outcome_is_written_says_what_it_became(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = begin_tus(relay, relay.sign(), 9)
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(patch(relay, place, b"some data"), 503, "outcome_unknown")
    database, asked = relay.database, []

    def between(name: str) -> None:
        """Settle the upload between the two questions."""
        ask = getattr(database, name)

        async def answer(*args: Any, **more: Any) -> Any:
            found = await ask(*args, **more)
            asked.append(name)
            if len(asked) == 1:
                await run_due(relay.services, "relay", Work(look_up))
            return found

        monkeypatch.setattr(database, name, answer)

    between("find_grant")
    between("confirm_reply")
    assert relay.request("HEAD", place, headers={"tus-resumable": "1.0.0"}).status == 200


def test_a_revocation_of_a_pending_upload_hides_no_asset(relay: World, stub: StubUpstream) -> None:
    """The account has stored the file. The address shows that as soon as a look-up has found it."""
    fields = relay.sign()
    place = begin_tus(relay, fields, 9)
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(patch(relay, place, b"some data"), 503, "outcome_unknown")
    assert_accepted(act(relay, "signatures/revoke", fields, authorization=basic(relay)))
    reconcile(relay)
    head = relay.request("HEAD", place, headers={"tus-resumable": "1.0.0"})
    assert (head.status, head.headers["upload-offset"]) == (200, "9")


@pytest.mark.parametrize("url", [None, 17, "https://a.example/\r\nX: y"])
def test_an_account_whose_answer_has_no_valid_url_makes_no_tus_upload_fail(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, url: object
) -> None:
    """The signature is spent by then."""
    document = StubAsset.document
    monkeypatch.setattr(StubAsset, "document", lambda *args, **more: document(*args, **more) | {"secure_url": url})
    place = begin_tus(relay, relay.sign(), 9)
    assert patch(relay, place, b"some data").status == 204
    head = relay.request("HEAD", place, headers={"tus-resumable": "1.0.0"})
    assert (head.status, head.headers["upload-offset"], head.headers["upload-asset"]) == (200, "9", "")


def test_an_answer_in_the_middle_of_a_chunk_that_says_yes_ends_the_upload(relay: World, stub: StubUpstream) -> None:
    """The rest of the chunk was not sent, so the next one would carry the bytes of another place."""
    relay.swap(limits=Limits(max_failed_credentials=10**6, relay_whole_bytes=2**20, relay_chunk_bytes=8 * 2**20))
    fields, file = relay.sign(), random.Random(1).randbytes(20 * 2**20)
    body = b"".join([parts_of(fields), part("file", file, "a.bin"), END])
    stub.uploads = iter([Trouble.EARLY_200])
    answer = relay.post(*(body[start : start + 2**18] for start in range(0, len(body), 2**18)), kind="raw")
    assert_refused(answer, 503, "upstream_unavailable")
    assert [request.headers["content-range"] for request in stub.requests] == [f"bytes 0-{8 * 2**20 - 1}/-1"]
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert not relay.traces().spooled
    assert_accepted(relay.upload(fields, kind="raw"))


def test_a_chunk_that_the_account_takes_for_a_whole_file_ends_the_upload(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A server in between drops the headers of chunks. The last chunk would get `existing`, or replace the asset."""
    store = StubUpstream._upload

    def without_headers(account: StubUpstream, request: Received, *more: Any) -> tuple[int, dict[str, Any]]:
        span, _ = request.headers.pop("content-range", ""), request.headers.pop("x-unique-upload-id", "")
        spans.append(span)
        return store(account, request, *more)

    monkeypatch.setattr(StubUpstream, "_upload", without_headers)
    fields, file, spans = relay.sign({"public_id": "film"}), bytes(range(256)) * 500, list[str]()
    refused = relay.upload(fields, file, kind="raw")
    assert_refused(refused, 503, "upstream_unavailable")
    assert refused.json["error"]["message"].endswith("Send a file of at most 40000 bytes.")
    assert len(spans) == 1
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert not relay.traces().spooled
    (line,) = [each.getMessage() for each in caplog.records if "for a whole file" in each.getMessage()]
    assert "an asset 'film' now" in line
    assert f"({spans[0]})" in line
    monkeypatch.undo()
    stub.store.clear()
    assert assert_accepted(relay.upload(fields, file, kind="raw")).json["etag"] == md5(file)
