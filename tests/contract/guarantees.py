"""The guarantees of a database as checks: the suite runs them on the real thing, test_mutants.py on broken ones."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from tests.contract.databases import CALLER, SKEW, START, WINDOW, SteppedClock, draft, grant, race, relay
from uponce.app.ports import Committed, Database
from uponce.core.errors import OutcomeUnknown, Refused, SignatureUsed, UponceError
from uponce.core.relaying import Relay
from uponce.core.signature import check_fresh
from uponce.core.values import AssetName, Grant, GrantStatus


async def check_one_winner(servers: Sequence[Database], *, racers: int = 24, max_uses: int = 1) -> None:
    """Of any number of concurrent commits exactly `max_uses` succeed, the others get `signature_used`."""
    contested = grant("contested", max_uses=max_uses)
    answers = await race(servers, contested, racers)
    told = f"{answers.count('ok')} won, and the others got {sorted({*answers} - {'ok'})}"
    assert sorted(answers) == ["ok"] * max_uses + ["signature_used"] * (racers - max_uses), told


async def check_one_is_passed_on(servers: Sequence[Database], *, racers: int = 24) -> None:
    """Of concurrent attempts exactly one may go to the upstream. The outcome of the others is unknown."""
    attempts = [relay(grant("contested"), id=f"{number}") for number in range(racers)]
    told = await asyncio.gather(
        *(servers[number % len(servers)].begin_relay(each, 60) for number, each in enumerate(attempts)),
        return_exceptions=True,
    )
    passed_on = [answer for answer in told if isinstance(answer, Relay)]
    others = {type(answer).__name__ for answer in told} - {"Relay"}
    assert len(passed_on) == 1, f"{len(passed_on)} won, and the others got {sorted(others)}"
    assert sum(isinstance(answer, OutcomeUnknown) for answer in told) == racers - 1, told


async def check_only_the_owner_ends_a_relay(database: Database) -> None:
    """An attempt whose row is gone frees no use that another attempt has taken."""
    contested = grant("contested", max_uses=2)
    late = await database.begin_relay(relay(contested, id="late"), 60)
    assert isinstance(late, Relay)
    assert await database.end_relay(late, None)
    second = await database.begin_relay(relay(contested, id="second"), 60)
    assert not await database.end_relay(late, None), "an attempt without a row wrote its outcome"
    record = await database.find_grant(contested.key)
    assert record is not None
    assert (record.uses, record.pending) == (1, 1)
    assert await database.find_relay("second") == second


async def removal(database: Database, grant: Grant, name: AssetName) -> str:
    """`ok`, `not found`, or the code of the refusal."""
    try:
        return "ok" if await database.delete(grant, name, CALLER) else "not found"
    except UponceError as error:
        return error.code


async def check_one_deletion_or_upload(servers: Sequence[Database], *, racers: int = 24, uploads: int = 0) -> None:
    """Of concurrent deletions and uploads with one signature exactly one happens, the others get `signature_used`.

    Each has a separate asset, or a separate name. Every third one uploads, from the one with the number `uploads` on:
    on one server the first one wins.
    """
    contested = grant("contested")
    deletes = [number % 3 != uploads for number in range(racers)]
    names = [draft(f"p{number}", blob=f"made-{number}").asset.name for number in range(racers)]
    for number, name in enumerate(names):
        if deletes[number]:
            made = draft(name.public_id, blob=f"made-{number}")
            await servers[0].commit(grant(f"made-{number}"), made, CALLER)

    async def one(number: int) -> str:
        database = servers[number % len(servers)]
        if deletes[number]:
            return await removal(database, contested, names[number])
        try:
            await database.commit(contested, draft(names[number].public_id, blob=f"new-{number}"), CALLER)
        except UponceError as error:
            return error.code
        return "ok"

    told = await asyncio.gather(*(one(number) for number in range(racers)))
    assert sorted(told) == ["ok"] + ["signature_used"] * (racers - 1)
    there = [await servers[0].find_asset(name) is not None for name in names]
    seen = f"{[*zip(deletes, there, strict=True)].count((True, False))} assets are gone"
    assert there == [has_one != (answer == "ok") for has_one, answer in zip(deletes, told, strict=True)], seen


async def check_repeats_agree(servers: Sequence[Database], *, racers: int = 24, max_uses: int = 1) -> None:
    """Of concurrent commits with one Idempotency-Key one happens, and every one returns its asset."""
    contested = grant("repeated", max_uses=max_uses)
    drafts = [replace(draft(blob=f"repeat-{number}"), idempotency_key="key") for number in range(racers)]
    told = await asyncio.gather(
        *(servers[number % len(servers)].commit(contested, draft, CALLER) for number, draft in enumerate(drafts)),
        return_exceptions=True,
    )
    answers = [answer for answer in told if isinstance(answer, Committed)]
    assert len(answers) == racers, told
    replayed = [answer.replayed for answer in answers]
    assert sorted(replayed) == [False] + [True] * (racers - 1), f"{replayed.count(False)} were stored"
    (first,) = (answer for answer in answers if not answer.replayed)
    assert all(answer.asset == first.asset for answer in answers)
    record = await servers[0].find_grant(contested.key)
    assert record is not None
    assert record.uses == 1


async def is_accepted(database: Database, candidate: Grant, now: float, window: int, blob: str) -> bool:
    """What a server does with a signature that arrives now: its time first, then the commit."""
    key = await database.find_key(candidate.api_key)
    assert key is not None
    try:
        check_fresh(candidate.timestamp, now=now, window=window, skew=SKEW, watermark=key.watermark)
        await database.commit(candidate, draft(blob=blob), CALLER)
    except Refused:
        return False
    return True


_AGAIN = "a spent signature was accepted again"


async def check_purge_forgets_nothing_usable(database: Database, clock: SteppedClock) -> None:
    """A signature dated as far ahead as the skew allows stays spent while its timestamp is still good."""
    ahead = grant("ahead", at=START + SKEW)
    assert await is_accepted(database, ahead, clock.now(), WINDOW, "first")
    clock.time = START + WINDOW + 1
    await database.purge(audit_seconds=10**6)
    assert not await is_accepted(database, ahead, clock.now(), WINDOW, "second"), _AGAIN


async def check_wider_window_revives_nothing(database: Database, clock: SteppedClock) -> None:
    """What was purged under a short window stays refused when the window is made longer."""
    old = grant("old")
    assert await is_accepted(database, old, clock.now(), WINDOW, "first")
    clock.time = old.keep_until + 1
    await database.purge(audit_seconds=10**6)
    assert not await is_accepted(database, old, clock.now(), 10 * WINDOW, "second"), _AGAIN


async def check_answers_are_true(database: Database, answers: Sequence[Committed | UponceError]) -> None:
    """Every definite answer describes what the database holds; `OutcomeUnknown` promises nothing."""
    for answer in answers:
        if isinstance(answer, Committed):
            stored = await database.find_commit(answer.asset.blob_key)
            assert stored == answer.asset, f"answered as stored, and found as {stored}"
        elif isinstance(answer, SignatureUsed):
            record = await database.find_grant(grant("contested").key)
            assert record is not None, "refused as used, and no row says so"
            assert record.status is GrantStatus.USED
        else:
            assert isinstance(answer, OutcomeUnknown)


async def answers_of(database: Database, contested: Grant, racers: int) -> list[Committed | UponceError]:
    """Return the answers to so many commits of one grant at once."""
    results = await asyncio.gather(
        *(database.commit(contested, draft(blob=f"racer-{n}"), CALLER) for n in range(racers)), return_exceptions=True
    )
    for result in results:
        assert isinstance(result, Committed | UponceError), result
    return [result for result in results if isinstance(result, Committed | UponceError)]
