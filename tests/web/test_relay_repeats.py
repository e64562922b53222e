"""A repeated upload of a cloud with an upstream: its Idempotency-Key makes one asset, whatever was lost.

And whose key signs the answers.
"""

import asyncio
from dataclasses import replace
from typing import Any

import cloudinary
import pytest
from cloudinary.utils import verify_api_response_signature

from tests.upstreams import StubUpstream, Trouble
from tests.web.relays import LIMITS, md5
from tests.web.test_relay import SIZES, chunk, reconcile
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.core.values import GrantStatus


def test_a_repeat_with_its_key_gets_the_upstreams_answer_again(relay: World, stub: StubUpstream) -> None:
    fields, headers = relay.sign(), {"idempotency-key": "one"}
    first = assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    again = assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    assert again.json == first.json
    assert again.headers["idempotent-replayed"] == "true"
    assert_refused(relay.upload(fields, b"other", kind="raw", headers=headers), 400, "idempotency_key_reused")
    assert_refused(relay.upload(fields, kind="raw"), 400, "signature_used")
    assert len(stub.store) == 1


@pytest.mark.parametrize("uses", [1, 2, None])
def test_a_repeat_after_a_lost_reply_gets_what_was_looked_up(
    relay: World, stub: StubUpstream, uses: int | None
) -> None:
    fields = relay.sign(key=relay.server) if uses is None else relay.sign({"max_uses": uses})
    headers = {"idempotency-key": "one"}
    stub.uploads = iter([Trouble.SILENT])
    for file in (PNG, PNG, b"other bytes"):
        assert_refused(relay.upload(fields, file, kind="raw", headers=headers), 503, "outcome_unknown")
    reconcile(relay)
    answer = assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    assert answer.json["etag"] == md5(PNG)
    assert len(stub.store) == 1


@pytest.mark.parametrize("trouble", [Trouble.SILENT, Trouble.FAILED])
@pytest.mark.parametrize("uses", [1, 2, None])
def test_the_answer_asks_for_no_repeat_that_would_make_a_second_asset(
    relay: World, stub: StubUpstream, uses: int | None, trouble: Trouble
) -> None:
    fields = relay.sign(key=relay.server) if uses is None else relay.sign({"max_uses": uses})
    for headers in ({}, {"idempotency-key": "one"}):
        stub.uploads = iter([trouble])
        answer = relay.upload(fields, kind="raw", headers=headers)
        assert_refused(answer, 503, "outcome_unknown")
        is_safe = uses == 1 or bool(headers)
        assert ("again: this signature has other uses" in answer.message) is not is_safe
        assert (
            answer.message.endswith("send this upload again.") or "send the request again" in answer.message
        ) is is_safe


@pytest.mark.parametrize("uses", [1, 2, None])
def test_a_repeat_of_a_pending_upload_is_not_stale(relay: World, stub: StubUpstream, uses: int | None) -> None:
    """Else a client would sign again, and the file would be stored twice: this one is found later."""
    more = {"valid_for": 60} | ({} if uses is None else {"max_uses": uses})
    fields = relay.sign(more, key=relay.server) if uses is None else relay.sign(more)
    headers, fresh = {"idempotency-key": "one"}, relay.sign({"valid_for": 60, "nonce": "unused"})
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind="raw", headers=headers), 503, "outcome_unknown")
    relay.clock.time += 61
    for _ in range(2):
        assert_refused(relay.upload(fields, kind="raw", headers=headers), 503, "outcome_unknown")
        alone = (503, "outcome_unknown") if uses == 1 else (400, "stale_request")
        assert_refused(relay.upload(fields, kind="raw"), *alone)
    assert_refused(relay.upload(fresh, kind="raw", headers=headers), 400, "stale_request")
    reconcile(relay)
    assert_accepted(relay.upload(fields, kind="raw", headers=headers))
    assert_refused(relay.upload(fields, kind="raw"), 400, "stale_request")
    assert len(stub.store) == 1


