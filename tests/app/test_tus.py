"""An upload at its own address: what failures, races, time and lost replies make of it."""

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.app.failing import Failing
from tests.app.test_series import BUSY, DOWN, OUTAGES, FailingParts, revoke, swept
from tests.asgi import Answer
from tests.chunks import NO_ROWS, noise, rows
from tests.tus import BYTES, Client, assert_refused, assert_state, play, stored
from tests.world import QuickWorld, World
from tests.world import assert_refused as assert_plain_refused
from uponce.adapters.database import series as operations
from uponce.app.manage_keys import revoke_key, rotate_key
from uponce.app.unbroken import finish_unbroken
from uponce.app.uploading import resumable
from uponce.core.errors import InvalidMedia, OutcomeUnknown
from uponce.core.policy import Limits

DATA = noise(5007)
LIMITS = Limits(record_bytes=1000, takeover_seconds=1, least_rate=1)
DAY = 86400


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = QuickWorld(tmp_path, limits=LIMITS)
    yield world
    world.close()


@pytest.fixture
def client(world: World) -> Client:
    """All but the last bytes have arrived."""
    client = Client(world, DATA)
    play(client.create, lambda: client.patch(0, 5000))
    return client


def last(client: Client) -> Answer:
    (answer,) = play(lambda: client.patch(5000))
    return answer


def head(client: Client) -> Answer:
    (answer,) = play(client.head)
    return answer


# What is spent.


def check_replays(world: World, client: Client) -> None:
    """Whatever is sent once more after the end, there is one asset, and the refusal says why."""
    assert last(client).status == 204
    before = world.traces()
    assert_plain_refused(world.upload(client.fields), 400, "signature_used")
    again, whole, ended = play(lambda: client.patch(5000), lambda: client.patch(0), client.delete)
    for refused in (again, whole, ended):
        assert_refused(refused, 409, "upload_complete")
    (created,) = play(client.create)
    assert_refused(created, 400, "signature_used")
    after = world.traces()
    assert (after.assets, after.grants, after.blobs) == (1, 1, before.blobs)
    assert rows(world) == NO_ROWS


def test_replays_of_a_finished_upload_are_refused(world: World, client: Client) -> None:
    check_replays(world, client)


def test_the_check_goes_red_when_completion_spends_nothing(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "_grants_of", lambda _: [])
    with pytest.raises(AssertionError, match='"asset_id":'):
        check_replays(world, client)


def test_nothing_is_spent_before_the_end(world: World, client: Client) -> None:
    assert world.traces().grants == 0
    last(client)
    assert world.traces().grants == 1


def test_a_plain_upload_with_the_same_signature_wins_while_this_one_is_unfinished(world: World, client: Client) -> None:
    """And the next request gets `signature_used`, even if it is not the last one."""
    assert world.upload(client.fields).status == 200
    (refused,) = play(lambda: client.patch(5000, 5001))
    assert_refused(refused, 400, "signature_used")
    assert_refused(last(client), 400, "signature_used")
    assert (world.traces().assets, world.traces().grants) == (1, 1)


def test_a_revoked_signature_completes_nothing(world: World, client: Client) -> None:
    asyncio.run(revoke(world, client.fields))
    assert_refused(last(client), 400, "signature_revoked")
    assert world.traces().assets == 0


@pytest.mark.parametrize("command", ["rotate", "revoke"])
def test_a_leaked_secret_completes_nothing(world: World, client: Client, command: str) -> None:
    """A request that continues an upload has no signature, so the command itself ends the upload."""
    key = world.browser.api_key
    asyncio.run(rotate_key(world.services, key, 0) if command == "rotate" else revoke_key(world.services, key))
    assert_refused(last(client), 404, "series_gone")
    assert world.traces().assets == 0
    assert rows(world) == NO_ROWS


def test_its_signature_begins_no_other_upload(world: World, client: Client) -> None:
    other = Client(world, DATA, fields=client.fields)
    with world.untouched():
        (refused,) = play(other.create)
    assert_refused(refused, 400, "signature_in_use")
    assert last(client).status == 204


def test_when_the_reply_to_the_creation_was_lost_it_is_begun_again(world: World) -> None:
    """Its client knows no address, so no byte can come to it. Neither are more kept than one."""
    fields = world.sign()
    lost, second = Client(world, DATA, fields=fields), Client(world, DATA, fields=fields)
    created, state, made = play(lost.create, second.create, lambda: second.patch(0))
    assert (created.status, state.status, made.status) == (201, 201, 204)
    assert head(lost).status == 404
    assert rows(world) == NO_ROWS


