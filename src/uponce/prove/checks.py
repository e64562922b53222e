"""The checks, as data: title, promise, the most requests that it sends, and the function that runs it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from uponce.prove.exchange import Reply
from uponce.prove.site import Fields, Site, dot, opening

PAUSE_SECONDS = 1.0


class Verdict(StrEnum):
    """From good to bad. `unclear`: the answer does not show it, such as a rate limit or a broken connection."""

    HOLDS = "holds"
    UNCLEAR = "unclear"
    BROKEN = "broken"


def worst(verdicts: Iterable[Verdict]) -> Verdict:
    return max(verdicts, key=list(Verdict).index)


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of a check, and its verdict on the promise. `quote` is the server's own sentence."""

    verdict: Verdict
    seen: str
    quote: str = ""


@dataclass(frozen=True, slots=True)
class Check:
    """One check, below the heading `chapter`. It sends at most `requests`, and stores at most `files`."""

    chapter: str
    title: str
    promise: str
    requests: int
    act: Callable[[Site], Awaitable[CheckResult]]
    files: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    signatures: int = 20
    at_once: int = 10
    seconds: float = 120


async def first_upload(site: Site) -> CheckResult:
    return _stored(await site.upload(site.new_signature(), dot(1)))


def replay(
    number: int, *, kind: str = "image", query: bool = False, pause: float = 0
) -> Callable[[Site], Awaitable[CheckResult]]:
    """Return a check that uploads, and then uploads again with the same signature and file `number`."""

    async def act(site: Site) -> CheckResult:
        fields = site.new_signature()
        first = await site.upload(fields, dot(1))
        if not first.accepted:
            return _stored(first)
        await asyncio.sleep(pause)
        again = site.upload({}, dot(number), kind, query=fields) if query else site.upload(fields, dot(number), kind)
        return _refused(await again)

    return act


def after(
    spoil: Callable[[Fields], tuple[Fields, bytes | None]], *, taken: Verdict
) -> Callable[[Site], Awaitable[CheckResult]]:
    """Return a check that makes a try that must fail, then a good upload with the same signature.

    `taken` is the verdict if the try succeeds.
    """

    async def act(site: Site) -> CheckResult:
        fields = site.new_signature()
        bad = await site.upload(*spoil(fields))
        if bad.accepted:
            return CheckResult(taken, "200, it was taken")
        return await _still_works(site, fields)

    return act


def torn(cut: Callable[[int, int, int], int]) -> Callable[[Site], Awaitable[CheckResult]]:
    """Return a check whose upload ends early, by FIN and then by RST. After each it uses the same signature again."""

    async def act(site: Site) -> CheckResult:
        return _together([await one(site, reset=reset) for reset in (False, True)])

    async def one(site: Site, *, reset: bool) -> CheckResult:
        fields, file = site.new_signature(), dot(1)
        request = site.form(fields, file)
        head = request.index(b"\r\n\r\n") + 4
        await site.tear(request, cut(head, head + len(opening(fields, file)), len(request)), reset=reset)
        return await _still_works(site, fields)

    return act


def lost(*, reset: bool = False, at_once: bool = False) -> Callable[[Site], Awaitable[CheckResult]]:
    """Return a check that sends a whole upload, hangs up unread, and asks twice more with other files.

    It cannot know whether the first upload was stored. But at most one of the three may be.
    """

    async def act(site: Site) -> CheckResult:
        fields = site.new_signature()
        request = site.form(fields, dot(1))
        await site.tear(request, len(request), reset=reset, at_once=at_once)
        second = await site.upload(fields, dot(2))
        third = await site.upload(fields, dot(3))
        if second.replaced or third.replaced:
            return CheckResult(Verdict.BROKEN, "it was stored twice")
        if second.accepted or third.accepted:
            outcome = _refused(third if second.accepted else second)
            return CheckResult(outcome.verdict, f"stored, then {outcome.seen}", outcome.quote)
        return _together([_refused(second), _refused(third)])

    return act


def race(plan: Plan) -> Callable[[Site], Awaitable[CheckResult]]:
    """Return a check that uses each signature in many uploads of other files, which complete at one moment."""

    async def act(site: Site) -> CheckResult:
        replies: list[list[Reply]] = []
        while len(replies) < plan.signatures and not site.time_is_up:
            replies.append(await site.race(site.new_signature(), [dot(number) for number in range(plan.at_once)]))
        return judge_race(replies, plan.signatures)

    return act


