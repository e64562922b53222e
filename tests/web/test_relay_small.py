"""A small file on its way upstream while its grant is made pending: the signature leaves last here too."""

import asyncio
import hashlib
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from tests.app.failing import Failing
from tests.asgi import END, FORM, call, part, parts_of
from tests.scrape import Scraped
from tests.upstreams import ANSWERS, StubUpstream, Trouble
from tests.web.relays import md5
from tests.web.test_relay import SIZES, status_of, stored
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.adapters.metrics import PrometheusMetrics
from uponce.adapters.upstream.client import HttpUpstream
from uponce.app.uploading.pipeline import Arrival, Pipeline, Uploaded
from uponce.core.errors import SignatureUsed, UponceError
from uponce.core.relaying import Relay
from uponce.core.values import Algorithm, GrantStatus


@contextmanager
def slowly(relay: World, stub: StubUpstream, error: UponceError | None = None) -> Iterator[None]:
    """A database that makes a grant pending, or refuses it, when the upstream has had time to answer the file."""
    begin = relay.database.begin_relay

    def answered() -> bool:
        """Or, if the upstream has no trouble, has the whole file."""
        return stub.broken_off > 0 if error is None else any(SMALL in request.body for request in stub.requests)

    async def begin_slowly(new: Relay, seconds: int) -> Any:
        until = time.monotonic() + PATIENCE_SECONDS
        while not answered() and time.monotonic() < until:
            await asyncio.sleep(0.01)
        for _ in range(10):  # turns of the loop, in which the relay sees it
            await asyncio.sleep(0.01)
        if error is not None:
            raise error
        return await begin(new, seconds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay.database, "begin_relay", begin_slowly)
        yield


SMALL = b"small " * 500
PATIENCE_SECONDS = 60  # until the file is at the upstream


BREAKS = {
    Trouble.RESET: (503, "upstream_unavailable"),
    Trouble.HANG_UP: (503, "upstream_unavailable"),
    Trouble.EARLY_413: (400, "upstream_refused"),
}


@pytest.mark.parametrize("trouble", BREAKS)
def test_a_small_file_is_sent_during_the_commit_and_a_break_before_its_signature_spends_nothing(
    relay: World, stub: StubUpstream, trouble: Trouble
) -> None:
    fields = relay.sign()
    stub.uploads = iter([trouble])
    with slowly(relay, stub):
        assert_refused(relay.upload(fields, SMALL, kind="raw"), *BREAKS[trouble])
    assert len(stub.requests) == 1
    assert "signature" not in stub.requests[0].names
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert_accepted(relay.upload(fields, SMALL, kind="raw"))
    assert stored(stub) == [md5(SMALL)]


