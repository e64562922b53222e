"""What becomes of an upload whose outcome in the upstream is not known."""

import time
from dataclasses import replace

import pytest

from uponce.core.policy import Limits
from uponce.core.relaying import (
    MISSES,
    Forwarded,
    Found,
    GrantVerdict,
    Missing,
    Outcome,
    Relay,
    bound,
    judge_look_up,
    outcome_of,
    refuses_timestamp,
    seconds_of,
    signed_by,
    trailer_timestamp,
)
from uponce.core.signature import Signer, sign_response
from uponce.core.upstream import Target
from uponce.core.values import Algorithm, Caller, Digest, Grant

LIMITS = Limits()
BEGUN = 1_700_000_000
END = BEGUN + bound(LIMITS)
RELAY = Relay(
    id="r",
    cloud="media",
    grants=(Grant(b"K", "media", "k", BEGUN, 1, BEGUN + 9000),),
    target=Target("image", "upload", {}, (("image", "cat"),)),
    digest=Digest(3, "the md5", "the sha256"),
    caller=Caller("", ""),
    pending_at=BEGUN,
)


def found(etag: str, version: int, ahead: int = 0, now: int = BEGUN + 10, took: int = 0) -> Found:
    """An asset in an upstream whose clock is `ahead`, by a look-up that `took` so many seconds."""
    return Found(etag, version, now + took + ahead, now + took, Forwarded(200, "{}"))


def missed(count: int) -> Relay:
    return replace(RELAY, misses=count)


@pytest.mark.parametrize(
    ("seen", "now", "verdict"),
    [
        (found("the md5", BEGUN - 9999), BEGUN + 10, GrantVerdict.SPENT),
        (found("other", BEGUN + 1), BEGUN + 10, GrantVerdict.SPENT),
        (found("other", BEGUN - 2), BEGUN + 10, GrantVerdict.SPENT),  # both clocks are read without fractions
        (found("other", BEGUN - 3), BEGUN + 10, GrantVerdict.WAIT),
        (found("other", BEGUN + 7201, ahead=7200), BEGUN + 10, GrantVerdict.SPENT),
        (found("other", BEGUN + 7100, ahead=7200), BEGUN + 10, GrantVerdict.WAIT),
        (found("other", BEGUN - 3599, ahead=-3600), BEGUN + 10, GrantVerdict.SPENT),
        (found("other", BEGUN + 1, took=60), BEGUN + 10, GrantVerdict.SPENT),
        (found("other", BEGUN - 60, took=60), BEGUN + 10, GrantVerdict.WAIT),
        (Missing.NOTHING, BEGUN + 10, GrantVerdict.WAIT),
        (Missing.NOTHING, END - 1, GrantVerdict.WAIT),
        (Missing.UNREADABLE, END + 9999, GrantVerdict.WAIT),
    ],
)
def test_only_a_certain_outcome_ends_the_wait(seen: Found | Missing, now: int, verdict: GrantVerdict) -> None:
    assert judge_look_up(missed(MISSES), seen, now, LIMITS).verdict is verdict


def test_a_grant_is_free_after_the_bound_and_two_look_ups_that_find_nothing() -> None:
    first = judge_look_up(RELAY, Missing.NOTHING, END, LIMITS)
    assert (first.verdict, first.misses) == (GrantVerdict.WAIT, 1)
    assert judge_look_up(missed(1), Missing.NOTHING, END + 10, LIMITS).verdict is GrantVerdict.FREE


def test_the_asset_that_ends_the_wait_changes_no_count() -> None:
    assert judge_look_up(missed(1), found("the md5", BEGUN), BEGUN + 10, LIMITS).misses == 1


def test_look_ups_before_the_bound_do_not_count() -> None:
    assert judge_look_up(RELAY, Missing.NOTHING, END - 1, LIMITS).misses == 0


@pytest.mark.parametrize(("stored", "end"), [(0, END), (10, END), (bound(LIMITS) + 900, END + 900)])
def test_the_greater_bound_counts_of_the_server_that_signed_and_the_one_that_looks(stored: int, end: int) -> None:
    """Servers may have other limits while they restart one after the other. Older ones have stored no bound."""
    relay = replace(missed(MISSES), bound=stored)
    verdicts = [judge_look_up(relay, Missing.NOTHING, now, LIMITS).verdict for now in (end - 1, end)]
    assert verdicts == [GrantVerdict.WAIT, GrantVerdict.FREE]


def test_an_older_asset_of_that_name_counts_as_nothing() -> None:
    old = found("other", BEGUN - 60, now=END)
    assert judge_look_up(missed(1), old, END, LIMITS).verdict is GrantVerdict.FREE


def test_the_signature_is_dead_when_the_fence_is_over() -> None:
    stamp = trailer_timestamp(BEGUN, window=3600, fence=300)
    assert stamp + 3600 == BEGUN + 300
    assert trailer_timestamp(BEGUN, window=200, fence=300) == BEGUN


def test_nothing_is_released_while_the_signature_may_still_work() -> None:
    assert bound(LIMITS) > LIMITS.relay_fence + LIMITS.skew + LIMITS.relay_processing


