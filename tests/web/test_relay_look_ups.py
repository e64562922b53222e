"""Look-ups of pending uploads where the account is slow, was changed, or has the file under another version."""

import asyncio
import math
from dataclasses import replace
from itertools import repeat
from typing import Any

import pytest

from tests.upstreams import StubAsset, StubUpstream, Trouble
from tests.web.relays import LIMITS, EachOnItsLoop
from tests.web.test_relay import reconcile, status_of
from tests.world import PNG, World, assert_accepted, assert_refused
from uponce.app.diagnose import State, of_upstreams
from uponce.app.manage_clouds import set_upstream
from uponce.app.ports import Rule, Waiting
from uponce.app.ports.relaying import Query, UpstreamReply
from uponce.app.relaying import reconcile as reconciling
from uponce.app.relaying.reconcile import give_up
from uponce.core.policy import Limits
from uponce.core.relaying import bound
from uponce.core.values import AuditEvent, GrantStatus, Upstream


def pending(relay: World, stub: StubUpstream, params: dict[str, object], kind: str = "raw") -> dict[str, str]:
    """The fields of an upload that the account stored without an answer."""
    fields = relay.sign(params)
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind=kind), 503, "outcome_unknown")
    return fields


def until_it_ends(relay: World, fields: dict[str, str], seconds: int = 60, rounds: int = 60) -> GrantStatus:
    for _ in range(rounds):
        reconcile(relay, after=seconds)
        if (status := status_of(relay, fields)) is not GrantStatus.PENDING:
            break
    return status


@pytest.mark.parametrize("resources", [[1], [None, {}], ["name"]], ids=str)
def test_a_list_of_no_assets_proves_nothing(relay: World, stub: StubUpstream, resources: list[Any]) -> None:
    """Of a server in between. It must end no look-up, and no upload counts as absent."""

    class Odd(EachOnItsLoop):
        async def get(self, upstream: Upstream, path: str, query: Query = ()) -> UpstreamReply:
            if path.endswith("/context"):
                return UpstreamReply(200, {"resources": resources}, "{}", date=stub.clock())
            return await super().get(upstream, path, query)

    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    fields = pending(relay, stub, {})
    real = relay.services.upstream
    relay.swap(upstream=Odd())
    for _ in range(4):
        reconcile(relay, after=9000)
    assert status_of(relay, fields) is GrantStatus.PENDING
    relay.swap(upstream=real)
    assert until_it_ends(relay, fields) is GrantStatus.USED


@pytest.mark.parametrize("step", [1, 10_000])
def test_a_clock_that_steps_ahead_frees_no_upload_that_is_under_way(
    relay: World, stub: StubUpstream, step: int
) -> None:
    """The account accepts the signature by its own clock, and may need minutes for a film."""
    fields = pending(relay, stub, {"public_id": "film"})
    (asset,) = stub.store.values()
    here, there = relay.clock.now(), stub.clock()
    stub.clock = lambda: there + (relay.clock.time - here - step)
    asset.visible_at = there + bound(LIMITS) - 1
    relay.clock.time += step
    looked = 0
    for _ in range(400):
        looked += reconcile(relay, after=5)
        if status_of(relay, fields) is not GrantStatus.PENDING:
            break
    assert status_of(relay, fields) is GrantStatus.USED
    assert looked <= 6, "the account counts look-ups"


