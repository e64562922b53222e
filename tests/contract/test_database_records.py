"""What any Database must do, run on every back end: the audit, the list of grants, the keys."""

from dataclasses import replace

import pytest

from tests.contract.databases import (
    CALLER,
    KEY,
    OTHER,
    START,
    Backend,
    PlainBox,
    draft,
    grant,
    publish,
    relay,
    run,
)
from uponce.app.ports import Database
from uponce.core.errors import (
    InvalidParameter,
    SettingRefused,
)
from uponce.core.values import (
    Algorithm,
    AuditEvent,
    Caller,
    GrantStatus,
)


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
    assert run(database.history(grant("a").key, 1)) == [refused]
    assert run(database.history(grant("a").key, 10, refused.id)) == [spent]
    assert list(run(database.history(grant("a").key, 10, spent.id))) == []
    assert list(run(database.history(grant("unknown").key, 10))) == []


def test_refusals_beyond_a_number_are_counted_in_one_row(backend: Backend, database: Database) -> None:
    run(publish(database, "a"))
    for number in range(10):
        backend.clock.time += 1
        run(database.record_refusal(grant("a"), f"code_{number}", Caller(f"192.0.2.{number}", f"r{number}"), 3))
    run(database.record_refusal(grant("b"), "stale_request", CALLER, 3))
    spent, *kept, counter = run(database.history(grant("a").key, 100))
    assert spent.event is AuditEvent.SPENT
    assert [(line.at, line.code, line.count) for line in kept] == [(START + n + 1, f"code_{n}", 1) for n in range(3)]
    assert (counter.at, counter.event, counter.code, counter.count) == (START + 10, AuditEvent.REFUSED, "code_9", 7)
    assert counter.caller == Caller("192.0.2.9", "r9")
    assert len(run(database.history(grant("b").key, 100))) == 1


def test_the_audit_keeps_no_more_of_an_address_than_an_address_can_be_long(database: Database) -> None:
    longest = "0000:0000:0000:0000:0000:ffff:192.168.100.228"
    for number in range(5):
        run(database.record_refusal(grant("a"), "signature_used", Caller(longest + "x" * 7000, f"r{number}"), 2))
    assert {line.caller.address for line in run(database.history(grant("a").key, 100))} == {longest}


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


def test_the_audit_remembers_a_grant_that_the_ledger_has_forgotten(backend: Backend, database: Database) -> None:
    """Each use counts, and no refusal does."""
    used, tried, kept = grant("used", max_uses=3), grant("tried"), grant("kept", at=START + 10**6)
    for number in range(2):
        backend.clock.time = START + number
        run(database.commit(used, draft(blob=f"b{number}"), CALLER))
    run(database.revoke_grant(used, CALLER))
    run(database.record_refusal(used, "signature_revoked", CALLER))
    run(database.record_refusal(tried, "stale_request", CALLER))
    once, unused = grant("once"), grant("unused")
    run(database.commit(once, draft("once", blob="once"), CALLER))
    run(database.revoke_grant(unused, CALLER))
    run(database.commit(kept, draft("kept", blob="kept"), CALLER))
    backend.clock.time = used.keep_until + 1
    run(database.purge(audit_seconds=10**6))

    assert run(database.find_grant(used.key)) is None
    record = run(database.find_grant(used.key, forgotten=True))
    assert record is not None
    assert (record.uses, record.spent_at, record.revoked_at, record.status) == (2, START + 1, START + 1, "revoked")
    assert (record.grant.cloud, record.grant.api_key) == (used.cloud, used.api_key)
    assert (record.grant.timestamp, record.grant.max_uses) == (used.timestamp, 2)
    assert (record.grant.key, record.grant.keep_until) == (used.key, 0)
    other = [run(database.find_grant(each.key, forgotten=True)) for each in (once, unused)]
    shown = [each and (each.uses, each.revoked_at, each.grant.max_uses) for each in other]
    assert shown == [(1, None, 1), (0, START + 1, 1)]
    assert run(database.find_grant(tried.key, forgotten=True)) is None
    assert run(database.find_grant(kept.key, forgotten=True)) == run(database.find_grant(kept.key))
    assert run(database.find_grant(grant("unknown").key, forgotten=True)) is None