def test_an_upload_whose_bytes_are_coming_is_not_given_up_for_another(world: World) -> None:
    fields = world.sign()
    first, second = Client(world, DATA, fields=fields), Client(world, DATA, fields=fields)

    async def run() -> tuple[Answer, Answer]:
        await first.create()
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def slowly() -> Any:
            yield DATA[:500]
            under_way.set()
            await go_on.wait()
            yield DATA[500:]

        slow = asyncio.create_task(first.patch(0, data=slowly()))
        await under_way.wait()
        refused = await second.create()
        go_on.set()
        return refused, await slow

    refused, made = asyncio.run(run())
    assert_refused(refused, 400, "signature_in_use")
    assert made.status == 204


# Its outcome.


def check_fate(world: World, client: Client) -> None:
    """What a HEAD says is true: of all bytes only when there is the asset."""
    state = head(client)
    complete = state.status == 200 and state.headers["upload-offset"] == str(len(DATA))
    assert complete == (world.traces().assets == 1)
    assert complete == ("upload-asset" in state.headers)


@pytest.mark.parametrize("name", OUTAGES)
def test_after_an_outage_a_head_completes_the_upload(world: World, client: Client, name: str) -> None:
    healthy, outage = world.services, OUTAGES[name]
    world.swap(
        database=Failing(world.database, **outage.get("database", {})),
        inspector=Failing(world.services.inspector, **outage.get("inspector", {})),
        blobs=FailingParts(world.blobs, **outage.get("assembly", {})),
    )
    assert last(client).status in (503, 507)
    check_fate(world, client)
    recorded = name != "no record of the last chunk"
    assert head(client).status == (423 if recorded else 200)
    world.use(healthy)
    if not recorded:
        assert last(client).status == 204
    state = head(client)
    assert stored(world, state.headers["upload-asset"]) == DATA
    assert world.sql(f"SELECT count(*) FROM assets WHERE md5 = '{hashlib.md5(DATA).hexdigest()}'") == 1
    assert world.traces().spooled == frozenset()


def test_a_head_says_nothing_that_a_failover_could_forget(world: World, client: Client) -> None:
    assert last(client).status == 204
    away = OutcomeUnknown("the standby is away")
    world.swap(database=Failing(world.database, before={"confirm_reply": away}))
    state = head(client)
    assert (state.status, state.headers["x-cld-error-code"]) == (423, "outcome_unknown")


