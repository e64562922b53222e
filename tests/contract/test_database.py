"""What any Database must do (app/ports.py), run on every back end."""

import asyncio
import multiprocessing
import tempfile
from collections.abc import Coroutine
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.contract.databases import (
    BACKENDS,
    CALLER,
    KEY,
    SKEW,
    START,
    WINDOW,
    Backend,
    attempt,
    draft,
    grant,
    publish,
    race_in_process,
    unlimited,
)
from tests.contract.guarantees import (
    check_one_winner,
    check_purge_forgets_nothing_usable,
    check_wider_window_revives_nothing,
    is_accepted,
)
from uponce.app.ports import Database
from uponce.core.errors import (
    BlobCondemned,
    InvalidParameter,
    SignatureRevoked,
    SignatureUsed,
    StaleRequest,
    UnknownApiKey,
    UponceError,
)
from uponce.core.signature import Algorithm
from uponce.core.values import (
    AssetName,
    AudioFacts,
    AuditEvent,
    Caller,
    DeliveryType,
    GrantStatus,
    KeyScope,
    KeyUses,
    MediaFacts,
    ResourceType,
    TimedFacts,
    VideoFacts,
)

T = TypeVar("T")
OTHER = replace(KEY, api_key="222", name="server", secrets=("another",), uses=KeyUses.UNLIMITED, scope=KeyScope.ALL)


@pytest.fixture
def database(backend: Backend) -> Database:
    database = backend.server()
    run(database.add_key(KEY))
    return database


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


# Once


def test_a_commit_spends_the_grant_and_publishes_the_asset(database: Database) -> None:
    committed = run(publish(database, "a"))
    assert not committed.existing
    assert not committed.overwritten
    assert committed.unneeded_blob is None
    assert (committed.asset.version, committed.asset.created_at) == (START, START)
    assert run(database.find_asset(committed.asset.name)) == committed.asset
    assert run(database.find_commit("blob-a")) == committed.asset
    record = run(database.find_grant(grant("a").key))
    assert record is not None
    assert (record.grant, record.uses, record.spent_at, record.revoked_at) == (grant("a"), 1, START, None)
    assert record.status is GrantStatus.USED


def test_a_second_use_is_told_when_the_first_one_completed(database: Database) -> None:
    run(publish(database, "a"))
    with pytest.raises(SignatureUsed, match=r"already used by an upload that completed at 2026-01-01 00:00:00 \+0000"):
        run(database.commit(grant("a"), draft("dog", blob="other"), CALLER))


@pytest.mark.parametrize("max_uses", [1, 3])
def test_of_many_racers_in_one_process_exactly_max_uses_win(database: Database, max_uses: int) -> None:
    run(check_one_winner([database], max_uses=max_uses, racers=64))


def test_of_racers_on_two_servers_exactly_one_wins(backend: Backend, database: Database) -> None:
    run(check_one_winner([database, backend.server()]))