def judge_race(contests: Sequence[Sequence[Reply]], asked: int) -> CheckResult:
    winners = [sum(reply.accepted for reply in contest) for contest in contests]
    refused = sum(reply.refused for contest in contests for reply in contest)
    others = [reply for contest in contests for reply in contest if not (reply.accepted or reply.refused)]
    doubles = sum(
        number > 1 or any(reply.replaced for reply in contest)
        for number, contest in zip(winners, contests, strict=True)
    )
    quote = next((r.message for contest in contests for r in contest if r.refused), "")
    if doubles:
        return CheckResult(Verdict.BROKEN, f"{doubles} of {len(contests)} stored several", quote)
    if others or not contests:
        problem = next((reply.problem for reply in others), "")
        return CheckResult(Verdict.UNCLEAR, f"{len(others)} without a clear answer", problem)
    if 0 in winners:
        return CheckResult(Verdict.BROKEN, f"{winners.count(0)} of {len(contests)} had no winner", quote)
    cut = f" of {asked}: time was up" if len(contests) < asked else ""
    return CheckResult(Verdict.HOLDS, f"{len(contests)} stored{cut}, {refused} refused", quote)


def _stored(reply: Reply) -> CheckResult:
    if reply.replaced:
        return CheckResult(Verdict.BROKEN, "it was stored twice")
    if reply.accepted:
        return CheckResult(Verdict.HOLDS, "200, stored")
    return CheckResult(Verdict.BROKEN if reply.refused else Verdict.UNCLEAR, str(reply), reply.message or reply.problem)


def _refused(reply: Reply) -> CheckResult:
    if reply.accepted:
        return CheckResult(Verdict.BROKEN, "200, stored again")
    return CheckResult(Verdict.HOLDS if reply.refused else Verdict.UNCLEAR, str(reply), reply.message or reply.problem)


async def _still_works(site: Site, fields: Fields) -> CheckResult:
    """Return the outcome of a good upload. Try twice: a server may take a while to notice that a connection is gone."""
    reply = await site.upload(fields, dot(2))
    if not reply.accepted:
        await asyncio.sleep(PAUSE_SECONDS)
        reply = await site.upload(fields, dot(2))
    outcome = _stored(reply)
    return CheckResult(outcome.verdict, f"then {outcome.seen}", outcome.quote)


def _together(outcomes: Sequence[CheckResult]) -> CheckResult:
    verdict = worst(outcome.verdict for outcome in outcomes)
    return next(outcome for outcome in outcomes if outcome.verdict is verdict)


_WORKS = "A signature works ..."
_NOT_TWICE = "... once"
_FREE = "What fails costs nothing"
_TORN = "A torn upload costs nothing"
_LOST = "A lost answer makes no second asset"
_RACE = "Of many uploads at the same moment one wins"

_USED, _GOOD = "refused", "still good"


def checks(plan: Plan) -> tuple[Check, ...]:
    """Return all checks. The race is the last: it gets the time that the others leave."""
    return (
        Check(_WORKS, "An image of one pixel", "stored", 1, first_upload),
        Check(_NOT_TWICE, "The same file again", _USED, 2, replay(1)),
        Check(_NOT_TWICE, "Another file", _USED, 2, replay(2)),
        Check(_NOT_TWICE, "As another resource type", _USED, 2, replay(2, kind="raw"), files=2),
        Check(_NOT_TWICE, "With its fields in the query", _USED, 2, replay(2, query=True)),
        Check(_NOT_TWICE, "After a pause", _USED, 2, replay(2, pause=2 * PAUSE_SECONDS)),
        Check(_FREE, "A text sent as an image", _GOOD, 3, after(lambda f: (f, b"no image"), taken=Verdict.UNCLEAR)),
        Check(_FREE, "An empty file", _GOOD, 3, after(lambda f: (f, b""), taken=Verdict.UNCLEAR)),
        Check(_FREE, "No file", _GOOD, 3, after(lambda f: (f, None), taken=Verdict.BROKEN)),
        Check(_FREE, "A name that was not signed", _GOOD, 3, after(_altered, taken=Verdict.BROKEN), files=2),
        Check(_TORN, "Within the head", _GOOD, 6, torn(lambda head, file, end: head // 2), files=2),
        Check(_TORN, "After the head", _GOOD, 6, torn(lambda head, file, end: head), files=2),
        Check(_TORN, "Among the fields", _GOOD, 6, torn(lambda head, file, end: (head + file) // 2), files=2),
        Check(_TORN, "Before the file", _GOOD, 6, torn(lambda head, file, end: file), files=2),
        Check(_TORN, "Within the file", _GOOD, 6, torn(lambda head, file, end: file + 20), files=2),
        Check(_TORN, "Before the very last byte", _GOOD, 6, torn(lambda head, file, end: end - 1), files=2),
        Check(_LOST, "Closed at once", "one at most", 3, lost(at_once=True)),
        Check(_LOST, "Closed unread", "one at most", 3, lost()),
        Check(_LOST, "Reset unread", "one at most", 3, lost(reset=True)),
        Check(
            _RACE,
            f"{plan.signatures} signatures, {plan.at_once} at once",
            "one stored each",
            plan.signatures * plan.at_once,
            race(plan),
            files=plan.signatures,
        ),
    )


def _altered(fields: Fields) -> tuple[Fields, bytes]:
    return {**fields, "public_id": fields["public_id"] + "-altered"}, dot(1)