@pytest.mark.parametrize("file", [SMALL, *list(SIZES.values())[1:]], ids=SIZES)
def test_a_file_that_a_server_on_the_way_finds_too_large_is_refused_for_good(
    relay: World, stub: StubUpstream, file: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A client that sends it again only sends it again."""
    fields = relay.sign()
    stub.uploads = iter([Trouble.EARLY_413])
    with slowly(relay, stub):
        refused = relay.upload(fields, file, kind="raw")
    assert_refused(refused, 400, "upstream_refused")
    assert "takes no file of this size" in refused.json["error"]["message"]
    assert "client_max_body_size" in caplog.text
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert_accepted(relay.upload(fields, SMALL, kind="raw"))


def test_a_small_file_whose_grant_is_refused_ends_without_a_signature(relay: World, stub: StubUpstream) -> None:
    with slowly(relay, stub, SignatureUsed("This signature is spent.")):
        assert_refused(relay.upload(relay.sign(), SMALL, kind="raw"), 400, "signature_used")
    (request,) = stub.requests
    assert (request.complete, request.closed, stub.store) == (False, False, {})


@pytest.mark.parametrize("inspects", [False, True])
@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_a_signature_that_is_used_when_the_file_has_arrived_is_refused_and_noted(
    relay: World, file: bytes, inspects: bool
) -> None:
    used = {"begin_relay": SignatureUsed("This signature is spent.")}
    relay.swap(database=Failing(relay.database, before=used), inspects=inspects)
    assert_refused(relay.upload(relay.sign(), file, kind="raw"), 400, "signature_used")
    assert relay.sql("SELECT count(*) FROM audit WHERE event = 'refused' AND code = 'signature_used'") == 1


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_an_account_whose_secret_is_lost_receives_nothing_and_nothing_is_spent(
    relay: World, stub: StubUpstream, file: bytes
) -> None:
    fields = relay.sign()
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, secret="")))
    assert_refused(relay.upload(fields, file, kind="raw"), 503, "upstream_unavailable")
    assert status_of(relay, fields) is GrantStatus.UNUSED
    assert stub.requests == [] and not relay.traces().blobs and not relay.traces().spooled
    asyncio.run(relay.database.set_upstream("demo", stub.upstream))
    assert_accepted(relay.upload(fields, file, kind="raw"))


@pytest.mark.parametrize("algorithm", Algorithm)
def test_the_log_has_no_signature_that_the_account_quotes(
    relay: World, stub: StubUpstream, caplog: pytest.LogCaptureFixture, algorithm: Algorithm
) -> None:
    wrong = replace(stub.upstream, secret="rotated", algorithm=algorithm)
    asyncio.run(relay.database.set_upstream("demo", wrong))
    refused = relay.upload(relay.sign(), kind="raw")
    assert refused.status == 401
    (quoted,) = re.findall("Invalid Signature ([0-9a-f]{40,})", refused.json["error"]["message"])
    (line,) = [each.getMessage() for each in caplog.records if "for its credentials" in each.getMessage()]
    assert "401: " in line and "Invalid Signature …. String to sign" in line
    assert quoted[:20] not in caplog.text


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_an_upload_without_a_place_spends_nothing(relay: World, stub: StubUpstream, file: bytes) -> None:
    client, fields = relay.services.upstream, relay.sign()
    relay.swap(upstream=HttpUpstream(connections=0))
    answer = relay.upload(fields, file, kind="raw")
    assert_refused(answer, 503, "upstream_unavailable")
    assert "UPONCE_RELAY_CONNECTIONS allows 0" in answer.json["error"]["message"]
    relay.swap(upstream=client)
    assert_accepted(relay.upload(fields, file, kind="raw"))
    assert stored(stub) == [md5(file)]


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_the_bytes_that_were_signed_are_accepted_and_a_repeat_with_others_is_told(relay: World, file: bytes) -> None:
    signed = relay.sign({"sha256": hashlib.sha256(file).hexdigest()})
    assert_accepted(relay.upload(signed, file, kind="raw"))
    fields, headers = relay.sign({"nonce": "repeat"}), {"idempotency-key": "one"}
    assert_accepted(relay.upload(fields, file, kind="raw", headers=headers))
    assert_accepted(relay.upload(fields, file, kind="raw", headers=headers))
    other = relay.upload(fields, file[:-1] + b"?", kind="raw", headers=headers)
    assert_refused(other, 400, "idempotency_key_reused")


def test_only_the_first_upload_of_a_relayed_cloud_tries_the_steps_of_stored_ones(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each would be hashed and verified in vain. A cloud that has no upstream any more is found out again."""
    tried: list[str] = []
    upload = Pipeline.upload

    async def count(pipeline: Pipeline, arrival: Arrival) -> Uploaded:
        tried.append(arrival.request.cloud)
        return await upload(pipeline, arrival)

    monkeypatch.setattr(Pipeline, "upload", count)
    seen = []
    for has_upstream in (True, True, False, False):
        asyncio.run(relay.database.set_upstream("demo", stub.upstream if has_upstream else None))
        relay.clock.time += 60
        form = [parts_of(relay.sign()), part("file", PNG, "cat.png"), END]
        assert_accepted(asyncio.run(call(relay.app, "POST", relay.route(), headers=FORM, chunks=form, whole=True)))
        seen.append((len(tried), len(stub.store)))
    assert seen == [(1, 1), (1, 2), (1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("trouble", "outcome"),
    [
        (None, "upstream_refused_account"),  # 401
        (Trouble.LIMITED, "upstream_refused_account"),
        (Trouble.REFUSED, "upstream_refused"),
    ],
)
def test_an_account_that_refuses_every_upload_is_counted_and_logged_apart(
    relay: World, stub: StubUpstream, caplog: pytest.LogCaptureFixture, trouble: Trouble | None, outcome: str
) -> None:
    """No client is the cause, so an alert rings. The client gets the same code in both cases."""
    metrics = PrometheusMetrics("1", "server")
    relay.swap(metrics=metrics)
    stub.uploads = iter([trouble])
    if trouble is None:
        asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, secret="rotated")))
    assert relay.upload(relay.sign(), kind="raw").status in (400, 401, 420)
    assert Scraped(metrics.text().decode()).outcomes() == {outcome: 1}
    assert ("the account takes no upload now" in caplog.text) is (outcome == "upstream_refused_account")


def test_a_refusal_for_a_time_is_of_the_account_too(
    relay: World, stub: StubUpstream, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, body, headers = ANSWERS[Trouble.REFUSED]
    monkeypatch.setitem(ANSWERS, Trouble.REFUSED, (status, body, {**headers, "Retry-After": "7"}))
    stub.uploads = iter([Trouble.REFUSED])
    assert relay.upload(relay.sign(), kind="raw").status == 400
    assert "the account takes no upload now" in caplog.text