def test_of_racers_in_four_processes_exactly_max_uses_win(backend: Backend, database: Database) -> None:
    """Eight racers a grant, two in each process; some grants are good for three uses."""
    contested = [grant(f"contested-{number}", max_uses=3 if number % 4 == 0 else 1) for number in range(40)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = [pool.submit(race_in_process, backend.recipe, contested, label) for label in "abcd"]
        answers = [future.result(timeout=60) for future in runs]
    for number, subject in enumerate(contested):
        told = [code for process in answers for code in process[number]]
        assert sorted(told) == ["ok"] * subject.max_uses + ["signature_used"] * (8 - subject.max_uses)
        record = run(database.find_grant(subject.key))
        assert record is not None
        assert record.uses == subject.max_uses
        spent = [line for line in run(database.history(subject.key, 100)) if line.event is AuditEvent.SPENT]
        assert len(spent) == subject.max_uses


def test_an_unlimited_grant_counts_its_uses(database: Database) -> None:
    many = unlimited(grant("many"))
    for number in range(5):
        assert run(attempt(database, many, draft(f"p{number}", blob=f"b{number}"))) == "ok"
    record = run(database.find_grant(many.key))
    assert record is not None
    assert (record.uses, record.status) == (5, GrantStatus.UNUSED)


def test_loosening_a_policy_does_not_revive_what_was_used_up(database: Database) -> None:
    run(publish(database, "a"))
    assert run(attempt(database, unlimited(grant("a")), draft(blob="late"))) == "signature_used"


def test_tightening_a_policy_ends_what_was_used_often(database: Database) -> None:
    assert run(attempt(database, unlimited(grant("a")), draft(blob="one"))) == "ok"
    assert run(attempt(database, grant("a"), draft(blob="two"))) == "signature_used"


def test_a_refused_commit_leaves_no_trace(database: Database) -> None:
    run(publish(database, "a"))
    before = run(database.find_asset(draft(blob="x").name))
    with pytest.raises(SignatureUsed):
        run(database.commit(grant("a"), draft(blob="late"), CALLER))
    with pytest.raises(SignatureUsed):
        run(database.commit(grant("a"), draft("new-name", blob="later"), CALLER))
    assert run(database.find_commit("late")) is None
    assert run(database.find_asset(draft("new-name", blob="x").name)) is None
    assert run(database.find_asset(draft(blob="x").name)) == before
    assert [line.event for line in run(database.history(grant("a").key, 10))] == [AuditEvent.SPENT]


def test_the_key_is_asked_again_at_the_commit(database: Database) -> None:
    """A key that is revoked while an upload runs stops it."""
    run(database.revoke_key(KEY.api_key))
    with pytest.raises(UnknownApiKey):
        run(publish(database, "a"))
    assert run(database.find_grant(grant("a").key)) is None


def test_what_was_committed_survives_a_restart(backend: Backend, database: Database) -> None:
    committed = run(publish(database, "a"))
    run(database.revoke_grant(grant("b"), CALLER))
    backend.stop()
    reopened = backend.server()
    assert run(reopened.find_asset(committed.asset.name)) == committed.asset
    assert run(attempt(reopened, grant("a"), draft(blob="late"))) == "signature_used"
    assert run(attempt(reopened, grant("b"), draft(blob="late"))) == "signature_revoked"
    assert run(reopened.list_keys()) == [KEY]


# Revocation


def test_a_grant_revoked_before_its_first_use_is_refused(backend: Backend, database: Database) -> None:
    backend.clock.time = START + 60
    record = run(database.revoke_grant(grant("a"), CALLER))
    assert (record.status, record.uses, record.revoked_at) == (GrantStatus.REVOKED, 0, START + 60)
    with pytest.raises(SignatureRevoked, match=r"revoked at 2026-01-01 00:01:00 \+0000"):
        run(publish(database, "a"))
    assert run(database.find_commit("blob-a")) is None
    assert run(database.find_grant(grant("a").key)) == record


def test_a_grant_that_is_used_up_stays_used(database: Database) -> None:
    run(publish(database, "a"))
    record = run(database.revoke_grant(grant("a"), CALLER))
    assert (record.status, record.revoked_at) == (GrantStatus.USED, None)
    assert [line.event for line in run(database.history(grant("a").key, 10))] == [AuditEvent.SPENT]


def test_a_partly_used_grant_can_be_revoked(database: Database) -> None:
    twice = grant("twice", max_uses=2)
    assert run(attempt(database, twice, draft(blob="one"))) == "ok"
    assert run(database.revoke_grant(twice, CALLER)).status is GrantStatus.REVOKED
    assert run(attempt(database, twice, draft(blob="two"))) == "signature_revoked"
    history = run(database.history(twice.key, 10))
    assert [line.event for line in history] == [AuditEvent.SPENT, AuditEvent.REVOKED]


def test_revoking_again_changes_nothing(backend: Backend, database: Database) -> None:
    first = run(database.revoke_grant(grant("a"), CALLER))
    backend.clock.time += 100
    assert run(database.revoke_grant(grant("a"), CALLER)) == first
    assert len(run(database.history(grant("a").key, 10))) == 1


def test_a_revocation_and_a_commit_never_both_win(database: Database) -> None:
    async def both(number: int) -> None:
        contested = grant(f"contested-{number}")
        told, record = await asyncio.gather(
            attempt(database, contested, draft(blob=f"b{number}")), database.revoke_grant(contested, CALLER)
        )
        assert (told, record.status) in {("ok", GrantStatus.USED), ("signature_revoked", GrantStatus.REVOKED)}

    async def many() -> None:
        await asyncio.gather(*(both(number) for number in range(50)))

    run(many())


# Purge and watermark


def test_a_purge_forgets_nothing_that_could_be_used(backend: Backend, database: Database) -> None:
    run(check_purge_forgets_nothing_usable(database, backend.clock))


def test_a_wider_window_revives_nothing_that_was_purged(backend: Backend, database: Database) -> None:
    run(check_wider_window_revives_nothing(database, backend.clock))


def test_a_purge_drops_what_is_over_and_raises_the_watermark_of_its_key(backend: Backend, database: Database) -> None:
    run(database.add_key(OTHER))
    for number in range(3):
        run(publish(database, f"n{number}"))
    run(database.commit(grant("later", at=START + 50), draft(blob="later"), CALLER))
    backend.clock.time = grant("n0").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 3
    assert run(database.find_grant(grant("n0").key)) is None
    assert run(database.find_grant(grant("later", at=START + 50).key)) is not None
    mine, other = run(database.find_key("111")), run(database.find_key("222"))
    assert mine is not None
    assert other is not None
    assert (mine.watermark, other.watermark) == (START, None)
    assert run(database.purge(audit_seconds=10**6)) == 0


def test_the_watermark_never_goes_down(backend: Backend, database: Database) -> None:
    run(database.commit(grant("new", at=START + 100, window=1), draft(blob="new"), CALLER))
    run(publish(database, "old"))
    backend.clock.time = grant("new", at=START + 100, window=1).keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 1
    backend.clock.time = grant("old").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 1
    key = run(database.find_key("111"))
    assert key is not None
    assert key.watermark == START + 100


def test_a_commit_at_or_before_the_watermark_is_stale(backend: Backend, database: Database) -> None:
    """A purge may run between an upload's check and its commit."""
    run(database.commit(grant("new", at=START + 100), draft(blob="new"), CALLER))
    backend.clock.time = grant("new", at=START + 100).keep_until + 1
    run(database.purge(audit_seconds=10**6))
    for at, told in ((START + 100, "stale_request"), (START + 101, "ok")):
        assert run(attempt(database, grant("slow", at=at), draft(blob=f"b{at}"))) == told
    with pytest.raises(StaleRequest, match="used signatures have been purged"):
        run(publish(database, "slow"))


def test_a_purge_of_many_rows_reaches_them_all(backend: Backend, database: Database) -> None:
    async def revoke_many() -> None:
        await asyncio.gather(*(database.revoke_grant(grant(f"n{n}"), CALLER) for n in range(5001)))

    run(revoke_many())
    backend.clock.time = grant("a").keep_until + 1
    assert run(database.purge(audit_seconds=10**6)) == 5001


STEPS = st.one_of(
    st.tuples(st.just("upload"), st.integers(-WINDOW, SKEW)),
    st.tuples(st.just("replay"), st.integers(0, 10)),
    st.tuples(st.just("advance"), st.integers(1, 3 * WINDOW)),
    st.tuples(st.just("step back"), st.integers(1, 3 * WINDOW)),
    st.tuples(st.just("purge"), st.just(0)),
    st.tuples(st.just("widen"), st.integers(1, 20 * WINDOW)),
)


@pytest.mark.parametrize("kind", sorted(BACKENDS))
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(STEPS, min_size=4, max_size=25))
def test_whatever_happens_nothing_spent_is_accepted_again(kind: str, steps: list[tuple[str, int]]) -> None:
    """Any order of uploads, replays, purges, clock steps both ways and window changes.

    And while the clock only goes forward and the window stays, nothing unspent and in time is refused.
    """
    with tempfile.TemporaryDirectory() as folder:
        backend = BACKENDS[kind](Path(folder))
        try:
            run(_walk(backend, steps))
        finally:
            backend.stop()


