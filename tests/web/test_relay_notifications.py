"""Notifications of the account behind a relay: which of them are accepted, and what they change."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.asgi import Answer
from tests.upstreams import StubUpstream, Trouble
from tests.web.test_relay import reconcile, status_of
from tests.world import World, assert_accepted, assert_refused
from uponce.core.signature import sign
from uponce.core.values import Algorithm, GrantStatus

SOON = 5


async def nothing(*_: object) -> None:
    """What a server does that was killed before it could hasten the look-up."""


def lost(relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, **params: object) -> dict[str, str]:
    """The fields of an upload that the account stored, and whose answer a killed server lost."""
    fields = relay.sign(params)
    stub.uploads = iter([Trouble.SILENT])
    with monkeypatch.context() as patch:
        patch.setattr(relay.database, "hasten_effect", nothing)
        assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    assert reconcile(relay) == 0
    return fields


def news(stub: StubUpstream, **other: object) -> dict[str, Any]:
    """What the account says of the asset that it has."""
    (asset,) = stub.store.values()
    return {"notification_type": "upload", **asset.document("http://account.test"), **other}


def post(relay: World, stub: StubUpstream, body: bytes, *, at: float = 0, **headers: Any) -> Answer:
    """Post a body as the account would, with some headers changed."""
    timestamp = int(at or relay.clock.time)
    signature = sign(body + str(timestamp).encode(), stub.upstream.secret)
    signed = {"x-cld-timestamp": str(timestamp), "x-cld-signature": signature}
    changed = {name.replace("_", "-"): value for name, value in headers.items()}
    sent = {"content-length": str(len(body)), **signed, **changed}
    return relay.request("POST", "/relay/demo/notifications", headers=sent, chunks=[body])


def tell(relay: World, stub: StubUpstream, **other: object) -> Answer:
    return post(relay, stub, json.dumps(news(stub, **other)).encode())


def test_a_notification_brings_the_look_up_forward(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = lost(relay, stub, monkeypatch)
    assert assert_accepted(tell(relay, stub)).json == {"result": "ok"}
    assert status_of(relay, fields) is GrantStatus.PENDING  # the account's word is not enough
    assert reconcile(relay, SOON - 1) == 0
    assert reconcile(relay, 1) == 1
    assert status_of(relay, fields) is GrantStatus.USED
    assert len(stub.store) == 1


def test_without_it_the_look_up_waits(relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control."""
    lost(relay, stub, monkeypatch)
    assert reconcile(relay, SOON) == 0


def test_an_upload_is_found_by_its_marker_where_presets_rename_it(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    fields = lost(relay, stub, monkeypatch, context="alt=cat")
    assert_accepted(tell(relay, stub, public_id="another"))
    assert reconcile(relay, SOON) == 1
    assert status_of(relay, fields) is GrantStatus.USED


OTHERS: dict[str, dict[str, object]] = {
    "of another asset": {"public_id": "another", "context": {}},
    "of a deletion": {"notification_type": "delete"},
    "without a name": {"public_id": None},
    "with a name that is no text": {"public_id": ["a"], "context": [1]},
}


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_a_notification_of_something_else_changes_nothing(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, other: dict[str, object]
) -> None:
    lost(relay, stub, monkeypatch)
    assert_accepted(tell(relay, stub, **other))
    assert reconcile(relay, SOON) == 0


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"{", b"\xff", b'{"notification_type":"upload"}', b"[" * 200_000])
def test_a_signed_body_of_any_kind_is_taken(relay: World, stub: StubUpstream, body: bytes) -> None:
    assert_accepted(post(relay, stub, body))


def test_both_algorithms_are_taken(relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    lost(relay, stub, monkeypatch)
    body, now = json.dumps(news(stub)).encode(), int(relay.clock.time)
    signature = sign(body + str(now).encode(), stub.upstream.secret, Algorithm.SHA256)
    assert_accepted(post(relay, stub, body, x_cld_signature=signature))
    assert reconcile(relay, SOON) == 1


FORGED: dict[str, dict[str, Any]] = {
    "another signature": {"x_cld_signature": "0" * 40},
    "no signature": {"x_cld_signature": ""},
    "another time": {"x_cld_timestamp": "1"},
    "no time": {"x_cld_timestamp": ""},
    "a time that is no number": {"x_cld_timestamp": "²"},
    "a time without end": {"x_cld_timestamp": "9" * 40},
}


@pytest.mark.parametrize("headers", FORGED.values(), ids=FORGED)
def test_a_notification_that_the_account_did_not_sign_is_refused(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, headers: dict[str, Any]
) -> None:
    lost(relay, stub, monkeypatch)
    body = json.dumps(news(stub)).encode()
    assert_refused(post(relay, stub, body, **headers), 401, "invalid_signature")
    assert reconcile(relay, SOON) == 0


def test_an_old_notification_is_refused(relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch) -> None:
    lost(relay, stub, monkeypatch)
    body, now = json.dumps(news(stub)).encode(), relay.clock.time
    assert_refused(post(relay, stub, body, at=now - 7201), 401, "invalid_signature")
    assert_accepted(post(relay, stub, body, at=now - 7200))


def test_a_cloud_without_an_upstream_has_no_such_address(world: World) -> None:
    for cloud in ("demo", "elsewhere"):
        answer = world.request("POST", f"/relay/{cloud}/notifications", headers={"content-length": "2"}, chunks=[b"{}"])
        assert_refused(answer, 404, "not_found")


def test_without_the_secret_of_the_account_no_notification_counts(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost(relay, stub, monkeypatch)
    body, bare = json.dumps(news(stub)).encode(), replace(stub.upstream, secret="")
    asyncio.run(relay.database.set_upstream("demo", bare))
    timestamp = int(relay.clock.time)
    forged = sign(body + str(timestamp).encode(), "")
    assert_refused(post(relay, stub, body, x_cld_signature=forged), 401, "invalid_signature")
