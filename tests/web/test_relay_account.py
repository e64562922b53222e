"""What the operator sees of an account that has presets, refuses the relay itself, or answers no look-up."""

import asyncio
import json
from collections.abc import AsyncIterable, Mapping
from dataclasses import replace
from email.utils import formatdate
from itertools import repeat
from typing import Any

import pytest

from tests.scrape import Scraped
from tests.upstreams import ANSWERS, StubUpstream, Trouble
from tests.web.relays import EachOnItsLoop
from tests.web.test_relay import SIZES, reconcile, status_of
from tests.web.test_relay_look_ups import pending
from tests.web.test_relay_repeats import signed_by
from tests.web.test_relayed_calls import act
from tests.world import World, assert_accepted, assert_refused
from uponce.adapters.metrics import PrometheusMetrics
from uponce.app.diagnose import State, of_upstreams
from uponce.app.ports.relaying import Query, Sign, UpstreamCall, UpstreamReply
from uponce.core.values import GrantStatus, Upstream


class Presets(EachOnItsLoop):
    """An account whose presets change what an asset is."""

    def __init__(self, change: Mapping[str, Any]) -> None:
        super().__init__()
        self._change = change

    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        reply = await super().upload(upstream, call, file, sign)
        return replace(reply, document={**(reply.document or {}), **self._change})


@pytest.mark.parametrize("marked", [False, True])
@pytest.mark.parametrize(
    ("change", "is_lost", "is_placed"),
    [
        ({}, False, False),
        ({"public_id": "renamed"}, True, False),
        ({"public_id": "tomcat"}, True, False),
        ({"public_id": "pets/cat"}, True, True),
        ({"type": "authenticated"}, True, True),
    ],
)
def test_an_asset_that_no_look_up_would_find_is_logged(
    relay: World,
    stub: StubUpstream,
    caplog: pytest.LogCaptureFixture,
    change: Mapping[str, Any],
    is_lost: bool,
    is_placed: bool,
    marked: bool,
) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=marked)))
    relay.swap(upstream=Presets(change))
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"))
    assert ("add identify=context" in caplog.text) is (is_lost and not marked)
    assert ("Sign the same values" in caplog.text) is (is_placed and marked)


def test_a_marked_asset_whose_name_uponce_does_not_know_is_not_warned_of(
    relay: World, stub: StubUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    assert_accepted(relay.upload(relay.sign(), kind="raw"))
    assert "instead of" not in caplog.text


def test_a_name_in_another_form_of_unicode_is_not_warned_of(
    relay: World, stub: StubUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    """A Mac decomposes letters in the names of files. An uponce as the account composes them."""
    relay.swap(upstream=Presets({"public_id": "caf\u00e9"}))
    assert_accepted(relay.upload(relay.sign({"public_id": "cafe\u0301"}), kind="raw"))
    assert "instead of" not in caplog.text


@pytest.mark.parametrize("is_late", [True, False])
@pytest.mark.parametrize("file", SIZES.values(), ids=SIZES)
def test_a_timestamp_of_the_relay_that_the_account_refuses_is_no_fault_of_the_client(
    relay: World, stub: StubUpstream, caplog: pytest.LogCaptureFixture, file: bytes, is_late: bool
) -> None:
    """The client has signed another timestamp. Its signature is fresh, and stays free. If the clocks agree, doctor
    finds no fault, and the log names the others."""
    metrics, fields = PrometheusMetrics("1", "server"), relay.sign()
    relay.swap(metrics=metrics)
    if is_late:
        stub.clock = lambda: relay.clock.time + relay.services.limits.relay_fence + 10
    else:
        asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, window=2 * stub.upstream.window)))
    (finding,) = asyncio.run(of_upstreams(relay.services))
    assert finding.state is (State.BROKEN if is_late else State.OK)
    refused = relay.upload(fields, file, kind="raw")
    assert_refused(refused, 503, "upstream_unavailable")
    assert "Stale request" not in refused.json["error"]["message"]
    assert refused.headers["retry-after"] == "60"
    assert Scraped(metrics.text().decode()).outcomes() == {"upstream_refused_account": 1}
    assert "the account refuses the times of this server's signatures" in caplog.text
    assert "`uponce doctor` compares the clocks. If they agree, correct `window`" in caplog.text
    assert status_of(relay, fields) is GrantStatus.UNUSED
    stub.clock = relay.clock.now
    asyncio.run(relay.database.set_upstream("demo", stub.upstream))
    assert_accepted(relay.upload(fields, file, kind="raw"))


@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        (Trouble.LIMITED, "the account's quota for the Admin API is used up"),
        (Trouble.FAILED, "the upstream answered 500"),
        (Trouble.FORGETS, "/v1_1/up/resources/raw/upload/"),
        (None, "`uponce clouds relay NAME URL` sets it again"),
    ],
)
def test_the_outbox_shows_why_a_look_up_failed(
    relay: World, stub: StubUpstream, trouble: Trouble | None, why: str
) -> None:
    pending(relay, stub, {})
    stub.reads = repeat(trouble)
    if trouble is None:
        asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, secret="")))
    reconcile(relay)
    (effect,) = asyncio.run(relay.database.list_effects(10))
    assert effect.error.startswith("the look-up failed: ")
    assert why in effect.error


@pytest.mark.usefixtures("new_york")
@pytest.mark.parametrize("zone", [" GMT", " -0000", ""])
@pytest.mark.parametrize(("reset", "seconds"), [(2400, 2400), (9000, 3600), (-60, 300), (None, 300)])
def test_a_look_up_waits_until_the_quota_begins_again(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, reset: int | None, seconds: int, zone: str
) -> None:
    """A time without a zone is in UTC, wherever the server is."""
    fields, ahead = pending(relay, stub, {}), 100
    stub.clock = lambda: relay.clock.time + ahead
    at = (
        "soon"
        if reset is None
        else formatdate(int(relay.clock.time) + ahead + reset, usegmt=True).replace(" GMT", zone)
    )
    status, body, headers = ANSWERS[Trouble.LIMITED]
    monkeypatch.setitem(ANSWERS, Trouble.LIMITED, (status, body, {**headers, "X-FeatureRateLimit-Reset": at}))
    stub.reads = iter([Trouble.LIMITED])
    reconcile(relay)
    (effect,) = asyncio.run(relay.database.list_effects(10))
    assert abs(effect.due_at - (relay.clock.time + seconds)) <= 2
    reconcile(relay, after=seconds + 2)
    assert status_of(relay, fields) is GrantStatus.USED


@pytest.mark.parametrize("document", [{"public_id": "cat", "version": 7, "signature": "0" * 40}, {"result": "ok"}])
def test_the_key_that_signed_a_call_signs_its_answer(relay: World, document: dict[str, Any]) -> None:
    """`explicit` answers as an upload does."""

    class Explicit(EachOnItsLoop):
        async def post(self, upstream: Upstream, path: str, fields: Query) -> UpstreamReply:
            return UpstreamReply(200, document, json.dumps(document))

    relay.swap(upstream=Explicit())
    answer = assert_accepted(act(relay, "raw/explicit", relay.sign({"public_id": "cat"}, key=relay.server))).json
    assert answer == {**document, **({"signature": answer["signature"]} if "signature" in document else {})}
    assert "signature" not in document or signed_by(relay.server.secrets[0], answer)