async def _walk(backend: Backend, steps: list[tuple[str, int]]) -> None:
    database, clock, window = backend.server(), backend.clock, WINDOW
    await database.add_key(KEY)
    spent, ordinary = [grant("first")], True
    assert await is_accepted(database, spent[0], clock.now(), window, "first")
    for number, (step, value) in enumerate([*steps, ("replay", 0)]):
        if step == "upload":
            candidate = grant(f"n{number}", at=int(clock.time) + value, window=window)
            accepted = await is_accepted(database, candidate, clock.now(), window, f"blob-{number}")
            assert accepted or not ordinary
            spent += [candidate] * accepted
        elif step == "replay":
            for old in spent[value:]:
                assert not await is_accepted(database, old, clock.now(), window, f"replay-{number}-{old.key.hex()}")
        elif step == "purge":
            await database.purge(audit_seconds=10**6)
        elif step == "widen":
            window, ordinary = window + value, False
        elif step == "advance":
            clock.time += value
        else:
            clock.time, ordinary = clock.time - value, False


# The catalog


def test_an_overwrite_replaces_the_bytes_and_keeps_the_identity(backend: Backend, database: Database) -> None:
    first = run(publish(database, "a"))
    backend.clock.time += 10
    second = run(publish(database, "b"))
    assert second.overwritten
    assert second.unneeded_blob == "blob-a"
    assert (second.asset.asset_id, second.asset.created_at) == (first.asset.asset_id, START)
    assert (second.asset.version, second.asset.blob_key) == (START + 10, "blob-b")
    assert second.asset.version_id != first.asset.version_id
    assert run(database.find_asset(first.asset.name)) == second.asset
    assert run(database.find_commit("blob-a")) is None