def test_that_check_finds_a_look_up_that_trusts_the_database_alone(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_up = reconciling._look_up

    async def blind(*args: Any) -> Any:
        return replace(await look_up(*args), began=math.inf)

    monkeypatch.setattr(reconciling, "_look_up", blind)
    with pytest.raises(AssertionError, match="UNUSED"):
        test_a_clock_that_steps_ahead_frees_no_upload_that_is_under_way(relay, stub, 10_000)


def test_the_grant_is_free_when_the_upload_is_dead_by_both_clocks(relay: World, stub: StubUpstream) -> None:
    fields, begun = pending(relay, stub, {"public_id": "film"}), relay.clock.now()
    stub.store.clear()
    stub.clock = lambda: relay.clock.time - 100
    while status_of(relay, fields) is GrantStatus.PENDING:
        reconcile(relay, after=1)
    assert bound(LIMITS) + 100 <= relay.clock.now() - begun < bound(LIMITS) + 130


@pytest.mark.parametrize(("params", "status"), [({}, GrantStatus.USED), ({"public_id": "cat"}, GrantStatus.UNUSED)])
def test_an_older_asset_counts_where_only_this_grant_can_have_its_name(
    relay: World, stub: StubUpstream, params: dict[str, object], status: GrantStatus
) -> None:
    """An earlier attempt made it, whose request the account carried out late."""
    fields = pending(relay, stub, params)
    (asset,) = stub.store.values()
    asset.etag, asset.version = "other bytes", asset.version - 1000
    assert until_it_ends(relay, fields) is status


@pytest.mark.parametrize(("params", "status"), [({}, GrantStatus.USED), ({"public_id": "cat"}, GrantStatus.UNUSED)])
def test_what_an_account_shows_of_a_deleted_asset_is_no_answer(
    relay: World, stub: StubUpstream, monkeypatch: pytest.MonkeyPatch, params: dict[str, object], status: GrantStatus
) -> None:
    """An account with backups shows it with `placeholder`, and perhaps with the etag of the file that was there.

    Only this grant can have made the first one, so it was used.
    """
    document = StubAsset.document

    def shown(asset: StubAsset, base: str, *, etag: bool = True) -> dict[str, Any]:
        return document(asset, base, etag=etag) | {"placeholder": True, "bytes": 0}

    fields, headers = relay.sign(params), {"idempotency-key": "one"}
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, kind="raw", headers=headers), 503, "outcome_unknown")
    (asset,) = stub.store.values()
    asset.version -= 1000
    monkeypatch.setattr(StubAsset, "document", shown)
    assert until_it_ends(relay, fields) is status
    monkeypatch.setattr(StubAsset, "document", document)
    answer = relay.upload(fields, kind="raw", headers=headers)
    if status is GrantStatus.USED:
        assert_refused(answer, 400, "signature_used")
    else:
        assert assert_accepted(answer).json["bytes"] == len(PNG)


@pytest.mark.parametrize("params", [{}, {"use_filename": "1"}, {"use_filename": "1", "unique_filename": "0"}])
@pytest.mark.parametrize(("filename", "kind"), [("report.zip", "raw"), ("report.txt", "raw"), ("scan.tmp", "image")])
def test_a_file_to_auto_is_found_with_the_extension_that_was_sent(
    relay: World, stub: StubUpstream, params: dict[str, object], filename: str, kind: str
) -> None:
    fields = relay.sign(params)
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, filename=filename), 503, "outcome_unknown")
    ((stored, _, name),) = stub.store
    assert (stored, name.endswith(filename[-4:])) == (kind, True)
    assert until_it_ends(relay, fields) is GrantStatus.USED


def test_an_older_asset_under_one_name_does_not_hide_that_of_the_upload_under_another(
    relay: World, stub: StubUpstream
) -> None:
    assert_accepted(relay.upload(relay.sign({"public_id": "cat"}), kind="image"))
    relay.clock.time += 1000
    fields = relay.sign({"public_id": "cat"})
    stub.uploads = iter([Trouble.SILENT])
    assert_refused(relay.upload(fields, b"a film", filename="cat.mp4"), 503, "outcome_unknown")
    assert [kind for kind, *_ in stub.store] == ["image", "video"]
    for _ in range(60):
        reconcile(relay, after=60)
    records = asyncio.run(relay.database.list_grants("demo", api_key=None, status=None, limit=9, cursor=None))
    assert [record.status for record in records.items] == [GrantStatus.USED] * 2


def until_the_second_ends(relay: World) -> list[GrantStatus]:
    """What the ledger says of both grants. A grant that is free again is not there."""
    for _ in range(60):
        reconcile(relay, after=60)
    records = asyncio.run(relay.database.list_grants("demo", api_key=None, status=None, limit=9, cursor=None))
    return [record.status for record in records.items if record.status is not GrantStatus.UNUSED]


@pytest.mark.parametrize("kind", ["raw", "auto"])
def test_a_marked_asset_that_another_upload_replaced_counts_by_its_signed_name(
    relay: World, stub: StubUpstream, kind: str
) -> None:
    """The other upload brings its own marker, so no asset has that of the first one."""
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    pending(relay, stub, {"public_id": "cat", "folder": "pets"}, kind)
    other = relay.sign({"public_id": "cat", "folder": "pets", "tags": "b"})
    assert_accepted(relay.upload(other, b"other bytes", kind=kind))
    assert len(stub.store) == 1
    assert until_the_second_ends(relay) == [GrantStatus.USED] * 2