def test_the_check_goes_red_when_all_bytes_count_as_complete(
    world: World, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in servers where an upload is over when its last byte is there."""

    async def conclude(_: Any, __: Any, series: Any, ___: Any) -> Any:
        return series

    monkeypatch.setattr(resumable, "_finish_if_complete", conclude)
    last(client)
    with pytest.raises(AssertionError, match=r"^assert True == \(0 == 1\)"):
        check_fate(world, client)


def test_a_commit_whose_reply_is_lost_is_read_back(world: World, client: Client) -> None:
    world.swap(database=Failing(world.database, after={"commit_series": OutcomeUnknown("unknown")}))
    assert stored(world, last(client).headers["upload-asset"]) == DATA


def test_a_commit_that_kept_an_asset_is_read_back(world: World) -> None:
    """No blob that the asset names shows this commit. Its stored answer does."""
    kept = world.upload(world.sign({"public_id": "a"}), b"kept", kind="raw").json
    client = Client(world, DATA, fields=world.sign({"public_id": "a", "overwrite": "false"}))
    world.swap(database=Failing(world.database, after={"commit_series": OutcomeUnknown("unknown")}))
    _, answer = play(client.create, lambda: client.patch(0))
    assert_state(answer, 204, len(DATA))
    assert answer.headers["upload-asset"] == kept["secure_url"]
    assert (world.traces().assets, len(world.traces().blobs), world.traces().spooled) == (1, 1, frozenset())


def test_a_commit_that_may_have_happened_deletes_nothing(world: World, client: Client) -> None:
    healthy = world.services
    world.swap(database=Failing(world.database, before={"commit_series": OutcomeUnknown("unknown")}))
    assert_refused(last(client), 503, "outcome_unknown")
    world.use(healthy)
    assert stored(world, head(client).headers["upload-asset"]) == DATA


def test_a_restarted_server_goes_on(world: World, client: Client, tmp_path: Path) -> None:
    world.close()
    client.world = again = QuickWorld(tmp_path, limits=LIMITS)
    try:
        assert_state(head(client), 200, 5000)
        assert stored(again, last(client).headers["upload-asset"]) == DATA
        again.close()
        client.world = again = QuickWorld(tmp_path, limits=LIMITS)
        assert stored(again, head(client).headers["upload-asset"]) == DATA
    finally:
        again.close()


async def stopped(client: Client, send: Callable[[Any], Coroutine[Any, Any, Answer]], sent: int) -> Answer:
    """What a client reads whose request the stop of the server ends, when `sent` bytes have arrived.

    The stop closes the database soon after.
    """
    under_way = asyncio.Event()

    async def dripping() -> Any:
        yield client.data[:sent]
        under_way.set()
        await asyncio.Event().wait()

    request = asyncio.create_task(send(dripping()))
    await under_way.wait()
    request.cancel()
    await asyncio.sleep(0)
    await finish_unbroken(60)
    client.world.database.close()
    return await request


def test_a_stop_of_the_server_keeps_what_has_arrived(world: World, tmp_path: Path) -> None:
    client = Client(world, DATA)
    play(client.create)
    refused = asyncio.run(stopped(client, lambda body: client.patch(0, data=body), 500))
    assert_refused(refused, 503, "server_busy")
    client.world = QuickWorld(tmp_path, limits=LIMITS)
    assert_state(head(client), 200, 500)
    client.world.close()


@pytest.mark.parametrize("sent", [500, len(DATA)], ids=["a part", "all"])
def test_a_stop_during_a_creation_with_bytes_leaves_nothing(world: World, tmp_path: Path, sent: int) -> None:
    """No client knows its address. The refusal asks for the same request again."""
    client = Client(world, DATA)
    refused = asyncio.run(stopped(client, lambda body: client.create(headers=BYTES, body=body), sent))
    assert_refused(refused, 503, "server_busy")
    client.world = again = QuickWorld(tmp_path, limits=LIMITS)
    assert (rows(again), again.traces().spooled) == (NO_ROWS, frozenset())
    assert play(client.create)[0].status == 201
    again.close()


def test_a_length_below_what_has_arrived_is_refused_for_good(world: World) -> None:
    """409 would make clients repeat it."""
    client = Client(world, DATA)
    play(lambda: client.create(length="later"), lambda: client.patch(0, 5000))
    (refused,) = play(lambda: client.patch(5000, headers={"upload-length": "4999"}))
    assert_refused(refused, 400, "malformed_request")
    assert "5000 bytes of this upload have arrived, but its given length is 4999" in refused.message


@pytest.mark.parametrize("after", [0, 10 * 3600])
def test_its_fate_is_told_for_an_hour(world: World, client: Client, after: int) -> None:
    """Also when its signature's own time was over long before."""
    world.clock.time += after
    made = last(client)
    world.clock.time += 3500
    swept(world)
    assert head(client).headers["upload-asset"] == made.headers["upload-asset"]
    world.clock.time += DAY
    swept(world)
    assert head(client).status == 404


def test_a_refused_file_leaves_its_signature_good(world: World, client: Client) -> None:
    healthy = world.services
    world.swap(inspector=Failing(world.services.inspector, before={"inspect": InvalidMedia("crashed")}))
    assert_refused(last(client), 400, "invalid_media")
    assert head(client).status == 404
    assert (rows(world), world.traces().spooled) == (NO_ROWS, frozenset())
    world.use(healthy)
    state = asyncio.run(Client(world, DATA, fields=client.fields).go_on())
    assert stored(world, state.headers["upload-asset"]) == DATA


def test_while_nobody_can_tell_a_head_is_asked_to_come_again(world: World, client: Client) -> None:
    """Any other failure of it makes tus-js-client begin a new upload, which the signature does not allow."""
    healthy = world.services
    world.swap(database=Failing(world.database, before={"find_series": DOWN}))
    assert head(client).status == 423
    world.use(healthy)
    world.swap(inspector=Failing(world.services.inspector, before={"inspect": BUSY}))
    assert last(client).status == 503
    assert head(client).status == 423


# Its time.


def test_it_may_finish_when_its_signature_is_stale(world: World, client: Client) -> None:
    world.clock.time += 20 * 3600
    assert last(client).status == 204


def test_an_old_one_is_refused_and_swept_with_its_bytes(world: World, client: Client) -> None:
    world.clock.time += DAY + 1
    refused = last(client)
    assert_refused(refused, 410, "upload_expired")
    assert refused.message.startswith("The time of this upload ended at 2026-01-02 00:00:00 +0000.")
    assert head(client).status == 410
    assert swept(world, grace=10**6).series == 1
    assert (rows(world), world.traces().spooled) == (NO_ROWS, frozenset())
    assert head(client).status == 404


def test_a_fence_ends_it(world: World, client: Client) -> None:
    asyncio.run(world.database.fence(0))
    assert_refused(last(client), 404, "series_gone")


def test_who_is_not_given_way_in_time_is_told_to_wait(world: World, client: Client) -> None:
    """The older request completes the upload, which cannot be broken off."""

    async def run() -> tuple[Answer, Answer]:
        series = await world.database.find_series(client.url.rsplit("/", 1)[1])
        assert series is not None
        whole = await world.blobs.parts.assembly(series.blob_key)
        answers = await asyncio.gather(client.patch(5000), client.head())
        await whole.release()
        return answers[0], answers[1]

    patch, state = asyncio.run(run())
    assert_refused(patch, 423, "chunk_in_progress")
    assert patch.headers["retry-after"]
    assert state.status == 423
    assert last(client).status == 204