def test_versions_rise_also_within_a_second_and_when_the_clock_steps_back(backend: Backend, database: Database) -> None:
    versions = [run(publish(database, "a")).asset.version]
    for number, step in enumerate([0, 0.4, -5000, 0, 7000]):
        backend.clock.time += step
        versions.append(run(publish(database, f"n{number}")).asset.version)
    assert versions == sorted(set(versions))


def test_without_overwrite_the_present_asset_is_the_answer_and_the_grant_is_spent(database: Database) -> None:
    first = run(publish(database, "a"))
    second = run(publish(database, "b", overwrite=False))
    assert second.existing
    assert not second.overwritten
    assert second.asset == first.asset
    assert second.unneeded_blob == "blob-b"
    assert run(attempt(database, grant("b"), draft("other", blob="c"))) == "signature_used"
    assert run(database.history(grant("b").key, 10))[0].asset_id == first.asset.asset_id


def test_everything_known_of_an_asset_comes_back_as_it_went_in(database: Database) -> None:
    sound = AudioFacts("aac", 128_000, 44_100, 2, "stereo")
    film = VideoFacts("h264", "High", 31, "yuv420p", None, "16:9", "1/90000")
    facts = MediaFacts(ResourceType.VIDEO, "mp4", 1280, 720, 1, TimedFacts(10.5, 900_000, 29.97, 315, 90, sound, film))
    rich = replace(
        draft(blob="rich"),
        name=AssetName("demo", ResourceType.VIDEO, DeliveryType.AUTHENTICATED, "films/one"),
        facts=facts,
        tags=("a", "b,c", ""),
        context=(("alt", "x=y|z"), ("caption", "")),
        original_filename="My film",
    )
    committed = run(database.commit(grant("a"), rich, CALLER)).asset
    found = run(database.find_asset(rich.name))
    assert found == committed
    assert found is not None
    assert (found.facts, found.tags, found.context, found.digest) == (facts, rich.tags, rich.context, rich.digest)


ODD = [
    "ünï/cødé",
    "e\u0301 or \u00e9",
    "ZWJ 👩‍👩‍👧",
    "a'b\"c;--",
    "%_*[x]",
    "nul\x00inside",
    "tab\tnew\nline",
    "x" * 255,
    "CASE",
]


@pytest.mark.parametrize("odd", ODD)
def test_odd_characters_name_one_asset_each_and_come_back(database: Database, odd: str) -> None:
    filled = replace(draft(odd, blob="odd"), tags=(odd,), context=((odd, odd),), original_filename=odd, overwrite=False)
    asset = run(database.commit(grant("a"), filled, Caller(odd, odd))).asset
    assert run(database.find_asset(filled.name)) == asset
    assert (asset.name.public_id, asset.tags, asset.original_filename) == (odd, (odd,), odd)
    line = run(database.history(grant("a").key, 1))[0]
    assert (line.public_id, line.caller) == (odd, Caller(odd, odd))
    for other in {odd + " ", odd.lower() + "_", odd.swapcase(), odd[:1]} - {odd}:
        assert run(database.find_asset(replace(filled.name, public_id=other))) is None


def test_a_lone_surrogate_is_refused_and_spends_nothing(database: Database) -> None:
    """It is no character, and no database could give it back."""
    broken = replace(draft(blob="a"), original_filename="\ud800")
    assert run(attempt(database, grant("a"), broken)) == "invalid_parameter"
    with pytest.raises(InvalidParameter):
        run(database.find_asset(draft("\udcff", blob="x").name))
    assert run(attempt(database, grant("a"), draft(blob="a"))) == "ok"