@pytest.mark.parametrize(("also", "spent"), [({}, 1), ({"type": "authenticated"}, 2)])
def test_a_marked_asset_of_another_type_counts_after_a_replacement_only_if_the_type_is_signed(
    relay: World, stub: StubUpstream, also: dict[str, object], spent: int
) -> None:
    """A known limit: a preset sets the type, and uponce does not know the preset."""
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    pending(relay, stub, {"public_id": "cat", **also})
    other = relay.sign({"public_id": "cat", "tags": "b", **also})
    assert_accepted(relay.upload(other, b"other bytes", kind="raw"))
    (asset,) = stub.store.values()
    stub.store = {("raw", "authenticated", "cat"): replace(asset, type="authenticated")}
    assert until_the_second_ends(relay) == [GrantStatus.USED] * spent


def test_a_marked_upload_that_was_not_stored_is_free_beside_an_older_asset_of_its_name(
    relay: World, stub: StubUpstream
) -> None:
    asyncio.run(relay.database.set_upstream("demo", replace(stub.upstream, marked=True)))
    assert_accepted(relay.upload(relay.sign({"public_id": "cat", "tags": "b"}), b"other bytes", kind="raw"))
    relay.clock.time += 1000
    stub.uploads = iter([Trouble.FORGETS])
    assert_refused(relay.upload(relay.sign({"public_id": "cat"}), kind="raw"), 503, "outcome_unknown")
    assert until_the_second_ends(relay) == [GrantStatus.USED]


def test_a_name_that_no_look_up_can_ask_for_is_refused_before_the_account_has_it(
    relay: World, stub: StubUpstream
) -> None:
    fields = relay.sign({"public_id": "a/../b"})
    assert_refused(relay.upload(fields, kind="raw"), 400, "invalid_parameter")
    assert not stub.requests
    assert status_of(relay, fields) is GrantStatus.UNUSED


def test_another_account_says_nothing_of_uploads_that_the_former_one_received(relay: World, stub: StubUpstream) -> None:
    fields, former = pending(relay, stub, {}), stub.upstream
    stub.upstream, stub.misses = replace(former, cloud="another"), 1000  # where nothing is found
    assert asyncio.run(set_upstream(relay.services, "demo", stub.upstream)) == 1  # is pending
    assert until_it_ends(relay, fields) is GrantStatus.PENDING
    (effect,) = asyncio.run(relay.database.list_effects(10))
    assert former.account in effect.error
    stub.upstream, stub.misses = former, 0
    assert asyncio.run(set_upstream(relay.services, "demo", replace(former, window=60))) == 1
    assert until_it_ends(relay, fields) is GrantStatus.USED


@pytest.mark.parametrize("latency", [1, 3, 20])
def test_a_slow_account_makes_no_asset_look_older_than_its_upload(
    relay: World, stub: StubUpstream, latency: int
) -> None:
    class Slow(EachOnItsLoop):
        async def get(self, upstream: Upstream, path: str, query: Query = ()) -> UpstreamReply:
            relay.clock.time += latency
            return await super().get(upstream, path, query)

    relay.swap(upstream=Slow())
    fields = pending(relay, stub, {"public_id": "cat"}, "auto")
    (asset,) = stub.store.values()
    asset.etag = "of the bytes that a preset made"
    assert until_it_ends(relay, fields) is GrantStatus.USED


def test_a_server_with_a_shorter_fence_frees_no_upload_that_another_one_signed(
    relay: World, stub: StubUpstream
) -> None:
    """The account may carry the upload out until the signature is dead by the limits of the server that signed it."""
    relay.swap(limits=Limits(relay_fence=1800, relay_answer=1800))
    fields = relay.sign({"public_id": "cat"})
    stub.uploads, stub.delay = iter([Trouble.SILENT]), 1790
    assert_refused(relay.upload(fields, kind="raw"), 503, "outcome_unknown")
    relay.swap(limits=Limits())
    relay.clock.time += 1300
    assert until_it_ends(relay, fields, rounds=4) is GrantStatus.PENDING
    assert until_it_ends(relay, fields) is GrantStatus.USED
    assert len(stub.store) == 1


def test_an_account_in_trouble_is_asked_less_often_and_never_given_up(relay: World, stub: StubUpstream) -> None:
    fields, begun = pending(relay, stub, {}), relay.clock.time
    stub.reads = repeat(Trouble.FAILED)
    for _ in range(60):
        (effect,) = asyncio.run(relay.database.list_effects(10))
        relay.clock.time = max(relay.clock.time, effect.due_at)
        reconcile(relay)
    assert relay.clock.time > begun + 4 * 3600
    relay.sql("UPDATE outbox SET tries = 1000000")
    reconcile(relay, after=300)
    stub.reads = iter(())
    assert reconcile(relay, after=300) == 1
    assert status_of(relay, fields) is GrantStatus.USED