def test_a_purge_by_a_clock_far_ahead_deletes_hours_of_the_audit(backend: Backend, database: Database) -> None:
    """The oldest ones. The purge after it deletes the hours that follow."""
    hours = (0, 5, 6, 11, 50)
    for hour in hours:
        backend.clock.time = START + hour * 3600
        run(database.record_refusal(grant(f"h{hour}"), "stale_request", CALLER))
    backend.clock.time = START + 10**8
    for left in ([6, 11, 50], [50], []):
        run(database.purge(audit_seconds=10**6))
        assert [hour for hour in hours if run(database.history(grant(f"h{hour}").key, 10))] == left


def test_the_newest_moment_is_that_of_the_audit_a_fence_or_a_purge(backend: Backend, database: Database) -> None:
    """It shows whether a clock was set back. The watermark of a fence is later than the fence, by its skew."""
    assert run(database.newest_moment()) is None
    run(publish(database, "a"))
    backend.clock.time += 5
    run(database.record_refusal(grant("a"), "signature_used", CALLER))
    backend.clock.time -= 1000
    assert run(database.newest_moment()) == START + 5
    run(database.fence(10))
    assert run(database.newest_moment()) == START + 5
    backend.clock.time += 5000
    run(database.fence(10))
    assert run(database.newest_moment()) == START + 4005
    late = grant("late", at=START + 9000)
    run(database.commit(late, draft("late", blob="late"), CALLER))
    backend.clock.time = late.keep_until + 1
    run(database.purge(0))
    assert run(database.newest_moment()) == late.timestamp


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
    run(database.begin_relay(relay(grant("pending")), 60))
    for status, name in zip(GrantStatus, ["left", "used", "revoked", "pending"], strict=True):
        page = run(database.list_grants("demo", api_key=None, status=status, limit=10, cursor=None))
        assert [record.grant.key for record in page.items] == [grant(name).key]
        assert page.items[0].status is status


@pytest.mark.parametrize(
    "cursor", ["", "x", "AAAA", "AAAAAAAAAAA", "%%%", "ü", "/" * 20, "_" * 60, "A" * 9, "!!!!" + "_" * 43]
)
def test_an_unreadable_cursor_is_an_invalid_parameter(database: Database, cursor: str) -> None:
    with pytest.raises(InvalidParameter, match="next_cursor"):
        run(database.list_grants("demo", api_key=None, status=None, limit=10, cursor=cursor))


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


def test_of_several_keys_all_are_added_or_none(database: Database) -> None:
    with pytest.raises(InvalidParameter, match="API key 111 exists already"):
        run(database.add_key(OTHER, replace(KEY, secrets=("other",))))
    assert run(database.list_keys()) == [KEY]
    run(database.add_key(OTHER, replace(OTHER, api_key="333", secrets=("third",))))
    assert [key.api_key for key in run(database.list_keys())] == [KEY.api_key, OTHER.api_key, "333"]


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
    until = int(backend.clock.time) + 100
    for seconds, secrets, end in ((99, ("newer", "the-secret"), until), (1, ("newer",), None)):
        backend.clock.time += seconds
        assert run(database.find_key("111")) == replace(KEY, secrets=secrets, old_secret_until=end)
    assert run(database.past_secrets()) == {"111": "the-secret"}
    assert run(database.rotate_key("unknown", "x", 100)) is None


@pytest.mark.parametrize("overlap", [0, 100])
def test_a_rotation_of_another_secret_changes_nothing(database: Database, overlap: int) -> None:
    assert run(database.rotate_key("111", "newer", overlap, "not the secret")) == run(database.find_key("111")) == KEY
    rotated = run(database.rotate_key("111", "newer", overlap, "the-secret"))
    assert rotated is not None and rotated.secrets[0] == "newer"


def test_a_lost_secret_is_not_among_the_past_ones(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    """After `uponce keys renew` the old secrets cannot be read, and servers start nevertheless."""

    def refuse(_: PlainBox, cipher: bytes, context: str) -> str:
        raise SettingRefused("lost")

    run(database.rotate_key("111", "newer", 0))
    monkeypatch.setattr(PlainBox, "decrypt", refuse)
    assert run(database.past_secrets()) == {}


def test_rotating_without_overlap_ends_the_old_secret_now(backend: Backend, database: Database) -> None:
    """Also if the clock steps back later: that secret may have leaked."""
    rotated = run(database.rotate_key("111", "newer", 0))
    assert rotated is not None
    assert rotated.secrets == ("newer",)
    backend.clock.time -= 3600
    assert run(database.find_key("111")) == replace(KEY, secrets=("newer",))