def test_equal_public_ids_of_other_kinds_types_and_clouds_are_other_assets(database: Database) -> None:
    name = draft(blob="x").name
    others = [
        replace(name, cloud="other"),
        replace(name, resource_type=ResourceType.RAW),
        replace(name, type=DeliveryType.PRIVATE),
    ]
    run(publish(database, "a"))
    assert [run(database.find_asset(other)) for other in others] == [None, None, None]
    for number, other in enumerate(others):
        committed = run(database.commit(grant(f"n{number}"), replace(draft(blob=f"b{number}"), name=other), CALLER))
        assert not committed.overwritten


# Condemned blobs


def test_a_condemned_blob_can_never_be_committed(database: Database) -> None:
    assert run(database.condemn(["blob-a", "blob-x"])) == ["blob-a", "blob-x"]
    with pytest.raises(BlobCondemned):
        run(publish(database, "a"))
    assert run(database.find_grant(grant("a").key)) is None
    assert run(attempt(database, grant("a"), draft(blob="fresh bytes"))) == "ok"


def test_a_committed_blob_can_never_be_condemned(database: Database) -> None:
    run(publish(database, "a"))
    assert run(database.condemn(["blob-a", "orphan"])) == ["orphan"]
    assert run(attempt(database, grant("b"), draft("dog", blob="blob-b"))) == "ok"
    assert run(database.condemn(["blob-a", "blob-b"])) == []


def test_condemning_again_says_the_same(database: Database) -> None:
    """A sweeper that died between condemning and deleting finds its work again."""
    assert run(database.condemn(["orphan"])) == run(database.condemn(["orphan"])) == ["orphan"]


def test_the_blob_of_a_replaced_version_can_be_condemned(database: Database) -> None:
    run(publish(database, "a"))
    run(publish(database, "b"))
    assert run(database.condemn(["blob-a", "blob-b"])) == ["blob-a"]


def test_a_sweeper_and_a_commit_never_both_win(backend: Backend, database: Database) -> None:
    sweeper = backend.server()

    async def both(number: int) -> None:
        subject = draft(f"p{number}", blob=f"b{number}")
        told, condemned = await asyncio.gather(
            attempt(database, grant(f"n{number}"), subject), sweeper.condemn([subject.blob_key])
        )
        assert (told, list(condemned)) in [("ok", []), ("attempt_expired", [subject.blob_key])]

    async def many() -> None:
        await asyncio.gather(*(both(number) for number in range(30)))

    run(many())


# The audit and the list


def test_the_history_tells_each_use_and_each_refusal_in_order(backend: Backend, database: Database) -> None:
    asset = run(publish(database, "a")).asset
    backend.clock.time += 5
    second = Caller("2001:db8::1", "request-2")
    run(database.record_refusal(grant("a"), "signature_used", second))
    spent, refused = run(database.history(grant("a").key, 10))
    assert (spent.at, spent.event, spent.caller) == (START, AuditEvent.SPENT, CALLER)
    assert (spent.asset_id, spent.public_id, spent.code) == (asset.asset_id, "cat", "")
    assert (refused.at, refused.event, refused.caller) == (START + 5, AuditEvent.REFUSED, second)
    assert (refused.asset_id, refused.public_id, refused.code) == ("", "", "signature_used")
    assert run(database.history(grant("a").key, 1)) == [spent]
    assert list(run(database.history(grant("unknown").key, 10))) == []


def test_a_refusal_of_a_grant_that_was_never_used_makes_no_ledger_row(database: Database) -> None:
    run(database.record_refusal(grant("a"), "stale_request", CALLER))
    assert run(database.find_grant(grant("a").key)) is None


def test_audit_rows_have_their_own_retention(backend: Backend, database: Database) -> None:
    run(publish(database, "a"))
    backend.clock.time = grant("a").keep_until + 1
    run(database.purge(audit_seconds=10**6))
    assert len(run(database.history(grant("a").key, 10))) == 1
    run(database.purge(audit_seconds=60))
    assert len(run(database.history(grant("a").key, 10))) == 0


