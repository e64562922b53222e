"""Two attempts on one grant, in every order of events: the relay's rules hold, and each weaker rule does not."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import pytest

from tests.core.relay_search import (
    CHANGED,
    GRANT,
    LIMITS,
    MARKED,
    OTHER_BYTES,
    REPLACED,
    REPLAYABLE,
    SLOW,
    STUCK,
    WINDOW,
    WORLDS,
    Rules,
    Search,
    World,
)
from uponce.adapters.database import relays
from uponce.adapters.database.steps import Steps, operation
from uponce.core.policy import Limits
from uponce.core.relaying import (
    Forwarded,
    Found,
    GrantVerdict,
    Judgement,
    Missing,
    Outcome,
    Relay,
    judge_look_up,
    outcome_of,
    trailer_timestamp,
)


@pytest.mark.parametrize("world", WORLDS, ids=str)
def test_no_order_of_events_breaks_a_promise(world: World) -> None:
    search = Search(world, Rules()).run()
    assert search.violations == {}
    assert len(search.came_from) > 10_000


def free_at_the_first_miss(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    return Judgement(GrantVerdict.FREE, 1) if found is Missing.NOTHING else judge_look_up(relay, found, now, limits)


def free_after_one_miss(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    judgement = judge_look_up(relay, found, now, limits)
    return Judgement(GrantVerdict.FREE, 1) if judgement.misses else judgement


def compare_etags_only(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    is_other = isinstance(found, Found) and found.etag != relay.digest.md5
    return judge_look_up(relay, Missing.NOTHING if is_other else found, now, limits)


def take_any_asset(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    return Judgement(GrantVerdict.SPENT, 0) if isinstance(found, Found) else judge_look_up(relay, found, now, limits)


def pair_with_the_question(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    """The seconds of the look-up count as a difference between the clocks."""
    return judge_look_up(relay, replace(found, at=now) if isinstance(found, Found) else found, now, limits)


def take_silence_for_nothing(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    return judge_look_up(relay, Missing.NOTHING if found is Missing.UNREADABLE else found, now, limits)


def wait_for_the_asset(relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    judgement = judge_look_up(relay, found, now, limits)
    return Judgement(GrantVerdict.WAIT, relay.misses) if judgement.verdict is GrantVerdict.FREE else judgement


def judge_early(seconds: int, relay: Relay, found: Found | Missing, now: float, limits: Limits) -> Judgement:
    return judge_look_up(relay, found, now + seconds if found is Missing.NOTHING else now, limits)


def no_fence(pending_at: int, sent_at: int) -> int:
    return trailer_timestamp(pending_at, WINDOW, WINDOW)


def fresh_after_waking(pending_at: int, sent_at: int) -> int:
    return trailer_timestamp(sent_at, WINDOW, LIMITS.relay_fence)


def take_an_error_for_a_refusal(status: int, document: Mapping[str, object] | None) -> Outcome:
    return Outcome.REFUSED if document is not None and status >= 500 else outcome_of(status, document)


def take_no_json_for_a_refusal(status: int, document: Mapping[str, object] | None) -> Outcome:
    return Outcome.REFUSED if document is None else outcome_of(status, document)


def tell_of_any_asset(relay: Relay, found: Found) -> bool:
    return True


@operation()
def pass_on_without_holding(now: float, relay: Relay) -> Steps[Relay]:
    """Whatever another attempt has."""
    grants = tuple(replace(grant, max_uses=GRANT.max_uses + 1) for grant in relay.grants)
    return (yield from relays._begin(now, replace(relay, grants=grants), 1, []))


@operation()
def end_without_owning(now: float, relay: Relay, answer: Forwarded | None, code: str) -> Steps[bool]:
    yield [("end_relay", {"relay_id": relay.id}), *relays.ending(now, relay, answer, code)]
    return True


# Where it shows, and what the first violation is.
WEAKER = {
    "released at the first look-up that finds nothing": (Rules(judge=free_at_the_first_miss), MARKED, REPLAYABLE),
    "released by one look-up after the bound": (Rules(judge=free_after_one_miss), MARKED, REPLAYABLE),
    "etags only": (Rules(judge=compare_etags_only), CHANGED, REPLAYABLE),
    "a marked asset by its marker only": (Rules(judge=compare_etags_only), REPLACED, REPLAYABLE),
    "another upload's asset as the answer": (Rules(is_answer=tell_of_any_asset), REPLACED, OTHER_BYTES),
    "any asset of that name": (Rules(judge=take_any_asset), CHANGED, OTHER_BYTES),
    "the upstream's clock read before its answer": (Rules(judge=pair_with_the_question), SLOW, REPLAYABLE),
    "a look-up without an answer finds nothing": (Rules(judge=take_silence_for_nothing), MARKED, REPLAYABLE),
    "never released": (Rules(judge=wait_for_the_asset), MARKED, STUCK),
    "a bound that ends with the fence": (Rules(judge=partial(judge_early, 4)), MARKED, REPLAYABLE),
    "a bound that ends within the last second": (Rules(judge=partial(judge_early, 2)), MARKED, REPLAYABLE),
    "waiting without a fence": (Rules(stamp=no_fence), MARKED, REPLAYABLE),
    "a fresh timestamp after waking": (Rules(stamp=fresh_after_waking), MARKED, REPLAYABLE),
    "a 500 is a refusal": (Rules(outcome=take_an_error_for_a_refusal), MARKED, REPLAYABLE),
    "an answer without JSON is a refusal": (Rules(outcome=take_no_json_for_a_refusal), MARKED, REPLAYABLE),
    "passed on while another attempt is pending": (Rules(begin=pass_on_without_holding), MARKED, OTHER_BYTES),
    "a result written without owning the row": (Rules(end=end_without_owning), MARKED, REPLAYABLE),
}


@pytest.mark.parametrize(("rules", "world", "violation"), WEAKER.values(), ids=WEAKER)
def test_the_search_finds_what_a_weaker_rule_breaks(rules: Rules, world: World, violation: str) -> None:
    search = Search(world, rules).run(until_red=True)
    assert violation in search.violations
    print(search.violations[violation])
