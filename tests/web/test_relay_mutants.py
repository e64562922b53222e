"""Relays that are broken on purpose: the checks of this folder must find each of them."""

from collections.abc import AsyncIterable, AsyncIterator, Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.upstreams import StubUpstream, Trouble
from tests.web import test_relay as checks
from tests.web import test_relay_small as small
from tests.web.relays import LIMITS, EachOnItsLoop
from tests.world import PNG, World
from uponce.app.ports.relaying import Sign, UpstreamCall, UpstreamReply
from uponce.app.relaying import reconcile
from uponce.app.relaying.chunks import Data
from uponce.app.relaying.relay import Relaying
from uponce.core.errors import OutcomeUnknown
from uponce.core.relaying import (
    Forwarded,
    Found,
    GrantVerdict,
    Judgement,
    Missing,
    Relay,
    judge_look_up,
    trailer_timestamp,
)
from uponce.core.upstream import signed
from uponce.core.values import GrantStatus, Upstream

Check = Callable[[World, StubUpstream], None]

STREAMED = checks.SIZES["as it arrives"]


def check_signed_after_commit(relay: World, stub: StubUpstream) -> None:
    checks.test_the_signature_leaves_last_and_after_the_commit(relay, stub, STREAMED)


def check_small_signed_after_commit(relay: World, stub: StubUpstream) -> None:
    checks.test_the_signature_leaves_last_and_after_the_commit(relay, stub, PNG)


def check_small_broken_before_its_signature(relay: World, stub: StubUpstream) -> None:
    small.test_a_small_file_is_sent_during_the_commit_and_a_break_before_its_signature_spends_nothing(
        relay, stub, Trouble.RESET
    )


def check_small_answered_early(relay: World, stub: StubUpstream) -> None:
    small.test_a_small_file_is_sent_during_the_commit_and_a_break_before_its_signature_spends_nothing(
        relay, stub, Trouble.EARLY_413
    )


def check_found_after_a_lost_reply(relay: World, stub: StubUpstream) -> None:
    checks.test_an_unknown_outcome_freezes_until_the_asset_is_found(relay, stub, Trouble.SILENT, PNG)


def check_released_late(relay: World, stub: StubUpstream) -> None:
    checks.test_nothing_is_released_before_the_signature_is_dead_and_two_look_ups_found_nothing(
        relay, stub, Trouble.FORGETS
    )


def check_who_wakes_late_stores_nothing(relay: World, stub: StubUpstream) -> None:
    """A process stops after its commit, and wakes when its grant may be free again."""
    begin = relay.database.begin_relay

    async def begin_and_sleep(new: Relay, seconds: int) -> Any:
        begun = await begin(new, seconds)
        relay.clock.time += LIMITS.relay_fence + 1
        return begun

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relay.database, "begin_relay", begin_and_sleep)
        fields = relay.sign({"valid_for": "3000"})
        answer = relay.upload(fields, STREAMED, kind="raw")
    assert answer.status == 503
    assert not stub.store
    assert checks.status_of(relay, fields) is GrantStatus.UNUSED


_sign, _upload, _conclude = Relaying._sign, Relaying._upload, Relaying._conclude


async def sign_only(self: Relaying) -> Mapping[str, str]:
    limits, upstream = self._services.limits, self._upstream
    stamp = trailer_timestamp(int(self._services.clock.now()), upstream.window, limits.relay_fence)
    return signed(upstream, self._target.fields, stamp)


async def upload_then_commit(self: Relaying, *arguments: Any) -> UpstreamReply:
    reply = await _upload(self, *arguments)
    await _sign(self)
    return reply


async def commit_then_send(self: Relaying, file: AsyncIterator[Data]) -> UpstreamReply:
    fields = {**self._target.fields, **await _sign(self)}
    call = UpstreamCall(self._target.kind, fields, "a.bin")
    return await self._services.upstream.upload(self._upstream, call, file, None)


async def conclude_late(self: Relaying, reply: UpstreamReply) -> Forwarded:
    return await _conclude(self, replace(reply, is_early=False))