def test_a_list_pages_through_every_grant_once_newest_first(database: Database) -> None:
    """Several rows share a timestamp, so that pages break inside one."""
    run(database.add_key(OTHER))
    for number in range(11):
        run(database.commit(grant(f"n{number}", at=START + number // 4), draft(blob=f"b{number}"), CALLER))
    run(database.commit(grant("foreign", key=OTHER), draft(blob="foreign"), CALLER))
    seen, cursor = [], None
    while True:
        page = run(database.list_grants("demo", api_key="111", status=None, limit=3, cursor=cursor))
        seen += [record.grant for record in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
        assert len(page.items) == 3
    assert [(g.timestamp, g.key) for g in seen] == sorted(((g.timestamp, g.key) for g in seen), reverse=True)
    assert {g.key for g in seen} == {grant(f"n{number}", at=START + number // 4).key for number in range(11)}
    assert len(seen) == 11
    assert len(run(database.list_grants("demo", api_key=None, status=None, limit=50, cursor=None)).items) == 12
    assert run(database.list_grants("elsewhere", api_key=None, status=None, limit=50, cursor=None)).items == ()


def test_a_full_last_page_has_no_next_one(database: Database) -> None:
    for number in range(4):
        run(publish(database, f"n{number}"))
    first = run(database.list_grants("demo", api_key=None, status=None, limit=2, cursor=None))
    second = run(database.list_grants("demo", api_key=None, status=None, limit=2, cursor=first.next_cursor))
    assert (len(second.items), second.next_cursor) == (2, None)


def test_a_list_can_be_narrowed_to_a_status(database: Database) -> None:
    run(publish(database, "used"))
    run(database.revoke_grant(grant("revoked"), CALLER))
    run(database.commit(grant("left", max_uses=2), draft(blob="left"), CALLER))
    for status, name in zip(GrantStatus, ["left", "used", "revoked"], strict=True):
        page = run(database.list_grants("demo", api_key=None, status=status, limit=10, cursor=None))
        assert [record.grant.key for record in page.items] == [grant(name).key]
        assert page.items[0].status is status


@pytest.mark.parametrize("cursor", ["", "x", "AAAA", "AAAAAAAAAAA", "%%%", "ü", "/" * 20, "_" * 60, "A" * 9])
def test_an_unreadable_cursor_is_an_invalid_parameter(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidParameter, match="next_cursor"):
        run(database.list_grants("demo", api_key=None, status=None, limit=10, cursor=cursor))


# Keys


def test_keys_come_back_as_they_went_in_oldest_first(database: Database) -> None:
    special = replace(
        OTHER, api_key="333", cloud="elsewhere", allow_v1=True, algorithms=(Algorithm.SHA256,), created_at=START - 1
    )
    run(database.add_key(OTHER))
    run(database.add_key(special))
    assert run(database.find_key("333")) == special
    assert run(database.find_key("unknown")) is None
    assert run(database.list_keys()) == [special, KEY, OTHER]
    assert run(database.list_keys("demo")) == [KEY, OTHER]
    assert list(run(database.list_keys("nowhere"))) == []


def test_a_key_is_added_once(database: Database) -> None:
    with pytest.raises(InvalidParameter, match="API key 111 exists already"):
        run(database.add_key(replace(KEY, secrets=("other",))))
    assert run(database.find_key("111")) == KEY


def test_a_revoked_key_is_still_found_and_keeps_its_first_time(backend: Backend, database: Database) -> None:
    revoked = run(database.revoke_key("111"))
    backend.clock.time += 10
    assert revoked == replace(KEY, revoked_at=START)
    assert run(database.revoke_key("111")) == run(database.find_key("111")) == revoked
    assert run(database.revoke_key("unknown")) is None


def test_a_rotated_secret_counts_until_its_overlap_is_over(backend: Backend, database: Database) -> None:
    rotated = run(database.rotate_key("111", "newer", 100))
    assert rotated is not None
    assert rotated.secrets == ("newer", "the-secret")
    for seconds, secrets in ((99, ("newer", "the-secret")), (1, ("newer",))):
        backend.clock.time += seconds
        assert run(database.find_key("111")) == replace(KEY, secrets=secrets)
    assert run(database.rotate_key("unknown", "x", 100)) is None


def test_rotating_without_overlap_ends_the_old_secret_now(database: Database) -> None:
    rotated = run(database.rotate_key("111", "newer", 0))
    assert rotated is not None
    assert rotated.secrets == ("newer",)


# Service


def test_ping_returns(database: Database) -> None:
    run(database.ping())


def test_a_closed_database_says_that_it_is_unavailable(backend: Backend, database: Database) -> None:
    backend.stop()
    for call in (database.ping(), database.find_key("111"), database.revoke_key("111"), publish(database, "a")):
        with pytest.raises(UponceError) as caught:
            run(call)
        assert caught.value.code == "database_unavailable"
        assert caught.value.retry_after