@pytest.mark.parametrize("is_equal", [False, True])
def test_a_repeat_of_a_lost_upload_never_gets_the_asset_of_another_one(
    relay: World, stub: StubUpstream, is_equal: bool
) -> None:
    """Its signature is spent, since the other upload may have overwritten its asset. Equal bytes are an answer."""
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    fields, headers = relay.sign({"public_id": "cat"}), {"idempotency-key": "one"}
    stub.uploads = iter([Trouble.FORGETS])
    assert_refused(relay.upload(fields, kind="raw", headers=headers), 503, "outcome_unknown")
    other = relay.sign({"public_id": "cat", "tags": "b"})
    assert_accepted(relay.upload(other, PNG if is_equal else b"other bytes", kind="raw"))
    for _ in range(40):
        reconcile(relay, after=60)
    records = asyncio.run(relay.database.list_grants("demo", api_key=None, status=None, limit=9, cursor=None))
    assert [record.status for record in records.items] == [GrantStatus.USED] * 2
    answer = relay.upload(fields, kind="raw", headers=headers)
    if is_equal:
        assert assert_accepted(answer).json["etag"] == md5(PNG)
    else:
        assert_refused(answer, 400, "signature_used")
        assert_refused(relay.upload(fields, kind="raw"), 400, "signature_used")


def test_a_marked_asset_that_no_list_shows_yet_answers_a_repeat(relay: World, stub: StubUpstream) -> None:
    """The asset itself shows its marker, though a preset has changed its bytes."""
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    fields, headers = relay.sign({"public_id": "cat"}), {"idempotency-key": "one"}
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind="raw", headers=headers), 503, "outcome_unknown")
    (asset,) = stub.store.values()
    asset.etag = "of the bytes that a preset made"
    stub.misses = 1
    reconcile(relay)
    assert assert_accepted(relay.upload(fields, kind="raw", headers=headers)).json["etag"] == asset.etag


def signed_by(secret: str, answer: dict[str, Any]) -> bool:
    """Whether the official SDK takes the answer for one of this secret's account."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cloudinary.config(), "api_secret", secret, raising=False)
        verified: bool = verify_api_response_signature(answer["public_id"], answer["version"], answer["signature"])
        return verified


@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_the_key_that_signed_an_upload_signs_its_answer(relay: World, stub: StubUpstream, file: bytes) -> None:
    """So SDKs verify it with the secret they have. Nothing else in the answer of the account changes."""
    headers = {"idempotency-key": "one"}
    for key in (relay.browser, relay.server):
        fields = relay.sign({"tags": "a"}, key=key)
        first = assert_accepted(relay.upload(fields, file, kind="raw", headers=headers))
        again = assert_accepted(relay.upload(fields, file, kind="raw", headers=headers))
        assert again.body == first.body
        assert signed_by(key.secrets[0], first.json)
        assert not signed_by(stub.upstream.secret, first.json)
        asset = next(asset for asset in stub.store.values() if asset.public_id == first.json["public_id"])
        assert first.json == asset.document(stub.upstream.prefix) | {"signature": first.json["signature"]}


def test_the_key_of_chunks_signs_their_answer(relay: World, stub: StubUpstream) -> None:
    relay.swap(limits=replace(LIMITS, min_chunk_bytes=1000))
    fields, file = relay.sign(), bytes(10_000)
    chunk(relay, fields, file, 0, 5000)
    answer = assert_accepted(chunk(relay, fields, file, 5000, 10_000)).json
    assert signed_by(relay.browser.secrets[0], answer)


def test_an_answer_that_was_looked_up_is_signed_too(relay: World, stub: StubUpstream) -> None:
    """The account signs answers to uploads only, and a form may need the signature."""
    fields, headers = relay.sign(), {"idempotency-key": "one"}
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind="raw", headers=headers), 503, "outcome_unknown")
    reconcile(relay)
    answer = assert_accepted(relay.upload(fields, kind="raw", headers=headers)).json
    assert signed_by(relay.browser.secrets[0], answer)
    (asset,) = stub.store.values()
    found = {name: value for name, value in answer.items() if name != "signature"}
    assert found == asset.document(stub.upstream.prefix)


def test_an_answer_that_names_no_asset_gets_no_signature(relay: World, stub: StubUpstream) -> None:
    stub.uploads = iter([Trouble.ACCEPTED])
    assert "signature" not in assert_accepted(relay.upload(relay.sign(), kind="raw")).json