async def sign_when_awake(self: Relaying) -> Mapping[str, str]:
    await _sign(self)
    return await sign_only(self)


def free_at_the_first_miss(relay: Relay, found: Found | Missing, *rest: Any) -> Judgement:
    return Judgement(GrantVerdict.FREE, 1) if found is Missing.NOTHING else judge_look_up(relay, found, *rest)


def free_at_the_first_miss_after_the_bound(relay: Relay, found: Found | Missing, *rest: Any) -> Judgement:
    return judge_look_up(replace(relay, misses=relay.misses + 1), found, *rest)


class RepeatsAfterTheTrailer(EachOnItsLoop):
    async def upload(
        self, upstream: Upstream, call: UpstreamCall, file: AsyncIterable[bytes | bytearray], sign: Sign | None
    ) -> UpstreamReply:
        kept = [bytes(block) async for block in file]
        try:
            return await super().upload(upstream, call, _each(kept), sign)
        except OutcomeUnknown:
            return await super().upload(upstream, call, _each(kept), sign)


async def _each(blocks: list[bytes]) -> Any:
    for block in blocks:
        yield block


def signs_first(relay: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relaying, "_sign", sign_only)
    patch.setattr(Relaying, "_upload", upload_then_commit)


def commits_first(relay: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relaying, "_send_small", commit_then_send)
    patch.setattr(small, "PATIENCE_SECONDS", 0.5)  # in vain: the file leaves after the commit


def takes_early_answers_for_late_ones(relay: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relaying, "_conclude", conclude_late)


def signs_late(relay: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Relaying, "_sign", sign_when_awake)


def frees_at_once(relay: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "judge_look_up", free_at_the_first_miss)


def frees_after_one_miss(relay: World, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(reconcile, "judge_look_up", free_at_the_first_miss_after_the_bound)


def repeats(relay: World, patch: pytest.MonkeyPatch) -> None:
    relay.swap(upstream=RepeatsAfterTheTrailer())


_NO_ROW = r"^assert \[\(0, \d+\)\] == \[\(1, \d+\)\]"  # rows of relays when it signs

# What is broken, the check that finds it, and what that check then says.
MUTANTS: dict[str, tuple[Callable[[World, pytest.MonkeyPatch], None], Check, str]] = {
    "the signature before the commit": (signs_first, check_signed_after_commit, _NO_ROW),
    "the signature of a small file before the commit": (signs_first, check_small_signed_after_commit, _NO_ROW),
    "a small file behind its signature": (
        commits_first,
        check_small_broken_before_its_signature,
        "It may have been carried out.*outcome_unknown",
    ),
    "an answer before the signature that counts": (
        takes_early_answers_for_late_ones,
        check_small_answered_early,
        "did not say what became of it.*outcome_unknown",
    ),
    "a fresh timestamp after waking": (signs_late, check_who_wakes_late_stores_nothing, "^assert 200 == 503"),
    "free at the first look-up that finds nothing": (frees_at_once, check_released_late, r"^\[1\]\nassert 0 == 2"),
    "free at the first such look-up after the bound": (frees_after_one_miss, check_released_late, r"\nassert 1 == 2"),
    "the upload repeated after its signature left": (repeats, check_found_after_a_lost_reply, '"existing": true'),
}


@pytest.mark.parametrize("check", {check: None for _, check, _ in MUTANTS.values()}, ids=lambda check: check.__name__)
def test_the_checks_are_green(relay: World, stub: StubUpstream, check: Check) -> None:
    check(relay, stub)


@pytest.mark.parametrize(("broken", "check", "seen"), MUTANTS.values(), ids=MUTANTS)
def test_each_check_goes_red(
    relay: World,
    stub: StubUpstream,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[World, pytest.MonkeyPatch], None],
    check: Check,
    seen: str,
) -> None:
    broken(relay, monkeypatch)
    with pytest.raises(AssertionError, match=seen):
        check(relay, stub)