@pytest.mark.parametrize("stored", [True, False])
def test_an_upload_that_no_account_can_settle_is_given_up_as_spent(
    relay: World, stub: StubUpstream, stored: bool
) -> None:
    """Its account was a wrong address, or is closed."""
    fields, key = relay.sign(), {"idempotency-key": "k"}
    stub.uploads = iter([Trouble.SILENT if stored else Trouble.FORGETS])
    assert_refused(relay.upload(fields, kind="raw", headers=key), 503, "outcome_unknown")
    stub.upstream = replace(stub.upstream, cloud="another")
    asyncio.run(set_upstream(relay.services, "demo", stub.upstream))
    assert until_it_ends(relay, fields, rounds=3) is GrantStatus.PENDING
    (effect,) = asyncio.run(relay.database.list_effects(10))
    assert f"`uponce outbox drop {effect.id} --spend`" in effect.error
    assert asyncio.run(give_up(relay.services, effect.id + 1)) is None
    given_up = asyncio.run(give_up(relay.services, effect.id))
    assert given_up is not None and given_up.id == effect.subject
    assert asyncio.run(give_up(relay.services, effect.id)) is None
    assert status_of(relay, fields) is GrantStatus.USED
    assert asyncio.run(relay.database.count_waiting()) == Waiting(0, 0, 0)
    assert_refused(relay.upload(fields, kind="raw"), 400, "signature_used")
    assert_refused(relay.upload(fields, kind="raw", headers=key), 400, "signature_used")
    assert not any(asyncio.run(relay.database.violations(rule, 90 * 86400, 10)) for rule in Rule)
    (spent, *_) = asyncio.run(relay.database.history(given_up.grants[0].key, 10))
    assert (spent.event, spent.code, spent.asset_id) == (AuditEvent.SPENT, "given_up", "")


@pytest.mark.parametrize(
    ("ahead", "state"), [(59, State.OK), (60, State.BROKEN), (-300, State.OK), (-302, State.BROKEN)]
)
def test_doctor_finds_a_clock_with_which_the_account_refuses_each_signature(
    relay: World, stub: StubUpstream, ahead: int, state: State
) -> None:
    """A signature of the relay lives for a minute here, so the account must not be a minute ahead."""
    relay.swap(limits=Limits(relay_fence=60, relay_answer=60))
    stub.clock = lambda: relay.clock.time + ahead
    (finding,) = asyncio.run(of_upstreams(relay.services))
    assert finding.state is state, finding.detail


@pytest.mark.parametrize(("ahead", "state"), [(0, State.OK), (2, State.BROKEN), (-2, State.BROKEN)])
def test_doctor_takes_no_fraction_of_a_second_for_a_wrong_clock(
    relay: World, stub: StubUpstream, ahead: int, state: State
) -> None:
    """The account's Date is a whole number."""
    relay.swap(limits=Limits(skew=0))
    relay.clock.time += 0.7
    stub.clock = lambda: relay.clock.time + ahead
    (finding,) = asyncio.run(of_upstreams(relay.services))
    assert finding.state is state, finding.detail


@pytest.mark.parametrize(
    ("trouble", "state", "said"),
    [
        (Trouble.HTML, State.BROKEN, "it answered 200 without the `ok` of an account. Check upload_prefix"),
        (Trouble.PORTAL, State.BROKEN, "it answered 200 without the `ok` of an account. Check upload_prefix"),
        (Trouble.MOVED, State.BROKEN, "it answered 302, a redirect, which is not followed. Set the address"),
        (Trouble.LIMITED, State.WARNING, "it answered 420: the quota of {} for the Admin API is used up."),
        (Trouble.FAILED, State.BROKEN, "it answered 500. Check {}, and the network."),
        (None, State.BROKEN, "it answered 401. `uponce clouds relay demo URL` sets its key."),
    ],
)
def test_doctor_blames_the_key_only_if_the_account_refuses_the_key(
    relay: World, stub: StubUpstream, trouble: Trouble | None, state: State, said: str
) -> None:
    """Look-ups after an outage use the quota up, while the account still takes uploads."""
    stub.reads = repeat(trouble)
    if trouble is None:
        stub.upstream = replace(stub.upstream, secret="another secret of the account")
    (finding,) = asyncio.run(of_upstreams(relay.services))
    account = f"account up at {stub.upstream.prefix}"
    assert (finding.state, said.format(account) in finding.detail) == (state, True), finding.detail