@pytest.mark.parametrize(
    ("status", "document", "outcome"),
    [
        (200, {"public_id": "a"}, Outcome.STORED),
        (200, {"status": "pending", "batch_id": "b"}, Outcome.STORED),
        (200, {"public_id": "a", "done": True}, Outcome.STORED),
        (200, {"public_id": "a", "done": False}, Outcome.UNKNOWN),
        (200, {}, Outcome.UNKNOWN),
        (200, {"status": "ok"}, Outcome.UNKNOWN),
        (200, {"public_id": ""}, Outcome.UNKNOWN),
        (200, {"error": {"message": "no"}}, Outcome.UNKNOWN),
        (200, {"public_id": "a", "error": {"message": "no"}}, Outcome.UNKNOWN),
        (299, {"public_id": "a"}, Outcome.STORED),
        (300, {"public_id": "a"}, Outcome.UNKNOWN),
        (200, None, Outcome.UNKNOWN),
        (302, {}, Outcome.UNKNOWN),
        (400, {"error": {"message": "no"}}, Outcome.REFUSED),
        (420, {"error": {"message": "Rate Limit Exceeded"}}, Outcome.REFUSED),
        (499, {"error": {"message": ""}}, Outcome.REFUSED),
        (408, {"error": {"message": "Request Timeout"}}, Outcome.UNKNOWN),
        (408, {"message": "request timed out"}, Outcome.UNKNOWN),
        (429, {"message": "API rate limit exceeded"}, Outcome.UNKNOWN),
        (423, {"error": {"message": "The file is still being processed"}}, Outcome.UNKNOWN),
        (425, {"error": "Too Early"}, Outcome.UNKNOWN),
        (425, {"error": {"message": "Too Early"}}, Outcome.UNKNOWN),
        (400, {"error": {"message": 1}}, Outcome.UNKNOWN),
        (420, {}, Outcome.UNKNOWN),
        (499, {"done": False}, Outcome.UNKNOWN),
        (404, None, Outcome.UNKNOWN),
        (500, {"error": {"message": "no"}}, Outcome.UNKNOWN),
    ],
)
def test_only_json_of_an_asset_or_of_the_accounts_own_refusal_is_certain(
    status: int, document: dict[str, object] | None, outcome: Outcome
) -> None:
    assert outcome_of(status, document) is outcome


SIGNER = Signer("the key", Algorithm.SHA256, "the secret of the key")
OWN = sign_response("cat", 1_700_000_000, SIGNER.secret, SIGNER.algorithm)


@pytest.mark.parametrize(
    ("body", "signed"),
    [
        (
            '{"public_id": "cat", "version":1700000000, "signature":"old", "n": 1.50}\n',
            f'{{"public_id": "cat", "version":1700000000, "signature":"{OWN}", "n": 1.50}}\n',
        ),
        (
            ' {"public_id":"cat","version":1700000000,"context":{"a":{}}}\n',
            f' {{"public_id":"cat","version":1700000000,"context":{{"a":{{}}}},"signature":"{OWN}"}}',
        ),
    ],
)
def test_the_key_of_the_caller_signs_an_answer_and_changes_nothing_else(body: str, signed: str) -> None:
    answer = Forwarded(200, body, "id", "cat", (("x-request-id", "1"),), 3)
    assert signed_by(SIGNER, answer) == replace(answer, body=signed)


@pytest.mark.parametrize(
    "body",
    [
        "{",
        "[" * 100_000,
        '{"version":1700000000}',
        '{"public_id":1,"version":1700000000,"signature":"old"}',
        '{"public_id":"cat","version":"1700000000","signature":"old"}',
        '{"public_id":"cat","version":1700000000,"signature":1}',
    ],
    ids=lambda body: body[:60],
)
def test_an_answer_that_names_no_asset_stays_as_it_is(body: str) -> None:
    answer = Forwarded(200, body)
    assert signed_by(SIGNER, answer) is answer


@pytest.mark.parametrize(
    ("status", "document", "refused"),
    [
        (400, {"error": {"message": "Stale request - reported time is …"}}, True),
        (400, {"error": {"message": "Timestamp is in the future - reported time is …"}}, True),
        (401, {"error": {"message": "Stale request - reported time is …"}}, False),
        (400, {"error": {"message": "Invalid Signature"}}, False),
        (400, {}, False),
        (400, None, False),
    ],
)
def test_a_refused_time_is_told_from_other_refusals(
    status: int, document: dict[str, object] | None, refused: bool
) -> None:
    assert refuses_timestamp(status, document) is refused


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Tue, 14 Nov 2023 22:13:20 GMT", 1_700_000_000),
        ("Wed, 15 Nov 2023 00:13:20 +0200", 1_700_000_000),
        ("Tue, 14 Nov 2023 22:13:20 -0000", 1_700_000_000),
        ("Tue, 14 Nov 2023 22:13:20", 1_700_000_000),
        ("yesterday", None),
        ("", None),
    ],
)
def test_the_date_of_an_answer_is_in_utc_unless_it_names_a_zone(
    date: str, seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TZ", "Asia/Kathmandu")
        time.tzset()
        assert seconds_of(date) == seconds
    time.tzset()
